/* Counting a run. */
#include "traffic/tally.h"

#include <errno.h>
#include <stdlib.h>

int tally_init(struct tally *t, uint64_t warmup_ns, uint64_t duration_ns, uint64_t drain_ns,
               bool samples, bool closed_loop)
{
    *t = (struct tally){.start_ns = warmup_ns, .end_ns = warmup_ns + duration_ns};
    histogram_init(&t->latency);
    int rc = timeline_init(&t->timeline, t->end_ns + drain_ns);
    if (samples)
        t->samples = malloc(SAMPLES_MAX * sizeof(*t->samples));
    if (closed_loop)
        t->flight = calloc(1, sizeof(*t->flight));
    if (rc || (samples && !t->samples) || (closed_loop && !t->flight)) {
        tally_free(t);
        return -ENOMEM;
    }
    return 0;
}

void tally_free(struct tally *t)
{
    timeline_free(&t->timeline);
    free(t->samples);
    free(t->flight);
    t->samples = NULL;
    t->flight = NULL;
}

/* A time without deliveries counts if any of it lies in the window. */
static void note_gap(struct tally *t, uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns < t->end_ns && to_ns > t->start_ns && to_ns > from_ns)
        gaps_add(&t->gaps, from_ns, to_ns - from_ns);
}

void tally_end(struct tally *t)
{
    if (t->burst == 0)
        return;
    t->bin->delivered += t->burst;
    t->bin->latency_max_ns = u64_max(t->bin->latency_max_ns, t->burst_latency_max);
    t->delivered += t->burst;
    if (tally_in_window(t, t->now_ns))
        t->window_delivered += t->burst;
    if (t->now_ns - t->last_ns > GAPS_MIN_NS)
        note_gap(t, t->last_ns, t->now_ns);
    t->last_ns = t->now_ns;
}

void tally_finish(struct tally *t)
{
    note_gap(t, t->last_ns, t->end_ns);
    timeline_close(&t->timeline);
}

int tally_write_samples(const struct tally *t, FILE *out)
{
    for (uint64_t i = 0; i < t->sample_count; i++) {
        uint64_t pair[2] = {t->samples[i].intended_ns - t->start_ns, t->samples[i].latency_ns};
        if (fwrite(pair, sizeof(pair), 1, out) != 1)
            return -EIO;
    }
    return 0;
}

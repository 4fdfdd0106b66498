/* What is counted in a run, and what becomes of a delivered packet's times. All times are
 * nanoseconds since the start of the run. */
#ifndef FTMB_TRAFFIC_TALLY_H
#define FTMB_TRAFFIC_TALLY_H

#include "traffic/gaps.h"
#include "traffic/histogram.h"
#include "traffic/pace.h"
#include "traffic/timeline.h"

#include <stdio.h>

struct sample {
    uint64_t intended_ns;
    uint64_t latency_ns;
};

/* Raw samples beyond this are counted, not kept. */
#define SAMPLES_MAX (8u << 20)

struct tally {
    uint64_t start_ns, end_ns; /* the measured window */
    uint64_t offered;          /* intended to be sent so far */
    uint64_t sent;             /* handed to a link */
    uint64_t late;             /* of the window, over 1 ms late because the generator itself was */
    uint64_t late_max_ns;
    uint64_t late_blocked; /* over 1 ms late because the link was full */
    uint64_t replies, replies_early;
    uint64_t delivered; /* distinct packets that arrived whole */
    uint64_t duplicated, reordered, corrupted, unmatched, wrong_tuple, altered;
    uint64_t mapping_changed, mapping_shared;
    uint64_t untracked; /* packets that could not be kept track of: counts are not exact then */
    uint64_t window_offered, window_delivered;
    uint64_t fill_delivered; /* of the fill; in `delivered` too */
    uint64_t last_ns;        /* of the latest delivery */
    struct histogram latency;
    struct timeline timeline;
    struct gaps gaps;
    struct sample *samples; /* NULL: not asked for */
    uint64_t sample_count, samples_dropped;
    struct flight *flight; /* NULL at a given rate */
    /* The burst in hand. */
    uint64_t now_ns;
    uint32_t burst;
    uint64_t burst_latency_max;
    struct timeline_bin *bin;
};

/* Window from `warmup_ns` for `duration_ns`, timeline `drain_ns` beyond. 0 or -ENOMEM. */
int tally_init(struct tally *t, uint64_t warmup_ns, uint64_t duration_ns, uint64_t drain_ns,
               bool samples, bool closed_loop);
void tally_free(struct tally *t);

static inline bool tally_in_window(const struct tally *t, uint64_t time_ns)
{
    return time_ns >= t->start_ns && time_ns < t->end_ns;
}

static inline void tally_offer(struct tally *t, uint64_t intended_ns)
{
    t->offered++;
    t->window_offered += tally_in_window(t, intended_ns);
    timeline_offer(&t->timeline, intended_ns);
    if (t->flight)
        flight_sent(t->flight, intended_ns);
}

/* A packet of the fill counts, and that is all: the clock of the run is not yet going. */
static inline void tally_offer_fill(struct tally *t)
{
    t->offered++;
}

static inline void tally_deliver_fill(struct tally *t)
{
    t->delivered++;
    t->fill_delivered++;
}

/* A burst arrived at `now_ns`; then any number of tally_deliver(), then tally_end(). */
static inline void tally_begin(struct tally *t, uint64_t now_ns)
{
    t->now_ns = now_ns;
    t->burst = 0;
    t->burst_latency_max = 0;
    t->bin = timeline_arrive(&t->timeline, now_ns);
}

/* A distinct, whole packet: latency counts from the time it was meant to be sent. */
static inline void tally_deliver(struct tally *t, uint64_t intended_ns)
{
    uint64_t latency = t->now_ns > intended_ns ? t->now_ns - intended_ns : 0;
    uint32_t bucket = histogram_bucket(latency);
    t->burst++;
    timeline_latency(&t->timeline, bucket);
    if (latency > t->burst_latency_max)
        t->burst_latency_max = latency;
    if (t->flight)
        flight_back(t->flight, intended_ns);
    if (!tally_in_window(t, intended_ns))
        return;
    histogram_add_to(&t->latency, latency, bucket);
    if (unlikely(t->samples != NULL)) {
        if (t->sample_count < SAMPLES_MAX)
            t->samples[t->sample_count++] = (struct sample){intended_ns, latency};
        else
            t->samples_dropped++;
    }
}

void tally_end(struct tally *t);

/* No more deliveries: note the gap that is still open. */
void tally_finish(struct tally *t);

/* Bytes of `samples` to a file: pairs of u64 (intended time since the window's start, as two's
 * complement, and latency), little endian. 0 or a negative errno. */
int tally_write_samples(const struct tally *t, FILE *out);

#endif

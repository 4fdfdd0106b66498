/* Millisecond bins of a run. */
#include "traffic/timeline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int timeline_init(struct timeline *t, uint64_t span_ns)
{
    uint32_t count = (uint32_t)(span_ns / TIMELINE_BIN_NS) + 1;
    *t = (struct timeline){.count = count, .offering_end = TIMELINE_BIN_NS};
    t->bins = calloc(count, sizeof(*t->bins));
    return t->bins ? 0 : -ENOMEM;
}

void timeline_free(struct timeline *t)
{
    free(t->bins);
    t->bins = NULL;
}

void timeline_close(struct timeline *t)
{
    struct timeline_bin *bin = &t->bins[t->arriving];
    uint64_t total = 0, seen = 0;
    for (uint32_t i = 0; i < TIMELINE_BUCKETS; i++)
        total += t->latencies[i];
    if (total == 0)
        return;
    bin->latency_p50_ns = bin->latency_p99_ns = 0;
    for (uint32_t i = 0; i < TIMELINE_BUCKETS; i++) {
        uint64_t before = seen;
        seen += t->latencies[i];
        uint32_t middle = (i << TIMELINE_SHIFT) + (1u << (TIMELINE_SHIFT - 1));
        uint64_t value = u64_min(histogram_bucket_low(middle), bin->latency_max_ns);
        if (before * 2 < total && seen * 2 >= total)
            bin->latency_p50_ns = value;
        if (before * 100 < total * 99 && seen * 100 >= total * 99)
            bin->latency_p99_ns = value;
    }
    memset(t->latencies, 0, sizeof(t->latencies));
}

/* Bins after the last one that saw anything say nothing: the run ended early. */
static uint32_t used_bins(const struct timeline *t)
{
    uint32_t n = t->count;
    while (n > 0 && t->bins[n - 1].offered == 0 && t->bins[n - 1].delivered == 0)
        n--;
    return n;
}

int timeline_write(const struct timeline *t, uint64_t zero_ns, FILE *out)
{
    int64_t zero = (int64_t)(zero_ns / TIMELINE_BIN_NS);
    uint32_t used = used_bins(t);
    fprintf(out, "t_ms,offered,delivered,latency_max_ns,latency_p50_ns,latency_p99_ns\n");
    for (uint32_t i = 0; i < used; i++) {
        const struct timeline_bin *bin = &t->bins[i];
        fprintf(out, "%" PRId64 ",%u,%u,", (int64_t)i - zero, bin->offered, bin->delivered);
        if (bin->delivered)
            fprintf(out, "%" PRIu64 ",%" PRIu64 ",%" PRIu64, bin->latency_max_ns,
                    bin->latency_p50_ns, bin->latency_p99_ns);
        else
            fprintf(out, ",,");
        fputc('\n', out);
    }
    return ferror(out) ? -EIO : 0;
}

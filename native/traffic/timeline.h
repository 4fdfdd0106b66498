/* What happened in each millisecond of a run: packets offered by their intended time, packets
 * delivered by the time of delivery, and the latency of those. */
#ifndef FTMB_TRAFFIC_TIMELINE_H
#define FTMB_TRAFFIC_TIMELINE_H

#include "traffic/histogram.h"

#include <stdio.h>

#define TIMELINE_BIN_NS 1000000u
/* Buckets of the histogram that are one here: 32 to a power of two are enough for a median. */
#define TIMELINE_SHIFT 5
#define TIMELINE_BUCKETS (HISTOGRAM_BUCKETS >> TIMELINE_SHIFT)

struct timeline_bin {
    uint32_t offered;
    uint32_t delivered;
    uint64_t latency_max_ns;
    uint64_t latency_p50_ns;
    uint64_t latency_p99_ns;
};

struct timeline {
    struct timeline_bin *bins;
    uint32_t count;
    uint32_t offering;                    /* bin of the latest offered packet */
    uint64_t offering_end;                /* where that bin ends; intended times never go back */
    uint32_t arriving;                    /* bin of the latest delivery */
    uint32_t latencies[TIMELINE_BUCKETS]; /* of that bin */
};

/* For `span_ns` from the start of a run; what comes later goes to the last bin. 0 or -ENOMEM. */
int timeline_init(struct timeline *t, uint64_t span_ns);
void timeline_free(struct timeline *t);

/* Percentiles of the bin at hand; also before timeline_write(). */
void timeline_close(struct timeline *t);

/* Times are relative to the start of the run. No division per packet: offered packets walk along
 * the bins, and the bin of a delivery is looked up once per burst. */
static inline void timeline_offer(struct timeline *t, uint64_t intended_ns)
{
    while (unlikely(intended_ns >= t->offering_end) && t->offering + 1 < t->count) {
        t->offering++;
        t->offering_end += TIMELINE_BIN_NS;
    }
    t->bins[t->offering].offered++;
}

/* Deliveries follow at `now_ns`, which never goes back. Returns their bin. */
static inline struct timeline_bin *timeline_arrive(struct timeline *t, uint64_t now_ns)
{
    uint32_t bin = (uint32_t)u64_min(now_ns / TIMELINE_BIN_NS, t->count - 1);
    if (unlikely(bin != t->arriving)) {
        timeline_close(t);
        t->arriving = bin;
    }
    return &t->bins[bin];
}

/* A delivery of the bin at hand, by its latency's bucket in a histogram. */
static inline void timeline_latency(struct timeline *t, uint32_t bucket)
{
    t->latencies[bucket >> TIMELINE_SHIFT]++;
}

/* CSV "t_ms,offered,delivered,latency_max_ns,latency_p50_ns,latency_p99_ns", t_ms counted from
 * `zero_ns` (negative before it). Percentiles are exact to 3 %, and empty without a delivery, as is
 * the maximum. Returns 0 or a negative errno. */
int timeline_write(const struct timeline *t, uint64_t zero_ns, FILE *out);

#endif

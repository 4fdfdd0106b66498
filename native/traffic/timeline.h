/* What happened in each millisecond of a run: packets offered by their intended time, packets
 * delivered by the time of delivery, and the largest latency among those. */
#ifndef FTMB_TRAFFIC_TIMELINE_H
#define FTMB_TRAFFIC_TIMELINE_H

#include "core/base.h"

#include <stdio.h>

#define TIMELINE_BIN_NS 1000000u

struct timeline_bin {
    uint32_t offered;
    uint32_t delivered;
    uint64_t latency_max_ns;
};

struct timeline {
    struct timeline_bin *bins;
    uint32_t count;
    uint32_t offering;     /* bin of the latest offered packet */
    uint64_t offering_end; /* where that bin ends; intended times never go back */
};

/* For `span_ns` from the start of a run; what comes later goes to the last bin. 0 or -ENOMEM. */
int timeline_init(struct timeline *t, uint64_t span_ns);
void timeline_free(struct timeline *t);

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

static inline struct timeline_bin *timeline_bin(struct timeline *t, uint64_t now_ns)
{
    return &t->bins[u64_min(now_ns / TIMELINE_BIN_NS, t->count - 1)];
}

/* CSV "t_ms,offered,delivered,latency_max_ns", t_ms counted from `zero_ns` (negative before it). A bin
 * without delivery has latency 0. Returns 0 or a negative errno. */
int timeline_write(const struct timeline *t, uint64_t zero_ns, FILE *out);

#endif

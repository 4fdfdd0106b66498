/* The longest times without a delivery: how an outage looks from outside. */
#ifndef FTMB_TRAFFIC_GAPS_H
#define FTMB_TRAFFIC_GAPS_H

#include "core/base.h"

#include <jansson.h>

#define GAPS_MAX 256
#define GAPS_MIN_NS 500000u

struct gap {
    uint64_t start_ns;
    uint64_t length_ns;
};

struct gaps {
    struct gap list[GAPS_MAX]; /* a heap with the shortest in front */
    uint32_t count;
};

/* Keep a gap if it is longer than GAPS_MIN_NS and among the GAPS_MAX longest. */
void gaps_add(struct gaps *g, uint64_t start_ns, uint64_t length_ns);

/* [[start_ns, length_ns], ...] in order of time, with `offset_ns` added to each start. */
json_t *gaps_json(const struct gaps *g, uint64_t offset_ns);

#endif

/* The `traffic` object of a node spec. */
#ifndef FTMB_TRAFFIC_CONFIG_H
#define FTMB_TRAFFIC_CONFIG_H

#include "core/base.h"

#include <jansson.h>

/* Strings belong to the JSON object; "" means that the thing is not wanted. */
struct traffic_config {
    uint64_t rate_pps; /* 0: as fast as packets are taken */
    uint64_t warmup_ns, duration_ns, drain_ns;
    uint32_t flows;
    uint64_t fill_pps;        /* 0: no fill */
    uint64_t fill_silence_ns; /* without a delivery; it is given up then */
    double zipf;
    uint64_t new_flows_per_s;
    double reply_share;
    uint64_t seed;
    const char *template, *capture; /* exactly one is given */
    const char *histogram, *timeline, *samples, *noise;
    uint32_t inside; /* network of the inside hosts, host order */
    uint32_t inside_prefix;
};

/* Check and read it. An unknown key, a missing one, a wrong type or a value out of range: -1 and a
 * line in `why` (TRAFFIC_WHY bytes) that names the key. */
int traffic_config_read(struct traffic_config *config, const json_t *spec, char *why);

#endif

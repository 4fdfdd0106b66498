/* Where synthetic packets arrive: checked, told apart, counted. */
#ifndef FTMB_TRAFFIC_SINK_H
#define FTMB_TRAFFIC_SINK_H

#include "traffic/flows.h"
#include "traffic/mapping.h"
#include "traffic/tally.h"
#include "traffic/template.h"

#define SINK_BURST 32u

struct arrival {
    uint8_t *frame;
    uint32_t length;
    uint8_t side; /* the side of the middlebox it left at */
};

struct sink {
    struct flows *flows;
    const struct template_set *templates;
    struct order_pool missing;
    struct mapping mapping;
    uint64_t seed;
    uint32_t filled; /* the first packet of a flow below this belongs to the fill */
};

/* What arrives was made of these templates, which stay the source's. 0 or -ENOMEM. */
int sink_init(struct sink *s, struct flows *flows, const struct template_set *templates,
              uint64_t seed);
void sink_free(struct sink *s);

/* Up to SINK_BURST frames that arrived at `now_ns` (since the run's start). What each turned out to
 * be is counted in `tally`: delivered, duplicated, reordered (delivered too, after a later one of
 * its flow and direction), corrupted (a wrong checksum or trailer, or not where it belongs:
 * wrong_tuple), unmatched (not one of ours), altered (delivered too, with another payload than was
 * sent). */
void sink_take(struct sink *s, const struct arrival *arrivals, unsigned n, uint64_t now_ns,
               struct tally *tally);

#endif

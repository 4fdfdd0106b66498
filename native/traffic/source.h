/* Synthetic packets: which flow, which template, which number. */
#ifndef FTMB_TRAFFIC_SOURCE_H
#define FTMB_TRAFFIC_SOURCE_H

#include "traffic/flows.h"
#include "traffic/pace.h"
#include "traffic/pick.h"
#include "traffic/tally.h"
#include "traffic/template.h"

#define SOURCE_GROUPS 3u /* UDP, TCP, ICMP */
#define SOURCE_BURST 32u /* most packets that are planned at a time */

/* A packet to be sent, decided before its frame is written so that memory can be fetched ahead. */
struct send {
    uint64_t intended_ns;
    uint32_t flow;   /* number of the flow; for a capture: of the packet in it */
    uint16_t length; /* bytes of the frame */
    bool reply;      /* wanted as a reply */
    const struct template *template;
};

/* Templates of one protocol, cycled in the order of the file. */
struct source_group {
    uint32_t count;
    uint32_t next;
    const struct template *list[TEMPLATE_MAX];
};

struct source {
    struct flows *flows;
    struct pick pick;
    struct pace fresh; /* new flows */
    uint64_t seed;
    uint32_t reply_step, reply_part; /* share of replies in 2^-32 */
    uint32_t opened;                 /* flows whose first packet the fill has planned */
    struct template_set set;
    struct source_group groups[SOURCE_GROUPS];
    uint8_t group_of[256]; /* by hash of the flow, in proportion to the templates */
};

struct source_options {
    const char *path; /* the template file */
    double zipf;
    double reply_share;
    uint64_t new_flows_per_s;
    uint64_t seed;
};

/* `flows` stays the caller's. Returns 0, or -1 with a line in `why`. */
int source_init(struct source *s, struct flows *flows, const struct source_options *options,
                char *why);
void source_free(struct source *s);

/* Decide on `n` packets whose intended_ns is set already, in order. */
void source_plan(struct source *s, struct send *sends, unsigned n);

/* Instead of that: the first packets of the next `n` flows, in the order of their numbers. Before
 * any other packet, and for no more flows than are active. */
void source_plan_fill(struct source *s, struct send *sends, unsigned n);

/* Write a planned packet, in order; returns the side it enters at. A reply to a flow of which
 * nothing has come out yet has no address to go to: it becomes an outbound packet. */
enum side source_write(struct source *s, const struct send *send, uint8_t *frame,
                       struct tally *tally);

#endif

/* The sink of synthetic packets. */
#include "traffic/sink.h"

#include "traffic/trailer.h"

/* Holes in the numbers of all flows that are remembered at a time: 12 bytes each. */
#define MISSING_RANGES (4u << 20)

int sink_init(struct sink *s, struct flows *flows, const struct template_set *templates,
              uint64_t seed)
{
    *s = (struct sink){.flows = flows, .templates = templates, .seed = seed};
    int rc = mapping_init(&s->mapping, flows->total);
    if (rc == 0)
        rc = order_init(&s->missing, MISSING_RANGES);
    if (rc)
        sink_free(s);
    return rc;
}

void sink_free(struct sink *s)
{
    order_free(&s->missing);
    mapping_free(&s->mapping);
}

/* The outside tuple of a flow is new or different. */
static void learn_mapping(struct sink *s, uint32_t number, const struct packet *p,
                          struct tally *tally)
{
    struct flow *flow = &s->flows->table[number];
    if (flow->mapped) {
        tally->mapping_changed++;
        mapping_clear(&s->mapping,
                      mapping_key(p->protocol, flow->mapped_address, flow->mapped_port), number);
    }
    uint32_t other =
        mapping_set(&s->mapping, mapping_key(p->protocol, p->source, p->source_port), number);
    /* A tuple may be used again once its flow has ended. */
    if (other != MAPPING_NONE && other != number && flows_alive(s->flows, other))
        tally->mapping_shared++;
    flow->mapped = true;
    flow->mapped_address = p->source;
    flow->mapped_port = p->source_port;
}

/* Does the packet carry the addresses it should have where it came out? */
static bool tuple_ok(const struct sink *s, uint32_t number, enum direction direction,
                     const struct packet *p)
{
    if (direction == OUTBOUND)
        return p->destination == flows_server(number);
    struct endpoint inside = flows_inside(s->flows, number);
    return p->source == flows_server(number) && p->destination == inside.address &&
           p->destination_port == inside.port;
}

/* A packet with a good trailer. */
static void account(struct sink *s, const struct trailer *trailer, const struct packet *p,
                    uint8_t side, struct tally *tally)
{
    uint32_t who = (uint32_t)trailer->words[0];
    uint32_t order_number = (uint32_t)(trailer->words[0] >> 32);
    uint32_t number = who & ~TRAILER_REPLY;
    enum direction direction = who & TRAILER_REPLY ? REPLY : OUTBOUND;
    struct flow *flow = &s->flows->table[number];
    if (unlikely(order_number >= flow->sent[direction])) {
        tally->unmatched++; /* of an earlier run with the same seed */
        return;
    }
    bool right_side = side == (direction == OUTBOUND ? SIDE_OUTSIDE : SIDE_INSIDE);
    if (unlikely(!right_side || !tuple_ok(s, number, direction, p))) {
        tally->corrupted++;
        tally->wrong_tuple++;
        return;
    }
    enum order order = order_take(&s->missing, &flow->seen[direction], order_number);
    if (unlikely(order == ORDER_DUPLICATE)) {
        tally->duplicated++;
        return;
    }
    tally->reordered += order == ORDER_LATE;
    tally->altered += !template_has(s->templates, p);
    if (direction == OUTBOUND && unlikely(!flow->mapped || flow->mapped_address != p->source ||
                                          flow->mapped_port != p->source_port))
        learn_mapping(s, number, p, tally);
    if (unlikely(order_number == 0 && number < s->filled && direction == OUTBOUND))
        tally_deliver_fill(tally);
    else
        tally_deliver(tally, trailer->words[1] & TRAILER_TIME_MASK);
}

/* Check what can be checked without the flow. */
static bool examine(const struct sink *s, const struct arrival *arrival, struct packet *p,
                    struct trailer *trailer, struct tally *tally)
{
    if (unlikely(!packet_parse(p, arrival->frame, arrival->length) ||
                 p->l4_length < p->l4_header + TRAILER_BYTES)) {
        tally->unmatched++;
        return false;
    }
    memcpy(trailer, p->l4 + trailer_offset(p->l4_length), sizeof(*trailer));
    bool whole = packet_sums_ok(p, false) && trailer_ok(trailer, s->seed) &&
                 ((uint32_t)trailer->words[0] & ~TRAILER_REPLY) < s->flows->total;
    tally->corrupted += !whole;
    return whole;
}

void sink_take(struct sink *s, const struct arrival *arrivals, unsigned n, uint64_t now_ns,
               struct tally *tally)
{
    struct packet packets[SINK_BURST];
    struct trailer trailers[SINK_BURST];
    uint8_t sides[SINK_BURST];
    unsigned whole = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!examine(s, &arrivals[i], &packets[whole], &trailers[whole], tally))
            continue;
        uint32_t number = (uint32_t)trailers[whole].words[0] & ~TRAILER_REPLY;
        __builtin_prefetch(&s->flows->table[number], 1);
        sides[whole++] = arrivals[i].side;
    }
    tally_begin(tally, now_ns);
    for (unsigned i = 0; i < whole; i++)
        account(s, &trailers[i], &packets[i], sides[i], tally);
    tally_end(tally);
    tally->untracked = s->missing.untracked;
}

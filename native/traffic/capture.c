/* Sending captured packets, and finding them again. */
#include "traffic/capture.h"
#include "traffic/capture_key.h"

/* How many packets with one key are compared with the addresses of an arrival before the oldest of
 * them is taken for it. */
#define COMPARED 8u

void capture_plan(struct capture *c, struct send *sends, unsigned n, struct tally *tally)
{
    for (unsigned i = 0; i < n; i++) {
        const struct capture_packet *packet = &c->packets[c->next];
        /* Ends: a capture has outbound packets. */
        while (packet->direction == REPLY && !c->flows[packet->flow].mapped) {
            tally->replies_early++;
            c->next = c->next + 1 < c->count ? c->next + 1 : 0;
            packet = &c->packets[c->next];
        }
        sends[i].flow = c->next;
        sends[i].length = packet->length;
        sends[i].reply = packet->direction == REPLY;
        c->next = c->next + 1 < c->count ? c->next + 1 : 0;
        __builtin_prefetch(packet->bytes);
    }
}

/* Replace bytes that a checksum covers (RFC 1624); `sum` 0 of UDP means that there is none. */
static void replace(uint8_t *at, const void *with, uint32_t length, uint8_t *sum, bool udp)
{
    uint16_t old;
    memcpy(&old, sum, 2);
    uint64_t total = (uint16_t)~old;
    for (uint32_t i = 0; i < length; i += 2) {
        uint16_t before, after;
        memcpy(&before, at + i, 2);
        memcpy(&after, (const uint8_t *)with + i, 2);
        total += (uint16_t)~before + (uint64_t)after;
    }
    uint16_t new = (uint16_t)~sum_fold(total);
    if (udp && new == 0)
        new = 0xffff;
    if (!(udp && old == 0))
        memcpy(sum, &new, 2);
}

/* An answer goes to the tuple that the outside knows: new destination address and port. */
static void redirect(uint8_t *frame, const struct capture_packet *packet,
                     const struct capture_flow *flow)
{
    uint8_t *ip = frame + ETH_BYTES, *l4 = frame + packet->l4_offset;
    uint8_t *sum = l4 + packet_sum_offset(packet->protocol);
    bool udp = packet->protocol == PROTO_UDP;
    uint32_t port_at = packet->protocol == PROTO_ICMP ? 4 : 2;
    uint8_t address[4];
    memcpy(address, ip + 16, 4);
    replace(ip + 16, &flow->mapped_address, 4, ip + 10, false);
    if (packet->protocol != PROTO_ICMP)
        replace(address, &flow->mapped_address, 4, sum, udp); /* in the pseudo header */
    memcpy(ip + 16, &flow->mapped_address, 4);
    replace(l4 + port_at, &flow->mapped_port, 2, sum, udp);
    memcpy(l4 + port_at, &flow->mapped_port, 2);
}

static void remember(struct capture *c, const struct send *send, uint32_t number,
                     struct tally *tally)
{
    struct capture_group *group = &c->groups[c->packets[send->flow].group];
    uint32_t index = c->pending_free;
    if (index) {
        c->pending_free = c->pending[index].next;
    } else if (c->pending_count < CAPTURE_PENDING) {
        index = c->pending_count++;
    } else {
        tally->untracked++;
        return;
    }
    c->pending[index] = (struct capture_pending){
        .intended_ns = send->intended_ns, .packet = send->flow, .number = number};
    if (group->head)
        c->pending[group->tail].next = index;
    else
        group->head = index;
    group->tail = index;
}

enum side capture_write(struct capture *c, const struct send *send, uint8_t *frame,
                        struct tally *tally)
{
    const struct capture_packet *packet = &c->packets[send->flow];
    struct capture_flow *flow = &c->flows[packet->flow];
    memcpy(frame, packet->bytes, packet->length);
    remember(c, send, flow->sent[packet->direction]++, tally);
    if (packet->direction == OUTBOUND)
        return SIDE_INSIDE;
    tally->replies++;
    redirect(frame, packet, flow);
    return SIDE_OUTSIDE;
}

static bool same_far_end(const struct capture_flow *f, enum direction direction,
                         const struct packet *p)
{
    if (direction == OUTBOUND)
        return p->destination == f->outside_address &&
               (f->protocol == PROTO_ICMP || p->destination_port == f->outside_port);
    return p->source == f->outside_address && p->destination == f->inside_address &&
           p->destination_port == f->inside_port;
}

/* Take from a group the oldest packet whose flow fits the arrival's addresses: at best one that is
 * known under the arrival's source, else one with the right far end. 0: none fits. */
static uint32_t take_pending(struct capture *c, struct capture_group *group,
                             enum direction direction, const struct packet *p)
{
    uint32_t best_before = 0, best = 0, before = 0, at = group->head;
    for (uint32_t i = 0; i < COMPARED && at; i++) {
        const struct capture_flow *f = &c->flows[c->packets[c->pending[at].packet].flow];
        bool fits = same_far_end(f, direction, p);
        bool known = direction == REPLY || (f->mapped && f->mapped_address == p->source &&
                                            f->mapped_port == p->source_port);
        if (fits && (known || !best)) {
            best = at;
            best_before = before;
            if (known)
                break;
        }
        before = at;
        at = c->pending[at].next;
    }
    if (!best)
        return 0;
    uint32_t after = c->pending[best].next;
    if (best_before)
        c->pending[best_before].next = after;
    else
        group->head = after;
    if (group->tail == best)
        group->tail = best_before;
    return best;
}

static void learn(struct capture *c, uint32_t number, const struct packet *p, struct tally *tally)
{
    struct capture_flow *flow = &c->flows[number];
    if (flow->mapped) {
        tally->mapping_changed++;
        mapping_clear(&c->mapping,
                      mapping_key(p->protocol, flow->mapped_address, flow->mapped_port), number);
    }
    uint32_t other =
        mapping_set(&c->mapping, mapping_key(p->protocol, p->source, p->source_port), number);
    /* One inside socket may talk to several servers from one outside tuple. */
    if (other != MAPPING_NONE && other != number &&
        (c->flows[other].inside_address != flow->inside_address ||
         c->flows[other].inside_port != flow->inside_port))
        tally->mapping_shared++;
    flow->mapped = true;
    flow->mapped_address = p->source;
    flow->mapped_port = p->source_port;
}

static void account(struct capture *c, const struct packet *p, enum direction direction,
                    struct tally *tally)
{
    struct capture_group *group = capture_group_place(c, capture_key(p, direction));
    if (!group->key) {
        tally->unmatched++;
        return;
    }
    if (!group->head) {
        tally->duplicated++;
        return;
    }
    uint32_t index = take_pending(c, group, direction, p);
    if (!index) {
        tally->corrupted++;
        tally->wrong_tuple++;
        return;
    }
    struct capture_pending *pending = &c->pending[index];
    uint32_t number = c->packets[pending->packet].flow;
    struct capture_flow *flow = &c->flows[number];
    if (pending->number < flow->newest[direction])
        tally->reordered++;
    else
        flow->newest[direction] = pending->number + 1;
    if (direction == OUTBOUND &&
        (!flow->mapped || flow->mapped_address != p->source || flow->mapped_port != p->source_port))
        learn(c, number, p, tally);
    tally_deliver(tally, pending->intended_ns);
    pending->next = c->pending_free;
    c->pending_free = index;
}

void capture_take(struct capture *c, const struct arrival *arrivals, unsigned n, uint64_t now_ns,
                  struct tally *tally)
{
    tally_begin(tally, now_ns);
    for (unsigned i = 0; i < n; i++) {
        struct packet p;
        if (!packet_parse(&p, arrivals[i].frame, arrivals[i].length))
            tally->unmatched++;
        else if (!packet_sums_ok(&p, true))
            tally->corrupted++;
        else
            account(c, &p, arrivals[i].side == SIDE_OUTSIDE ? OUTBOUND : REPLY, tally);
    }
    tally_end(tally);
}

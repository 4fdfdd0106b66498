/* nat, fragments (RFC 4787, REQ-14): only the first fragment of a datagram has ports. It is
 * translated like a whole packet, and what became of its addresses is noted; the others, known by
 * source, destination, identification and protocol, get the same addresses.
 *
 * A fragment that comes before its first one is dropped (dropped_fragment), as is one that comes
 * later than datagram_ms after it: to keep it one would have to send two packets for one input.
 * Only first fragments that have been translated are noted, so who has no mapping fills nothing;
 * where a set of the table is full the oldest in it is forgotten. Packets that are no fragments
 * never touch it. Dropped as dropped_fragment, too: first fragments without a whole TCP, UDP or
 * ICMP header, and of ICMP errors and other protocols.
 *
 * Accesses: a write for a first fragment, in a section of its own; a read for another. */
#include "nf/nat.h"

#define KNOWN (1ull << 32)

static struct nat_datagram key_of(const struct packet_view *view, enum nf_port side)
{
    uint16_t identification = packet_load16(view->ip + 4);
    return (struct nat_datagram){.addresses = (uint64_t)view->source << 32 | view->destination,
                                 .rest = KNOWN | (uint64_t)side << 24 |
                                         (uint64_t)view->protocol << 16 | identification};
}

bool nat_fragment_first(struct packet_view *view)
{
    if ((packet_host16(view->ip + 6) & 0x1fff) != 0)
        return false;
    enum packet_kind kind = PACKET_UDP;
    if (view->protocol != PROTOCOL_UDP) {
        kind = packet_parse_l4(view);
    } else if (view->l4_bytes >= UDP_BYTES) { /* its length is that of all fragments */
        view->source_port = packet_load16(view->l4);
        view->destination_port = packet_load16(view->l4 + 2);
    } else {
        return false;
    }
    if (kind > PACKET_ECHO)
        return false;
    view->kind = (uint8_t)kind;
    return true;
}

static bool is_key(const struct nat_datagram *at, const struct nat_datagram *key)
{
    return NAT_LOAD(at->addresses) == key->addresses && NAT_LOAD(at->rest) == key->rest;
}

/* Where a datagram is noted, in a set that is held: where it was, else the place that is free, or
 * else whose time is over or nearest to it. */
static struct nat_datagram *place_for(struct nat_datagram *set, const struct nat_datagram *key)
{
    struct nat_datagram *place = set;
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        struct nat_datagram *at = &set[way];
        if (is_key(at, key))
            return at;
        if (place->rest && (!at->rest || at->seen < place->seen))
            place = at;
    }
    return place;
}

void nat_fragment_note(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                       const struct packet_view *view, enum nf_port side,
                       const struct nf_packet *packet)
{
    /* Dropped, or an ARP request has taken its place. */
    if (ctx->emitted != packet || packet_host16(packet->data + 12) == ETHERTYPE_ARP)
        return;
    struct nat_datagram key = key_of(view, side);
    uint32_t number = nat_set(nat, &key);
    if (!PLANTED(P_NAT_NOTE_UNLOCKED))
        ftmb_write(ctx, nat->first_set + number);
    struct nat_datagram *at = place_for(sets_at(ctx->arena, &nat->datagrams, number), &key);
    worker->counters[NAT_DATAGRAMS]++;
    worker->counters[NAT_FORGOTTEN] += at->rest != 0;
    ftmb_mark(ctx, at, sizeof(*at));
    NAT_STORE(at->addresses, key.addresses);
    NAT_STORE(at->rest, key.rest);
    NAT_STORE(at->seen, ftmb_now(ctx));
    NAT_STORE(at->source, packet_load32(view->ip + 12));
    NAT_STORE(at->destination, packet_load32(view->ip + 16));
    if (!PLANTED(P_NAT_NOTE_UNLOCKED))
        ftmb_section_end(ctx);
}

/* The note of a datagram, copied into `key`. False: there is none. */
static bool look_up(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_datagram *key)
{
    uint32_t number = nat_set(nat, key), id = nat->first_set + number;
    const struct nat_datagram *set = sets_at(ctx->arena, &nat->datagrams, number);
    uint64_t token;
    bool found;
    do {
        token = ftmb_read_begin(ctx, id);
        found = false;
        for (unsigned way = 0; way < SETS_WAYS && !found; way++) {
            found = is_key(&set[way], key);
            key->seen = NAT_LOAD(set[way].seen);
            key->source = NAT_LOAD(set[way].source);
            key->destination = NAT_LOAD(set[way].destination);
        }
    } while (!ftmb_read_end(ctx, id, token));
    return found && ftmb_elapsed(ctx, key->seen) <= nat->datagram_ns;
}

void nat_fragment(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                  const struct packet_view *view, struct nf_packet *packet)
{
    enum nf_port side = packet->port;
    struct nat_datagram datagram = key_of(view, side);
    if ((packet_host16(view->ip + 6) & 0x1fff) == 0 || !look_up(ctx, nat, &datagram)) {
        worker->counters[NAT_DROP_FRAGMENT]++;
        return;
    }
    checksum_patch(view->ip + 10,
                   checksum_join(checksum_delta32(view->source, datagram.source),
                                 checksum_delta32(view->destination, datagram.destination)));
    packet_store32(view->ip + 12, datagram.source);
    packet_store32(view->ip + 16, datagram.destination);
    bool out = side == NF_INSIDE && datagram.destination == view->destination;
    nat_send(ctx, nat, worker, packet, out ? NF_OUTSIDE : NF_INSIDE, NAT_FRAGMENTS);
}

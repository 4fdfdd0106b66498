/* nat: source NAT for TCP, UDP and ICMP echo, in both directions, also in fragments, and for the
 * ICMP errors about them. docs/NAT.md says what the RFCs about NATs ask for, and what of it is met.
 *
 * Mapping is endpoint-independent (RFC 4787): an inside (protocol, address, port) has one outside
 * (address, port), whatever it talks to; filtering too: whoever knows the outside endpoint may
 * answer, an inside host as well (hairpinning). Packets from inside keep their source's mapping
 * alive, inbound ones do not. A mapping lives for at least its timeout after the latest of them,
 * and for at most 9/8 of it plus one round of the sweep (an eighth of the shortest timeout, when
 * the workers keep up).
 *
 * Unless it has a MAC address of its own (nat_arp.c) it is a bump in the wire: MAC addresses stay
 * as they are. TTL always does. IPv4 options pass. Dropped,
 * each with a counter: what is not IPv4 (IPv6 too), fragments whose first one is not known
 * (nat_fragment.c), other ICMP than echo requests from inside, echo replies from outside and
 * errors (nat_icmp.c), other protocols, malformed packets, packets to an outside endpoint without a
 * mapping, from inside those that come from an outside address of our own (no host inside has one)
 * and echo requests to one, and new flows when no port is free.
 *
 * Logged accesses of an outbound packet of a known flow: one read; of an inbound packet: one read;
 * hairpinned: both; of a first fragment: a write more; of another: a read. A new flow: one read and
 * three writes. The sweep: one read per group of four
 * buckets and round, three writes per mapping removed. */
#include "nf/nat.h"

#include "nf/nat_params.h"

enum {
    DATAGRAMS = NAT_PARAMS,
    DATAGRAM_MS,
    MAC,
    INSIDE_MAC,
    OUTSIDE_MAC,
    INSIDE_ADDRESS,
    INSIDE_GATEWAY,
    OUTSIDE_GATEWAY,
    ARP_MS,
};

#define NS_PER_MS 1000000ull
#define MAX_MAC 0xfeffffffffffull

_Static_assert(NAT_PORTS == NAT_ADDRESS_PORTS, "as the parameters say");

static const struct nf_param params[] = {
    NAT_PARAM_ROWS(NAT_MAX_ADDRESSES),
    {"datagrams", NF_UINT, 1024, 1, 1u << 20, "datagrams in fragments that are known at a time"},
    {"datagram_ms", NF_UINT, 15000, 1, DAY_MS, "time for all fragments to come, milliseconds"},
    {"mac", NF_UINT, 0, 0, MAX_MAC, "its own MAC address, a number; 0: none, a bump in the wire"},
    {"inside_mac", NF_UINT, 0, 0, MAX_MAC, "MAC address of the next hop inside; 0: learnt by ARP"},
    {"outside_mac", NF_UINT, 0, 0, MAX_MAC, "MAC address of the next hop outside; 0: likewise"},
    {"inside_address", NF_IPV4, 0, 0, UINT32_MAX, "its own address inside, for ARP"},
    {"inside_gateway", NF_IPV4, 0, 0, UINT32_MAX, "address of the next hop inside, for ARP"},
    {"outside_gateway", NF_IPV4, 0, 0, UINT32_MAX, "address of the next hop outside, for ARP"},
    {"arp_ms", NF_UINT, 60000, 10, DAY_MS, "how long an ARP answer is good, milliseconds"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

/* Sizes that follow from the capacity. */
struct shape {
    uint32_t bucket_bits;
    uint32_t groups;
    uint32_t stripes;
};

static struct shape shape_of(uint64_t capacity)
{
    struct shape shape = {.bucket_bits = NAT_GROUP_BITS, .stripes = 1};
    while (1ull << shape.bucket_bits < capacity)
        shape.bucket_bits++;
    shape.groups = 1u << (shape.bucket_bits - NAT_GROUP_BITS);
    /* Stripes are written by new flows only; 16 slots to one keeps their words in the cache. */
    while ((uint64_t)shape.stripes * 16 < capacity && shape.stripes < 65536)
        shape.stripes *= 2;
    return shape;
}

static bool refuse(char *why, const char *reason)
{
    memcpy(why, reason, strlen(reason) + 1);
    return false;
}

static bool next_hops_agree(const uint64_t *values, char *why)
{
    if (!values[MAC]) {
        for (unsigned p = INSIDE_MAC; p <= OUTSIDE_GATEWAY; p++) {
            if (values[p])
                return refuse(why, "next hops and addresses for ARP need mac");
        }
        return true;
    }
    for (unsigned p = MAC; p <= OUTSIDE_MAC; p++) {
        if (values[p] && !packet_mac_of_one(values[p]))
            return refuse(why, "mac, inside_mac or outside_mac is a group's address");
    }
    if (!values[INSIDE_MAC] == !values[INSIDE_GATEWAY])
        return refuse(why, "with mac, give either inside_mac or inside_gateway");
    if (!values[OUTSIDE_MAC] == !values[OUTSIDE_GATEWAY])
        return refuse(why, "with mac, give either outside_mac or outside_gateway");
    if (values[INSIDE_GATEWAY] && !values[INSIDE_ADDRESS])
        return refuse(why, "inside_gateway needs inside_address, from which to ask for it");
    return true;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)workers;
    uint64_t addresses = values[ADDRESSES], capacity = values[CAPACITY];
    const char *wrong = nat_params_wrong(values);
    if (wrong)
        return refuse(why, wrong);
    if (!next_hops_agree(values, why))
        return false;
    struct shape shape = shape_of(capacity);
    uint64_t heads = sizeof(uint32_t) << shape.bucket_bits;
    *out = (struct nf_needs){
        .shared_bytes = sizeof(struct nat) + heads + capacity * sizeof(struct nat_slot) +
                        addresses * sizeof(struct nat_pool) + capacity * sizeof(uint16_t) +
                        sets_bytes(values[DATAGRAMS], sizeof(struct nat_datagram)) +
                        2 * sizeof(struct nat_hop) + 7 * CACHE_LINE,
        .worker_bytes = sizeof(struct nat_worker) + CACHE_LINE,
        .variables =
            shape.groups + (uint32_t)addresses + shape.stripes + sets_for(values[DATAGRAMS]) + 2,
        /* Two look-ups; an end; a datagram; a next hop, twice; removals; sweep; a look at each pool
         * but the first; per try three locks. */
        .max_pals = 6 + 3 * NAT_REMOVALS + NAT_SWEEP_GROUPS + (uint32_t)addresses - 1 +
                    3 * (uint32_t)u64_min(addresses, NAT_TRIES),
        .max_outputs = 1,
    };
    return true;
}

static uint64_t offset_of(const struct arena *arena, const void *at)
{
    return (uint64_t)((const uint8_t *)at - (const uint8_t *)arena);
}

/* Give every slot its outside endpoint, and every pool its slots. */
static void init_slots(struct arena *arena, struct nat *nat)
{
    uint32_t share = nat->slots / nat->addresses, rest = nat->slots % nat->addresses;
    uint32_t first = 0;
    for (uint32_t a = 0; a < nat->addresses; a++) {
        nat->ranges[a] = (struct nat_range){.first = first, .size = share + (a < rest)};
        uint16_t *ring = nat_ring(arena, nat, a);
        for (uint32_t i = 0; i < nat->ranges[a].size; i++) {
            struct nat_slot *slot = &nat_slots(arena, nat)[first + i];
            slot->address = __builtin_bswap32(nat->first_address + a);
            slot->port = __builtin_bswap16((uint16_t)(NAT_FIRST_PORT + i));
            slot->next = i;
            ring[i] = (uint16_t)i;
        }
        nat_pools(arena, nat)[a].spare = nat->ranges[a].size;
        first += nat->ranges[a].size;
    }
}

static void init_times(struct nat *nat, const uint64_t *values, uint32_t workers)
{
    const uint64_t ms[NAT_STATES] = {
        [NAT_UDP] = values[UDP_MS],
        [NAT_ECHO] = values[ICMP_MS],
        [NAT_OPENING] = values[TRANSITORY_MS],
        [NAT_ESTABLISHED] = values[TCP_MS],
        [NAT_CLOSING] = values[TRANSITORY_MS],
    };
    uint64_t shortest = UINT64_MAX;
    for (unsigned s = 0; s < NAT_STATES; s++) {
        /* last_seen may lag by the granularity, which the limit makes up for. */
        nat->refresh_ns[s] = ms[s] * NS_PER_MS / 8;
        nat->expire_ns[s] = ms[s] * NS_PER_MS + nat->refresh_ns[s];
        shortest = u64_min(shortest, ms[s] * NS_PER_MS);
    }
    uint64_t share = (nat->groups + workers - 1) / workers;
    nat->sweep_ns = u64_max(shortest / 8 / share, 1);
}

static void init_hops(struct nat *nat, const uint64_t *values)
{
    nat->mac = values[MAC];
    nat->arp_ns = values[ARP_MS] * NS_PER_MS;
    nat->own[NF_INSIDE] = __builtin_bswap32((uint32_t)values[INSIDE_ADDRESS]);
    nat->own[NF_OUTSIDE] = __builtin_bswap32(nat->first_address);
    for (unsigned side = 0; side < 2; side++) {
        nat->hop_mac[side] = values[INSIDE_MAC + side];
        nat->gateway[side] = __builtin_bswap32((uint32_t)values[INSIDE_GATEWAY + side]);
    }
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct nat *nat = arena_alloc(arena, 0, sizeof(*nat), CACHE_LINE);
    if (!nat)
        return NULL;
    struct shape shape = shape_of(values[CAPACITY]);
    nat->slots = (uint32_t)values[CAPACITY];
    nat->addresses = (uint32_t)values[ADDRESSES];
    nat->first_address = (uint32_t)values[OUTSIDE];
    nat->bucket_shift = 64 - shape.bucket_bits;
    nat->groups = shape.groups;
    nat->stripe_mask = shape.stripes - 1;
    nat->first_pool = shape.groups;
    nat->first_stripe = shape.groups + nat->addresses;
    nat->first_set = nat->first_stripe + shape.stripes;
    nat->datagram_ns = values[DATAGRAM_MS] * NS_PER_MS;
    nat->first_hop = nat->first_set + sets_for(values[DATAGRAMS]);
    init_hops(nat, values);
    init_times(nat, values, arena->workers);

    uint64_t buckets = 1ull << shape.bucket_bits;
    uint32_t *heads = arena_alloc(arena, 0, buckets * sizeof(*heads), CACHE_LINE);
    void *slots = arena_alloc(arena, 0, nat->slots * sizeof(struct nat_slot), CACHE_LINE);
    void *pools = arena_alloc(arena, 0, nat->addresses * sizeof(struct nat_pool), CACHE_LINE);
    void *rings = arena_alloc(arena, 0, nat->slots * sizeof(uint16_t), CACHE_LINE);
    void *hops = arena_alloc(arena, 0, 2 * sizeof(struct nat_hop), CACHE_LINE);
    if (!heads || !slots || !pools || !rings || !hops ||
        !sets_init(&nat->datagrams, arena, values[DATAGRAMS], sizeof(struct nat_datagram)))
        return NULL;
    nat->heads_at = offset_of(arena, heads);
    nat->slots_at = offset_of(arena, slots);
    nat->pools_at = offset_of(arena, pools);
    nat->rings_at = offset_of(arena, rings);
    nat->hops_at = offset_of(arena, hops);
    for (uint64_t b = 0; b < buckets; b++)
        heads[b] = NAT_NONE;
    init_slots(arena, nat);
    for (uint32_t w = 0; w < arena->workers; w++) {
        struct nat_worker *worker = arena_alloc(arena, 1 + w, sizeof(*worker), CACHE_LINE);
        if (!worker)
            return NULL;
        worker->next_group = w;
        nat->worker_at[w] = offset_of(arena, worker);
    }
    return nat;
}

/* The binding of the packet's source. False: it has none and gets none, which is counted. */
static inline bool bind_source(struct ftmb_ctx *ctx, const struct nat *nat,
                               struct nat_worker *worker, const struct packet_view *view,
                               struct nat_binding *binding)
{
    struct nat_flow flow = {
        .key = nat_key(view->source, view->source_port, view->protocol),
        .tcp_payload = view->payload,
        .tcp_flags = view->tcp_flags,
        .protocol = view->protocol,
    };
    enum nat_verdict verdict = nat_bind(ctx, nat, worker, &flow, binding);
    if (likely(verdict == NAT_BOUND))
        return true;
    worker->counters[verdict == NAT_CROWDED ? NAT_DROP_CROWDED : NAT_DROP_EXHAUSTED]++;
    return false;
}

static inline void replace_source(const struct packet_view *view, const struct nat_binding *binding)
{
    packet_store32(view->ip + 12, binding->address);
    checksum_patch(view->ip + 10, binding->ip_delta);
    packet_store16(view->l4 + (view->kind == PACKET_ECHO ? 4 : 0), binding->port);
    nat_patch_l4(view, binding->l4_delta);
}

/* The destination becomes the inside endpoint `key`, whose binding it was. */
static inline void replace_destination(struct ftmb_ctx *ctx, const struct nat *nat,
                                       struct nat_worker *worker, const struct packet_view *view,
                                       uint64_t key, const struct nat_binding *binding)
{
    packet_store32(view->ip + 16, (uint32_t)key);
    checksum_patch(view->ip + 10, checksum_reverse(binding->ip_delta));
    packet_store16(view->l4 + (view->kind == PACKET_ECHO ? 4 : 2), (uint16_t)(key >> 32));
    nat_patch_l4(view, checksum_reverse(binding->l4_delta));
    if (unlikely(view->tcp_flags & (TCP_FIN | TCP_RST)))
        nat_close(ctx, nat, worker, key);
}

/* From inside to an outside endpoint of our own: out and in again at once, so that its receiver
 * sees the sender's outside endpoint. An echo request cannot do so: the identifier is the sender's,
 * and names no receiver. */
static void hairpin(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                    const struct packet_view *view, struct nf_packet *packet)
{
    struct nat_binding binding, receiver;
    if (view->kind == PACKET_ECHO) {
        worker->counters[NAT_DROP_HAIRPIN]++;
        return;
    }
    uint64_t key =
        nat_owner(ctx, nat, view->destination, view->destination_port, view->protocol, &receiver);
    if (key == 0) {
        worker->counters[NAT_DROP_UNKNOWN]++;
        return;
    }
    if (!bind_source(ctx, nat, worker, view, &binding))
        return;
    replace_source(view, &binding);
    replace_destination(ctx, nat, worker, view, key, &receiver);
    nat_send(ctx, nat, worker, packet, NF_INSIDE, NAT_HAIRPINNED);
}

static inline void outbound(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                            const struct packet_view *view, struct nf_packet *packet)
{
    struct nat_binding binding;
    if (unlikely(view->kind == PACKET_ECHO && view->icmp_type != ICMP_ECHO_REQUEST)) {
        worker->counters[NAT_DROP_ICMP]++;
    } else if (unlikely(nat_is_ours(nat, view->source))) {
        worker->counters[NAT_DROP_SPOOFED]++;
    } else if (unlikely(nat_is_ours(nat, view->destination))) {
        hairpin(ctx, nat, worker, view, packet);
    } else if (likely(bind_source(ctx, nat, worker, view, &binding))) {
        replace_source(view, &binding);
        nat_send(ctx, nat, worker, packet, NF_OUTSIDE, NAT_OUTBOUND);
    }
}

static inline void inbound(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                           const struct packet_view *view, struct nf_packet *packet)
{
    if (unlikely(view->kind == PACKET_ECHO && view->icmp_type != ICMP_ECHO_REPLY)) {
        worker->counters[NAT_DROP_ICMP]++;
        return;
    }
    struct nat_binding binding;
    uint64_t key =
        nat_owner(ctx, nat, view->destination, view->destination_port, view->protocol, &binding);
    if (unlikely(key == 0)) {
        worker->counters[NAT_DROP_UNKNOWN]++;
        return;
    }
    replace_destination(ctx, nat, worker, view, key, &binding);
    nat_send(ctx, nat, worker, packet, NF_INSIDE, NAT_INBOUND);
}

static inline void translate(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                             const struct packet_view *view, struct nf_packet *packet)
{
    if (packet->port == NF_INSIDE)
        outbound(ctx, nat, worker, view, packet);
    else
        inbound(ctx, nat, worker, view, packet);
}

/* The first fragment is translated like a packet, the others like the first. */
static void fragment(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                     struct packet_view *view, struct nf_packet *packet)
{
    enum nf_port side = packet->port;
    if (nat_fragment_first(view)) {
        translate(ctx, nat, worker, view, packet);
        nat_fragment_note(ctx, nat, worker, view, side, packet);
    } else {
        nat_fragment(ctx, nat, worker, view, packet);
    }
}

/* What is no packet of a flow by itself. */
static void other(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                  struct packet_view *view, struct nf_packet *packet)
{
    switch (view->kind) {
    case PACKET_ICMP_OTHER:
        nat_icmp(ctx, nat, worker, view, packet);
        return;
    case PACKET_FRAGMENT:
        fragment(ctx, nat, worker, view, packet);
        return;
    case PACKET_PROTOCOL:
        worker->counters[NAT_DROP_PROTOCOL]++;
        return;
    case PACKET_NOT_IPV4:
        nat_arp(ctx, nat, worker, packet);
        return;
    default:
        worker->counters[NAT_DROP_MALFORMED]++;
    }
}

static void tick(struct ftmb_ctx *ctx)
{
    const struct nat *nat = arena_root(ctx->arena);
    struct nat_worker *worker = nat_worker(ctx->arena, nat, ctx->worker);
    ftmb_mark(ctx, worker, sizeof(*worker));
    worker->removals = NAT_REMOVALS;
    nat_sweep(ctx, nat, worker);
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct nat *nat = arena_root(ctx->arena);
    struct nat_worker *worker = nat_worker(ctx->arena, nat, ctx->worker);
    ftmb_mark(ctx, worker, sizeof(*worker));
    worker->removals = NAT_REMOVALS;
    nat_sweep(ctx, nat, worker);
    struct packet_view view;
    enum packet_kind kind = packet_parse(&view, packet->data, packet->length);
    if (likely(kind < PACKET_ICMP_OTHER))
        translate(ctx, nat, worker, &view, packet);
    else
        other(ctx, nat, worker, &view, packet);
}

const struct nf nf_nat = {
    .name = "nat",
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = nat_prefetch,
    .process = process,
    .tick = tick,
    .report = nat_report,
};

/* firewall: lets connections pass that its rules allow, and nothing that belongs to none.
 *
 * A connection is TCP, UDP or ICMP echo between an inside and an outside endpoint. Its first packet
 * (TCP: a SYN; echo: a request) is judged by the rules, the first that matches, else by the policy
 * for the side it comes from; what follows, in both directions, by the state of the connection.
 * TCP is followed from SYN to FIN or RST (firewall_tcp.c); with `window` the numbers of a segment
 * must be ones that can occur, else it is dropped (dropped_window). ICMP errors (unreachable, time
 * exceeded, parameter problem) pass if the packet that they quote belongs to a connection and was
 * sent by the one they go to; they keep nothing alive. Connections that are half open, SYN seen and
 * the last acknowledgement not, are limited for all workers together.
 *
 * What passes goes to the other side unchanged. ARP passes. IPv4 options pass. Dropped, each with a
 * counter: other EtherTypes (IPv6 too), fragments (the first ones too), other protocols, other
 * ICMP, lengths that contradict each other, TCP flags that make no sense. Checksums are not looked
 * at: hosts do that. A packet of any length is judged by its headers.
 *
 * Shared variables, in ascending order of ids, which is the order in which a section takes them:
 *   set        one for each set of connections; protects the entries in it
 *   half-open  the last id; protects the number of half-open connections
 * Accesses of a packet: a write to its connection's set; a SYN, and what ends a half-open state,
 * one more, to half-open, in the same section. An ICMP error: a write. The sweep, an eighth of the
 * shortest time-out a round: a write per set, and one to half-open if such a connection has expired
 * in it.
 *
 * Invariants, which the report checks: a connection has one entry, in the set where it is looked
 * for; half-open is the number of entries in those states; those opened and not ended are there. */
#include "nf/firewall.h"

enum {
    CAPACITY,
    HALF_OPEN,
    WINDOW,
    UDP_MS,
    TCP_MS,
    TRANSITORY_MS,
    ICMP_MS,
    ALLOW_INSIDE,
    ALLOW_OUTSIDE,
    FIRST_RULE
};
enum { RULE_ACTION, RULE_SIDE, RULE_PROTOCOL, RULE_NETWORK, RULE_BITS, RULE_PORT, RULE_PARAMS };

#define DAY_MS (24ull * 3600 * 1000)

#define RULE(n)                                                                                    \
    {"rule" n, NF_UINT, 0, 0, 2, "rule " n ": 0 none, 1 allow, 2 deny"},                           \
        {"rule" n "_side", NF_UINT, 1, 0, 1, "of packets from 0 inside, 1 outside"},               \
        {"rule" n "_protocol", NF_UINT, 0, 0, 17, "1 ICMP echo, 6 TCP, 17 UDP, 0 any of them"},    \
        {"rule" n "_network", NF_IPV4, 0, 0, UINT32_MAX, "network of the destination"},            \
        {"rule" n "_bits", NF_UINT, 0, 0, 32, "bits of the network that count"},                   \
    {                                                                                              \
        "rule" n "_port", NF_UINT, 0, 0, 65535, "port of the destination, 0 any"                   \
    }

static const struct nf_param params[] = {
    {"capacity", NF_UINT, 65536, 1, 1u << 24, "connections at a time"},
    {"half_open", NF_UINT, 4096, 0, 1u << 24, "half-open TCP connections at a time; 0: no limit"},
    {"window", NF_FLAG, 1, 0, 1, "check sequence numbers and acknowledgements"},
    {"udp_ms", NF_UINT, 300000, 10, DAY_MS, "UDP timeout, milliseconds"},
    {"tcp_ms", NF_UINT, 7440000, 10, DAY_MS, "timeout of established TCP, milliseconds"},
    {"transitory_ms", NF_UINT, 240000, 10, DAY_MS,
     "timeout of TCP that is opening or closing, milliseconds"},
    {"icmp_ms", NF_UINT, 60000, 10, DAY_MS, "ICMP echo timeout, milliseconds"},
    {"allow_inside", NF_FLAG, 1, 0, 1, "connections from inside that no rule matches"},
    {"allow_outside", NF_FLAG, 0, 0, 1, "connections from outside that no rule matches"},
    RULE("1"),
    RULE("2"),
    RULE("3"),
    RULE("4"),
    {NULL, NF_UINT, 0, 0, 0, NULL},
};
_Static_assert(sizeof(params) / sizeof(params[0]) == FIRST_RULE + FW_RULES * RULE_PARAMS + 1,
               "rules follow the other parameters");
_Static_assert(sizeof(params) / sizeof(params[0]) <= NF_MAX_PARAMS + 1, "parameters fit");

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    static const char other[] = "a rule's protocol is 1, 6, 17, or 0 for any of them";
    (void)workers;
    for (unsigned r = 0; r < FW_RULES; r++) {
        uint64_t protocol = values[FIRST_RULE + r * RULE_PARAMS + RULE_PROTOCOL];
        if (protocol != 0 && protocol != PROTOCOL_ICMP && protocol != PROTOCOL_TCP &&
            protocol != PROTOCOL_UDP) {
            memcpy(why, other, sizeof(other));
            return false;
        }
    }
    *out = (struct nf_needs){
        .shared_bytes = sizeof(struct firewall) + sizeof(struct fw_half_opens) + 3 * CACHE_LINE +
                        sets_bytes(values[CAPACITY], sizeof(struct fw_connection)),
        .worker_bytes = sizeof(struct fw_worker) + CACHE_LINE,
        .variables = sets_for(values[CAPACITY]) + 1,
        .max_pals = (1 + SETS_SWEEP) * (values[HALF_OPEN] ? 2 : 1),
        .max_outputs = 1,
    };
    return true;
}

static void init_rules(struct firewall *firewall, const uint64_t *values)
{
    for (unsigned r = 0; r < FW_RULES; r++) {
        const uint64_t *rule = &values[FIRST_RULE + r * RULE_PARAMS];
        uint32_t mask = rule[RULE_BITS] ? UINT32_MAX << (32 - rule[RULE_BITS]) : 0;
        firewall->rules[r] = (struct fw_rule){
            .network = __builtin_bswap32((uint32_t)rule[RULE_NETWORK] & mask),
            .mask = __builtin_bswap32(mask),
            .port = __builtin_bswap16((uint16_t)rule[RULE_PORT]),
            .protocol = (uint8_t)rule[RULE_PROTOCOL],
            .side = (uint8_t)rule[RULE_SIDE],
            .used = rule[RULE_ACTION] != 0,
            .allows = rule[RULE_ACTION] == 1,
        };
    }
    firewall->policy[NF_INSIDE] = values[ALLOW_INSIDE] != 0;
    firewall->policy[NF_OUTSIDE] = values[ALLOW_OUTSIDE] != 0;
}

static void init_times(struct firewall *firewall, const uint64_t *values, uint32_t workers)
{
    const uint64_t ms[FW_STATES] = {
        [FW_UDP] = values[UDP_MS],
        [FW_ECHO] = values[ICMP_MS],
        [FW_SYN_SENT] = values[TRANSITORY_MS],
        [FW_SYN_ANSWERED] = values[TRANSITORY_MS],
        [FW_ESTABLISHED] = values[TCP_MS],
        [FW_CLOSING] = values[TRANSITORY_MS],
        [FW_CLOSED] = values[TRANSITORY_MS],
    };
    uint64_t shortest = sets_times(&firewall->timeouts, ms, FW_STATES, FW_CLOSED);
    firewall->sweep_ns = sets_pace(&firewall->table, workers, shortest / 8);
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct firewall *firewall = arena_alloc(arena, 0, sizeof(*firewall), CACHE_LINE);
    struct fw_half_opens *half = arena_alloc(arena, 0, sizeof(*half), CACHE_LINE);
    if (!firewall || !half ||
        !sets_init(&firewall->table, arena, values[CAPACITY], sizeof(struct fw_connection)))
        return NULL;
    firewall->half_opens_at = (uint64_t)((uint8_t *)half - (uint8_t *)arena);
    firewall->half_open_limit = values[HALF_OPEN];
    firewall->check = values[WINDOW] != 0;
    init_rules(firewall, values);
    init_times(firewall, values, arena->workers);
    for (uint32_t w = 0; w < arena->workers; w++) {
        struct fw_worker *worker = arena_alloc(arena, 1 + w, sizeof(*worker), CACHE_LINE);
        if (!worker)
            return NULL;
        worker->sweep.next = w;
        firewall->worker_at[w] = (uint64_t)((uint8_t *)worker - (uint8_t *)arena);
    }
    return firewall;
}

/* Key of a packet that comes from `side`. Echo requests of the two sides are apart: a reply belongs
 * to the other side's. */
static struct sets_key key_of(const struct packet_view *view, unsigned side)
{
    bool inside = side == NF_INSIDE;
    uint64_t asker = view->kind == PACKET_ECHO && (view->icmp_type == ICMP_ECHO_REQUEST) != inside;
    struct sets_key key = inside ? sets_key_of(view->source, view->destination, view->protocol,
                                               view->source_port, view->destination_port)
                                 : sets_key_of(view->destination, view->source, view->protocol,
                                               view->destination_port, view->source_port);
    key.rest |= asker << 40;
    return key;
}

/* The entry of a connection, or a place for it, in a set that is held. */
static struct fw_connection *find(const struct ftmb_ctx *ctx, const struct firewall *firewall,
                                  uint32_t set, const struct sets_key *key)
{
    return sets_find(ctx, &firewall->timeouts, sets_at(ctx->arena, &firewall->table, set),
                     sizeof(struct fw_connection), key);
}

/* What the rules say of a packet that begins a connection. */
static bool allowed(const struct firewall *firewall, const struct packet_view *view, unsigned side)
{
    for (unsigned r = 0; r < FW_RULES; r++) {
        const struct fw_rule *rule = &firewall->rules[r];
        if (rule->used && rule->side == side &&
            (!rule->protocol || rule->protocol == view->protocol) &&
            (view->destination & rule->mask) == rule->network &&
            (!rule->port || (view->kind != PACKET_ECHO && rule->port == view->destination_port)))
            return rule->allows;
    }
    return firewall->policy[side];
}

/* Begins a connection in `next`, if the packet may. */
static enum fw_counter open_one(const struct ftmb_ctx *ctx, const struct firewall *firewall,
                                const struct packet_view *view, const struct fw_segment *segment,
                                unsigned side, struct fw_connection *next)
{
    if ((view->kind == PACKET_TCP && segment->flags != TCP_SYN) ||
        (view->kind == PACKET_ECHO && view->icmp_type != ICMP_ECHO_REQUEST))
        return FW_DROP_NO_CONNECTION;
    if (!allowed(firewall, view, side))
        return FW_DROP_RULE;
    *next = (struct fw_connection){.flow = {.key = key_of(view, side),
                                            .last_seen = ftmb_now(ctx),
                                            .state = view->kind == PACKET_UDP ? FW_UDP : FW_ECHO},
                                   .opener = (uint8_t)side};
    if (view->kind == PACKET_TCP)
        fw_tcp_open(next, segment, side);
    return FW_FORWARDED;
}

/* Counts that `before` half-open connections become `after`; their variable is taken if that is any
 * change. False: there would be too many. */
static bool count_half_open(struct ftmb_ctx *ctx, const struct firewall *firewall, unsigned before,
                            unsigned after)
{
    struct fw_half_opens *half = fw_half_opens(ctx->arena, firewall);
    if (likely(before == after) || !firewall->half_open_limit)
        return true;
    ftmb_write(ctx, firewall->table.count);
    if (after > before && half->count >= firewall->half_open_limit)
        return false;
    ftmb_mark(ctx, half, sizeof(*half));
    half->count += after;
    half->count -= before;
    return true;
}

/* The packet meets its entry, or the place for one, in a set that is held. */
static enum fw_counter meet(struct ftmb_ctx *ctx, const struct firewall *firewall,
                            struct fw_worker *worker, const struct packet_view *view, unsigned side,
                            struct fw_connection *at)
{
    struct fw_segment segment = {0};
    struct sets_key key = key_of(view, side);
    if (view->kind == PACKET_TCP)
        segment = fw_segment_of(view);
    bool begins = !at || !sets_knows(ctx, &firewall->timeouts, &at->flow, &key) ||
                  (view->kind == PACKET_TCP && fw_tcp_over(at, &segment));
    struct fw_connection next;
    enum fw_counter verdict = FW_FORWARDED;
    if (begins) {
        verdict = open_one(ctx, firewall, view, &segment, side, &next);
        if (verdict == FW_FORWARDED && !at)
            verdict = FW_DROP_NO_ROOM;
    } else {
        next = *at;
        next.flow.last_seen = u64_max(next.flow.last_seen, ftmb_now(ctx));
        if (view->kind == PACKET_TCP)
            verdict = fw_tcp_next(&next, &segment, side, firewall->check);
    }
    if (unlikely(verdict != FW_FORWARDED))
        return verdict;
    if (!count_half_open(ctx, firewall, fw_half_open(at), fw_half_open(&next)))
        return FW_DROP_HALF_OPEN;
    worker->counters[FW_OPENED] += begins;
    worker->counters[FW_ENDED] += begins && at->flow.key.rest;
    ftmb_mark(ctx, at, sizeof(*at));
    *at = next;
    return FW_FORWARDED;
}

static enum fw_counter track(struct ftmb_ctx *ctx, const struct firewall *firewall,
                             struct fw_worker *worker, const struct packet_view *view,
                             unsigned side)
{
    struct sets_key key = key_of(view, side);
    uint32_t set = sets_pick(&firewall->table, sets_hash(&key));
    if (view->kind == PACKET_TCP && unlikely(!fw_flags_sound(view->tcp_flags)))
        return FW_DROP_STATE;
    struct fw_connection *early =
        PLANTED(P_FIREWALL_TWO_ENTRIES) ? find(ctx, firewall, set, &key) : NULL;
    ftmb_write(ctx, set);
    struct fw_connection *at = early ? early : find(ctx, firewall, set, &key);
    enum fw_counter verdict = meet(ctx, firewall, worker, view, side, at);
    ftmb_section_end(ctx);
    return verdict;
}

/* Is there a connection of this key that has not expired? A section of its own: errors are rare. */
static bool known(struct ftmb_ctx *ctx, const struct firewall *firewall, const struct sets_key *key)
{
    uint32_t set = sets_pick(&firewall->table, sets_hash(key));
    ftmb_write(ctx, set);
    const struct fw_connection *at = find(ctx, firewall, set, key);
    bool found = at && sets_knows(ctx, &firewall->timeouts, &at->flow, key);
    ftmb_section_end(ctx);
    return found;
}

/* An ICMP error from `side` quotes a packet that its receiver has sent. */
static enum fw_counter icmp_error(struct ftmb_ctx *ctx, const struct firewall *firewall,
                                  const struct packet_view *view, unsigned side)
{
    struct packet_view quoted;
    if (!packet_quoted(view, &quoted) || quoted.source != view->destination)
        return FW_DROP_ICMP;
    struct sets_key key = key_of(&quoted, 1 - side);
    return known(ctx, firewall, &key) ? FW_FORWARDED : FW_DROP_ICMP;
}

static enum fw_counter judge(struct ftmb_ctx *ctx, const struct firewall *firewall,
                             struct fw_worker *worker, const struct nf_packet *packet)
{
    struct packet_view view;
    switch (packet_parse(&view, packet->data, packet->length)) {
    case PACKET_TCP:
    case PACKET_UDP:
    case PACKET_ECHO:
        return track(ctx, firewall, worker, &view, packet->port);
    case PACKET_ICMP_OTHER:
        return icmp_error(ctx, firewall, &view, packet->port);
    case PACKET_NOT_IPV4:
        return packet_host16(packet->data + 12) == ETHERTYPE_ARP ? FW_FORWARDED : FW_DROP_NOT_IPV4;
    case PACKET_FRAGMENT:
        return FW_DROP_FRAGMENT;
    case PACKET_PROTOCOL:
        return FW_DROP_PROTOCOL;
    default:
        return FW_DROP_MALFORMED;
    }
}

/* Removes what has expired in one set. */
static void sweep_set(struct ftmb_ctx *ctx, const struct firewall *firewall,
                      struct fw_worker *worker, uint32_t number)
{
    struct fw_connection *set = sets_at(ctx->arena, &firewall->table, number);
    unsigned half_open = 0;
    ftmb_write(ctx, number);
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        if (!set[way].flow.key.rest || !sets_expired(ctx, &firewall->timeouts, &set[way].flow))
            continue;
        half_open += fw_half_open(&set[way]);
        worker->counters[FW_ENDED]++;
        ftmb_mark(ctx, &set[way], sizeof(set[way]));
        set[way] = (struct fw_connection){0};
    }
    count_half_open(ctx, firewall, half_open, 0);
    ftmb_section_end(ctx);
}

static void sweep(struct ftmb_ctx *ctx, const struct firewall *firewall, struct fw_worker *worker)
{
    uint32_t number;
    for (unsigned n = 0; n < SETS_SWEEP && sets_due(&firewall->table, &worker->sweep, ctx,
                                                    firewall->sweep_ns, &number);
         n++)
        sweep_set(ctx, firewall, worker, number);
}

static void tick(struct ftmb_ctx *ctx)
{
    const struct firewall *firewall = arena_root(ctx->arena);
    struct fw_worker *worker = fw_worker(ctx->arena, firewall, ctx->worker);
    ftmb_mark(ctx, worker, sizeof(*worker));
    sweep(ctx, firewall, worker);
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct firewall *firewall = arena_root(ctx->arena);
    struct fw_worker *worker = fw_worker(ctx->arena, firewall, ctx->worker);
    ftmb_mark(ctx, worker, sizeof(*worker));
    sweep(ctx, firewall, worker);
    enum fw_counter verdict = judge(ctx, firewall, worker, packet);
    worker->counters[verdict]++;
    if (verdict == FW_FORWARDED)
        ftmb_emit(ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
}

/* Hint for a burst (nf.h), for the usual packet: IPv4 without options, no echo. */
static void prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage)
{
    const struct firewall *firewall = arena_root(ctx->arena);
    const uint8_t *ip = packet->data + ETHERNET_BYTES;
    if (stage != 0 || packet->length < ETHERNET_BYTES + IPV4_MIN_BYTES + UDP_BYTES)
        return;
    const struct packet_view view = {.source = packet_load32(ip + 12),
                                     .destination = packet_load32(ip + 16),
                                     .source_port = packet_load16(ip + IPV4_MIN_BYTES),
                                     .destination_port = packet_load16(ip + IPV4_MIN_BYTES + 2),
                                     .protocol = ip[9],
                                     .kind = PACKET_UDP};
    struct sets_key key = key_of(&view, packet->port);
    sets_prefetch(ctx, &firewall->table, sets_pick(&firewall->table, sets_hash(&key)));
}

const struct nf nf_firewall = {
    .name = "firewall",
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = prefetch,
    .process = process,
    .tick = tick,
    .report = fw_report,
};

/* lb: a load balancer for TCP and UDP. A packet from inside, where the clients are, to one of the
 * virtual addresses goes to one of the backends outside, all packets of a connection to the same.
 *
 * It works by direct routing: only the destination's MAC address is changed, to the backend's,
 * which has the virtual address too and answers its client itself. So what comes from outside is
 * none of its business and passes unchanged, as does ARP.
 *
 * A connection's backend is the one in Maglev's table at the place of its hash (lb_maglev.c), or
 * with `least` the one that has the fewest connections; and stays it until the connection expires,
 * or after a FIN or RST begins anew with a SYN. Backends in the bits of `down` are not given any.
 * Where a set of connections is full of ones in use, the table alone decides, without an entry
 * (untracked); likewise for ICMP echo and errors to a virtual address, by their addresses.
 *
 * IPv4 options and wrong checksums do not matter, nor does the length. Dropped, each with a
 * counter: from inside to other addresses, fragments (of all but the first the ports are not
 * known), other protocols, other EtherTypes (IPv6 too), lengths that contradict each other.
 *
 * Shared variables, in ascending order of ids, which is the order in which a section takes them:
 *   set    one for each set of connections; protects the entries in it
 *   loads  the last id; protects the numbers of connections of the backends; only with `least`
 * Accesses of a packet to a virtual address: a write to its connection's set; with `least` a new
 * connection takes one more, to loads, in the same section. The sweep, an eighth of the shortest
 * time-out a round: a write per set, and with `least` one to loads if a connection expired in it.
 *
 * Invariants, which the report checks: a connection has one entry, in the set where it is looked
 * for, with a backend that is not down; those opened and not ended are there; with `least` a
 * backend's load is the number of its connections. */
#include "nf/lb.h"

enum {
    VIRTUAL,
    VIRTUAL_BITS,
    BACKENDS,
    DOWN,
    MAC,
    LEAST,
    TABLE,
    CAPACITY,
    UDP_MS,
    TCP_MS,
    CLOSING_MS
};

#define DAY_MS (24ull * 3600 * 1000)

static const struct nf_param params[] = {
    {"virtual", NF_IPV4, 0xc0000200, 0, UINT32_MAX, "network of the virtual addresses"},
    {"virtual_bits", NF_UINT, 24, 1, 32, "bits of that network"},
    {"backends", NF_UINT, 8, 1, LB_MAX_BACKENDS, "backends, from number 0 on"},
    {"down", NF_UINT, 0, 0, UINT32_MAX, "backends that get no new connections, a bit each"},
    {"mac", NF_UINT, 0x020000000100, 0, 0xfffffffffful << 8, "MAC address of backend 0, a number"},
    {"least", NF_FLAG, 0, 0, 1, "new connections go to the backend that has the fewest"},
    {"table", NF_UINT, 65537, 3, LB_MAX_TABLE, "places of Maglev's table, a prime"},
    {"capacity", NF_UINT, 65536, 1, 1u << 24, "connections at a time that have an entry"},
    {"udp_ms", NF_UINT, 300000, 10, DAY_MS, "UDP timeout, milliseconds"},
    {"tcp_ms", NF_UINT, 7440000, 10, DAY_MS, "TCP timeout, milliseconds"},
    {"closing_ms", NF_UINT, 240000, 10, DAY_MS, "TCP timeout after a FIN or RST, milliseconds"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

static uint32_t up_of(const uint64_t *values)
{
    return (uint32_t)((1ull << values[BACKENDS]) - 1) & ~(uint32_t)values[DOWN];
}

static bool is_prime(uint64_t number)
{
    for (uint64_t n = 2; n * n <= number; n++) {
        if (number % n == 0)
            return false;
    }
    return true;
}

static bool refuse(char *why, const char *reason)
{
    memcpy(why, reason, strlen(reason) + 1);
    return false;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)workers;
    if (!is_prime(values[TABLE]))
        return refuse(why, "table must be a prime, such as 65537");
    if (values[TABLE] < values[BACKENDS])
        return refuse(why, "table has fewer places than there are backends");
    if (!up_of(values))
        return refuse(why, "all backends are down");
    *out = (struct nf_needs){
        .shared_bytes = sizeof(struct lb) + sizeof(struct lb_loads) + values[TABLE] +
                        4 * CACHE_LINE + sets_bytes(values[CAPACITY], sizeof(struct sets_flow)),
        .worker_bytes = sizeof(struct lb_worker) + CACHE_LINE,
        .variables = sets_for(values[CAPACITY]) + 1,
        .max_pals = (1 + SETS_SWEEP) * (values[LEAST] ? 2 : 1),
        .max_outputs = 1,
    };
    return true;
}

static uint64_t offset_of(const struct arena *arena, const void *at)
{
    return (uint64_t)((const uint8_t *)at - (const uint8_t *)arena);
}

static void init_times(struct lb *lb, const uint64_t *values, uint32_t workers)
{
    uint64_t shortest = sets_times(&lb->timeouts, &values[UDP_MS], LB_STATES, LB_STATES);
    lb->sweep_ns = sets_pace(&lb->connections, workers, shortest / 8);
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct lb *lb = arena_alloc(arena, 0, sizeof(*lb), CACHE_LINE);
    struct lb_loads *loads = arena_alloc(arena, 0, sizeof(*loads), CACHE_LINE);
    uint8_t *table = arena_alloc(arena, 0, values[TABLE], CACHE_LINE);
    if (!lb || !loads || !table ||
        !sets_init(&lb->connections, arena, values[CAPACITY], sizeof(struct sets_flow)))
        return NULL;
    uint32_t mask = UINT32_MAX << (32 - values[VIRTUAL_BITS]);
    lb->network = __builtin_bswap32((uint32_t)values[VIRTUAL] & mask);
    lb->mask = __builtin_bswap32(mask);
    lb->mac = values[MAC];
    lb->up = up_of(values);
    lb->least = values[LEAST] != 0;
    lb->table_size = (uint32_t)values[TABLE];
    lb->table_at = offset_of(arena, table);
    lb->loads_at = offset_of(arena, loads);
    init_times(lb, values, arena->workers);
    maglev_fill(table, lb->table_size, lb->up);
    for (uint32_t w = 0; w < arena->workers; w++) {
        struct lb_worker *worker = arena_alloc(arena, 1 + w, sizeof(*worker), CACHE_LINE);
        if (!worker)
            return NULL;
        worker->sweep.next = w;
        lb->worker_at[w] = offset_of(arena, worker);
    }
    return lb;
}

/* The set uses this hash's upper bits, the table another's. */
static uint8_t by_table(struct ftmb_ctx *ctx, const struct lb *lb, uint64_t hash)
{
    uint64_t spread = sets_mix(hash) >> 32;
    return lb_table(ctx->arena, lb)[spread * lb->table_size >> 32];
}

/* The backend with the fewest connections, the first of several; loads are held. */
static uint8_t by_load(const struct lb *lb, const struct lb_loads *loads)
{
    uint8_t best = LB_MAX_BACKENDS;
    for (uint8_t b = 0; b < LB_MAX_BACKENDS; b++) {
        if ((lb->up >> b & 1) &&
            (best == LB_MAX_BACKENDS || loads->connections[b] < loads->connections[best]))
            best = b;
    }
    return best;
}

static uint8_t state_of(const struct packet_view *view)
{
    if (view->kind == PACKET_UDP)
        return LB_UDP;
    return view->tcp_flags & (TCP_FIN | TCP_RST) ? LB_CLOSING : LB_TCP;
}

/* Begins a connection at a place, which may be that of one that is over; its set is held. */
static void begin(struct ftmb_ctx *ctx, const struct lb *lb, struct lb_worker *worker,
                  const struct sets_key *key, struct sets_flow *at)
{
    uint8_t backend = by_table(ctx, lb, sets_hash(key));
    worker->counters[LB_OPENED]++;
    worker->counters[LB_ENDED] += at->key.rest != 0;
    if (lb->least) {
        struct lb_loads *loads = lb_loads(ctx->arena, lb);
        if (!PLANTED(P_LB_LOADS_OUTSIDE))
            ftmb_write(ctx, lb->connections.count);
        ftmb_mark(ctx, loads, sizeof(*loads));
        if (at->key.rest)
            loads->connections[at->user]--;
        backend = by_load(lb, loads);
        uint64_t before = loads->connections[backend];
        if (PLANTED(P_LB_LOADS_OUTSIDE))
            ftmb_write(ctx, lb->connections.count);
        loads->connections[backend] = before + 1;
    }
    ftmb_mark(ctx, at, sizeof(*at));
    *at = (struct sets_flow){.key = *key, .user = backend};
}

static uint8_t track(struct ftmb_ctx *ctx, const struct lb *lb, struct lb_worker *worker,
                     const struct packet_view *view)
{
    struct sets_key key = sets_key_of(view->source, view->destination, view->protocol,
                                      view->source_port, view->destination_port);
    uint64_t hash = sets_hash(&key);
    uint32_t set = sets_pick(&lb->connections, hash);
    bool syn = (view->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
    ftmb_write(ctx, set);
    struct sets_flow *at = sets_find(ctx, &lb->timeouts, sets_at(ctx->arena, &lb->connections, set),
                                     sizeof(*at), &key);
    uint8_t backend = by_table(ctx, lb, hash);
    if (likely(at)) {
        bool known = sets_knows(ctx, &lb->timeouts, at, &key);
        if (!known || (syn && at->state == LB_CLOSING))
            begin(ctx, lb, worker, &key, at);
        else
            ftmb_mark(ctx, at, sizeof(*at));
        bool over = known && at->state == LB_CLOSING;
        at->state = over ? LB_CLOSING : state_of(view);
        at->last_seen = u64_max(at->last_seen, ftmb_now(ctx));
        backend = at->user;
    }
    ftmb_section_end(ctx);
    worker->counters[at ? LB_BALANCED : LB_UNTRACKED]++;
    return backend;
}

static void send_to(struct ftmb_ctx *ctx, const struct lb *lb, struct lb_worker *worker,
                    struct nf_packet *packet, uint8_t backend)
{
    packet_store_mac(packet->data, lb->mac + backend);
    worker->to[backend]++;
    ftmb_emit(ctx, packet, NF_OUTSIDE);
}

static void balance(struct ftmb_ctx *ctx, const struct lb *lb, struct lb_worker *worker,
                    const struct packet_view *view, struct nf_packet *packet)
{
    uint8_t backend;
    if (unlikely((view->destination & lb->mask) != lb->network)) {
        worker->counters[LB_DROP_NOT_VIRTUAL]++;
        return;
    }
    if (likely(view->kind <= PACKET_UDP)) {
        backend = track(ctx, lb, worker, view);
    } else {
        backend = by_table(ctx, lb, sets_mix((uint64_t)view->source << 32 | view->destination));
        worker->counters[LB_UNTRACKED]++;
    }
    send_to(ctx, lb, worker, packet, backend);
}

/* Removes what has expired in one set. */
static void sweep_set(struct ftmb_ctx *ctx, const struct lb *lb, struct lb_worker *worker,
                      uint32_t number)
{
    struct sets_flow *set = sets_at(ctx->arena, &lb->connections, number);
    struct lb_loads *loads = lb_loads(ctx->arena, lb);
    bool taken = false;
    ftmb_write(ctx, number);
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        if (!set[way].key.rest || !sets_expired(ctx, &lb->timeouts, &set[way]))
            continue;
        if (lb->least && !taken) {
            ftmb_write(ctx, lb->connections.count);
            ftmb_mark(ctx, loads, sizeof(*loads));
            taken = true;
        }
        if (lb->least)
            loads->connections[set[way].user]--;
        worker->counters[LB_ENDED]++;
        ftmb_mark(ctx, &set[way], sizeof(set[way]));
        set[way] = (struct sets_flow){0};
    }
    ftmb_section_end(ctx);
}

static struct lb_worker *swept(struct ftmb_ctx *ctx, const struct lb *lb)
{
    struct lb_worker *worker = lb_worker(ctx->arena, lb, ctx->worker);
    uint32_t number;
    ftmb_mark(ctx, worker, sizeof(*worker));
    for (unsigned n = 0;
         n < SETS_SWEEP && sets_due(&lb->connections, &worker->sweep, ctx, lb->sweep_ns, &number);
         n++)
        sweep_set(ctx, lb, worker, number);
    return worker;
}

static void tick(struct ftmb_ctx *ctx)
{
    swept(ctx, arena_root(ctx->arena));
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct lb *lb = arena_root(ctx->arena);
    struct lb_worker *worker = swept(ctx, lb);
    struct packet_view view;
    enum packet_kind kind = packet_parse(&view, packet->data, packet->length);
    bool arp = kind == PACKET_NOT_IPV4 && packet_host16(packet->data + 12) == ETHERTYPE_ARP;
    if (packet->port == NF_OUTSIDE || unlikely(arp)) {
        worker->counters[LB_PASSED]++;
        ftmb_emit(ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
    } else if (likely(kind <= PACKET_ICMP_OTHER)) {
        balance(ctx, lb, worker, &view, packet);
    } else {
        worker->counters[kind == PACKET_FRAGMENT   ? LB_DROP_FRAGMENT
                         : kind == PACKET_PROTOCOL ? LB_DROP_PROTOCOL
                         : kind == PACKET_NOT_IPV4 ? LB_DROP_NOT_IPV4
                                                   : LB_DROP_MALFORMED]++;
    }
}

/* Hint for a burst (nf.h), for the usual packet: TCP or UDP without IPv4 options. */
static void prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage)
{
    const struct lb *lb = arena_root(ctx->arena);
    const uint8_t *ip = packet->data + ETHERNET_BYTES;
    if (stage != 0 || packet->port == NF_OUTSIDE ||
        packet->length < ETHERNET_BYTES + IPV4_MIN_BYTES + UDP_BYTES)
        return;
    struct sets_key key =
        sets_key_of(packet_load32(ip + 12), packet_load32(ip + 16), ip[9],
                    packet_load16(ip + IPV4_MIN_BYTES), packet_load16(ip + IPV4_MIN_BYTES + 2));
    sets_prefetch(ctx, &lb->connections, sets_pick(&lb->connections, sets_hash(&key)));
}

const struct nf nf_lb = {
    .name = "lb",
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = prefetch,
    .process = process,
    .tick = tick,
    .report = lb_report,
};

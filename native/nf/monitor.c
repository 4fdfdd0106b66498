/* monitor: counts packets and bytes, per flow and in shared counters, and forwards every frame to
 * the other side unchanged, whatever it is.
 *
 * Per-flow counters are private to a worker, because a flow's packets always meet the same one:
 * they cost no logged access. The shared counters are there to be shared: a packet adds to each of
 * `counters_per_packet` variables, one write access each, and `workers_per_counter` workers use
 * the same ones. That is the knob of the FTMB paper's experiment with growing sharing. Of these
 * accesses `reads` percent only look at the counter: read accesses, spread evenly. */
#include "nf/nf.h"
#include "nf/packet.h"

#define MAX_COUNTERS 16u

enum { PARAM_COUNTERS, PARAM_SHARE, PARAM_FLOWS, PARAM_READS };

static const struct nf_param params[] = {
    {"counters_per_packet", NF_UINT, 1, 0, MAX_COUNTERS, "shared counters that a packet adds to"},
    {"workers_per_counter", NF_UINT, 0, 0, FTMB_MAX_WORKERS,
     "workers that share a counter; 0: all of them"},
    {"flows", NF_UINT, 16384, 1, 1u << 24, "flows that a worker can count one by one"},
    {"reads", NF_UINT, 0, 0, 100,
     "percent of the accesses that read a counter and leave it as it is"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

/* A flow's key is its two words; `kind_ports` is never 0, so 0 means a free entry. Half a line:
 * a probe sequence that starts well reads one line. */
struct flow {
    uint64_t addresses;
    uint64_t kind_ports;
    uint64_t packets;
    uint64_t bytes;
};
_Static_assert(sizeof(struct flow) == 32, "two flows to a cache line");

/* Each on a line of its own: two counters on one line would be shared by accident. */
struct counter {
    CACHE_ALIGNED uint64_t packets;
    uint64_t bytes;
};

struct worker_state {
    CACHE_ALIGNED uint64_t packets;
    uint64_t bytes;
    uint64_t untracked; /* packets whose flow found the table full */
    uint64_t flows;     /* entries in use */
    uint64_t reads;     /* accesses that only read */
    uint64_t due;       /* hundredths of the next one */
    uint64_t seen;      /* sum of what they read */
};

struct monitor {
    uint32_t counters; /* per packet */
    uint32_t flow_limit;
    uint32_t flow_bits;
    uint32_t variables;
    uint32_t reads;                            /* percent */
    uint32_t first_variable[FTMB_MAX_WORKERS]; /* of the counters of this worker */
    uint64_t counters_at;                      /* offsets from the arena's base */
    uint64_t worker_at[FTMB_MAX_WORKERS];
    uint64_t flows_at[FTMB_MAX_WORKERS];
};

static struct worker_state *worker_of(struct arena *arena, const struct monitor *monitor,
                                      uint32_t worker)
{
    return (struct worker_state *)((uint8_t *)arena + monitor->worker_at[worker]);
}

static struct flow *flows_of(struct arena *arena, const struct monitor *monitor, uint32_t worker)
{
    return (struct flow *)((uint8_t *)arena + monitor->flows_at[worker]);
}

static struct counter *counters_of(struct arena *arena, const struct monitor *monitor)
{
    return (struct counter *)((uint8_t *)arena + monitor->counters_at);
}

static uint32_t workers_sharing(uint64_t param, uint32_t workers)
{
    return param == 0 || param > workers ? workers : (uint32_t)param;
}

static uint32_t variables_for(const uint64_t *values, uint32_t workers)
{
    uint32_t share = workers_sharing(values[PARAM_SHARE], workers);
    return (workers + share - 1) / share * (uint32_t)values[PARAM_COUNTERS];
}

/* At most three quarters full, so that a probe sequence is short and always ends. */
static uint32_t flow_bits_for(uint64_t flows)
{
    uint32_t bits = 2;
    while ((1ull << bits) * 3 < flows * 4)
        bits++;
    return bits;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)why;
    uint32_t variables = variables_for(values, workers);
    *out = (struct nf_needs){
        .shared_bytes = align_up(sizeof(struct monitor), CACHE_LINE) + 2 * CACHE_LINE +
                        (uint64_t)variables * sizeof(struct counter),
        .worker_bytes = sizeof(struct worker_state) + CACHE_LINE +
                        (sizeof(struct flow) << flow_bits_for(values[PARAM_FLOWS])),
        .variables = variables,
        .max_pals = (uint32_t)values[PARAM_COUNTERS],
        .max_outputs = 1,
    };
    return true;
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct monitor *monitor = arena_alloc(arena, 0, sizeof(*monitor), CACHE_LINE);
    if (!monitor)
        return NULL;
    monitor->counters = (uint32_t)values[PARAM_COUNTERS];
    monitor->flow_limit = (uint32_t)values[PARAM_FLOWS];
    monitor->flow_bits = flow_bits_for(values[PARAM_FLOWS]);
    monitor->reads = (uint32_t)values[PARAM_READS];
    monitor->variables = variables_for(values, arena->workers);
    uint64_t bytes = (uint64_t)monitor->variables * sizeof(struct counter);
    uint8_t *counters = arena_alloc(arena, 0, bytes, CACHE_LINE);
    if (!counters)
        return NULL;
    monitor->counters_at = (uint64_t)(counters - (uint8_t *)arena);
    uint32_t share = workers_sharing(values[PARAM_SHARE], arena->workers);
    for (uint32_t w = 0; w < arena->workers; w++) {
        monitor->first_variable[w] = w / share * monitor->counters;
        uint8_t *state = arena_alloc(arena, 1 + w, sizeof(struct worker_state), CACHE_LINE);
        uint8_t *flows =
            arena_alloc(arena, 1 + w, sizeof(struct flow) << monitor->flow_bits, CACHE_LINE);
        if (!state || !flows)
            return NULL;
        monitor->worker_at[w] = (uint64_t)(state - (uint8_t *)arena);
        monitor->flows_at[w] = (uint64_t)(flows - (uint8_t *)arena);
    }
    return monitor;
}

/* Key of the flow that a frame belongs to. Fragments and other protocols are told apart by their
 * addresses, traffic that is not IPv4 by its type only. */
static struct flow flow_key(const struct nf_packet *packet)
{
    struct packet_view view;
    enum packet_kind kind = packet_parse(&view, packet->data, packet->length);
    struct flow key = {.kind_ports = (uint64_t)(kind + 1) << 40};
    if (kind == PACKET_MALFORMED)
        return key;
    if (kind == PACKET_NOT_IPV4) {
        key.addresses = packet_load16(packet->data + 12);
        return key;
    }
    key.addresses = (uint64_t)view.source << 32 | view.destination;
    key.kind_ports |=
        (uint64_t)view.protocol << 32 | (uint32_t)view.source_port << 16 | view.destination_port;
    return key;
}

static uint64_t hash_of(const struct flow *key)
{
    uint64_t h = (key->addresses ^ key->kind_ports * 0x9e3779b97f4a7c15ull) * 0xd6e8feb86659fd93ull;
    h ^= h >> 32;
    return h * 0xd6e8feb86659fd93ull;
}

static void count_flow(struct ftmb_ctx *ctx, const struct monitor *monitor,
                       struct worker_state *state, const struct flow *key, uint32_t bytes)
{
    struct flow *flows = flows_of(ctx->arena, monitor, ctx->worker);
    uint64_t mask = (1ull << monitor->flow_bits) - 1;
    uint64_t at = hash_of(key) >> (64 - monitor->flow_bits);
    while (flows[at].kind_ports &&
           (flows[at].kind_ports != key->kind_ports || flows[at].addresses != key->addresses))
        at = (at + 1) & mask;
    struct flow *flow = &flows[at];
    if (!flow->kind_ports && state->flows == monitor->flow_limit) {
        state->untracked++;
        return;
    }
    ftmb_mark(ctx, flow, sizeof(*flow));
    if (!flow->kind_ports) {
        state->flows++;
        flow->addresses = key->addresses;
        flow->kind_ports = key->kind_ports;
    }
    flow->packets++;
    flow->bytes += bytes;
}

/* Hint for a burst (nf.h): the line where the flow's probe sequence starts. */
static void prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage)
{
    if (stage != 0)
        return;
    const struct monitor *monitor = arena_root(ctx->arena);
    struct flow key = flow_key(packet);
    uint64_t at = hash_of(&key) >> (64 - monitor->flow_bits);
    ftmb_prefetch(ctx, &flows_of(ctx->arena, monitor, ctx->worker)[at]);
}

static void add(struct ftmb_ctx *ctx, struct counter *counter, uint32_t id, uint32_t length)
{
    uint64_t before = PLANTED(P_MONITOR_LOST_UPDATE) ? counter->packets : 0;
    ftmb_write(ctx, id);
    ftmb_mark(ctx, counter, sizeof(*counter));
    /* Somebody may be reading them, and begin again. */
    __atomic_store_n(&counter->packets,
                     (PLANTED(P_MONITOR_LOST_UPDATE) ? before : counter->packets) + 1,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&counter->bytes, counter->bytes + length, __ATOMIC_RELAXED);
    ftmb_section_end(ctx);
}

static uint64_t look(struct ftmb_ctx *ctx, const struct counter *counter, uint32_t id)
{
    uint64_t packets, bytes, token;
    do {
        token = ftmb_read_begin(ctx, id);
        packets = __atomic_load_n(&counter->packets, __ATOMIC_RELAXED);
        bytes = __atomic_load_n(&counter->bytes, __ATOMIC_RELAXED);
    } while (!ftmb_read_end(ctx, id, token));
    return packets + bytes;
}

/* The accesses of a packet where some of them are reads. */
static void mixed(struct ftmb_ctx *ctx, const struct monitor *monitor, struct worker_state *state,
                  uint32_t length)
{
    struct counter *counters = counters_of(ctx->arena, monitor);
    uint32_t first = monitor->first_variable[ctx->worker];
    for (uint32_t id = first; id < first + monitor->counters; id++) {
        state->due += monitor->reads;
        if (state->due < 100) {
            add(ctx, &counters[id], id, length);
            continue;
        }
        state->due -= 100;
        state->reads++;
        state->seen += look(ctx, &counters[id], id);
    }
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct monitor *monitor = arena_root(ctx->arena);
    struct worker_state *state = worker_of(ctx->arena, monitor, ctx->worker);
    struct flow key = flow_key(packet);
    ftmb_mark(ctx, state, sizeof(*state));
    state->packets++;
    state->bytes += packet->length;
    count_flow(ctx, monitor, state, &key, packet->length);

    struct counter *counters = counters_of(ctx->arena, monitor);
    uint32_t first = monitor->first_variable[ctx->worker];
    if (unlikely(monitor->reads)) {
        mixed(ctx, monitor, state, packet->length);
    } else {
        for (uint32_t id = first; id < first + monitor->counters; id++)
            add(ctx, &counters[id], id, packet->length);
    }
    ftmb_emit(ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
}

/* With reads it is not known which counters were written: only how often, by a group's workers. */
static bool writes_match(struct arena *arena, const struct monitor *monitor)
{
    const struct counter *counters = counters_of(arena, monitor);
    uint64_t written[FTMB_MAX_WORKERS] = {0};
    for (uint32_t w = 0; w < arena->workers; w++) {
        const struct worker_state *state = worker_of(arena, monitor, w);
        uint32_t group = monitor->first_variable[w] / monitor->counters;
        written[group] += state->packets * monitor->counters - state->reads;
    }
    for (uint32_t id = 0; id < monitor->variables; id++)
        written[id / monitor->counters] -= counters[id].packets;
    for (uint32_t group = 0; group < arena->workers; group++) {
        if (written[group])
            return false;
    }
    return true;
}

/* Every shared counter must equal the sum over the workers that share it. */
static bool counters_match(struct arena *arena, const struct monitor *monitor)
{
    const struct counter *counters = counters_of(arena, monitor);
    if (monitor->reads && monitor->counters)
        return writes_match(arena, monitor);
    for (uint32_t id = 0; id < monitor->variables; id++) {
        uint64_t packets = 0, bytes = 0;
        for (uint32_t w = 0; w < arena->workers; w++) {
            uint32_t first = monitor->first_variable[w];
            if (id < first || id >= first + monitor->counters)
                continue;
            packets += worker_of(arena, monitor, w)->packets;
            bytes += worker_of(arena, monitor, w)->bytes;
        }
        if (counters[id].packets != packets || counters[id].bytes != bytes)
            return false;
    }
    return true;
}

/* The flows of a worker and what it could not track are all its packets. */
static bool flows_match(struct arena *arena, const struct monitor *monitor, uint32_t worker)
{
    const struct worker_state *state = worker_of(arena, monitor, worker);
    const struct flow *flows = flows_of(arena, monitor, worker);
    uint64_t packets = state->untracked, used = 0;
    for (uint64_t i = 0; i < 1ull << monitor->flow_bits; i++) {
        used += flows[i].kind_ports != 0;
        packets += flows[i].packets;
    }
    return packets == state->packets && used == state->flows;
}

static void report(struct arena *arena, const struct nf_report *out)
{
    const struct monitor *monitor = arena_root(arena);
    struct worker_state sum = {0};
    bool flows_ok = true;
    for (uint32_t w = 0; w < arena->workers; w++) {
        const struct worker_state *state = worker_of(arena, monitor, w);
        sum.packets += state->packets;
        sum.bytes += state->bytes;
        sum.untracked += state->untracked;
        sum.flows += state->flows;
        sum.reads += state->reads;
        flows_ok = flows_ok && flows_match(arena, monitor, w);
    }
    out->counter(out->self, "packets", sum.packets);
    out->counter(out->self, "bytes", sum.bytes);
    out->counter(out->self, "flows", sum.flows);
    out->counter(out->self, "untracked", sum.untracked);
    out->counter(out->self, "reads", sum.reads);
    bool sums_ok = counters_match(arena, monitor);
    out->check(out->self, "sums", sums_ok,
               sums_ok ? "every shared counter equals its workers' packets and bytes"
                       : "a shared counter differs from its workers' packets or bytes");
    out->check(out->self, "flows", flows_ok,
               flows_ok ? "flows and untracked packets add up"
                        : "flows and untracked packets do not add up");
}

const struct nf nf_monitor = {
    .name = "monitor",
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = prefetch,
    .process = process,
    .report = report,
};

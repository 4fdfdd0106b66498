/* ids: tells of intrusions, or stops them: patterns in what TCP and UDP flows carry, sources that
 * scan ports or hosts, destinations that are flooded with SYNs.
 *
 * Patterns (match/match.h; `rules` chooses) are looked for in each direction of a flow, also where
 * they are split over packets: UDP in the order of arrival, TCP where a segment follows the one
 * before by its sequence number. A segment that does not follow is inspected by itself, and what
 * follows it continues it; one that only repeats is inspected by itself. Nothing is put in order.
 *
 * Scans: a packet that begins a flow (TCP without ACK and RST; UDP; also each ICMP echo request)
 * is an attempt of its source. Its different ports and hosts within `window_ms` are estimated by
 * two bitmaps of 128 bits (linear counting). Whoever reaches `scan_ports` or `scan_hosts` scans,
 * until the window is over.
 *
 * Floods: connections that were begun by a SYN and not yet confirmed by their opener's ACK are
 * counted for each destination's address in a count-min sketch, `rows` by `columns`. An RST or FIN
 * ends one, or its time-out. A SYN to a destination that has `half_open` of them is one of a flood.
 *
 * Without `drop` this is counted, and all packets go on to the other side as they are. With it
 * these are dropped: packets in which a pattern ends and all that follow in their flow; what begins
 * of a source that scans; SYNs of a flood, which are then not counted; malformed packets.
 *
 * IPv4 options and wrong checksums do not matter, nor does the length. Not inspected, and
 * forwarded: fragments, other protocols, ICMP but echo requests, other EtherTypes (ARP, IPv6).
 * Where a set of flows is full of ones in use, a packet is inspected without an entry (untracked),
 * and a SYN is not counted; in a full set of sources the one that began first is forgotten.
 *
 * Shared variables, in ascending order of ids, which is the order in which a section takes them:
 *   flows    one for each set of flows; protects the entries in it
 *   sources  one for each set of sources; protects the entries in it
 *   rows     one for each row of the sketch; protects its counters
 * Accesses of a TCP or UDP packet, all writes in one section: its set of flows; if it is an attempt
 * its source's set; if it begins or ends a half-open state, all rows. An echo request: its source's
 * set. The sweep, an eighth of the shortest time-out a round: a write per set, and all rows if one
 * half-open in it has expired. Limits that are 0 take their accesses away.
 *
 * Invariants, which the report checks: a flow has one entry, in the set where it is looked for,
 * likewise a source; flows begun and not ended are there; each row of the sketch counts every
 * half-open one once; a source scans if its bitmaps, which hold what was counted, say so. */
#include "nf/ids.h"

#define DAY_MS (24ull * 3600 * 1000)
#define NS_PER_MS 1000000ull

static const struct nf_param params[] = {
    {"drop", NF_FLAG, 0, 0, 1, "drops what it finds; else it only counts"},
    {"rules", NF_UINT, (1u << MATCH_RULES) - 1, 0, (1u << MATCH_RULES) - 1, "patterns, a bit each"},
    {"scan_ports", NF_UINT, 100, 0, IDS_MAX_TARGETS, "ports of a source that make a scan; 0: none"},
    {"scan_hosts", NF_UINT, 100, 0, IDS_MAX_TARGETS, "hosts of a source that make a scan; 0: none"},
    {"window_ms", NF_UINT, 10000, 1, DAY_MS, "in which they are counted, milliseconds"},
    {"half_open", NF_UINT, 1000, 0, 1u << 30, "half-open ones of a destination; 0: any"},
    {"rows", NF_UINT, 2, 1, IDS_MAX_ROWS, "of the sketch, a shared variable each"},
    {"columns", NF_UINT, 1024, 1, 1u << 20, "of the sketch"},
    {"sources", NF_UINT, 16384, 1, 1u << 24, "sources at a time that have an entry"},
    {"capacity", NF_UINT, 16384, 1, 1u << 22, "flows at a time that have an entry"},
    {"udp_ms", NF_UINT, 60000, 1, DAY_MS, "UDP timeout, milliseconds"},
    {"transitory_ms", NF_UINT, 30000, 1, DAY_MS, "timeout of half-open and closed TCP"},
    {"tcp_ms", NF_UINT, 7440000, 1, DAY_MS, "TCP timeout, milliseconds"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

static uint32_t rows_of(const uint64_t *values)
{
    return values[IDS_PARAM_HALF_OPEN] ? (uint32_t)values[IDS_PARAM_ROWS] : 0;
}

static uint32_t row_bytes_of(const uint64_t *values)
{
    return (uint32_t)align_up(values[IDS_PARAM_COLUMNS] * sizeof(uint32_t), ARENA_LINE);
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    uint32_t rows = rows_of(values);
    (void)workers;
    (void)why;
    *out = (struct nf_needs){
        .shared_bytes = sizeof(struct ids) + (uint64_t)rows * row_bytes_of(values) +
                        2 * ARENA_LINE +
                        sets_bytes(values[IDS_PARAM_CAPACITY], sizeof(struct ids_flow)) +
                        sets_bytes(values[IDS_PARAM_SOURCES], sizeof(struct ids_source)),
        .worker_bytes = sizeof(struct ids_worker) + CACHE_LINE,
        .variables =
            sets_for(values[IDS_PARAM_CAPACITY]) + sets_for(values[IDS_PARAM_SOURCES]) + rows,
        .max_pals = (1 + SETS_SWEEP) * (1 + rows) + 1,
        .max_outputs = 1,
    };
    return true;
}

static uint64_t offset_of(const struct arena *arena, const void *at)
{
    return (uint64_t)((const uint8_t *)at - (const uint8_t *)arena);
}

static void init_times(struct ids *ids, const uint64_t *values, uint32_t workers)
{
    const uint64_t ms[IDS_STATES] = {values[IDS_PARAM_UDP_MS], values[IDS_PARAM_TRANSITORY_MS],
                                     values[IDS_PARAM_TCP_MS], values[IDS_PARAM_TRANSITORY_MS]};
    uint64_t shortest = sets_times(&ids->timeouts, ms, IDS_STATES, IDS_STATES);
    ids->sweep_ns = sets_pace(&ids->flows, workers, shortest / 8);
    ids->window_ns = values[IDS_PARAM_WINDOW_MS] * NS_PER_MS;
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct ids *ids = arena_alloc(arena, 0, sizeof(*ids), CACHE_LINE);
    if (!ids || !match_open(arena->workers) ||
        !sets_init(&ids->flows, arena, values[IDS_PARAM_CAPACITY], sizeof(struct ids_flow)) ||
        !sets_init(&ids->sources, arena, values[IDS_PARAM_SOURCES], sizeof(struct ids_source)))
        return NULL;
    ids->rows = rows_of(values);
    ids->row_bytes = row_bytes_of(values);
    void *rows = arena_alloc(arena, 0, (uint64_t)ids->rows * ids->row_bytes, ARENA_LINE);
    if (!rows)
        return NULL;
    ids->rows_at = offset_of(arena, rows);
    ids->columns = (uint32_t)values[IDS_PARAM_COLUMNS];
    ids->half_open = (uint32_t)values[IDS_PARAM_HALF_OPEN];
    ids->rules = (uint32_t)values[IDS_PARAM_RULES];
    ids->ports_limit = ids_bits_of(values[IDS_PARAM_SCAN_PORTS]);
    ids->hosts_limit = ids_bits_of(values[IDS_PARAM_SCAN_HOSTS]);
    ids->drop = values[IDS_PARAM_DROP] != 0;
    init_times(ids, values, arena->workers);
    for (uint32_t w = 0; w < arena->workers; w++) {
        struct ids_worker *worker = arena_alloc(arena, 1 + w, sizeof(*worker), CACHE_LINE);
        if (!worker)
            return NULL;
        worker->sweep.next = w;
        ids->worker_at[w] = offset_of(arena, worker);
    }
    return ids;
}

/* ---- half-open connections ----------------------------------------------------------------- */

/* The section takes the rows, once. */
static void take_rows(struct ftmb_ctx *ctx, const struct ids *ids, bool *taken)
{
    for (uint32_t r = 0; r < ids->rows && !*taken; r++)
        ftmb_write(ctx, ids->flows.count + ids->sources.count + r);
    *taken = true;
}

/* The sketch's estimate, never too small; the rows are held. */
static uint32_t half_open_at(struct ftmb_ctx *ctx, const struct ids *ids, uint32_t address)
{
    uint32_t least = UINT32_MAX;
    for (uint32_t r = 0; r < ids->rows; r++)
        least = (uint32_t)u64_min(least, *ids_cell(ctx->arena, ids, r, address));
    return least;
}

static void change(struct ftmb_ctx *ctx, const struct ids *ids, uint32_t address, uint32_t by,
                   bool *taken)
{
    uint32_t early[IDS_MAX_ROWS] = {0};
    for (uint32_t r = 0; PLANTED(P_IDS_LOST_UPDATE) && r < ids->rows; r++)
        early[r] = *ids_cell(ctx->arena, ids, r, address);
    take_rows(ctx, ids, taken);
    for (uint32_t r = 0; r < ids->rows; r++) {
        uint32_t *cell = ids_cell(ctx->arena, ids, r, address);
        ftmb_mark(ctx, cell, sizeof(*cell));
        *cell = (PLANTED(P_IDS_LOST_UPDATE) ? early[r] : *cell) + by;
    }
}

/* A flow that is held is half-open no more. */
static void half_open_ends(struct ftmb_ctx *ctx, const struct ids *ids, struct ids_worker *worker,
                           const struct ids_flow *flow, bool *taken)
{
    worker->counters[IDS_HALF_ENDED]++;
    change(ctx, ids, ids_target(flow), UINT32_MAX, taken);
}

/* ---- flows --------------------------------------------------------------------------------- */

static uint8_t first_state(const struct ids_segment *segment)
{
    if (!segment->tcp)
        return IDS_UDP;
    if (segment->flags & (TCP_FIN | TCP_RST))
        return IDS_CLOSED;
    return segment->syn ? IDS_HALF_OPEN : IDS_TCP;
}

static uint8_t next_state(const struct ids_flow *flow, const struct ids_segment *segment)
{
    if (!segment->tcp || flow->flow.state == IDS_CLOSED)
        return flow->flow.state;
    if (segment->flags & (TCP_FIN | TCP_RST))
        return IDS_CLOSED;
    bool confirms = (segment->flags & (TCP_SYN | TCP_ACK)) == TCP_ACK;
    return confirms && segment->side == flow->opener ? IDS_TCP : flow->flow.state;
}

/* A flow begins at a place, which may be that of one that is over. False: a flood's, and it does
 * not. */
static bool begin(struct ftmb_ctx *ctx, const struct ids *ids, struct ids_worker *worker,
                  struct ids_flow *at, const struct ids_segment *segment)
{
    bool taken = false;
    uint8_t state = first_state(segment);
    if (state == IDS_HALF_OPEN && ids->rows) {
        take_rows(ctx, ids, &taken);
        bool flood = half_open_at(ctx, ids, segment->destination) >= ids->half_open;
        worker->counters[IDS_FLOOD] += flood;
        if (flood && ids->drop)
            return false;
    }
    worker->counters[IDS_OPENED]++;
    worker->counters[IDS_ENDED] += at->flow.key.rest != 0;
    if (ids_half_open(at))
        half_open_ends(ctx, ids, worker, at, &taken);
    if (state == IDS_HALF_OPEN) {
        worker->counters[IDS_HALF_OPENED]++;
        change(ctx, ids, segment->destination, 1, &taken);
    }
    ftmb_mark(ctx, at, sizeof(*at));
    *at = (struct ids_flow){.flow = {.key = segment->key, .state = state}, .opener = segment->side};
    return true;
}

/* An entry that is held meets a packet of its flow. */
static void go_on(struct ftmb_ctx *ctx, const struct ids *ids, struct ids_worker *worker,
                  struct ids_flow *at, const struct ids_segment *segment)
{
    bool taken = false;
    uint8_t state = next_state(at, segment);
    if (at->flow.state == IDS_HALF_OPEN && state != IDS_HALF_OPEN)
        half_open_ends(ctx, ids, worker, at, &taken);
    ftmb_mark(ctx, at, sizeof(*at));
    at->flow.state = state;
}

static void count_rules(struct ids_worker *worker, uint32_t found)
{
    worker->counters[IDS_MATCHES] += found != 0;
    for (; unlikely(found); found &= found - 1)
        worker->rule[__builtin_ctz(found)]++;
}

static enum ids_counter follow(struct ftmb_ctx *ctx, const struct ids *ids,
                               struct ids_worker *worker, const struct ids_segment *segment)
{
    uint32_t set = sets_pick(&ids->flows, sets_hash(&segment->key));
    enum ids_counter verdict = IDS_FORWARDED;
    ftmb_write(ctx, set);
    struct ids_flow *at = sets_find(ctx, &ids->timeouts, sets_at(ctx->arena, &ids->flows, set),
                                    sizeof(*at), &segment->key);
    bool begins = !at || !sets_knows(ctx, &ids->timeouts, &at->flow, &segment->key) ||
                  (segment->syn && at->flow.state == IDS_CLOSED);
    uint32_t found = ids_inspect(ids, ctx->worker, begins ? NULL : at, segment);
    bool matched = found || (!begins && at->matched);
    worker->counters[IDS_UNTRACKED] += !at;
    count_rules(worker, found);
    if (begins && segment->attempt &&
        ids_note(ctx, ids, worker, segment->source, segment->destination, &segment->port) &&
        ids->drop)
        verdict = IDS_DROP_SCAN;
    else if (likely(!begins))
        go_on(ctx, ids, worker, at, segment);
    else if (at && !begin(ctx, ids, worker, at, segment))
        verdict = IDS_DROP_FLOOD;
    if (likely(at && verdict == IDS_FORWARDED)) {
        worker->counters[IDS_MATCHED_FLOWS] += matched && !at->matched;
        at->matched = matched;
        at->flow.last_seen = u64_max(at->flow.last_seen, ftmb_now(ctx));
        ids_remember(at, segment);
    }
    ftmb_section_end(ctx);
    return verdict == IDS_FORWARDED && matched && ids->drop ? IDS_DROP_MATCH : verdict;
}

/* Removes what has expired in one set. */
static void sweep_set(struct ftmb_ctx *ctx, const struct ids *ids, struct ids_worker *worker,
                      uint32_t number)
{
    struct ids_flow *set = sets_at(ctx->arena, &ids->flows, number);
    bool taken = false;
    ftmb_write(ctx, number);
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        if (!set[way].flow.key.rest || !sets_expired(ctx, &ids->timeouts, &set[way].flow))
            continue;
        if (ids_half_open(&set[way]))
            half_open_ends(ctx, ids, worker, &set[way], &taken);
        worker->counters[IDS_ENDED]++;
        ftmb_mark(ctx, &set[way], sizeof(set[way]));
        set[way] = (struct ids_flow){0};
    }
    ftmb_section_end(ctx);
}

static struct ids_worker *swept(struct ftmb_ctx *ctx, const struct ids *ids)
{
    struct ids_worker *worker = ids_worker(ctx->arena, ids, ctx->worker);
    uint32_t number;
    ftmb_mark(ctx, worker, sizeof(*worker));
    for (unsigned n = 0;
         n < SETS_SWEEP && sets_due(&ids->flows, &worker->sweep, ctx, ids->sweep_ns, &number); n++)
        sweep_set(ctx, ids, worker, number);
    return worker;
}

static void tick(struct ftmb_ctx *ctx)
{
    swept(ctx, arena_root(ctx->arena));
}

/* ---- packets ------------------------------------------------------------------------------- */

static enum ids_counter probe(struct ftmb_ctx *ctx, const struct ids *ids,
                              struct ids_worker *worker, const struct packet_view *view)
{
    if (!ids->ports_limit && !ids->hosts_limit)
        return IDS_FORWARDED;
    bool scans = ids_note(ctx, ids, worker, view->source, view->destination, NULL);
    ftmb_section_end(ctx);
    return scans && ids->drop ? IDS_DROP_SCAN : IDS_FORWARDED;
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct ids *ids = arena_root(ctx->arena);
    struct ids_worker *worker = swept(ctx, ids);
    enum ids_counter verdict = IDS_FORWARDED;
    struct packet_view view;
    enum packet_kind kind = packet_parse(&view, packet->data, packet->length);
    if (likely(kind <= PACKET_UDP)) {
        struct ids_segment segment = ids_segment_of(&view, packet->port);
        verdict = follow(ctx, ids, worker, &segment);
    } else if (kind == PACKET_ECHO && view.icmp_type == ICMP_ECHO_REQUEST) {
        verdict = probe(ctx, ids, worker, &view);
    } else if (kind == PACKET_MALFORMED) {
        worker->counters[IDS_MALFORMED]++;
        verdict = ids->drop ? IDS_DROP_MALFORMED : IDS_FORWARDED;
    } else {
        worker->counters[IDS_NOT_INSPECTED]++;
    }
    worker->counters[verdict]++;
    if (likely(verdict == IDS_FORWARDED))
        ftmb_emit(ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
}

/* Hint for a burst (nf.h), for the usual packet: TCP or UDP without IPv4 options. */
static void prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage)
{
    const struct ids *ids = arena_root(ctx->arena);
    struct packet_view view;
    if (stage != 0 || packet_parse(&view, packet->data, packet->length) > PACKET_UDP)
        return;
    struct ids_segment segment = ids_segment_of(&view, packet->port);
    sets_prefetch(ctx, &ids->flows, sets_pick(&ids->flows, sets_hash(&segment.key)));
}

const struct nf nf_ids = {
    .name = "ids",
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = prefetch,
    .process = process,
    .tick = tick,
    .report = ids_report,
};

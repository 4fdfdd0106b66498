/* Internals of the intrusion detection: its flows, its sources, and the sketch of half-open
 * connections. */
#ifndef FTMB_NF_IDS_H
#define FTMB_NF_IDS_H

#include "match/match.h"
#include "nf/nf.h"
#include "nf/packet.h"
#include "nf/sets.h"

#define IDS_MAX_ROWS 4u
#define IDS_BITS 128u        /* places of a source's bitmaps */
#define IDS_MAX_TARGETS 400u /* more would fill a bitmap */

enum ids_state { IDS_UDP, IDS_HALF_OPEN, IDS_TCP, IDS_CLOSED, IDS_STATES };

enum ids_counter {
    IDS_FORWARDED,
    IDS_DROP_MATCH,
    IDS_DROP_SCAN,
    IDS_DROP_FLOOD,
    IDS_DROP_MALFORMED,
    IDS_NOT_INSPECTED, /* forwarded as they are; those below are forwarded or dropped */
    IDS_MALFORMED,
    IDS_UNTRACKED, /* inspected without an entry: the set was full */
    IDS_OPENED,    /* flows */
    IDS_ENDED,
    IDS_MATCHES,       /* packets in which a pattern ends */
    IDS_MATCHED_FLOWS, /* of those that have an entry */
    IDS_ATTEMPTS,      /* what was noted of sources */
    IDS_SCANNERS,      /* sources, once for each window */
    IDS_FORGOTTEN,     /* sources whose place another needed */
    IDS_HALF_OPENED,
    IDS_HALF_ENDED,
    IDS_FLOOD, /* SYNs to a destination that has too many half-open ones */
    IDS_COUNTERS
};

/* Places of its parameters; who runs it without a spec needs them too. */
enum ids_param {
    IDS_PARAM_DROP,
    IDS_PARAM_RULES,
    IDS_PARAM_SCAN_PORTS,
    IDS_PARAM_SCAN_HOSTS,
    IDS_PARAM_WINDOW_MS,
    IDS_PARAM_HALF_OPEN,
    IDS_PARAM_ROWS,
    IDS_PARAM_COLUMNS,
    IDS_PARAM_SOURCES,
    IDS_PARAM_CAPACITY,
    IDS_PARAM_UDP_MS,
    IDS_PARAM_TRANSITORY_MS,
    IDS_PARAM_TCP_MS,
};

/* One direction of a flow: its last bytes. */
struct ids_stream {
    uint8_t tail[MATCH_TAIL]; /* with its length in one line of the cache, behind a flow's head */
    uint8_t bytes;            /* 0: none yet */
    uint32_t next;            /* TCP: sequence number after them */
};

struct ids_flow {
    struct sets_flow flow;       /* inside endpoint first */
    struct ids_stream stream[2]; /* by the side that it comes from */
    uint8_t opener;              /* side */
    bool matched;
    uint8_t spare[22];
};
_Static_assert(sizeof(struct ids_flow) == ARENA_LINE, "a line of a snapshot each");

/* What a source has tried since a stamp: a bit for the hash of each port and each host. */
struct ids_source {
    uint64_t since;
    uint32_t address;
    bool used;
    bool scans;          /* has reached a limit */
    uint8_t ports_count; /* bits that are set */
    uint8_t hosts_count;
    uint64_t ports[IDS_BITS / 64];
    uint64_t hosts[IDS_BITS / 64];
};

struct ids_worker {
    CACHE_ALIGNED struct sets_sweep sweep;
    uint64_t counters[IDS_COUNTERS];
    uint64_t rule[MATCH_RULES]; /* packets in which it matched */
};

struct ids {
    struct sets flows;   /* its numbers are ids of variables */
    struct sets sources; /* ids follow */
    uint64_t rows_at;    /* offset from the arena's base; ids of rows are the last ones */
    struct sets_timeouts timeouts;
    uint64_t sweep_ns; /* between two sets of flows of one worker */
    uint64_t window_ns;
    uint32_t row_bytes;
    uint32_t columns;
    uint32_t rows;       /* 0: half-open connections are not counted */
    uint32_t half_open;  /* limit for each destination */
    uint32_t rules;      /* a bit each */
    uint8_t ports_limit; /* bits of a bitmap that make a scan; 0: none do */
    uint8_t hosts_limit;
    bool drop;
    uint64_t worker_at[FTMB_MAX_WORKERS];
};

static inline struct ids_worker *ids_worker(struct arena *arena, const struct ids *ids,
                                            uint32_t worker)
{
    return (struct ids_worker *)((uint8_t *)arena + ids->worker_at[worker]);
}

static inline uint32_t *ids_row(struct arena *arena, const struct ids *ids, uint32_t row)
{
    return (uint32_t *)((uint8_t *)arena + ids->rows_at + (uint64_t)row * ids->row_bytes);
}

/* The counter of a destination in one row of the sketch. */
static inline uint32_t *ids_cell(struct arena *arena, const struct ids *ids, uint32_t row,
                                 uint32_t address)
{
    uint64_t hash = sets_mix((uint64_t)(row + 1) << 32 | address) >> 32;
    return &ids_row(arena, ids, row)[hash * ids->columns >> 32];
}

static inline uint32_t ids_source_set(const struct ids *ids, uint32_t address)
{
    return sets_pick(&ids->sources, sets_mix(address));
}

/* Where the one who opened a flow wanted to go. */
static inline uint32_t ids_target(const struct ids_flow *flow)
{
    return flow->opener == NF_INSIDE ? (uint32_t)flow->flow.key.addresses
                                     : (uint32_t)(flow->flow.key.addresses >> 32);
}

static inline bool ids_half_open(const struct ids_flow *flow)
{
    return flow->flow.key.rest && flow->flow.state == IDS_HALF_OPEN;
}

/* A packet of a flow, as the functions below want it. */
struct ids_segment {
    struct sets_key key;
    const uint8_t *data;
    uint32_t bytes;
    uint32_t source, destination; /* as on the wire */
    uint32_t seq;                 /* TCP: of the data's first byte */
    uint16_t port;                /* of the destination, as on the wire */
    uint8_t side;
    uint8_t flags;
    bool tcp;
    bool syn;     /* and nothing of ACK, RST and FIN */
    bool attempt; /* what begins with it was tried by its source, as far as one can tell */
};

struct ids_segment ids_segment_of(const struct packet_view *view, uint8_t side);

/* The rules, a bit each, that match in a packet of a flow (NULL: nothing is known of it). */
uint32_t ids_inspect(const struct ids *ids, uint32_t worker, const struct ids_flow *flow,
                     const struct ids_segment *segment);

/* The last bytes of the flow's direction are now the packet's. */
void ids_remember(struct ids_flow *flow, const struct ids_segment *segment);

/* Notes that a source has tried a port (NULL: none) of a destination: a write access, in the
 * caller's section. True: it scans. */
bool ids_note(struct ftmb_ctx *ctx, const struct ids *ids, struct ids_worker *worker,
              uint32_t source, uint32_t destination, const uint16_t *port);

/* Bits that are likely to be set in a bitmap after so many different targets. */
uint8_t ids_bits_of(uint64_t targets);

void ids_report(struct arena *arena, const struct nf_report *out);

#endif

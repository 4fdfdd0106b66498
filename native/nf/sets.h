/* A hash table with a shared variable for each of its buckets, which have a fixed size: *sets* of
 * SETS_WAYS entries that lie side by side.
 *
 * One access reaches everything about a key, a new key needs no other variable, and nothing is ever
 * moved or linked. What it costs is room: there are four times as many places as `capacity`, so
 * that a hash that spreads well leaves one of 7,000 keys without a place when `capacity` of them
 * are there. Whoever finds a set full of entries in use has to do without.
 *
 * What an entry is, and when its place may be used again, is the function's business: it looks
 * through the entries of a set while it holds (or reads) the set's variable. Where entries are
 * flows that end when nothing has come for a while, they begin with a struct sets_flow, and
 * sets_find() looks through them. */
#ifndef FTMB_NF_SETS_H
#define FTMB_NF_SETS_H

#include "nf/nf.h"

#define SETS_WAYS 8u
#define SETS_SWEEP 4u /* sets that are looked at for an input, at most: see sets_due() */
#define SETS_MEAN 2u  /* entries in a set when the table holds `capacity` */
#define SETS_STATES 8u

struct sets {
    uint64_t at;        /* offset of the first set from the arena's base */
    uint32_t count;     /* sets, and variables */
    uint32_t set_bytes; /* SETS_WAYS entries */
};

/* A worker's way through the table, to remove what has expired: it looks at every W-th set. */
struct sets_sweep {
    uint64_t due; /* stamp */
    uint32_t next;
};

/* Who a flow is. */
struct sets_key {
    uint64_t addresses; /* first << 32 | second */
    uint64_t rest;      /* sets_key_of(); 0: nobody, the entry is free */
};

struct sets_flow {
    struct sets_key key;
    uint64_t last_seen; /* stamp */
    uint8_t state;      /* which timeout counts */
    uint8_t user;       /* whatever the table's user keeps there */
    uint8_t spare[6];
};
_Static_assert(sizeof(struct sets_flow) == 32, "no padding: it is copied whole into the arena");

/* When flows end, by state. */
struct sets_timeouts {
    uint64_t ns[SETS_STATES];
    uint64_t over; /* from this state on a flow's place may be taken at once */
};

/* Spreads a key over 64 bits, of which the upper ones are the better ones. */
static inline uint64_t sets_mix(uint64_t x)
{
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 32;
    return x * 0x9e3779b97f4a7c15ull;
}

static inline uint32_t sets_for(uint64_t capacity)
{
    return (uint32_t)((capacity + SETS_MEAN - 1) / SETS_MEAN);
}

/* Arena memory for the table, all included. */
static inline uint64_t sets_bytes(uint64_t capacity, uint32_t entry_bytes)
{
    return (uint64_t)sets_for(capacity) * SETS_WAYS * entry_bytes + ARENA_LINE;
}

/* A table of zeroes in shared memory. False: the arena is too small. */
static inline bool sets_init(struct sets *sets, struct arena *arena, uint64_t capacity,
                             uint32_t entry_bytes)
{
    sets->count = sets_for(capacity);
    sets->set_bytes = SETS_WAYS * entry_bytes;
    uint8_t *at = arena_alloc(arena, 0, (uint64_t)sets->count * sets->set_bytes, ARENA_LINE);
    if (!at)
        return false;
    sets->at = (uint64_t)(at - (uint8_t *)arena);
    return true;
}

/* The set, by number, of a key whose hash (of sets_mix()) is given. */
static inline uint32_t sets_pick(const struct sets *sets, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * sets->count >> 32);
}

/* All numbers as on the wire. Which endpoint is the first one is the table's user's to say, so that
 * both directions meet one entry; so are the bits from 40 on of `rest`, but for number 48. */
static inline struct sets_key sets_key_of(uint64_t first, uint32_t second, uint8_t protocol,
                                          uint16_t first_port, uint16_t second_port)
{
    return (struct sets_key){.addresses = first << 32 | second,
                             .rest = 1ull << 48 | (uint64_t)protocol << 32 |
                                     (uint64_t)first_port << 16 | second_port};
}

static inline uint64_t sets_hash(const struct sets_key *key)
{
    return sets_mix(key->addresses ^ sets_mix(key->rest));
}

static inline bool sets_is(const struct sets_flow *flow, const struct sets_key *key)
{
    return flow->key.rest == key->rest && flow->key.addresses == key->addresses;
}

static inline bool sets_expired(const struct ftmb_ctx *ctx, const struct sets_timeouts *timeouts,
                                const struct sets_flow *flow)
{
    return ftmb_elapsed(ctx, flow->last_seen) > timeouts->ns[flow->state];
}

/* A flow's entry in a set that is held, expired or not; else a place for it: free, or of a flow
 * that is over. NULL: there is none. */
static inline void *sets_find(const struct ftmb_ctx *ctx, const struct sets_timeouts *timeouts,
                              void *set, uint32_t entry_bytes, const struct sets_key *key)
{
    struct sets_flow *place = NULL, *spent = NULL;
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        struct sets_flow *at = (struct sets_flow *)((uint8_t *)set + way * entry_bytes);
        if (sets_is(at, key))
            return at;
        if (!at->key.rest)
            place = place ? place : at;
        else if (at->state >= timeouts->over || sets_expired(ctx, timeouts, at))
            spent = spent ? spent : at;
    }
    return place ? place : spent;
}

/* Is what sets_find() found (it may be NULL) the flow's, and going on? */
static inline bool sets_knows(const struct ftmb_ctx *ctx, const struct sets_timeouts *timeouts,
                              const struct sets_flow *found, const struct sets_key *key)
{
    return found && sets_is(found, key) && !sets_expired(ctx, timeouts, found);
}

/* For reports: is the entry, which is not free, in its own set, and there once? */
static inline bool sets_sound(const struct sets *sets, uint32_t number, const void *set,
                              unsigned way)
{
    const uint8_t *entries = set;
    uint32_t entry_bytes = sets->set_bytes / SETS_WAYS;
    const struct sets_flow *at = (const struct sets_flow *)(entries + way * entry_bytes);
    for (unsigned other = 0; other < way; other++) {
        if (sets_is((const struct sets_flow *)(entries + other * entry_bytes), &at->key))
            return false;
    }
    return sets_pick(sets, sets_hash(&at->key)) == number;
}

static inline void *sets_at(struct arena *arena, const struct sets *sets, uint32_t number)
{
    return (uint8_t *)arena + sets->at + (uint64_t)number * sets->set_bytes;
}

/* Hint: this set, and its variable, will be written to. */
static inline void sets_prefetch(const struct ftmb_ctx *ctx, const struct sets *sets,
                                 uint32_t number)
{
    ftmb_prefetch(ctx, sets_at(ctx->arena, sets, number));
    __builtin_prefetch((const void *)&ctx->seq[number], 1);
}

/* Sets timeouts, given in milliseconds; the shortest one, ns. */
static inline uint64_t sets_times(struct sets_timeouts *timeouts, const uint64_t *ms,
                                  unsigned states, unsigned over)
{
    uint64_t shortest = UINT64_MAX;
    FTMB_ASSERT(states <= SETS_STATES);
    for (unsigned s = 0; s < states; s++) {
        timeouts->ns[s] = ms[s] * 1000000;
        shortest = u64_min(shortest, timeouts->ns[s]);
    }
    timeouts->over = over;
    return shortest;
}

/* Time between two sets of a worker, for a round of `round_ns`. Not for the packet path. */
static inline uint64_t sets_pace(const struct sets *sets, uint32_t workers, uint64_t round_ns)
{
    return u64_max(round_ns / ((sets->count + workers - 1) / workers), 1);
}

/* True: this worker is to look at set `number` now. Asked up to SETS_SWEEP times for an input. What
 * is overdue is not caught up with, since the work of one input is bounded: a worker that comes
 * late has its rounds later. */
static inline bool sets_due(const struct sets *sets, struct sets_sweep *sweep,
                            const struct ftmb_ctx *ctx, uint64_t pace_ns, uint32_t *number)
{
    uint64_t now = ftmb_now(ctx);
    if (likely(now < sweep->due) || unlikely(sweep->next >= sets->count))
        return false;
    *number = sweep->next;
    sweep->next += ctx->workers;
    if (sweep->next >= sets->count)
        sweep->next = ctx->worker;
    sweep->due = u64_max(sweep->due, now - u64_min(now, (SETS_SWEEP - 1) * pace_ns)) + pace_ns;
    return true;
}

#endif

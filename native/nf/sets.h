/* A hash table with a shared variable for each of its buckets, which have a fixed size: *sets* of
 * SETS_WAYS entries that lie side by side.
 *
 * One access reaches everything about a key, a new key needs no other variable, and nothing is ever
 * moved or linked. What it costs is room: there are four times as many places as `capacity`, so
 * that a hash that spreads well leaves one of 7,000 keys without a place when `capacity` of them
 * are there. Whoever finds a set full of entries in use has to do without.
 *
 * What an entry is, and when its place may be used again, is the function's business: it looks
 * through the entries of a set while it holds (or reads) the set's variable. */
#ifndef FTMB_NF_SETS_H
#define FTMB_NF_SETS_H

#include "nf/nf.h"

#define SETS_WAYS 8u
#define SETS_SWEEP 4u /* sets that are looked at for an input, at most: see sets_due() */
#define SETS_MEAN 2u  /* entries in a set when the table holds `capacity` */

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

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

#include "core/arena.h"

#define SETS_WAYS 8u
#define SETS_MEAN 2u /* entries in a set when the table holds `capacity` */

struct sets {
    uint64_t at;        /* offset of the first set from the arena's base */
    uint32_t count;     /* sets, and variables */
    uint32_t set_bytes; /* SETS_WAYS entries */
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

#endif

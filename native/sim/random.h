/* Random numbers of the simulator: one seed, split into streams that do not disturb each other, so
 * that a schedule with fewer packets or faults stays as like the first as it can. */
#ifndef FTMB_SIM_RANDOM_H
#define FTMB_SIM_RANDOM_H

#include "core/base.h"

struct rng {
    uint64_t state;
};

/* splitmix64 */
static inline uint64_t rng_next(struct rng *rng)
{
    uint64_t x = rng->state += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline uint32_t rng_below(struct rng *rng, uint32_t bound)
{
    return (uint32_t)(((rng_next(rng) >> 32) * bound) >> 32);
}

/* Inclusive. */
static inline uint32_t rng_between(struct rng *rng, uint32_t low, uint32_t high)
{
    return low + rng_below(rng, high - low + 1);
}

static inline bool rng_permille(struct rng *rng, uint32_t permille)
{
    return rng_below(rng, 1000) < permille;
}

static inline struct rng rng_stream(uint64_t seed, uint64_t stream)
{
    struct rng rng = {.state = seed * 0xd1342543de82ef95ull + stream * 0x9fb21c651e98df25ull};
    rng_next(&rng);
    return rng;
}

#endif

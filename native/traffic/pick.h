/* Popularity of flows: which of the active flows the next packet belongs to. */
#ifndef FTMB_TRAFFIC_PICK_H
#define FTMB_TRAFFIC_PICK_H

#include "core/base.h"

struct pick_cell {
    uint32_t keep; /* below this draw, the cell itself; otherwise its alias */
    uint32_t alias;
};

/* Uniform, or Zipf through an alias table (two numbers of one draw and one look-up a packet). */
struct pick {
    uint64_t state;
    uint32_t count;
    struct pick_cell *cells; /* NULL: uniform */
};

/* `count` flows (>= 1), the one of rank k (from 0) with weight 1 / (k + 1)^zipf; zipf 0 is uniform.
 * Returns 0 or -ENOMEM. */
int pick_init(struct pick *p, uint32_t count, double zipf, uint64_t seed);
void pick_free(struct pick *p);

/* The same seed gives the same flows. */
static inline uint32_t pick_next(struct pick *p)
{
    uint64_t x = p->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    p->state = x;
    x *= 0x2545f4914f6cdd1dull;
    uint32_t index = (uint32_t)(((x >> 32) * p->count) >> 32);
    if (!p->cells)
        return index;
    const struct pick_cell *cell = &p->cells[index];
    return (uint32_t)x < cell->keep ? index : cell->alias;
}

#endif

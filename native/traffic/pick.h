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
    uint32_t stride;         /* from the place of one rank to that of the next */
    struct pick_cell *cells; /* NULL: uniform */
};

/* A draw that was not looked up yet. */
struct pick_draw {
    uint32_t index;
    uint32_t part;
};

/* `count` flows (>= 1), the one of rank k (from 0) with weight 1 / (k + 1)^zipf; zipf 0 is uniform.
 * Returns 0 or -ENOMEM. */
int pick_init(struct pick *p, uint32_t count, double zipf, uint64_t seed);
void pick_free(struct pick *p);

/* Bytes that pick_init() needs for a moment, the table included. */
uint64_t pick_bytes(uint32_t count, double zipf);

/* Which flow has rank k. Ranks lie far from each other: popular flows are no neighbours, neither
 * here nor where a function keeps its flows in the order in which they came. */
static inline uint32_t pick_place(const struct pick *p, uint32_t rank)
{
    return (uint32_t)((uint64_t)rank * p->stride % p->count);
}

/* The same seed gives the same flows. In two steps, so that the cells of a burst are fetched
 * together: the table of millions of flows is in no cache. */
static inline struct pick_draw pick_draw(struct pick *p)
{
    uint64_t x = p->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    p->state = x;
    x *= 0x2545f4914f6cdd1dull;
    uint32_t index = (uint32_t)(((x >> 32) * p->count) >> 32);
    if (p->cells)
        __builtin_prefetch(&p->cells[index]);
    return (struct pick_draw){.index = index, .part = (uint32_t)x};
}

static inline uint32_t pick_take(const struct pick *p, struct pick_draw draw)
{
    if (!p->cells)
        return draw.index;
    const struct pick_cell *cell = &p->cells[draw.index];
    return draw.part < cell->keep ? draw.index : cell->alias;
}

#endif

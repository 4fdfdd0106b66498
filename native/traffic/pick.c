/* Alias tables (Walker, Vose): any distribution at the price of one look-up. */
#include "traffic/pick.h"

#include "traffic/table.h"

#include <errno.h>
#include <math.h>

/* Cells that hold less than their share take the rest from one that holds more. */
static void fill_cells(struct pick_cell *cells, double *share, uint32_t *work, uint32_t n)
{
    uint32_t small = 0, large = n; /* two stacks in one array, growing towards each other */
    for (uint32_t i = 0; i < n; i++) {
        if (share[i] < 1.0)
            work[small++] = i;
        else
            work[--large] = i;
    }
    while (small > 0 && large < n) {
        uint32_t poor = work[--small];
        uint32_t rich = work[large];
        cells[poor].keep = (uint32_t)(share[poor] * 4294967295.0);
        cells[poor].alias = rich;
        share[rich] -= 1.0 - share[poor];
        if (share[rich] < 1.0) {
            large++;
            work[small++] = rich;
        }
    }
    /* Whoever is left holds its share exactly, but for rounding. */
    while (small > 0) {
        uint32_t i = work[--small];
        cells[i] = (struct pick_cell){.keep = UINT32_MAX, .alias = i};
    }
    for (; large < n; large++)
        cells[work[large]] = (struct pick_cell){.keep = UINT32_MAX, .alias = work[large]};
}

/* A step through `count` places that meets each of them once, and neighbours late. */
static uint32_t stride_for(uint32_t count)
{
    uint32_t stride = (uint32_t)((double)count * 0.6180339887498949) | 1u;
    for (;; stride += 2) {
        uint32_t a = count, b = stride;
        while (b) {
            uint32_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return stride;
    }
}

static void set_shares(const struct pick *p, double *share, double zipf)
{
    double total = 0.0;
    uint64_t place = 0;
    for (uint32_t rank = 0; rank < p->count; rank++) {
        double weight = pow((double)rank + 1.0, -zipf);
        share[place] = weight;
        total += weight;
        place = (place + p->stride) % p->count;
    }
    for (uint32_t i = 0; i < p->count; i++)
        share[i] *= (double)p->count / total;
}

uint64_t pick_bytes(uint32_t count, double zipf)
{
    uint64_t each = sizeof(struct pick_cell) + sizeof(double) + sizeof(uint32_t);
    return zipf > 0.0 ? count * each : 0;
}

int pick_init(struct pick *p, uint32_t count, double zipf, uint64_t seed)
{
    *p = (struct pick){.count = count, .stride = stride_for(count)};
    /* Spread similar seeds; xorshift must not start at 0. */
    p->state = (seed + 1) * 0x9e3779b97f4a7c15ull;
    if (p->state == 0)
        p->state = 1;
    if (zipf <= 0.0)
        return 0;
    double *share = table_make((size_t)count * sizeof(*share));
    uint32_t *work = table_make((size_t)count * sizeof(*work));
    p->cells = table_make((size_t)count * sizeof(*p->cells));
    bool enough = share && work && p->cells;
    if (enough) {
        set_shares(p, share, zipf);
        fill_cells(p->cells, share, work, count);
    } else {
        pick_free(p);
    }
    table_free(share, (size_t)count * sizeof(*share));
    table_free(work, (size_t)count * sizeof(*work));
    return enough ? 0 : -ENOMEM;
}

void pick_free(struct pick *p)
{
    table_free(p->cells, (size_t)p->count * sizeof(*p->cells));
    p->cells = NULL;
}

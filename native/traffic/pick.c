/* Alias tables (Walker, Vose): any distribution at the price of one look-up. */
#include "traffic/pick.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

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

int pick_init(struct pick *p, uint32_t count, double zipf, uint64_t seed)
{
    *p = (struct pick){.count = count};
    /* Spread similar seeds; xorshift must not start at 0. */
    p->state = (seed + 1) * 0x9e3779b97f4a7c15ull;
    if (p->state == 0)
        p->state = 1;
    if (zipf <= 0.0)
        return 0;
    double *share = malloc((size_t)count * sizeof(*share));
    uint32_t *work = malloc((size_t)count * sizeof(*work));
    p->cells = malloc((size_t)count * sizeof(*p->cells));
    if (!share || !work || !p->cells) {
        free(share);
        free(work);
        pick_free(p);
        return -ENOMEM;
    }
    double total = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        share[i] = pow((double)i + 1.0, -zipf);
        total += share[i];
    }
    for (uint32_t i = 0; i < count; i++)
        share[i] *= (double)count / total;
    fill_cells(p->cells, share, work, count);
    free(share);
    free(work);
    return 0;
}

void pick_free(struct pick *p)
{
    free(p->cells);
    p->cells = NULL;
}

/* The longest gaps, in a bounded heap. */
#include "traffic/gaps.h"

#include <stdlib.h>

static void swap_gaps(struct gap *a, struct gap *b)
{
    struct gap spare = *a;
    *a = *b;
    *b = spare;
}

static void sift_up(struct gap *list, uint32_t i)
{
    while (i > 0 && list[i].length_ns < list[(i - 1) / 2].length_ns) {
        swap_gaps(&list[i], &list[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

static void sift_down(struct gap *list, uint32_t count)
{
    uint32_t i = 0;
    for (;;) {
        uint32_t least = i, left = 2 * i + 1, right = 2 * i + 2;
        if (left < count && list[left].length_ns < list[least].length_ns)
            least = left;
        if (right < count && list[right].length_ns < list[least].length_ns)
            least = right;
        if (least == i)
            return;
        swap_gaps(&list[i], &list[least]);
        i = least;
    }
}

void gaps_add(struct gaps *g, uint64_t start_ns, uint64_t length_ns)
{
    struct gap gap = {.start_ns = start_ns, .length_ns = length_ns};
    if (length_ns <= GAPS_MIN_NS)
        return;
    if (g->count < GAPS_MAX) {
        g->list[g->count] = gap;
        sift_up(g->list, g->count++);
    } else if (length_ns > g->list[0].length_ns) {
        g->list[0] = gap;
        sift_down(g->list, g->count);
    }
}

static int by_start(const void *a, const void *b)
{
    uint64_t x = ((const struct gap *)a)->start_ns, y = ((const struct gap *)b)->start_ns;
    return x < y ? -1 : x > y;
}

json_t *gaps_json(const struct gaps *g, uint64_t offset_ns)
{
    struct gaps sorted = *g;
    qsort(sorted.list, sorted.count, sizeof(sorted.list[0]), by_start);
    json_t *array = json_array();
    for (uint32_t i = 0; i < sorted.count; i++)
        json_array_append_new(array,
                              json_pack("[I,I]", (json_int_t)(sorted.list[i].start_ns + offset_ns),
                                        (json_int_t)sorted.list[i].length_ns));
    return array;
}

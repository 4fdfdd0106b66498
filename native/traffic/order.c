/* Missing ranges of numbered streams. */
#include "traffic/order.h"

#include <errno.h>
#include <stdlib.h>

int order_init(struct order_pool *pool, uint32_t capacity)
{
    *pool = (struct order_pool){.capacity = capacity + 1, .count = 1};
    pool->ranges = calloc(pool->capacity, sizeof(*pool->ranges));
    return pool->ranges ? 0 : -ENOMEM;
}

void order_free(struct order_pool *pool)
{
    free(pool->ranges);
    pool->ranges = NULL;
}

/* A new range in front of the list at *head. False when the pool is used up. */
static bool push_range(struct order_pool *pool, uint32_t *head, uint32_t first, uint32_t last)
{
    uint32_t index = pool->free;
    if (index)
        pool->free = pool->ranges[index].next;
    else if (pool->count < pool->capacity)
        index = pool->count++;
    else
        return false;
    pool->ranges[index] = (struct order_range){.first = first, .last = last, .next = *head};
    *head = index;
    return true;
}

/* Take `number` out of the range at *link. */
static void fill_number(struct order_pool *pool, uint32_t *link, uint32_t number)
{
    uint32_t index = *link;
    struct order_range *range = &pool->ranges[index];
    if (range->first == range->last) {
        *link = range->next;
        range->next = pool->free;
        pool->free = index;
    } else if (number == range->first) {
        range->first++;
    } else if (number == range->last) {
        range->last--;
    } else {
        uint32_t last = range->last;
        range->last = number - 1;
        if (!push_range(pool, link, number + 1, last))
            pool->untracked += last - number;
    }
}

enum order order_take_slow(struct order_pool *pool, struct order_stream *s, uint32_t number)
{
    if (number >= s->expected) {
        if (number > s->expected && !push_range(pool, &s->missing, s->expected, number - 1))
            pool->untracked += number - s->expected;
        s->expected = number + 1;
        return ORDER_NEW;
    }
    /* Newest first: what is late is rarely very late. Ranges further on are all older. */
    for (uint32_t *link = &s->missing; *link; link = &pool->ranges[*link].next) {
        struct order_range *range = &pool->ranges[*link];
        if (number > range->last)
            break;
        if (number >= range->first) {
            fill_number(pool, link, number);
            return ORDER_LATE;
        }
    }
    return ORDER_DUPLICATE;
}

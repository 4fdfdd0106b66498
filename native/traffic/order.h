/* Exactly-once accounting of one numbered stream: new, late (reordered) or a duplicate?
 *
 * A stream remembers the next number it expects and the ranges still missing below it. In order
 * nothing is stored, and however long an outage or late a packet, the answer is exact, which a
 * bitmap of fixed width could not give. */
#ifndef FTMB_TRAFFIC_ORDER_H
#define FTMB_TRAFFIC_ORDER_H

#include "core/base.h"

enum order { ORDER_NEW, ORDER_LATE, ORDER_DUPLICATE };

struct order_range {
    uint32_t first;
    uint32_t last;
    uint32_t next; /* index of an older range of the same stream, 0 = none */
};

/* Ranges of all streams; index 0 is never used. */
struct order_pool {
    struct order_range *ranges;
    uint32_t count;     /* indices handed out so far */
    uint32_t capacity;  /* including index 0 */
    uint32_t free;      /* list of returned ranges */
    uint64_t untracked; /* numbers skipped while the pool was full: late ones look duplicated */
};

struct order_stream {
    uint32_t expected; /* numbers start at 0 */
    uint32_t missing;  /* newest missing range, 0 = none */
};

/* Returns 0 or -ENOMEM. */
int order_init(struct order_pool *pool, uint32_t capacity);
void order_free(struct order_pool *pool);

enum order order_take_slow(struct order_pool *pool, struct order_stream *s, uint32_t number);

static inline enum order order_take(struct order_pool *pool, struct order_stream *s,
                                    uint32_t number)
{
    if (likely(number == s->expected)) {
        s->expected++;
        return ORDER_NEW;
    }
    return order_take_slow(pool, s, number);
}

#endif

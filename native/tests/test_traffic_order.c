/* Exactly-once accounting against a model that remembers every number. */
#include "check.h"
#include "traffic/order.h"

#include <string.h>

#define NUMBERS 3000u

static uint64_t state = 0x853c49e6748fea9bull;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) * below >> 32);
}

static void test_simple(void)
{
    struct order_pool pool;
    struct order_stream s = {0};
    CHECK(order_init(&pool, 8) == 0);
    CHECK(order_take(&pool, &s, 0) == ORDER_NEW);
    CHECK(order_take(&pool, &s, 0) == ORDER_DUPLICATE);
    CHECK(order_take(&pool, &s, 10) == ORDER_NEW); /* 1..9 missing */
    CHECK(order_take(&pool, &s, 5) == ORDER_LATE);
    CHECK(order_take(&pool, &s, 5) == ORDER_DUPLICATE);
    CHECK(order_take(&pool, &s, 9) == ORDER_LATE);
    CHECK(order_take(&pool, &s, 1) == ORDER_LATE);
    CHECK(order_take(&pool, &s, 11) == ORDER_NEW);
    CHECK(order_take(&pool, &s, 10) == ORDER_DUPLICATE);
    CHECK(pool.untracked == 0);
    order_free(&pool);
}

/* Two streams with one pool, any order, losses and repeats. */
static void test_model(uint32_t spread, uint32_t repeat_percent)
{
    static bool seen[2][NUMBERS];
    uint32_t highest[2] = {0};
    struct order_stream streams[2] = {{0}};
    struct order_pool pool;
    memset(seen, 0, sizeof(seen));
    CHECK(order_init(&pool, NUMBERS) == 0);
    for (uint32_t step = 0; step < 4 * NUMBERS; step++) {
        uint32_t which = draw(2), at = step / 4;
        uint32_t low = at > spread ? at - spread : 0;
        uint32_t number = low + draw(at - low + spread);
        if (number >= NUMBERS)
            continue;
        if (seen[which][number] && draw(100) >= repeat_percent)
            continue;
        enum order want = seen[which][number]        ? ORDER_DUPLICATE
                          : number >= highest[which] ? ORDER_NEW
                                                     : ORDER_LATE;
        CHECK(order_take(&pool, &streams[which], number) == want);
        seen[which][number] = true;
        if (number >= highest[which])
            highest[which] = number + 1;
    }
    CHECK(pool.untracked == 0);
    order_free(&pool);
}

/* A full pool is said, not hidden. */
static void test_full(void)
{
    struct order_pool pool;
    struct order_stream s = {0};
    CHECK(order_init(&pool, 2) == 0);
    for (uint32_t number = 1; number < 9; number += 2)
        CHECK(order_take(&pool, &s, number) == ORDER_NEW);
    CHECK(pool.untracked == 2);
    order_free(&pool);
}

int main(void)
{
    test_simple();
    for (uint32_t spread = 1; spread < 2000; spread = spread * 3 + 1)
        test_model(spread, 50);
    test_full();
    return 0;
}

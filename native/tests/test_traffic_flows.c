/* Flow numbers, their addresses, their popularity, and the set of outside tuples. */
#include "check.h"
#include "traffic/flows.h"
#include "traffic/mapping.h"
#include "traffic/pick.h"
#include "traffic/why.h"

#include <math.h>
#include <string.h>

static void test_window(void)
{
    struct flows f;
    char why[TRAFFIC_WHY];
    CHECK(flows_init(&f, 7, 30, 0x0a000000u, 8, why) == 0);
    for (uint32_t base = 0; base <= 30; base++) {
        bool seen[64] = {false};
        for (uint32_t slot = 0; slot < 7; slot++) {
            uint32_t number = flows_in_slot(&f, slot);
            CHECK(number % 7 == slot && number >= base && number < base + 7);
            CHECK(flows_alive(&f, number) && !seen[number]);
            seen[number] = true;
        }
        CHECK(!flows_alive(&f, base + 7) && (base == 0 || !flows_alive(&f, base - 1)));
        flows_shift(&f);
    }
    CHECK(flows_in_slot(&f, 0) == 35); /* the last shift had no number left */
    flows_free(&f);
}

static void test_tuples(uint32_t network, uint32_t prefix, uint32_t count)
{
    struct flows f;
    struct mapping seen;
    char why[TRAFFIC_WHY];
    CHECK(flows_init(&f, count, 0, network, prefix, why) == 0);
    CHECK(mapping_init(&seen, count) == 0);
    for (uint32_t i = 0; i < count; i++) {
        struct endpoint e = flows_inside(&f, i);
        uint32_t host = __builtin_bswap32(e.address);
        CHECK((host & (UINT32_MAX << (32 - prefix))) == network && host != network);
        CHECK((host & ~(UINT32_MAX << (32 - prefix))) != ~(UINT32_MAX << (32 - prefix)));
        CHECK(__builtin_bswap16(e.port) >= 1024);
        CHECK(mapping_set(&seen, mapping_key(17, e.address, e.port), i) == MAPPING_NONE);
    }
    mapping_free(&seen);
    flows_free(&f);
}

static void test_limits(void)
{
    struct flows f;
    char why[TRAFFIC_WHY] = "";
    CHECK(flows_init(&f, 1000, FLOWS_MAX, 0x0a000000u, 8, why) == -1);
    CHECK(strstr(why, "flows in one run"));
    CHECK(flows_init(&f, 200000, 0, 0xc0a80100u, 30, why) == -1);
    CHECK(strstr(why, "too small"));
}

static void test_popularity(double zipf)
{
    enum { COUNT = 50, DRAWS = 400000 };
    struct pick p;
    uint32_t hits[COUNT] = {0};
    double total = 0;
    CHECK(pick_init(&p, COUNT, zipf, 3) == 0);
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint32_t flow = pick_take(&p, pick_draw(&p));
        CHECK(flow < COUNT);
        hits[flow]++;
    }
    for (uint32_t i = 0; i < COUNT; i++)
        total += pow(i + 1, -zipf);
    for (uint32_t i = 0; i < COUNT; i++) {
        double want = DRAWS * pow(i + 1, -zipf) / total;
        CHECK(fabs(hits[pick_place(&p, i)] - want) < 5 * sqrt(want) + 2);
    }
    pick_free(&p);
}

/* Against a plain array: few keys, so that clusters form and break. */
static void test_mapping(void)
{
    enum { KEYS = 24 };
    struct mapping m;
    uint32_t holder[KEYS];
    uint64_t state = 99;
    CHECK(mapping_init(&m, KEYS) == 0);
    for (uint32_t k = 0; k < KEYS; k++)
        holder[k] = MAPPING_NONE;
    for (uint32_t step = 0; step < 200000; step++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        uint32_t k = (uint32_t)(state >> 33) % KEYS, flow = (uint32_t)(state >> 50) % 4;
        uint64_t key = mapping_key(17, k * 77, (uint16_t)k);
        if (state >> 63) {
            CHECK(mapping_set(&m, key, flow) == holder[k]);
            holder[k] = flow;
        } else {
            mapping_clear(&m, key, flow);
            if (holder[k] == flow)
                holder[k] = MAPPING_NONE;
        }
    }
    mapping_free(&m);
}

int main(void)
{
    test_window();
    test_tuples(0x0a000000u, 8, 100000);
    test_tuples(0xc0a80100u, 24, 100000);
    test_tuples(0xc0a80100u, 30, 10000);
    test_limits();
    test_popularity(0.0);
    test_popularity(1.1);
    test_mapping();
    return 0;
}

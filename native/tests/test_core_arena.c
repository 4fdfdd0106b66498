/* The arena: layout, allocation that depends on nobody else, and headers from outside. */
#include "core/arena.h"

#include <string.h>

#include "tests/core_test.h"

#define SHARED 20000u
#define PRIVATE 10000u

static struct arena *make(uint32_t workers, uint32_t variables)
{
    uint64_t size = arena_bytes(SHARED, PRIVATE, workers, variables);
    void *memory = aligned_alloc(4096, size);
    memset(memory, 0, size);
    struct arena *arena = arena_create(memory, size, SHARED, PRIVATE, workers, variables, 77);
    CHECK(arena == memory && arena->size == size && arena_valid(arena, size));
    return arena;
}

static void test_layout(void)
{
    for (uint32_t workers = 1; workers <= FTMB_MAX_WORKERS; workers++) {
        struct arena *arena = make(workers, 1000);
        CHECK(arena->workers == workers && arena->variables == 1000);
        CHECK(arena->config_digest == 77);
        uint64_t end = sizeof(struct arena);
        for (uint32_t e = 0; e <= workers; e++) {
            CHECK(arena->extents[e].start >= end && arena->extents[e].start % 4096 == 0);
            CHECK(arena->extents[e].limit >= (e ? PRIVATE : SHARED));
            end = arena->extents[e].start + arena->extents[e].limit;
        }
        CHECK(end <= arena->size);
        CHECK((uintptr_t)arena_seq(arena) % CACHE_LINE == 0);
        for (uint32_t i = 0; i < 1000; i++)
            CHECK(arena_seq(arena)[i] == 0);
        for (uint32_t w = 0; w < workers; w++) {
            CHECK(arena->cursors[w].next_input == 1 && arena->cursors[w].pals == 0);
            CHECK(arena->cursors[w].outputs == 0 && arena->cursors[w].random != 0);
            CHECK(w == 0 || arena->cursors[w].random != arena->cursors[w - 1].random);
        }
        CHECK((uintptr_t)&arena->cursors[1] - (uintptr_t)&arena->cursors[0] >= CACHE_LINE);
        free(arena);
    }
}

static void test_refused(void)
{
    uint64_t size = arena_bytes(SHARED, PRIVATE, 2, 10);
    void *memory = aligned_alloc(4096, size);
    memset(memory, 0, size);
    CHECK(!arena_create(memory, size, SHARED, PRIVATE, 0, 10, 0));
    CHECK(!arena_create(memory, size, SHARED, PRIVATE, FTMB_MAX_WORKERS + 1, 10, 0));
    CHECK(!arena_create(memory, size, SHARED, PRIVATE, 2, FTMB_MAX_VARIABLES + 1, 0));
    CHECK(!arena_create(memory, size - 1, SHARED, PRIVATE, 2, 10, 0));
    CHECK(arena_create(memory, size, SHARED, PRIVATE, 2, 10, 0));
    free(memory);
}

/* What is placed first lies at the beginning, and the variables behind it are complete. */
static void test_first(void)
{
    struct arena *arena = make(2, 1000);
    uint8_t *first = arena_place_first(arena, 5001);
    CHECK(first == (uint8_t *)arena + arena->extents[0].start);
    CHECK((uint8_t *)arena_seq(arena) >= first + 5001);
    CHECK((uintptr_t)arena_seq(arena) % CACHE_LINE == 0 && arena_valid(arena, arena->size));
    uint8_t *next = arena_alloc(arena, 0, 1, 1);
    CHECK(next == (uint8_t *)(arena_seq(arena) + 1000));
    free(arena);
    arena = make(2, 1000);
    CHECK(!arena_place_first(arena, SHARED + 5000));
    free(arena);
}

/* Declared bytes can be had; when no more fit, NULL and nothing changes. */
static void test_full(void)
{
    struct arena *arena = make(2, 1000);
    CHECK(arena_alloc(arena, 0, SHARED, 8) && arena_alloc(arena, 1, PRIVATE, 8));
    for (unsigned who = 0; who <= 2; who++) {
        struct arena_extent before = arena->extents[who];
        uint64_t left = before.limit - before.used;
        CHECK(!arena_alloc(arena, who, left + 1, 1));
        CHECK(!arena_alloc(arena, who, UINT64_MAX, 1) && !arena_alloc(arena, who, 1ull << 63, 64));
        CHECK(memcmp(&before, &arena->extents[who], sizeof(before)) == 0);
        CHECK(arena_alloc(arena, who, left, 1) && !arena_alloc(arena, who, 1, 1));
        CHECK(arena->extents[who].used == arena->extents[who].limit);
    }
    CHECK_PANICS(arena_alloc(arena, 3, 8, 8));
    CHECK_PANICS(arena_alloc(arena, 0, 8, 24));
    CHECK_PANICS(arena_alloc(arena, 0, 8, 0));
    CHECK_PANICS(arena_alloc(arena, 0, 8, 8192));
    free(arena);
}

/* Blocks are zeroed, aligned and disjoint; which address a worker gets depends on its own
 * allocations only, else ids and pointers would differ in a replay. */
static void test_random(uint64_t seed)
{
    struct arena *a = make(3, 50), *b = make(3, 50);
    uint64_t used = arena_allocated(a);
    for (unsigned i = 0; i < 400; i++) {
        unsigned who = (unsigned)seed_below(&seed, 4);
        uint64_t bytes = 1 + seed_below(&seed, 200), align = 1ull << seed_below(&seed, 8);
        uint64_t before = a->extents[who].used;
        uint8_t *block = arena_alloc(a, who, bytes, align);
        if (!block)
            continue;
        CHECK((uintptr_t)block % align == 0);
        CHECK(block >= (uint8_t *)a + a->extents[who].start + before);
        CHECK(block + bytes == (uint8_t *)a + a->extents[who].start + a->extents[who].used);
        for (uint64_t k = 0; k < bytes; k++)
            CHECK(block[k] == 0);
        memset(block, 0xaa, bytes);
        used += a->extents[who].used - before;
        CHECK(arena_allocated(a) == used);
        if (who == 2) { /* the same allocations of this worker, none of the others */
            uint8_t *twin = arena_alloc(b, who, bytes, align);
            CHECK(twin - (uint8_t *)b == block - (uint8_t *)a);
        }
    }
    for (uint32_t i = 0; i < 50; i++)
        CHECK(arena_seq(a)[i] == 0);
    free(a);
    free(b);
}

/* Change one field of a good header; the result must be refused. */
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct arena *arena = make(2, 10);                                                         \
        uint64_t size = arena->size;                                                               \
        change;                                                                                    \
        CHECK(!arena_valid(arena, size));                                                          \
        free(arena);                                                                               \
    } while (0)

static void test_valid(uint64_t seed)
{
    REFUSED(arena->magic ^= 1);
    REFUSED(arena->size++);
    REFUSED(arena->workers = 0);
    REFUSED(arena->workers = FTMB_MAX_WORKERS + 1);
    REFUSED(arena->variables = FTMB_MAX_VARIABLES + 1);
    REFUSED(arena->extents[0].start = UINT64_MAX);
    REFUSED(arena->extents[2].start += 1 << 20);
    REFUSED(arena->extents[1].limit = UINT64_MAX);
    REFUSED(arena->extents[1].used = arena->extents[1].limit + 1);
    REFUSED(arena->seq_offset = size - 79);
    REFUSED(arena->seq_offset = UINT64_MAX);
    REFUSED(arena->root_offset = size);
    REFUSED(size--);
    struct arena *arena = make(2, 10), good = *arena;
    for (unsigned i = 0; i < 100000; i++) {
        *arena = good;
        ((uint8_t *)arena)[seed_below(&seed, sizeof(good))] ^=
            (uint8_t)(1 + seed_below(&seed, 255));
        if (!arena_valid(arena, good.size))
            continue;
        for (uint32_t e = 0; e <= arena->workers; e++)
            CHECK(arena->extents[e].start + arena->extents[e].used <= good.size);
        CHECK(arena->seq_offset + 8ull * arena->variables <= good.size);
    }
    free(arena);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_layout();
    test_refused();
    test_first();
    test_full();
    test_random(seed);
    test_valid(seed);
    return 0;
}

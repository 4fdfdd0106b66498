/* A master's arena, a backup's, and the images between which deltas are made: what the tests of
 * core/snapshot.h share. */
#ifndef FTMB_TESTS_SNAPSHOT_PAIR_H
#define FTMB_TESTS_SNAPSHOT_PAIR_H

#include <string.h>

#include "core/snapshot.h"
#include "tests/core_test.h"

#define WORKERS 3u
#define CONFIG 0x1234u

struct pair {
    uint64_t size;
    struct arena *master, *backup;
    struct arena *image[2];
    int committed; /* image that the backup holds, -1: none */
    struct delta delta;
    uint64_t seed;
};

static inline struct arena *blank(uint64_t size)
{
    void *memory = aligned_alloc(4096, size);
    memset(memory, 0, size);
    return memory;
}

static inline struct pair open_pair(uint64_t seed)
{
    struct pair p = {.size = align_up(arena_bytes(60000, 20000, WORKERS, 100), 4096),
                     .committed = -1,
                     .seed = seed};
    p.master = blank(p.size);
    p.backup = blank(p.size);
    p.image[0] = blank(p.size);
    p.image[1] = blank(p.size);
    CHECK(arena_create(p.master, p.size, 60000, 20000, WORKERS, 100, CONFIG));
    CHECK(arena_create(p.backup, p.size, 60000, 20000, WORKERS, 100, CONFIG));
    return p;
}

static inline void close_pair(struct pair *p)
{
    free(p->master);
    free(p->backup);
    free(p->image[0]);
    free(p->image[1]);
    free(p->delta.bytes);
    free(p->delta.hash);
}

/* What workers do between two snapshots: grow, write here and there, move their cursors. */
static inline void change(struct pair *p, unsigned writes)
{
    for (unsigned i = 0; i < writes; i++) {
        unsigned who = (unsigned)seed_below(&p->seed, WORKERS + 1);
        if (seed_below(&p->seed, 4) == 0)
            arena_alloc(p->master, who, 1 + seed_below(&p->seed, 700), 8);
        const struct arena_extent *extent = &p->master->extents[who];
        if (extent->used)
            ((uint8_t *)p->master)[extent->start + seed_below(&p->seed, extent->used)] +=
                (uint8_t)(1 + seed_below(&p->seed, 255));
    }
    for (uint32_t w = 0; w < WORKERS; w++) {
        p->master->cursors[w].next_input += seed_below(&p->seed, 9);
        p->master->cursors[w].pals += seed_below(&p->seed, 9);
        p->master->cursors[w].outputs += seed_below(&p->seed, 9);
    }
}

/* Byte by byte, without the code under test. */
static inline bool equal(const struct arena *a, const struct arena *b)
{
    bool same = memcmp(a, b, sizeof(*a)) == 0;
    for (uint32_t e = 0; same && e <= a->workers; e++)
        same = memcmp((const uint8_t *)a + a->extents[e].start,
                      (const uint8_t *)b + a->extents[e].start, a->extents[e].used) == 0;
    return same;
}

static inline const struct delta_head *head_of(const struct pair *p)
{
    return (const struct delta_head *)p->delta.bytes;
}

/* Take the next snapshot of the master into the spare image; its delta is in p->delta. */
static inline int take(struct pair *p, uint64_t epoch)
{
    int next = p->committed == 0 ? 1 : 0;
    uint64_t bytes = snapshot_copy(p->master, p->image[next]);
    CHECK(bytes == arena_allocated(p->master) && equal(p->master, p->image[next]));
    struct snapshot_name name = {
        .view = 2, .epoch = epoch, .base_view = 2, .base_epoch = epoch - 1};
    CHECK(delta_build(&p->delta, p->image[next], p->committed < 0 ? NULL : p->image[p->committed],
                      name, true));
    CHECK(head_of(p)->bytes == p->delta.size && head_of(p)->epoch == epoch);
    CHECK(head_of(p)->view == 2);
    CHECK(head_of(p)->base_epoch == (p->committed < 0 ? 0 : epoch - 1));
    return next;
}

#endif

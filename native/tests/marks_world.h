/* An arena with marks, epochs and a context for each worker: what the tests of core/marks.h and
 * core/epoch.h share. The header is not part of it that they look at. */
#ifndef FTMB_TESTS_MARKS_WORLD_H
#define FTMB_TESTS_MARKS_WORLD_H

#include <string.h>

#include "core/epoch.h"
#include "core/marks.h"
#include "core/snapshot.h"
#include "tests/check.h"

#define MARKS_WORLD_PALS 4096u

struct marks_world {
    struct arena *arena;
    uint64_t size;
    uint32_t workers;
    void *memory; /* of the marks */
    struct marks marks;
    struct epoch_group group;
    struct ctx_env env;
    struct published_count published[FTMB_MAX_WORKERS];
    uint64_t pals[FTMB_MAX_WORKERS][MARKS_WORLD_PALS];
    struct ftmb_ctx ctx[FTMB_MAX_WORKERS];
};

struct marks_shape {
    uint32_t workers;
    uint64_t shared_bytes;
    uint64_t worker_bytes;
    uint32_t variables;
    uint64_t undo_entries;
    void (*relax)(void *env, unsigned worker, uint64_t rounds);
};

static inline struct marks_world *marks_world_open(struct marks_shape shape)
{
    struct marks_world *w = aligned_alloc(CACHE_LINE, align_up(sizeof(*w), CACHE_LINE));
    CHECK(w);
    memset(w, 0, sizeof(*w));
    w->workers = shape.workers;
    w->size = arena_bytes(shape.shared_bytes, shape.worker_bytes, shape.workers, shape.variables);
    void *arena = aligned_alloc(4096, w->size);
    CHECK(arena);
    memset(arena, 0, w->size);
    w->arena = arena_create(arena, w->size, shape.shared_bytes, shape.worker_bytes, shape.workers,
                            shape.variables, 1);
    CHECK(w->arena);
    uint64_t bytes = align_up(marks_bytes(w->size, shape.workers, shape.undo_entries), 4096);
    w->memory = aligned_alloc(4096, bytes);
    CHECK(w->memory);
    memset(w->memory, 0, bytes);
    marks_create(&w->marks, w->arena, w->memory, shape.undo_entries);
    w->group.workers = shape.workers;
    w->env = (struct ctx_env){.relax = shape.relax, .env = w};
    for (uint32_t i = 0; i < shape.workers; i++) {
        w->ctx[i] = (struct ftmb_ctx){.arena = w->arena,
                                      .cursor = &w->arena->cursors[i],
                                      .seq = arena_seq(w->arena),
                                      .worker = i,
                                      .workers = shape.workers,
                                      .variables = shape.variables,
                                      .mode = ACCESS_LOG,
                                      .pals = w->pals[i],
                                      .pal_capacity = MARKS_WORLD_PALS,
                                      .published = w->published,
                                      .marks = &w->marks,
                                      .epochs = &w->group,
                                      .env = &w->env};
        epoch_sit(&w->ctx[i]);
    }
    return w;
}

static inline void marks_world_close(struct marks_world *w)
{
    free(w->arena);
    free(w->memory);
    free(w);
}

/* Begin the next epoch. */
static inline void marks_world_flip(struct marks_world *w, bool stop)
{
    marks_open(&w->marks, epoch_open(&w->group) + 1);
    epoch_flip(&w->group, stop);
}

/* A worker looks up between two packets; it must not be parked. */
static inline void marks_world_join(struct marks_world *w, uint32_t worker)
{
    if (!epoch_enter(&w->ctx[worker]))
        CHECK(epoch_turn(&w->ctx[worker]));
    epoch_leave(&w->ctx[worker]);
    w->ctx[worker].gate = false; /* no access was made; whoever tests the gate does not use this */
}

#endif

/* What the runtime knows of the one injected function of this process, and of the worker that runs
 * it on this thread. */
#ifndef FTMB_INJECT_STATE_H
#define FTMB_INJECT_STATE_H

#include "inject/inject.h"

/* The latest time that a worker met in a lock: in the arena, because time must not go back after a
 * promotion either. */
struct inject_clock {
    _Alignas(ARENA_LINE) uint64_t floor;
};

struct inject_root {
    struct inject_clock clock[FTMB_MAX_WORKERS];
};

/* A lock as the runtime uses its memory; the function's own type is larger (mutex, rwlock). */
struct inject_lock {
    uint64_t time; /* the latest that was read under it or before it */
};

struct inject_worker {
    CACHE_ALIGNED struct ftmb_ctx *ctx;
    uint64_t time;   /* the latest that this packet has read or met; 0: none */
    uint32_t locked; /* locks that the function holds as it sees it */
    struct inject_lock *lock[FTMB_MAX_HELD];
    struct ctx_env env; /* the worker's, with our way of waiting */
    const struct ctx_env *outer;
    uint32_t wanted; /* variable + 1 that it is about to access; 0: none */
    /* For the others, while it waits for long: what it waits for, and what it holds. */
    _Atomic uint32_t waits_for; /* as `wanted` */
    uint32_t held_count;
    uint32_t held[FTMB_MAX_HELD];
};

struct inject_state {
    uint64_t bytes; /* from INJECT_BASE on: data, heap */
    uint64_t heap;  /* offset of what is not given out yet */
    uint64_t seed;  /* of random numbers before the first packet */
    bool opening;
    bool exhausted;
    struct inject_root *root;
    struct inject_worker worker[FTMB_MAX_WORKERS];
};

extern struct inject_state inject_state;
extern _Thread_local struct inject_worker *inject_self; /* NULL: outside packets */

/* Around an access to an atomic object, whose `bytes` will change; NULL: outside packets. */
struct inject_worker *inject_atomic_begin(const volatile void *object, uint64_t bytes);
void inject_atomic_end(struct inject_worker *self);
/* Around a load: as ftmb_read_begin(). */
uint64_t inject_atomic_read_begin(struct inject_worker *self, uint32_t *id,
                                  const volatile void *object);

/* Ends the process: the function did something that cannot be repeated, or has lost its way. */
_Noreturn void inject_die(const char *what);

/* `bytes` from `address` on will change; most of what is announced is not state: stacks, packets.
 */
static inline void inject_mark(const void *address, uint64_t bytes)
{
    struct inject_worker *self = inject_self;
    if ((uintptr_t)address - INJECT_BASE >= inject_state.bytes || !self || !bytes)
        return;
    /* Threads may have data on one line that they do not share: all must be in one epoch before
     * any of them stores. */
    if (unlikely(self->ctx->gate))
        epoch_gate(self->ctx);
    ftmb_mark(self->ctx, address, bytes);
}

#endif

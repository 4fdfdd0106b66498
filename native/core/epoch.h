/* Epochs: how workers that go on end one together, so that its end is a cut.
 *
 * A cut is an instant at which every worker stands between two packets. Whoever wants one stores
 * the next epoch's number. A worker looks at it before each packet, and joins: it hands over its
 * cursor as it stands, and from then on marks lines for the new epoch. An idle worker counts as
 * joined, because it will look before it begins: it stores BUSY before it looks at the number, and
 * the number is stored before anybody looks at the states. The other way round, one that found
 * nothing new could begin just after it was counted.
 *
 * A joined worker may begin a packet at once, but at its first access to a shared variable, read or
 * write, it waits until the others have joined (the *gate*): else the cut could hold an effect
 * without its cause. It looks at the others' states itself, so that the wait ends as soon as they
 * are there, and not only when the thread that flipped the epoch is next scheduled.
 *
 * With `stop` everybody parks as well, until epoch_release(). */
#ifndef FTMB_CORE_EPOCH_H
#define FTMB_CORE_EPOCH_H

#include "core/shared.h"

enum { EPOCH_IDLE, EPOCH_BUSY, EPOCH_PARKED };

/* What a worker hands over: its cursor, and how much of its extent is allocated. */
#define EPOCH_WORDS (sizeof(struct worker_cursor) / sizeof(uint64_t) + 1)

struct epoch_seat {
    CACHE_ALIGNED _Atomic uint64_t state;                /* epoch joined << 2 | what it is doing */
    _Atomic uint64_t waited_ns;                          /* at the gate of that epoch */
    CACHE_ALIGNED _Atomic uint64_t joined[EPOCH_WORDS];  /* when it joined */
    CACHE_ALIGNED _Atomic uint64_t stopped[EPOCH_WORDS]; /* when it last became idle, or parked */
};

struct epoch_group {
    CACHE_ALIGNED _Atomic uint64_t word; /* epoch << 1 | stop: read by all, stored at a flip */
    uint32_t workers;
    struct epoch_seat seat[FTMB_MAX_WORKERS];
};

/* ---- a worker ------------------------------------------------------------------------------- */

/* Take a seat, idle, in the present epoch. No flip is under way. */
void epoch_sit(struct ftmb_ctx *ctx);

/* Join a new epoch and park, if that is wanted. True: go on; false: parked, call again. */
bool epoch_turn(struct ftmb_ctx *ctx);

/* Before a burst. False: epoch_turn() first. */
static inline bool epoch_enter(struct ftmb_ctx *ctx)
{
    struct epoch_group *group = ctx->epochs;
    _Atomic uint64_t *state = &group->seat[ctx->worker].state;
    uint64_t busy = (ctx->epoch_seen >> 1) << 2 | EPOCH_BUSY;
    if (PLANTED(P_STOP_BEFORE_BUSY)) {
        bool same = atomic_load(&group->word) == ctx->epoch_seen;
        SIM_POINT();
        atomic_store(state, busy);
        return same;
    }
    atomic_store(state, busy);
    SIM_POINT();
    return atomic_load(&group->word) == ctx->epoch_seen;
}

/* Between two packets of a burst. False: epoch_turn() first. */
static inline bool epoch_same(const struct ftmb_ctx *ctx)
{
    return likely(atomic_load_explicit(&ctx->epochs->word, memory_order_acquire) ==
                  ctx->epoch_seen);
}

/* After a burst. */
void epoch_leave(struct ftmb_ctx *ctx);

/* ---- whoever wants a cut -------------------------------------------------------------------- */

static inline uint64_t epoch_open(const struct epoch_group *group)
{
    return atomic_load(&group->word) >> 1;
}

/* Begin the next epoch. The one before must have been joined by all. */
void epoch_flip(struct epoch_group *group, bool stop);
void epoch_release(struct epoch_group *group);

/* Is every worker in the open epoch, or idle; with a stop: does every worker stand? If so, and
 * `header` is given, it becomes the arena's header at the cut. */
bool epoch_complete(struct epoch_group *group, const struct arena *arena, struct arena *header);

/* The longest wait of a worker at the gate of the open epoch, so far. */
uint64_t epoch_waited_ns(const struct epoch_group *group);

#endif

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
 * Whoever wants a cut is a thread that may have interrupted a worker in the middle of a packet, and
 * the others would wait for that one until the thread sleeps again. So it only says what it wants.
 * Each worker that comes to a boundary says that it was there, and goes on in the old epoch; the
 * last one stores the number. By then all are running, and the wait at the gate is the rest of one
 * packet. (It is only a wait that this spares: the number may be stored at any time by anybody.)
 *
 * With `stop` everybody parks as well, until epoch_release(). The number is stored at once then. */
#ifndef FTMB_CORE_EPOCH_H
#define FTMB_CORE_EPOCH_H

#include "core/shared.h"

enum { EPOCH_IDLE, EPOCH_BUSY, EPOCH_PARKED };

/* What a worker hands over: its cursor, and how much of its extent is allocated. */
#define EPOCH_WORDS (sizeof(struct worker_cursor) / sizeof(uint64_t) + 1)

struct epoch_seat {
    CACHE_ALIGNED _Atomic uint64_t state;                /* epoch joined << 2 | what it is doing */
    _Atomic uint64_t waited_ns;                          /* at the gate of that epoch */
    _Atomic uint64_t ready;                              /* epoch that it knows to be wanted */
    CACHE_ALIGNED _Atomic uint64_t joined[EPOCH_WORDS];  /* when it joined */
    CACHE_ALIGNED _Atomic uint64_t stopped[EPOCH_WORDS]; /* when it last became idle, or parked */
};

#define EPOCH_WANTED (1ull << 63)

struct epoch_group {
    /* Is the next one wanted, the open epoch << 1, stop: read by all, stored at a flip. */
    CACHE_ALIGNED _Atomic uint64_t word;
    uint32_t workers;
    struct epoch_seat seat[FTMB_MAX_WORKERS];
};

/* ---- a worker ------------------------------------------------------------------------------- */

/* Take a seat, idle, in the present epoch. No flip is under way. */
void epoch_sit(struct ftmb_ctx *ctx);

/* Say that this worker is at a boundary, join a new epoch, park: what is wanted. True: go on;
 * false: parked, call again. */
bool epoch_turn(struct ftmb_ctx *ctx);

/* Before a burst. False: epoch_turn() first. */
static inline bool epoch_enter(struct ftmb_ctx *ctx)
{
    struct epoch_group *group = ctx->epochs;
    _Atomic uint64_t *state = &group->seat[ctx->worker].state;
    uint64_t busy = (ctx->epoch_seen >> 1) << 2 | EPOCH_BUSY;
    if (PLANTED(P_STOP_BEFORE_BUSY)) {
        bool same = atomic_load(&group->word) == ctx->epoch_looked;
        SIM_POINT();
        atomic_store(state, busy);
        return same;
    }
    atomic_store(state, busy);
    SIM_POINT();
    return atomic_load(&group->word) == ctx->epoch_looked;
}

/* Between two packets of a burst. False: epoch_turn() first. */
static inline bool epoch_same(const struct ftmb_ctx *ctx)
{
    return likely(atomic_load_explicit(&ctx->epochs->word, memory_order_acquire) ==
                  ctx->epoch_looked);
}

/* After a burst. */
void epoch_leave(struct ftmb_ctx *ctx);

/* ---- whoever wants a cut -------------------------------------------------------------------- */

static inline uint64_t epoch_open(const struct epoch_group *group)
{
    return (atomic_load(&group->word) & ~EPOCH_WANTED) >> 1;
}

/* Begin the next epoch, as soon as every worker has been at a boundary or, with `stop`, at once.
 * The one before must have been joined by all. */
void epoch_flip(struct epoch_group *group, bool stop);
void epoch_release(struct epoch_group *group);

/* Has the epoch that was wanted begun, and is every worker in it, or idle; with a stop: does every
 * worker stand? If so, and `header` is given, it becomes the arena's header at the cut. */
bool epoch_complete(struct epoch_group *group, const struct arena *arena, struct arena *header);

/* The longest wait of a worker at the gate of the open epoch, so far. */
uint64_t epoch_waited_ns(const struct epoch_group *group);

#endif

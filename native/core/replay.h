/* After a failure: the largest consistent cut of the logs, and replay in their order.
 *
 * The cut. `R(x,v)` and `W(x,v)` both presuppose the writes W(x,u) of every version u from the
 * base's up to v, and nothing else. Each worker's log is truncated at its first PAL that lacks
 * one; a section goes whole, since what a writer leaves behind depends on all its accesses; this
 * repeats until nothing changes. The largest set that satisfies this is unique, because the union
 * of two such prefixes is one again.
 *
 * Replay. Each access takes its worker's next PAL, checks that it names the same variable (else:
 * divergence), and waits for the version it found; a logged write waits too for the logged reads of
 * the version it ends. Past the end of its log a worker runs freely, but an access to x waits until
 * every logged access to x is finished: the set of such x is fixed at the cut and only shrinks,
 * and logged accesses wait only for logged ones, so this cannot deadlock. */
#ifndef FTMB_CORE_REPLAY_H
#define FTMB_CORE_REPLAY_H

#include "core/shared.h"

struct replay_variable {
    uint64_t base;   /* version at the snapshot */
    uint32_t offset; /* into reads_upto */
    uint32_t writes; /* logged writes */
    _Atomic uint32_t reads_done;
    _Atomic uint32_t left; /* logged accesses that are not finished */
};

struct replay_cursor {
    CACHE_ALIGNED uint64_t position; /* PALs of this worker already taken */
    bool section_logged;             /* the open section is in the log */
    bool finished;
};

struct replay {
    uint32_t workers;
    uint32_t variables;
    const uint64_t *log[FTMB_MAX_WORKERS]; /* PALs since the base, in order */
    uint64_t count[FTMB_MAX_WORKERS];
    struct replay_cursor cursor[FTMB_MAX_WORKERS];
    _Atomic uint32_t workers_left; /* workers whose log is not finished */

    struct replay_variable *variable; /* [variables], zero where untouched */
    uint32_t *touched;                /* variables with logged accesses */
    uint32_t touched_count;
    uint32_t *slots; /* cut: version present; replay: logged reads up to that version */
    uint64_t slot_capacity;
};

enum replay_error {
    REPLAY_OK = 0,
    REPLAY_NO_MEMORY = -1,
    REPLAY_BAD_LOG = -2, /* unknown variable, or one version written twice */
};

/* Reserve (and touch) memory for `variables` and `slots` PALs, so that a failover need not.
 * 0 or REPLAY_NO_MEMORY. */
int replay_init(struct replay *replay, uint32_t workers, uint32_t variables, uint64_t slots);
void replay_free(struct replay *replay);

/* Given replay->log/count and the base's sequence words, truncate replay->count to the largest
 * consistent cut. A pure function of its input. */
int replay_cut(struct replay *replay, const _Atomic uint64_t *base_seq);

/* Prepare the replay of log/count, which must be a consistent cut. */
int replay_prepare(struct replay *replay, const _Atomic uint64_t *base_seq);

/* Have all logged accesses of all workers finished? */
static inline bool replay_done(struct replay *replay)
{
    return atomic_load_explicit(&replay->workers_left, memory_order_acquire) == 0;
}

#endif

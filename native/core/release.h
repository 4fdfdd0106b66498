/* The output logger's store and its parallel-release rule.
 *
 * Per worker: the PALs since the base, the outputs that are held, and a hash of every output that
 * was released since the base. An output leaves when, for every worker j, stored[j] >= vector[j]:
 * each PAL in its causal past is stored without a gap (FTMB, parallel release). Outputs of a
 * worker leave in order; workers do not wait for each other otherwise.
 *
 * After a replay the new master produces the released outputs again: they are recognised by their
 * number, compared by hash, and dropped (I2, I3). Nobody else suppresses.
 *
 * The struct and its memory may lie in a mapping that outlives the process (release_attach()). Then
 * a process may die between any two stores, so their order matters: content before the count that
 * makes it valid, the hash and the join before `released`, `released` before the output is handed
 * on. What is held dies with the process. It comes again, because the sender is only told that a
 * frame arrived once it is settled: a PAL stored, an output released or dropped. */
#ifndef FTMB_CORE_RELEASE_H
#define FTMB_CORE_RELEASE_H

#include "core/base.h"

struct held_output {
    void *frame;
    const uint64_t *vector; /* in the frame */
    uint64_t number;
    uint64_t hash;
    uint64_t seq; /* of its frame in the worker's stream */
};

struct release_worker {
    CACHE_ALIGNED _Atomic uint64_t stored; /* PALs stored without a gap, counted from the start */
    uint64_t *pals;                        /* ring by number; kept: base < number <= stored */
    uint64_t pal_mask;
    uint64_t pal_base; /* PALs covered by the committed snapshot */
    uint64_t pal_peak; /* most PALs ever kept */

    _Atomic uint64_t arrived; /* outputs that arrived, in order, counted from the start */
    uint64_t released;        /* outputs handed on, counted from the start */
    uint64_t *hashes;         /* ring by number; kept: out_base < number <= released */
    uint64_t hash_mask;
    uint64_t out_base; /* outputs covered by the committed snapshot */
    uint64_t out_peak; /* most hashes ever kept */

    struct held_output *held; /* ring */
    uint64_t held_mask;
    uint64_t held_head; /* oldest */
    uint64_t held_tail;
    uint64_t held_peak;

    uint64_t settled; /* in the stream of this view: the sender was told that all came */
};

struct release {
    uint32_t workers;
    /* What the released outputs are known to depend on. An exact vector says it. One of published
     * counts says it of the output's own worker only: the others' counts are read one after the
     * other, so they may be more than the output's past, and need not be a consistent cut. */
    bool exact;
    uint64_t joined[FTMB_MAX_WORKERS];
    uint64_t duplicates;
    uint64_t hash_mismatches;
    uint64_t repeated;       /* PALs and outputs that came again after a restart */
    _Atomic uint64_t handed; /* outputs that the ports have taken */
    uint64_t lost_in_hand;   /* released, and a process died before it handed them on */
    struct release_worker worker[FTMB_MAX_WORKERS];
};

/* All three sizes are per worker and powers of two. */
uint64_t release_bytes(uint32_t workers, uint64_t pals, uint64_t outputs, uint64_t held);
void release_init(struct release *release, uint32_t workers, void *memory, uint64_t pals,
                  uint64_t outputs, uint64_t held);

/* The process that used this memory died; take up where it stopped. The sizes and `release` itself
 * are those of release_init(), the addresses may differ. What it had released but not handed on is
 * lost: counted in `lost_in_hand` (at most; the last may have been handed on). False: the memory
 * contradicts itself. */
bool release_attach(struct release *release, uint32_t workers, void *memory, uint64_t pals,
                    uint64_t outputs, uint64_t held);

enum release_verdict {
    RELEASE_OK,        /* stored, or held */
    RELEASE_DUPLICATE, /* here already, the same: drop it */
    RELEASE_DIVERGED,  /* here already, with other content: stop (I3) */
    RELEASE_BAD,       /* not the next number, or no room: a fault of the sender */
};

/* `count` PALs of worker w, the first with number `first`. Those that are known are skipped. */
enum release_verdict release_pals(struct release *release, uint32_t w, uint64_t first,
                                  const uint64_t *pals, uint32_t count);

/* One output of worker w, in frame `seq` of its stream. On RELEASE_OK the release keeps `frame`
 * until release_next() hands it back; `vector` points into it and has an entry per worker. */
enum release_verdict release_output(struct release *release, uint32_t w, uint64_t number,
                                    const uint64_t *vector, void *frame, uint64_t hash,
                                    uint64_t seq);

/* `taken` is the last frame of the worker's stream that was taken: up to which is it settled? The
 * sender may be told that frame and no later one, after release_settle(). */
static inline uint64_t release_settled(const struct release_worker *x, uint64_t taken)
{
    return x->held_head == x->held_tail ? taken : x->held[x->held_head & x->held_mask].seq - 1;
}

static inline void release_settle(struct release_worker *x, uint64_t seq)
{
    x->settled = seq;
    atomic_signal_fence(memory_order_release);
}

/* The ports have taken `count` of the outputs that release_next() gave. */
static inline void release_handed(struct release *release, uint64_t count)
{
    uint64_t handed = atomic_load_explicit(&release->handed, memory_order_relaxed);
    atomic_store_explicit(&release->handed, handed + count, memory_order_release);
}

/* Room for one more held output of worker w? */
static inline bool release_has_room(const struct release_worker *x)
{
    return x->held_tail - x->held_head <= x->held_mask;
}

/* The next output of worker w that may leave now; NULL if none. It counts as released from here
 * on, so the caller must hand it on, and tell so by release_handed(). */
void *release_next(struct release *release, uint32_t w);

/* Everything before `pals`/`outputs` is covered by a committed snapshot: forget it. The outputs
 * must have been released (once a cut has arrived nothing but the port can hold them back): a
 * fence discards what is held, and a replay from this base will not produce them again. */
void release_commit(struct release *release, const uint64_t *pals, const uint64_t *outputs);

/* Has everything before this cut arrived and, outputs, left? Then it may be committed. Not if it
 * lies before what was forgotten: its logs are gone. */
bool release_covers(const struct release *release, const uint64_t *pals, const uint64_t *outputs);

/* Forget all that is stored and released; says up to where. Only while no base exists. */
void release_forget(struct release *release, uint64_t *pals, uint64_t *outputs);

/* A view ends: give back every held output to `discard`. */
void release_fence(struct release *release, void (*discard)(void *self, void *frame), void *self);

/* Truncate the logs to `cut` (PAL counts from the start) before the new view begins: its outputs
 * are numbered from the base on. False: the cut excludes the past of a released output (I1). */
bool release_truncate(struct release *release, const uint64_t *cut);

/* PALs and output hashes worker w may still add before its logs are full. */
static inline uint64_t release_pal_room(const struct release_worker *x)
{
    return x->pal_mask + 1 - (atomic_load_explicit(&x->stored, memory_order_relaxed) - x->pal_base);
}

/* Is there room for these PALs? What comes again after a restart needs none: were it refused while
 * the log is full, nothing behind it could arrive, and no snapshot be committed that makes room. */
static inline bool release_pals_fit(const struct release_worker *x, uint64_t first, uint64_t count)
{
    uint64_t stored = atomic_load_explicit(&x->stored, memory_order_relaxed);
    uint64_t end = first + count;
    return end <= stored + 1 || u64_min(count, end - 1 - stored) <= release_pal_room(x);
}

static inline uint64_t release_output_room(const struct release_worker *x)
{
    return x->hash_mask + 1 -
           (atomic_load_explicit(&x->arrived, memory_order_relaxed) - x->out_base);
}

static inline bool release_output_fits(const struct release_worker *x, uint64_t number)
{
    return number <= x->released || release_output_room(x) > 0;
}

#endif

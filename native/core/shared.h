/* Shared variables: ordered logging of write and read accesses, and sections.
 *
 * A variable is an id, and one sequence word in the arena: seq = 2 * version + writing. The word is
 * the lock as well. Versions only grow. What a network function may do:
 *
 *   write access      ftmb_write(ctx, id); ... change data ...; ftmb_section_end(ctx);
 *   section           several ftmb_write() in ascending order of ids, reads between them, then
 *                     one ftmb_section_end(): all variables are released together
 *   read access       do { t = ftmb_read_begin(ctx, id); ... copy to locals ...
 *                     } while (!ftmb_read_end(ctx, id, t));
 *
 * A read writes nothing of the variable, so read-mostly state scales. A read has no other access
 * in it, bounded loops, and stores only to locals: what it sees may be half-written until
 * ftmb_read_end() returns true. (FTMB's paper lets reads take the lock; `reads_locked`.)
 *
 * Why the order in a write matters: odd word, PAL, work, publish the count, even word. A word that
 * is bumped before the work would let a reader accept half-written data, and a count published
 * after the release would let an output leave whose past is not yet named. */
#ifndef FTMB_CORE_SHARED_H
#define FTMB_CORE_SHARED_H

#include "core/arena.h"
#include "core/marks.h"
#include "core/pal.h"
#include "core/plant.h"
#include "core/sim_point.h"

#if defined(__SANITIZE_THREAD__)
#define FTMB_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FTMB_TSAN 1
#endif
#endif

/* How a section's end makes its data visible. The planted race is for the test that the thread
 * sanitizer finds it (native/tests/meson.build). */
#ifdef FTMB_PLANT_RACE
#define SEQ_RELEASE memory_order_relaxed
#else
#define SEQ_RELEASE memory_order_release
#endif

struct replay;

enum access_mode {
    ACCESS_PLAIN, /* no FTMB: variables are locked, nothing is logged */
    ACCESS_LOG,   /* ordered logging */
};

/* One count per line: each is written by one worker and read by all. */
struct published_count {
    CACHE_ALIGNED _Atomic uint64_t pals;
};

/* What the core needs of the world that embeds it. */
struct ctx_env {
    /* Called in every wait loop with the number of rounds so far. Must let others run: there may
     * be fewer cores than workers, and the holder may be preempted. */
    void (*relax)(void *env, unsigned worker, uint64_t rounds);
    /* The replay met something else than was logged. Must not return. */
    void (*diverged)(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id);
    uint64_t (*clock)(void *env); /* nanoseconds, to time waits at an epoch's gate; may be NULL */
    void *env;
};

/* A worker's context. Lives outside the arena; everything that must survive is in the cursor. */
struct ftmb_ctx {
    struct arena *arena;
    struct worker_cursor *cursor;
    _Atomic uint64_t *seq;
    uint32_t worker;
    uint32_t workers;
    uint32_t variables;
    uint32_t first_id; /* what ids count from in the log: not 0 in a later stage of a chain */
    uint8_t mode;
    bool reads_locked;
    bool exact; /* exact vectors instead of `max` */
    uint8_t held_count;
    uint8_t tag;    /* stamp of the lines that this worker has marked in its epoch */
    bool gate;      /* the first shared access since it joined an epoch is still to come */
    bool any_order; /* of ids in a section: the function's own order has no cycle (inject/) */
    uint64_t now_ns;
    uint32_t held[FTMB_MAX_HELD];
    uint32_t section_pals; /* PALs of the section that is open */

    uint64_t *pals; /* PALs appended in this burst, in order */
    uint32_t pal_count;
    uint32_t pal_capacity;

    struct published_count *published; /* [workers] */
    uint64_t *vectors;                 /* exact only: [variables][workers] */
    uint64_t deps[FTMB_MAX_WORKERS];   /* exact only: this worker's cumulative vector */
    struct replay *replay;             /* not NULL while any worker has logged accesses left */
    struct marks *marks;               /* NULL: the snapshot engine needs none */
    struct epoch_group *epochs;
    uint64_t epoch_seen;   /* the epoch that it has joined << 1 */
    uint64_t epoch_looked; /* the group's word when it last looked */
    const struct ctx_env *env;

    /* Outputs of the packet in hand, filled by ftmb_emit(). */
    struct nf_packet *emitted;
    uint32_t waits; /* accesses that found the variable taken */
};

#define READ_HELD (~0ull)           /* reading what this worker holds: not logged */
#define READ_LOCKED (~0ull - 1)     /* the read opened a section of its own */
#define READ_IN_SECTION (~0ull - 2) /* the read joined the section that is open */
#define READ_SPECIAL READ_IN_SECTION

/* Slow paths (shared.c, replay.c, epoch.c). */
void epoch_gate(struct ftmb_ctx *ctx);
void shared_wait_write(struct ftmb_ctx *ctx, uint32_t id);
uint64_t shared_wait_read(struct ftmb_ctx *ctx, uint32_t id);
uint64_t shared_locked_read(struct ftmb_ctx *ctx, uint32_t id);
bool shared_holds(const struct ftmb_ctx *ctx, uint32_t id);
void shared_join_vector(struct ftmb_ctx *ctx, uint32_t id);
bool shared_read_end_exact(struct ftmb_ctx *ctx, uint32_t id, uint64_t token);
void shared_publish_vectors(struct ftmb_ctx *ctx);
#ifdef FTMB_PLANTS
void shared_unlock_early(struct ftmb_ctx *ctx);
void shared_publish_late(struct ftmb_ctx *ctx);
#else
static inline void shared_unlock_early(struct ftmb_ctx *ctx)
{
    (void)ctx;
}
static inline void shared_publish_late(struct ftmb_ctx *ctx)
{
    (void)ctx;
}
#endif
bool replay_write(struct ftmb_ctx *ctx, uint32_t id);
bool replay_read_begin(struct ftmb_ctx *ctx, uint32_t id, uint64_t *token);
bool replay_read_end(struct ftmb_ctx *ctx, uint32_t id);
void replay_section_done(struct ftmb_ctx *ctx);
bool replay_determinant(struct ftmb_ctx *ctx, uint64_t *value);

/* No store to the data may be seen before the odd word (free on x86). */
static inline void seq_opened(void)
{
#ifndef FTMB_TSAN
    atomic_thread_fence(memory_order_release);
#endif
}

/* The sequence word as it is after every load before this call. The thread sanitizer does not know
 * fences, so it gets a read-modify-write, which on the machines it runs on orders as much. Only
 * `acquire`: a release would tell it that the next writer comes after this reader, and so hide
 * plain loads of what that writer changes. */
static inline uint64_t seq_validate(_Atomic uint64_t *word)
{
#ifdef FTMB_TSAN
    return atomic_fetch_add_explicit(word, 0, memory_order_acquire);
#else
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(word, memory_order_relaxed);
#endif
}

static inline void shared_append(struct ftmb_ctx *ctx, bool write, uint32_t id, uint64_t version)
{
    FTMB_ASSERT(ctx->pal_count < ctx->pal_capacity);
    ctx->pals[ctx->pal_count++] =
        pal_make(write, ctx->held_count != 0, ctx->first_id + id, version);
    ctx->cursor->pals++;
    SIM_PAL(ctx, ctx->pals[ctx->pal_count - 1]);
}

static inline void mark_line(struct ftmb_ctx *ctx, _Atomic uint8_t *stamp)
{
    if (unlikely(atomic_load_explicit(stamp, memory_order_acquire) != ctx->tag))
        marks_claim(ctx, stamp);
}

/* Before storing into the arena: `bytes` from `address` on will change (core/marks.h). Once for
 * each line and packet is enough; `bytes` is not 0. Shared memory is changed in sections only; a
 * worker's own, at any time. The core marks cursors and sequence words itself. */
static inline void ftmb_mark(struct ftmb_ctx *ctx, const void *address, uint64_t bytes)
{
    if (!ctx->marks)
        return;
    _Atomic uint8_t *stamp = mark_stamp(ctx->marks, address);
    _Atomic uint8_t *last = mark_stamp(ctx->marks, (const uint8_t *)address + bytes - 1);
    do
        mark_line(ctx, stamp);
    while (unlikely(stamp++ != last));
}

/* For the hints of a network function (nf.h): what will be read, or stored into, with the stamp
 * that ftmb_mark() will look at. */
static inline void ftmb_prefetch(const struct ftmb_ctx *ctx, const void *address)
{
    __builtin_prefetch(address, 1);
    if (ctx->marks)
        __builtin_prefetch((const void *)mark_stamp(ctx->marks, address), 1);
}

/* Begin an exclusive access to variable `id`, opening a section or extending the open one. */
static inline void ftmb_write(struct ftmb_ctx *ctx, uint32_t id)
{
    FTMB_ASSERT(id < ctx->variables && ctx->held_count < FTMB_MAX_HELD);
    /* Ids in ascending order: two sections can never wait for each other. */
    FTMB_ASSERT(!ctx->held_count || id > ctx->held[ctx->held_count - 1] || ctx->any_order);
    FTMB_ASSERT(ctx->section_pals < FTMB_MAX_SECTION_PALS);
    SIM_POINT();
    if (unlikely(ctx->gate))
        epoch_gate(ctx);
    if (ctx->marks)
        mark_line(ctx, mark_stamp(ctx->marks, (const void *)&ctx->seq[id]));
    if (PLANTED(P_EARLY_UNLOCK) && ctx->held_count)
        shared_unlock_early(ctx);
    if (likely(!ctx->replay) || !replay_write(ctx, id)) {
        uint64_t seq = atomic_load_explicit(&ctx->seq[id], memory_order_relaxed);
        if (unlikely(seq & 1) ||
            !atomic_compare_exchange_strong_explicit(&ctx->seq[id], &seq, seq | 1,
                                                     memory_order_acq_rel, memory_order_relaxed)) {
            shared_wait_write(ctx, id);
            seq = atomic_load_explicit(&ctx->seq[id], memory_order_relaxed);
        }
        SIM_POINT();
        if (ctx->mode == ACCESS_LOG)
            shared_append(ctx, true, id, seq >> 1);
    }
    seq_opened();
    ctx->held[ctx->held_count++] = id;
    ctx->section_pals++;
    if (unlikely(ctx->exact))
        shared_join_vector(ctx, id);
    SIM_WROTE(ctx, id);
    SIM_POINT();
}

/* Release every variable of the open section, each with its next version. */
static inline void ftmb_section_end(struct ftmb_ctx *ctx)
{
    FTMB_ASSERT(ctx->held_count);
    SIM_POINT();
    SIM_SECTION_ENDS(ctx);
    if (ctx->mode == ACCESS_LOG && !PLANTED(P_PUBLISH_AFTER_UNLOCK)) {
        atomic_store_explicit(&ctx->published[ctx->worker].pals, ctx->cursor->pals,
                              memory_order_release);
        if (unlikely(ctx->exact))
            shared_publish_vectors(ctx);
    }
    for (unsigned i = 0; i < ctx->held_count; i++) {
        SIM_POINT();
        _Atomic uint64_t *word = &ctx->seq[ctx->held[i]];
        uint64_t seq = atomic_load_explicit(word, memory_order_relaxed);
        if (PLANTED(P_EARLY_UNLOCK) && i + 1 < ctx->held_count)
            continue; /* released before */
        atomic_store_explicit(word, seq + 1, SEQ_RELEASE);
    }
    if (PLANTED(P_PUBLISH_AFTER_UNLOCK))
        shared_publish_late(ctx);
    if (unlikely(ctx->replay != NULL))
        replay_section_done(ctx);
    ctx->held_count = 0;
    ctx->section_pals = 0;
}

/* Begin a read access; the token goes to ftmb_read_end(). Never waits for readers. Inside a
 * section, `id` must be held or greater than every id held (the order of locks holds for reads). */
static inline uint64_t ftmb_read_begin(struct ftmb_ctx *ctx, uint32_t id)
{
    FTMB_ASSERT(id < ctx->variables);
    if (unlikely(ctx->held_count)) {
        if (shared_holds(ctx, id))
            return READ_HELD;
        FTMB_ASSERT(id > ctx->held[ctx->held_count - 1] || ctx->any_order);
        FTMB_ASSERT(ctx->section_pals < FTMB_MAX_SECTION_PALS);
    }
    if (unlikely(ctx->gate) && !PLANTED(P_ONLY_WRITES_GATED))
        epoch_gate(ctx);
    if (unlikely(ctx->reads_locked))
        return shared_locked_read(ctx, id);
    uint64_t token;
    if (unlikely(ctx->replay != NULL) && replay_read_begin(ctx, id, &token))
        return token;
    SIM_POINT();
    uint64_t seq = atomic_load_explicit(&ctx->seq[id], memory_order_acquire);
    if (PLANTED(P_BUMP_ONCE))
        return seq + (seq & 1); /* as if the version had been bumped when the lock was taken */
    return likely(!(seq & 1)) ? seq : shared_wait_read(ctx, id);
}

/* True: what was read since ftmb_read_begin() is one consistent version, and it is logged.
 * False: begin again. */
static inline bool ftmb_read_end(struct ftmb_ctx *ctx, uint32_t id, uint64_t token)
{
    if (unlikely(token >= READ_SPECIAL)) {
        if (token == READ_LOCKED)
            ftmb_section_end(ctx);
        return true;
    }
    SIM_POINT();
    if (PLANTED(P_BUMP_ONCE)) {
        if (((ctx->seq[id] + 1) & ~1ull) != token)
            return false;
    } else if (unlikely(ctx->exact && ctx->mode == ACCESS_LOG)) {
        if (!shared_read_end_exact(ctx, id, token))
            return false;
    } else if (unlikely(seq_validate(&ctx->seq[id]) != token)) {
        return false;
    }
    SIM_READ(ctx, id);
    if (ctx->held_count)
        ctx->section_pals++;
    SIM_POINT();
    if (PLANTED(P_READS_NOT_LOGGED))
        return true;
    if (unlikely(ctx->replay != NULL) && replay_read_end(ctx, id))
        return true;
    if (ctx->mode == ACCESS_LOG)
        shared_append(ctx, false, id, token >> 1);
    return true;
}

/* A value from outside (a hardware counter, an answer from another host): logged, and the logged
 * value is returned again on replay. Two PALs: its low and its high half. */
uint64_t ftmb_determinant(struct ftmb_ctx *ctx, uint64_t value);

/* Vector of an output: vector[j] = how many PALs of worker j it may depend on. Call it after the
 * packet's last access. `max`: read every published count; `exact`: the worker's own vector. */
static inline void shared_vector(const struct ftmb_ctx *ctx, uint64_t *vector)
{
    for (uint32_t j = 0; j < ctx->workers; j++) {
        SIM_POINT();
        vector[j] = ctx->exact
                        ? ctx->deps[j]
                        : atomic_load_explicit(&ctx->published[j].pals, memory_order_acquire);
    }
    vector[ctx->worker] = ctx->cursor->pals;
}

#endif

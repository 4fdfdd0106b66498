/* Slow paths of accesses to shared variables: contention, locked reads, exact vectors. */
#include "core/shared.h"

#include "core/replay.h"

void shared_wait_write(struct ftmb_ctx *ctx, uint32_t id)
{
    ctx->waits++;
    for (uint64_t rounds = 0;; rounds++) {
        uint64_t seq = atomic_load_explicit(&ctx->seq[id], memory_order_relaxed);
        if (!(seq & 1) &&
            atomic_compare_exchange_weak_explicit(&ctx->seq[id], &seq, seq | 1,
                                                  memory_order_acq_rel, memory_order_relaxed))
            return;
        ctx->env->relax(ctx->env->env, ctx->worker, rounds);
    }
}

uint64_t shared_wait_read(struct ftmb_ctx *ctx, uint32_t id)
{
    ctx->waits++;
    for (uint64_t rounds = 0;; rounds++) {
        uint64_t seq = atomic_load_explicit(&ctx->seq[id], memory_order_acquire);
        if (!(seq & 1))
            return seq;
        ctx->env->relax(ctx->env->env, ctx->worker, rounds);
    }
}

/* The paper's way: a read takes the lock and is logged like a write. */
uint64_t shared_locked_read(struct ftmb_ctx *ctx, uint32_t id)
{
    bool opens = ctx->held_count == 0;
    ftmb_write(ctx, id);
    return opens ? READ_LOCKED : READ_IN_SECTION;
}

bool shared_holds(const struct ftmb_ctx *ctx, uint32_t id)
{
    for (unsigned i = 0; i < ctx->held_count; i++) {
        if (ctx->held[i] == id)
            return true;
    }
    return false;
}

/* Vectors are words that other workers may be reading under the sequence lock: relaxed atomics. */
static _Atomic uint64_t *vector_of(struct ftmb_ctx *ctx, uint32_t id)
{
    return (_Atomic uint64_t *)&ctx->vectors[(uint64_t)id * ctx->workers];
}

void shared_join_vector(struct ftmb_ctx *ctx, uint32_t id)
{
    if (ctx->mode != ACCESS_LOG)
        return;
    _Atomic uint64_t *vector = vector_of(ctx, id);
    for (uint32_t j = 0; j < ctx->workers; j++)
        ctx->deps[j] =
            u64_max(ctx->deps[j], atomic_load_explicit(&vector[j], memory_order_relaxed));
    for (uint32_t j = 0; PLANTED(P_VECTOR_AT_ACQUIRE) && j < ctx->workers; j++)
        atomic_store_explicit(&vector[j], ctx->deps[j], memory_order_relaxed);
}

/* Read the variable's vector before the version is validated, join it only if it was valid. */
bool shared_read_end_exact(struct ftmb_ctx *ctx, uint32_t id, uint64_t token)
{
    _Atomic uint64_t *vector = vector_of(ctx, id);
    uint64_t copy[FTMB_MAX_WORKERS];
    for (uint32_t j = 0; j < ctx->workers; j++) {
        SIM_POINT();
        copy[j] = atomic_load_explicit(&vector[j], memory_order_relaxed);
    }
    if (seq_validate(&ctx->seq[id]) != token)
        return false;
    for (uint32_t j = 0; j < ctx->workers; j++)
        ctx->deps[j] = u64_max(ctx->deps[j], copy[j]);
    return true;
}

/* At the end of a section, while its variables are still held: what was written depends on all
 * that this worker has seen, up to and including this section. */
void shared_publish_vectors(struct ftmb_ctx *ctx)
{
    ctx->deps[ctx->worker] = ctx->cursor->pals;
    if (PLANTED(P_VECTOR_AT_ACQUIRE))
        return;
    for (unsigned i = 0; i < ctx->held_count; i++) {
        _Atomic uint64_t *vector = vector_of(ctx, ctx->held[i]);
        for (uint32_t j = 0; j < ctx->workers; j++)
            atomic_store_explicit(&vector[j], ctx->deps[j], memory_order_relaxed);
    }
}

#ifdef FTMB_PLANTS
/* All but the newest variable of a section, released before its end. */
void shared_unlock_early(struct ftmb_ctx *ctx)
{
    atomic_store(&ctx->published[ctx->worker].pals, ctx->cursor->pals);
    if (ctx->exact)
        shared_publish_vectors(ctx);
    SIM_SECTION_ENDS(ctx);
    ctx->seq[ctx->held[ctx->held_count - 1]]++;
}

void shared_publish_late(struct ftmb_ctx *ctx)
{
    SIM_POINT();
    if (ctx->mode != ACCESS_LOG)
        return;
    if (ctx->exact)
        shared_publish_vectors(ctx);
    atomic_store(&ctx->published[ctx->worker].pals, ctx->cursor->pals);
}
#endif

static void append_determinant(struct ftmb_ctx *ctx, bool inside, uint32_t half)
{
    FTMB_ASSERT(ctx->pal_count < ctx->pal_capacity);
    ctx->pals[ctx->pal_count++] = pal_make(false, inside, PAL_ID_DETERMINANT, half);
    ctx->cursor->pals++;
    SIM_PAL(ctx, ctx->pals[ctx->pal_count - 1]);
}

/* The second half carries `inside`, so that no frame and no cut ever parts the two. */
uint64_t ftmb_determinant(struct ftmb_ctx *ctx, uint64_t value)
{
    bool inside = ctx->held_count != 0;
    if (inside) {
        ctx->section_pals += 2;
        FTMB_ASSERT(ctx->section_pals <= FTMB_MAX_SECTION_PALS);
    }
    if (ctx->mode != ACCESS_LOG || (ctx->replay && replay_determinant(ctx, &value)))
        return value;
    append_determinant(ctx, inside, (uint32_t)value);
    append_determinant(ctx, true, (uint32_t)(value >> 32));
    return value;
}

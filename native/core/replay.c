/* Accesses during a replay (see replay.h). */
#include "core/replay.h"

/* Is the worker's next access in the log? A section is logged whole or not at all. */
static bool logged(const struct ftmb_ctx *ctx)
{
    const struct replay_cursor *cursor = &ctx->replay->cursor[ctx->worker];
    return cursor->position < ctx->replay->count[ctx->worker];
}

static uint64_t next_pal(const struct ftmb_ctx *ctx)
{
    const struct replay *replay = ctx->replay;
    return replay->log[ctx->worker][replay->cursor[ctx->worker].position];
}

/* The worker took its last PAL, and no section of the log is open any more. */
static void finish_if_last(struct ftmb_ctx *ctx)
{
    struct replay_cursor *cursor = &ctx->replay->cursor[ctx->worker];
    if (cursor->finished || logged(ctx) || cursor->section_logged)
        return;
    cursor->finished = true;
    atomic_fetch_sub_explicit(&ctx->replay->workers_left, 1, memory_order_acq_rel);
}

static void take_pal(struct ftmb_ctx *ctx)
{
    uint64_t pal = next_pal(ctx);
    ctx->replay->cursor[ctx->worker].position++;
    ctx->cursor->pals++;
    (void)pal;
    SIM_PAL(ctx, pal);
}

static void expect(struct ftmb_ctx *ctx, uint64_t pal, bool write, uint32_t id)
{
    const char *why = NULL;
    if (pal_id(pal) != ctx->first_id + id)
        why = "the access is to another variable than was logged";
    else if (!!(pal & PAL_WRITE) != write)
        why = "a read was logged as a write, or a write as a read";
    else if (!!(pal & PAL_INSIDE) != (ctx->held_count != 0))
        why = "the access is inside a section and was not, or the other way round";
    if (why)
        ctx->env->diverged(ctx->env->env, ctx->worker, why, pal, id);
}

/* Is the variable at the version of `pal`? Diverges if it has already passed it. */
static bool at_version(struct ftmb_ctx *ctx, uint64_t pal, uint32_t id, uint64_t seq)
{
    uint64_t behind = pal_version_since(pal, seq >> 1);
    if (behind == 0)
        return !(seq & 1);
    if (behind > PAL_VERSION_MASK / 2)
        ctx->env->diverged(ctx->env->env, ctx->worker, "the logged version has passed", pal, id);
    return false;
}

static void wait_until_free(struct ftmb_ctx *ctx, uint32_t id)
{
    if (ctx->replay->cursor[ctx->worker].section_logged)
        ctx->env->diverged(ctx->env->env, ctx->worker, "a section is longer than was logged", 0,
                           id);
    struct replay_variable *x = &ctx->replay->variable[ctx->first_id + id];
    if (PLANTED(P_FREE_RUNS_AHEAD))
        return;
    for (uint64_t rounds = 0; atomic_load_explicit(&x->left, memory_order_acquire); rounds++)
        ctx->env->relax(ctx->env->env, ctx->worker, rounds);
}

/* True: the access was in the log and is done in its place. False: run freely. */
bool replay_write(struct ftmb_ctx *ctx, uint32_t id)
{
    struct replay *replay = ctx->replay;
    if (!logged(ctx)) {
        wait_until_free(ctx, id);
        return false;
    }
    uint64_t pal = next_pal(ctx);
    expect(ctx, pal, true, id);
    struct replay_variable *x = &replay->variable[ctx->first_id + id];
    uint32_t reads = replay->slots[x->offset + pal_version_since(pal, x->base)];
    for (uint64_t rounds = 0;; rounds++) {
        uint64_t seq = atomic_load_explicit(&ctx->seq[id], memory_order_acquire);
        if (at_version(ctx, pal, id, seq) &&
            (PLANTED(P_WRITER_IGNORES_READERS) ||
             atomic_load_explicit(&x->reads_done, memory_order_acquire) == reads) &&
            atomic_compare_exchange_strong_explicit(&ctx->seq[id], &seq, seq | 1,
                                                    memory_order_acq_rel, memory_order_relaxed))
            break;
        ctx->env->relax(ctx->env->env, ctx->worker, rounds);
    }
    replay->cursor[ctx->worker].section_logged = true;
    take_pal(ctx);
    return true;
}

bool replay_read_begin(struct ftmb_ctx *ctx, uint32_t id, uint64_t *token)
{
    if (PLANTED(P_READS_NOT_LOGGED))
        return false;
    if (!logged(ctx)) {
        wait_until_free(ctx, id);
        return false;
    }
    uint64_t pal = next_pal(ctx);
    expect(ctx, pal, false, id);
    for (uint64_t rounds = 0;; rounds++) {
        *token = atomic_load_explicit(&ctx->seq[id], memory_order_acquire);
        if (at_version(ctx, pal, id, *token))
            return true;
        ctx->env->relax(ctx->env->env, ctx->worker, rounds);
    }
}

bool replay_read_end(struct ftmb_ctx *ctx, uint32_t id)
{
    if (!logged(ctx))
        return false;
    struct replay_variable *x = &ctx->replay->variable[ctx->first_id + id];
    take_pal(ctx);
    atomic_fetch_add_explicit(&x->reads_done, 1, memory_order_release);
    SIM_POINT();
    atomic_fetch_sub_explicit(&x->left, 1, memory_order_release);
    finish_if_last(ctx);
    return true;
}

/* Called at a section's end, after its words are even again. */
void replay_section_done(struct ftmb_ctx *ctx)
{
    struct replay_cursor *cursor = &ctx->replay->cursor[ctx->worker];
    if (!cursor->section_logged)
        return;
    cursor->section_logged = false;
    SIM_POINT();
    for (unsigned i = 0; i < ctx->held_count; i++)
        atomic_fetch_sub_explicit(&ctx->replay->variable[ctx->first_id + ctx->held[i]].left, 1,
                                  memory_order_release);
    finish_if_last(ctx);
}

bool replay_determinant(struct ftmb_ctx *ctx, uint64_t *value)
{
    if (!logged(ctx))
        return false;
    uint64_t live = *value;
    uint64_t low = next_pal(ctx);
    if (pal_id(low) != PAL_ID_DETERMINANT)
        ctx->env->diverged(ctx->env->env, ctx->worker, "a determinant was not logged", low,
                           PAL_ID_DETERMINANT);
    take_pal(ctx);
    uint64_t high = logged(ctx) ? next_pal(ctx) : 0;
    if (pal_id(high) != PAL_ID_DETERMINANT || !(high & PAL_INSIDE))
        ctx->env->diverged(ctx->env->env, ctx->worker, "half a determinant was logged", high,
                           PAL_ID_DETERMINANT);
    take_pal(ctx);
    *value = (low & UINT32_MAX) | ((high & UINT32_MAX) << 32);
    if (PLANTED(P_DETERMINANT_ANEW))
        *value = live;
    finish_if_last(ctx);
    return true;
}

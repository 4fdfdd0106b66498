/* Joining epochs, the gate, and the header at a cut (see epoch.h). */
#include "core/epoch.h"

#include <string.h>

#include "core/marks.h"

static void hand_over(const struct ftmb_ctx *ctx, _Atomic uint64_t *words)
{
    uint64_t now[EPOCH_WORDS];
    memcpy(now, ctx->cursor, sizeof(struct worker_cursor));
    now[EPOCH_WORDS - 1] = arena_whole(ctx->arena)->extents[1 + ctx->worker].used;
    for (unsigned i = 0; i < EPOCH_WORDS; i++)
        atomic_store_explicit(&words[i], now[i], memory_order_release);
}

static void set_tag(struct ftmb_ctx *ctx)
{
    ctx->tag = mark_tag(ctx->epoch_seen >> 1);
}

void epoch_sit(struct ftmb_ctx *ctx)
{
    struct epoch_seat *seat = &ctx->epochs->seat[ctx->worker];
    ctx->epoch_looked = atomic_load(&ctx->epochs->word) & ~1ull;
    ctx->epoch_seen = ctx->epoch_looked & ~EPOCH_WANTED;
    ctx->gate = false;
    set_tag(ctx);
    hand_over(ctx, seat->joined);
    hand_over(ctx, seat->stopped);
    atomic_store(&seat->state, (ctx->epoch_seen >> 1) << 2 | EPOCH_IDLE);
}

/* Store the number of the epoch that is wanted, if everybody has come to a boundary since. */
static void begin_wanted(struct epoch_group *group, uint64_t word)
{
    uint64_t next = ((word & ~EPOCH_WANTED) >> 1) + 1;
    for (uint32_t w = 0; w < group->workers && !PLANTED(P_NO_BARRIER); w++) {
        SIM_POINT();
        if (atomic_load(&group->seat[w].ready) < next &&
            (atomic_load(&group->seat[w].state) & 3) == EPOCH_BUSY)
            return;
    }
    SIM_POINT();
    if (!atomic_compare_exchange_strong(&group->word, &word, next << 1))
        return;
    SIM_FLIPPED(group);
}

bool epoch_turn(struct ftmb_ctx *ctx)
{
    struct epoch_seat *seat = &ctx->epochs->seat[ctx->worker];
    for (;;) {
        SIM_POINT();
        uint64_t word = atomic_load(&ctx->epochs->word);
        uint64_t epoch = (word & ~EPOCH_WANTED) >> 1;
        if (epoch != ctx->epoch_seen >> 1) {
            hand_over(ctx, seat->joined);
            atomic_store_explicit(&seat->waited_ns, 0, memory_order_relaxed);
            ctx->epoch_seen = epoch << 1;
            ctx->gate = !PLANTED(P_NO_GATE);
            set_tag(ctx);
        }
        ctx->epoch_looked = word & ~1ull; /* so that a parked one does not get past epoch_enter() */
        if (word & 1) {
            if (!PLANTED(P_PARKED_STALE)) /* the next flip may come before it has woken up */
                hand_over(ctx, seat->stopped);
            atomic_store(&seat->state, epoch << 2 | EPOCH_PARKED);
            return false;
        }
        atomic_store(&seat->state, epoch << 2 | EPOCH_BUSY);
        if (word & EPOCH_WANTED) {
            atomic_store(&seat->ready, epoch + 1);
            begin_wanted(ctx->epochs, word);
        }
        SIM_POINT();
        if (atomic_load(&ctx->epochs->word) == word)
            return true;
    }
}

void epoch_leave(struct ftmb_ctx *ctx)
{
    struct epoch_seat *seat = &ctx->epochs->seat[ctx->worker];
    hand_over(ctx, seat->stopped);
    atomic_store_explicit(&seat->state, (ctx->epoch_seen >> 1) << 2 | EPOCH_IDLE,
                          memory_order_release);
}

/* It may be one epoch further, while we are still to come to the gate of this one. */
static bool joined(uint64_t state, uint64_t epoch)
{
    return PLANTED(P_NO_BARRIER) || state >> 2 >= epoch || (state & 3) != EPOCH_BUSY;
}

/* At the first shared access since this worker joined. */
void epoch_gate(struct ftmb_ctx *ctx)
{
    struct epoch_group *group = ctx->epochs;
    uint64_t epoch = ctx->epoch_seen >> 1, begun = 0;
    for (uint32_t w = 0; w < ctx->workers; w++) {
        for (uint64_t rounds = 0; w != ctx->worker; rounds++) {
            SIM_POINT();
            if (joined(atomic_load(&group->seat[w].state), epoch))
                break;
            SIM_SEEN(SIM_SEEN_GATE);
            if (!begun && ctx->env->clock)
                begun = ctx->env->clock(ctx->env->env);
            ctx->env->relax(ctx->env->env, ctx->worker, rounds);
        }
    }
    ctx->gate = false;
    if (begun)
        atomic_store_explicit(&group->seat[ctx->worker].waited_ns,
                              ctx->env->clock(ctx->env->env) - begun, memory_order_relaxed);
}

void epoch_flip(struct epoch_group *group, bool stop)
{
    uint64_t epoch = epoch_open(group);
    if (stop) {
        atomic_store(&group->word, (epoch + 1) << 1 | 1);
        SIM_FLIPPED(group);
    } else {
        atomic_store(&group->word, EPOCH_WANTED | epoch << 1);
        begin_wanted(group, EPOCH_WANTED | epoch << 1);
    }
}

void epoch_release(struct epoch_group *group)
{
    atomic_store(&group->word, epoch_open(group) << 1);
}

/* A worker's words at the cut. False: it has not joined yet. */
static bool words_at_cut(const struct epoch_seat *seat, uint64_t word, uint64_t *words)
{
    uint64_t state = atomic_load(&seat->state);
    bool in_epoch = state >> 2 == word >> 1;
    if (!joined(state, word >> 1) || ((word & 1) && (state & 3) == EPOCH_BUSY))
        return PLANTED(P_NO_BARRIER);
    const _Atomic uint64_t *from = in_epoch ? seat->joined : seat->stopped;
    for (unsigned i = 0; i < EPOCH_WORDS; i++) {
        SIM_POINT();
        words[i] = atomic_load_explicit(&from[i], memory_order_acquire);
    }
    /* An idle one may have woken up, joined and become idle again while we read. */
    bool same = in_epoch || atomic_load(&seat->state) == state;
    if (!same)
        SIM_SEEN(SIM_SEEN_WOKE);
    return same || PLANTED(P_IDLE_SEEN_ONCE);
}

bool epoch_complete(struct epoch_group *group, const struct arena *arena, struct arena *header)
{
    uint64_t word = atomic_load(&group->word);
    if (word & EPOCH_WANTED) {
        begin_wanted(group, word);
        word = atomic_load(&group->word);
    }
    if (word & EPOCH_WANTED)
        return false;
    uint64_t words[FTMB_MAX_WORKERS][EPOCH_WORDS];
    for (uint32_t w = 0; w < group->workers; w++) {
        if (!words_at_cut(&group->seat[w], word, words[w]))
            return false;
    }
    if (!header)
        return true;
    /* What workers change is not read from the arena. Every byte is set: they are hashed. */
    memset(header, 0, sizeof(*header));
    memcpy(header, arena,
           PLANTED(P_HEADER_AT_FLIP) ? sizeof(*arena) : offsetof(struct arena, extents));
    if (PLANTED(P_HEADER_AT_FLIP))
        return true;
    for (uint32_t e = 0; e < ARENA_EXTENTS; e++) {
        bool worker = e >= 1 && e <= group->workers;
        header->extents[e] = (struct arena_extent){.start = arena->extents[e].start,
                                                   .used = worker ? words[e - 1][EPOCH_WORDS - 1]
                                                                  : arena->extents[e].used,
                                                   .limit = arena->extents[e].limit};
    }
    for (uint32_t w = 0; w < FTMB_MAX_WORKERS; w++) {
        if (w < group->workers)
            memcpy(&header->cursors[w], words[w], sizeof(struct worker_cursor));
        else
            header->cursors[w] = arena->cursors[w];
    }
    return true;
}

uint64_t epoch_waited_ns(const struct epoch_group *group)
{
    uint64_t longest = 0;
    for (uint32_t w = 0; w < group->workers; w++) {
        const struct epoch_seat *seat = &group->seat[w];
        if (atomic_load(&seat->state) >> 2 == epoch_open(group))
            longest =
                u64_max(longest, atomic_load_explicit(&seat->waited_ns, memory_order_relaxed));
    }
    return longest;
}

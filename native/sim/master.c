/* The master's side of snapshots: which backup holds what, which gets what, and when an epoch has
 * ended. What roles/state_sender.c does.
 *
 * One delta an epoch goes to all. A backup *holds* the committed snapshot, which deltas build on,
 * or it *builds*: then deltas carry slices, and it must get every one until they have gone round.
 * Whether they have, it says itself.
 * An epoch has ended when it is committed; or when nobody is left who could prepare it: then the
 * committed snapshot stays what deltas build on, and the epoch's lines go into the next. Where
 * nobody is there but builders when an epoch begins, the committed snapshot is given up: whoever
 * comes with it later builds as well. No epoch ends before the builders have got it, unless they
 * take too long. */
#include <string.h>

#include "sim/engine.h"
#include "sim/oracle.h"

#define REPEAT_NS SIM_MS
#define BUILDER_PATIENCE_NS SIM_MS
#define LOST_IN_A_ROW 3 /* then everything begins anew */
/* A builder has to get every delta, and the channel here loses some: a build of many more than so
 * many would hardly ever end. */
#define MOST_SLICES 16

static uint64_t all_lines(const struct proc *proc)
{
    return snapshot_lines(proc->arena->size);
}

/* ---- sending ------------------------------------------------------------------------------ */

static void post(struct proc *proc, uint32_t slot)
{
    proc->backup[slot].posted_ns = sim.now_ns;
    parcel_send(&sim.state[proc->slot][slot], &proc->delta);
}

/* The delta under way is of use to whoever holds what it builds on, and its slice to a builder. */
static void offer(struct proc *proc, uint32_t slot)
{
    struct backup *backup = &proc->backup[slot];
    backup->sent = backup->present && (backup->holds || proc->snapshots.slice.lines);
    backup->delivered = backup->prepared = backup->refused = false;
    backup->built = backup->sent && !backup->holds ? proc->snapshots.pending.epoch : 0;
    if (!backup->sent)
        return;
    sim.state[proc->slot][slot].acked = (struct base_name){0};
    cover_if(backup->holds, COVER_DELTA);
    post(proc, slot);
}

static void serve(struct proc *proc, uint32_t slot)
{
    struct backup *backup = &proc->backup[slot];
    struct parcel *parcel = &sim.state[proc->slot][slot];
    if (!backup->sent || backup->delivered || backup->refused)
        return;
    if (parcel_acked(parcel, proc->snapshots.pending)) {
        backup->delivered = true;
        backup->prepared = parcel->acked_prepared;
        sim.worked = true;
    } else if (sim.now_ns - backup->posted_ns > REPEAT_NS) {
        post(proc, slot);
    }
}

/* ---- the end of an epoch ------------------------------------------------------------------ */

/* It may say, or have said, that it has prepared the delta under way. */
static bool can_prepare(const struct backup *backup)
{
    return backup->present && backup->sent && !backup->refused &&
           (!backup->delivered || backup->prepared);
}

static void on_commit(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    sim_engine()->settle(proc, true);
    s->committed = s->pending;
    s->is_committed = true;
    s->committed_ns = sim.now_ns;
    sim.worked = true;
}

/* Builders that have not got it yet. */
static bool builders_wait(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    bool any = false;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        struct backup *backup = &proc->backup[slot];
        bool waits = backup->present && backup->sent && !backup->refused && !backup->holds &&
                     !backup->delivered;
        if (waits && s->is_committed && sim.now_ns - s->committed_ns > BUILDER_PATIENCE_NS) {
            cover(COVER_BUILDER_LATE);
            backup->sent = waits = false;
            backup->built = 0;
        }
        any |= waits;
    }
    return any;
}

static void end_epoch(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    if (!s->is_committed && s->committed.epoch) {
        cover(COVER_ABANDONED);
        sim_engine()->settle(proc, false);
    }
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        struct backup *backup = &proc->backup[slot];
        /* Nothing was committed without one that held the last base, but who refused. */
        if (s->is_committed)
            backup->holds = can_prepare(backup) && (backup->holds || backup->prepared);
        backup->sent = false;
    }
    s->pending = (struct base_name){0};
    sim.worked = true;
}

static void settle(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    bool can = false;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        serve(proc, slot);
        can |= can_prepare(&proc->backup[slot]);
    }
    if (!s->is_committed && base_same(s->told, s->pending))
        on_commit(proc);
    if ((s->is_committed || !can) && !builders_wait(proc))
        end_epoch(proc);
}

/* ---- the beginning of one ----------------------------------------------------------------- */

static bool due(const struct proc *proc)
{
    const struct snapshots *s = &proc->snapshots;
    bool any = false, builder = false;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        any |= proc->backup[slot].present;
        builder |= proc->backup[slot].present && !proc->backup[slot].holds;
    }
    if (!any || (atomic_load(&proc->replaying) && !PLANTED(P_FLIP_IN_REPLAY)))
        return false;
    return builder || s->wanted || sim.now_ns >= s->due_ns;
}

static struct snapshot_slice next_slice(const struct proc *proc)
{
    if (sim_engine()->whole)
        return (struct snapshot_slice){0, all_lines(proc)};
    uint64_t least = all_lines(proc) * ARENA_LINE / MOST_SLICES;
    return snapshot_slice_at(proc->arena, proc->snapshots.slice_at,
                             u64_max(sim.config.slice, least));
}

/* Nobody holds or builds anything: what has changed so far is of no use, builds begin anew. */
static void forget(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    cover_if(s->previous != 0, COVER_CHANGES_FORGOTTEN);
    if (!PLANTED(P_FORGET_GOES_ON))
        s->previous = 0;
    if (sim_engine()->forget)
        sim_engine()->forget(proc);
}

/* More changes while the lines of a snapshot are read than the undo logs take: one that was lost
 * leaves all of its lines to the next, so it would be lost for ever. Slices are smaller: everybody
 * builds. */
static void begin_anew(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    cover(COVER_BEGUN_ANEW);
    s->lost = 0;
    if (!PLANTED(P_ANEW_KEEPS_BASE))
        s->committed = (struct base_name){0};
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        proc->backup[slot].holds = false;
        proc->backup[slot].built = 0;
    }
}

/* What the next snapshot consists of, and what it builds on. */
static struct snapshot_name next_name(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    bool holder = false, builder = false, follow = false;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct backup *backup = &proc->backup[slot];
        holder |= backup->present && backup->holds;
        builder |= backup->present && !backup->holds;
        follow |= backup->present && backup->built && backup->built == s->previous;
    }
    if (!holder && !PLANTED(P_ANEW_KEEPS_BASE)) { /* what changed is not kept apart any longer */
        cover_if(s->committed.epoch != 0, COVER_BASE_GIVEN_UP);
        s->committed = (struct base_name){0};
    }
    s->slice = builder ? next_slice(proc) : (struct snapshot_slice){0};
    if (!holder && !follow)
        forget(proc);
    return (struct snapshot_name){.view = proc->view,
                                  .epoch = epoch_open(&proc->epochs) + 1,
                                  .base_view = s->committed.view,
                                  .base_epoch = s->committed.epoch,
                                  .previous_epoch = s->previous,
                                  .slice = s->slice};
}

static void take(struct proc *proc)
{
    struct snapshots *s = &proc->snapshots;
    s->due_ns = sim.now_ns + sim.config.period_us * SIM_US;
    s->wanted = false;
    struct snapshot_name name = next_name(proc);
    TRACE("r%u    takes snapshot %llu on %llu of view %u, slice %llu + %llu", proc->slot,
          (unsigned long long)name.epoch, (unsigned long long)name.base_epoch, name.base_view,
          (unsigned long long)s->slice.first, (unsigned long long)s->slice.lines);
    s->making = true;
    bool made = sim_engine()->make(proc, name);
    s->making = false;
    if (!made) {
        if (++s->lost >= LOST_IN_A_ROW)
            begin_anew(proc);
        return;
    }
    s->lost = 0;
    s->pending = (struct base_name){name.view, name.epoch};
    s->is_committed = false;
    s->previous = name.epoch;
    if (s->slice.lines)
        s->slice_at = (s->slice.first + s->slice.lines) % all_lines(proc);
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        offer(proc, slot);
}

void master_turn(struct proc *proc)
{
    if (proc->snapshots.pending.epoch) {
        settle(proc);
    } else if (due(proc)) {
        take(proc);
        sim.worked = true;
    }
}

/* The workers are about to begin, from the committed snapshot `base` or, epoch 0, from nothing. */
void master_begin(struct proc *proc, struct base_name base)
{
    proc->snapshots = (struct snapshots){.committed = base};
    memset(&proc->epochs, 0, sizeof(proc->epochs));
    proc->epochs.workers = sim.config.workers;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        proc->backup[slot] = (struct backup){0};
    sim_engine()->start(proc, proc->arena, base.epoch != 0);
}

/* A backup came, went, or refused something. */
void master_backup(struct proc *proc, const struct message *message)
{
    struct snapshots *s = &proc->snapshots;
    struct backup *backup = &proc->backup[message->slot];
    if (!proc->active)
        return;
    bool same = backup->present && message->present && backup->incarnation == message->incarnation;
    bool holds = message->present && s->committed.epoch && base_same(message->name, s->committed);
    if (same && !message->refused && (backup->sent || backup->holds || !holds))
        return;
    TRACE("r%u    hears of r%u: %s, base %llu%s", proc->slot, message->slot,
          message->present ? "present" : "gone", (unsigned long long)message->name.epoch,
          message->refused ? ", it refused" : "");
    bool sent = same && backup->sent;
    *backup = (struct backup){.present = message->present, .incarnation = message->incarnation};
    backup->holds = holds;
    cover_if(message->present && message->name.epoch && !backup->holds, COVER_HOLDER_BUILDS);
    if (sent) { /* it does not want that one again */
        backup->sent = backup->refused = true;
        return;
    }
    /* The OL may wait for it: one that comes with the present base counts from now on. */
    if (s->pending.epoch && !s->is_committed && backup->present) {
        cover_if(backup->holds, COVER_JOINED_PENDING);
        offer(proc, message->slot);
    }
}

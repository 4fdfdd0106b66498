/* Snapshots: the master takes and sends them, standbys prepare and commit them. */
#include <string.h>

#include "sim/oracle.h"
#include "sim/sim.h"

/* How the arena's image at a cut is made; other engines can be put beside it. */
struct sim_engine {
    const char *name;
    void (*take)(struct proc *proc, struct arena *image);
};

static void stop_copy(struct proc *proc, struct arena *image)
{
    atomic_store(&proc->stop, 1);
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        while (!barrier_stands(&proc->worker[w].state))
            sim_wait();
        SIM_POINT();
    }
    snapshot_copy(proc->arena, image);
    atomic_store(&proc->stop, 0);
}

static const struct sim_engine engine = {.name = "stop-copy", .take = stop_copy};

/* ---- master ------------------------------------------------------------------------------- */

static void post(struct proc *proc, uint32_t slot)
{
    struct backup *backup = &proc->backup[slot];
    backup->posted_ns = sim.now_ns;
    parcel_send(&sim.state[proc->slot][slot], &backup->delta);
}

/* Send the snapshot under way to a backup: as a difference, where it holds the committed one. */
static void ask(struct proc *proc, uint32_t slot)
{
    struct backup *backup = &proc->backup[slot];
    const struct arena *previous = NULL;
    if (proc->committed >= 0 && base_same(backup->base, proc->committed_name))
        previous = proc->image[proc->committed];
    cover_if(previous != NULL, COVER_DELTA);
    struct snapshot_name name = {.view = proc->view,
                                 .epoch = proc->epoch,
                                 .base_view = proc->committed_name.view,
                                 .base_epoch = proc->committed_name.epoch};
    FTMB_ASSERT(delta_build(&backup->delta, proc->image[proc->pending], previous, name, true));
    backup->asked = true;
    post(proc, slot);
}

static void abandon(struct proc *proc)
{
    if (PLANTED(P_DELTA_ON_UNCOMMITTED) && proc->committed >= 0 && proc->pending >= 0)
        proc->committed = proc->pending; /* though nobody has it */
    proc->pending = -1;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        proc->backup[slot].asked = false;
}

static bool anybody_asked(const struct proc *proc)
{
    bool any = false;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        any |= proc->backup[slot].asked;
    return any;
}

static void take_and_send(struct proc *proc)
{
    int next = proc->committed == 0 ? 1 : 0;
    struct arena *image = proc->image[next];
    proc->epoch++;
    proc->wanted = false;
    engine.take(proc, image);
    oracle_image(proc, image);
    proc->pending = next;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        struct backup *backup = &proc->backup[slot];
        if (!backup->present)
            continue;
        ask(proc, slot);
    }
    if (!anybody_asked(proc)) /* gone while the image was made */
        abandon(proc);
}

/* What was sent may be lost: send it again until it is committed or given up. */
static void repeat(struct proc *proc)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        struct backup *backup = &proc->backup[slot];
        if (backup->present && backup->asked && sim.now_ns - backup->posted_ns > SIM_MS)
            post(proc, slot);
    }
}

static bool due(const struct proc *proc)
{
    bool any = false;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        any |= proc->backup[slot].present;
    if (!any || (atomic_load(&proc->replaying) && !PLANTED(P_FLIP_IN_REPLAY)))
        return false;
    return proc->committed < 0 || proc->wanted || sim.now_ns >= proc->due_ns;
}

static void master(struct proc *proc)
{
    if (proc->pending >= 0) {
        repeat(proc);
        return;
    }
    if (!due(proc))
        return;
    proc->due_ns = sim.now_ns + sim.config.period_us * SIM_US;
    take_and_send(proc);
    sim.worked = true;
}

/* A backup came, went, or refused something. */
void snapshot_backup(struct proc *proc, const struct message *message)
{
    struct backup *backup = &proc->backup[message->slot];
    if (!proc->active)
        return;
    bool same = backup->present && message->present && !message->refused &&
                backup->incarnation == message->incarnation;
    if (same)
        return;
    backup->present = message->present;
    backup->incarnation = message->incarnation;
    backup->base = message->name;
    if (proc->pending >= 0 && backup->asked) {
        backup->asked = false;
        if (!anybody_asked(proc))
            abandon(proc);
    }
    /* It may take over, so nothing is committed without it. */
    if (proc->pending >= 0 && proc->committed >= 0 && backup->present &&
        base_same(backup->base, proc->committed_name)) {
        cover(COVER_JOINED_PENDING);
        ask(proc, message->slot);
    }
}

static void committed_at_master(struct proc *proc, struct base_name name)
{
    if (proc->pending < 0 || name.view != proc->view || name.epoch != proc->epoch)
        return;
    proc->committed = proc->pending;
    proc->committed_name = name;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if (proc->backup[slot].asked)
            proc->backup[slot].base = name;
        proc->backup[slot].asked = false;
    }
    proc->pending = -1;
}

static void tell(struct proc *proc, enum message_type type, const struct delta_head *head)
{
    struct message message = {.type = type};
    if (head) {
        message.name = (struct base_name){head->view, head->epoch};
        message.cut = head->cut;
    }
    proc_send(proc, &message);
}

void snapshot_committed(struct proc *proc, struct base_name name)
{
    struct base_name prepared = standby_prepared(&proc->standby);
    if (proc->active)
        committed_at_master(proc, name);
    else if (!standby_commit(&proc->standby, name) && prepared.epoch && !proc->promised_view &&
             (prepared.view < name.view ||
              (prepared.view == name.view && prepared.epoch < name.epoch)))
        standby_roll_back(&proc->standby); /* it will never be the base */
}

void snapshot_tell_prepared(struct proc *proc)
{
    if (!proc->active && standby_prepared(&proc->standby).epoch)
        tell(proc, MSG_PREPARED, standby_delta(&proc->standby));
}

/* ---- standby ------------------------------------------------------------------------------ */

static void receive(struct proc *proc, struct parcel *parcel)
{
    struct standby *standby = &proc->standby;
    const struct delta_head *head = (const struct delta_head *)parcel->bytes;
    struct base_name name = {head->view, head->epoch};
    if (head->view != proc->view || !proc->incarnation || proc->promised_view)
        return; /* of an ended view, or not yet of this process's */
    if (base_same(standby_prepared(standby), name)) {
        tell(proc, MSG_PREPARED, standby_delta(standby));
        return;
    }
    if (base_same(standby_base(standby), name))
        return;
    /* What was said to be prepared stays it until the OL has said what becomes of it. */
    if (standby_prepared(standby).epoch)
        return;
    FTMB_ASSERT(parcel->size <= standby->delta_capacity);
    memcpy(standby->delta, parcel->bytes, parcel->size);
    const char *wrong = standby_prepare(standby, parcel->size);
    if (wrong == standby_wrong_line)
        sim_fail("I3", "the backup's state at the cut differs from the master's");
    if (!wrong && PLANTED(P_COMMIT_WITHOUT_OL))
        (void)standby_commit(standby, name);
    tell(proc, wrong ? MSG_REJECTED : MSG_PREPARED, wrong ? NULL : head);
}

static void standby(struct proc *proc)
{
    for (uint32_t from = 0; from < SIM_SLOTS; from++) {
        struct parcel *parcel = &sim.state[from][proc->slot];
        if (!parcel_ready(parcel))
            continue;
        receive(proc, parcel);
        parcel->full = false;
        sim.worked = true;
    }
}

void snapshot_main(void *self)
{
    struct proc *proc = self;
    for (;;) {
        if (proc->active)
            master(proc);
        else
            standby(proc);
        coro_yield();
    }
}

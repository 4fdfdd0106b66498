/* Snapshots at a standby: it prepares, builds and commits what the master sends (master.c). */
#include <string.h>

#include "sim/oracle.h"
#include "sim/sim.h"

static void tell(struct proc *proc, enum message_type type)
{
    struct message message = {.type = type};
    if (type == MSG_PREPARED) {
        const struct delta_head *head = standby_delta(&proc->standby);
        message.name = (struct base_name){head->view, head->epoch};
        message.cut = head->cut;
    }
    proc_send(proc, &message);
}

void snapshot_committed(struct proc *proc, struct base_name name)
{
    struct base_name prepared = standby_prepared(&proc->standby);
    if (proc->active)
        proc->snapshots.told = name;
    else if (!standby_commit(&proc->standby, name) && prepared.epoch && !proc->promised_view &&
             (prepared.view < name.view ||
              (prepared.view == name.view && prepared.epoch < name.epoch)))
        standby_roll_back(&proc->standby); /* it will never be the base */
}

/* What the OL may not have heard. */
void snapshot_tell(struct proc *proc)
{
    if (proc->active)
        return;
    if (standby_prepared(&proc->standby).epoch)
        tell(proc, MSG_PREPARED);
    else if (proc->standby.build.epoch && !PLANTED(P_BUILDER_SILENT))
        tell(proc, MSG_BUILDING);
}

static void prepare(struct proc *proc, const struct parcel *parcel)
{
    struct standby *standby = &proc->standby;
    uint64_t built = standby->build.epoch;
    FTMB_ASSERT(parcel->size <= standby->delta_capacity);
    memcpy(standby->delta, parcel->bytes, parcel->size);
    const char *wrong = standby_prepare(standby, parcel->size);
    if (wrong == standby_wrong_line)
        sim_fail("I3", "the backup's state at the cut differs from the master's");
    if (wrong) {
        TRACE("r%u    refuses a delta: it %s", proc->slot, wrong);
        cover(COVER_REFUSED);
        cover_if(built && !standby->build.epoch, COVER_BUILD_GIVEN_UP);
        tell(proc, MSG_REJECTED);
        return;
    }
    if (standby_prepared(standby).epoch) {
        oracle_prepared(proc);
        cover_if(built != 0, COVER_BUILT);
        if (PLANTED(P_COMMIT_WITHOUT_OL))
            (void)standby_commit(standby, standby_prepared(standby));
    }
    TRACE("r%u    takes a delta, %s (%llu lines)", proc->slot,
          standby->build.epoch ? "and builds" : "prepared",
          (unsigned long long)standby->build.lines);
    snapshot_tell(proc);
}

/* True: it has been taken, so that it need not be sent again. */
static bool receive(struct proc *proc, const struct parcel *parcel)
{
    struct standby *standby = &proc->standby;
    const struct delta_head *head = (const struct delta_head *)parcel->bytes;
    struct base_name name = {head->view, head->epoch};
    if (head->view != proc->view || !proc->incarnation || proc->promised_view)
        return false; /* of an ended view, or not yet of this process's */
    if (base_same(proc->received, name)) {
        snapshot_tell(proc);
        return true;
    }
    if (base_same(standby_base(standby), name))
        return true;
    /* What was said to be prepared stays it until the OL has said what becomes of it. */
    if (standby_prepared(standby).epoch && !base_same(standby_prepared(standby), name))
        return false;
    proc->received = name;
    if (standby_prepared(standby).epoch) /* found in its slot */
        snapshot_tell(proc);
    else
        prepare(proc, parcel);
    return true;
}

static void acknowledge(struct proc *proc, struct parcel *parcel, struct base_name name)
{
    bool prepared = base_same(standby_prepared(&proc->standby), name) ||
                    base_same(standby_base(&proc->standby), name);
    parcel_ack(parcel, name, prepared);
}

static void standby(struct proc *proc)
{
    for (uint32_t from = 0; from < SIM_SLOTS; from++) {
        struct parcel *parcel = &sim.state[from][proc->slot];
        if (!parcel_ready(parcel))
            continue;
        const struct delta_head *head = (const struct delta_head *)parcel->bytes;
        if (receive(proc, parcel))
            acknowledge(proc, parcel, (struct base_name){head->view, head->epoch});
        parcel->full = false;
        sim.worked = true;
    }
}

void snapshot_main(void *self)
{
    struct proc *proc = self;
    for (;;) {
        if (proc->active)
            master_turn(proc);
        else
            standby(proc);
        coro_yield();
    }
}

/* Traffic, faults, and the fleet (see world.h). */
#include "sim/world.h"

#include <string.h>

#include "sim/program.h"

#define PATIENCE_NS (10 * SIM_MS) /* for a fault whose moment does not come */

struct world {
    uint32_t offered;
    uint32_t accepted;
    bool waiting; /* a packet stands at the door */
    struct packet_in packet;
    uint64_t next_packet_ns;
    uint32_t next_fault;
    uint64_t fault_ns;   /* when it strikes, 0: its moment has not come */
    uint64_t patient_ns; /* since when it could strike, but for the system's state */
    uint64_t restart_ns[SIM_SLOTS];
    uint64_t continue_ns[SIM_SLOTS];
    uint64_t il_ns, ol_ns; /* when they start again, or go on */
    bool quiet_seen;
    uint64_t quiet_ns;
};

static struct world memory;

void world_reset(void)
{
    memset(&memory, 0, sizeof(memory));
    sim.world = &memory;
    il_start(true);
    ol_start(true);
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        sim.proc[slot].alive = false;
    for (uint32_t slot = 0; slot <= sim.config.backups; slot++)
        proc_start(slot);
}

/* ---- traffic ------------------------------------------------------------------------------ */

bool world_offer(struct packet_in *packet)
{
    if (!memory.waiting)
        return false;
    *packet = memory.packet;
    memory.waiting = false;
    return true;
}

void world_accepted(void)
{
    memory.accepted++;
}

bool world_drained(void)
{
    return memory.offered == sim.config.packets && !memory.waiting;
}

static void offer(void)
{
    if (memory.offered == sim.config.packets || sim.now_ns < memory.next_packet_ns)
        return;
    /* At the beginning it waits for the first commit; later it takes the place of one not fetched,
     * as in a network card's full ring. */
    if (memory.waiting && !sim.il.accepting)
        return;
    sim.program->packet(&memory.packet);
    memory.waiting = true;
    memory.offered++;
    uint32_t gap = sim.config.gap_ns;
    bool burst = rng_below(&sim.traffic, 4) == 0;
    memory.next_packet_ns = sim.now_ns + (burst ? gap / 16 : rng_below(&sim.traffic, 2 * gap));
}

/* ---- the system's state -------------------------------------------------------------------- */

static struct proc *master(void)
{
    int slot = sim.ol.state.master;
    return slot < 0 ? NULL : &sim.proc[slot];
}

static bool loggers_up(void)
{
    return sim.ol.alive && !sim.ol.stopped && sim.il.alive && !sim.il.stopped;
}

static struct proc *find_backup(bool eligible)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct view_member *member = &sim.ol.state.member[slot];
        struct proc *proc = &sim.proc[slot];
        if (member->present && (int)slot != sim.ol.state.master && proc->alive &&
            member->eligible == eligible)
            return proc;
    }
    return NULL;
}

/* The state in which one failure is survived. */
static bool is_protected(void)
{
    const struct proc *m = master();
    return loggers_up() && m && m->alive && !m->stopped && m->active && !sim.ol.state.promoting &&
           sim.il.view == sim.ol.state.view && m->view == sim.ol.state.view &&
           sim.now_ns >= m->mute_until_ns && find_backup(true);
}

/* ---- faults ------------------------------------------------------------------------------- */

static bool may_strike(enum fault_kind kind)
{
    const struct proc *m = master();
    switch (kind) {
    case FAULT_KILL_AGAIN: /* recovers from the base that promotion left in the slot */
        return loggers_up() && m && m->alive && !m->stopped && sim.ol.state.view > 1 &&
               (sim.ol.state.promoting || !m->active ||
                sim.ol.state.base_view != sim.ol.state.view) &&
               (find_backup(true) || sim.ol.state.member[m->slot].holder);
    case FAULT_STALL_ALONE:
        return loggers_up() && m && m->alive && !m->stopped && m->active &&
               view_eligible(&sim.ol.state) < 0;
    case FAULT_KILL_OL_PROMOTING:
        return loggers_up() && sim.ol.state.promoting;
    case FAULT_KILL_HOLDER:
        return is_protected() && find_backup(false);
    case FAULT_STOP_NEWCOMER:
    case FAULT_KILL_NEWCOMER:
        return loggers_up() && m && m->active && sim.ol.state.base_epoch && find_backup(false);
    default:
        return is_protected();
    }
}

static void cover_kill(struct proc *proc)
{
    bool packet = false, section = false, replaying = atomic_load(&proc->replaying) != 0;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        packet |= proc->worker[w].in_packet;
        section |= proc->worker[w].ctx.held_count != 0;
    }
    cover_if(packet, COVER_KILL_IN_PACKET);
    cover_if(section, COVER_KILL_IN_SECTION);
    if (proc->snapshots.making) {
        struct epoch_group *epochs = &proc->epochs;
        bool joined = epoch_complete(epochs, proc->arena, NULL);
        cover(joined ? COVER_KILL_COLLECTING : COVER_KILL_WHILE_CUTTING);
    }
    cover_if(sim.ol.state.pending.valid, COVER_KILL_PREPARED);
    cover_if(replaying, COVER_KILL_IN_REPLAY);
    cover_if(sim.ol.state.promoting, COVER_KILL_PROMOTING);
}

static void stop(struct proc *proc, uint64_t at_most_ms)
{
    proc->stopped = true;
    memory.continue_ns[proc->slot] =
        sim.now_ns + SIM_MS + rng_below(&sim.faults, (uint32_t)(at_most_ms * SIM_MS));
    world_actors_changed();
}

static void cut_lanes(struct lane (*lanes)[SIM_WORKERS], uint32_t slot, uint64_t until_ns)
{
    for (uint32_t w = 0; w < sim.config.workers; w++)
        lanes[slot][w].cut_until_ns = until_ns;
}

static void strike_loggers(enum fault_kind kind)
{
    uint64_t again_ns = sim.now_ns + 20 * SIM_US + rng_below(&sim.faults, 1000000);
    if (kind == FAULT_KILL_OL || kind == FAULT_KILL_OL_PROMOTING) {
        cover(COVER_KILL_OL);
        ol_kill();
        memory.ol_ns = again_ns;
    } else if (kind == FAULT_STOP_OL) {
        cover(COVER_STOP_OL);
        sim.ol.stopped = true;
        memory.ol_ns = again_ns + 2 * SIM_MS;
        world_actors_changed();
    } else {
        cover(COVER_KILL_IL);
        il_kill();
        memory.il_ns = again_ns;
    }
}

static const char *const fault_names[FAULT_KINDS] = {
    [FAULT_KILL_MASTER] = "kill the master",
    [FAULT_KILL_AGAIN] = "kill the new master",
    [FAULT_STOP_MASTER] = "stop the master",
    [FAULT_STALL_MASTER] = "the master falls silent",
    [FAULT_STALL_ALONE] = "the master falls silent, nobody could take over",
    [FAULT_KILL_BACKUP] = "kill a backup",
    [FAULT_KILL_NEWCOMER] = "kill a backup without a base",
    [FAULT_KILL_HOLDER] = "kill the backup with the base while another builds",
    [FAULT_STOP_BACKUP] = "stop a backup",
    [FAULT_STOP_NEWCOMER] = "stop a backup without a base",
    [FAULT_KILL_OL] = "kill the OL",
    [FAULT_KILL_OL_PROMOTING] = "kill the OL in a failover",
    [FAULT_KILL_IL] = "kill the IL",
    [FAULT_STOP_OL] = "stop the OL",
    [FAULT_CUT_IL] = "cut the IL's link",
    [FAULT_CUT_OL] = "cut the OL's link",
    [FAULT_CUT_CONTROL] = "cut the control channel",
    [FAULT_SWITCHOVER] = "switchover",
};

static void strike(enum fault_kind kind)
{
    struct proc *m = master();
    uint64_t until_ns = sim.now_ns + rng_below(&sim.faults, 3000000);
    TRACE("FAULT %s", fault_names[kind]);
    switch (kind) {
    case FAULT_KILL_MASTER:
    case FAULT_KILL_AGAIN:
        cover(kind == FAULT_KILL_AGAIN ? COVER_KILL_AGAIN : COVER_KILL_MASTER);
        cover_kill(m);
        proc_kill(m);
        break;
    case FAULT_STOP_MASTER:
        cover(COVER_STOP_MASTER);
        stop(m, 6);
        break;
    case FAULT_STOP_BACKUP:
        cover(COVER_STOP_BACKUP);
        stop(find_backup(true), 30);
        break;
    case FAULT_STOP_NEWCOMER:
        cover(COVER_STOP_NEWCOMER);
        stop(find_backup(false), 8);
        break;
    case FAULT_STALL_MASTER:
    case FAULT_STALL_ALONE:
        m->mute_until_ns = until_ns + 3 * SIM_MS;
        cover(kind == FAULT_STALL_ALONE ? COVER_STALL_ALONE : COVER_STALL);
        break;
    case FAULT_KILL_BACKUP:
    case FAULT_KILL_HOLDER:
    case FAULT_KILL_NEWCOMER:
        cover(kind == FAULT_KILL_BACKUP   ? COVER_KILL_BACKUP
              : kind == FAULT_KILL_HOLDER ? COVER_KILL_HOLDER
                                          : COVER_KILL_NEWCOMER);
        proc_kill(find_backup(kind != FAULT_KILL_NEWCOMER));
        break;
    case FAULT_CUT_IL:
        cover(COVER_CUT_LINK);
        cut_lanes(sim.il_to, m->slot, until_ns);
        cut_lanes(sim.il_from, m->slot, until_ns);
        break;
    case FAULT_CUT_OL:
        cover(COVER_CUT_LINK);
        cut_lanes(sim.ol_to, m->slot, until_ns);
        cut_lanes(sim.ol_from, m->slot, until_ns);
        break;
    case FAULT_CUT_CONTROL:
        cover(COVER_CUT_LINK);
        sim.from_proc[m->slot].cut_until_ns = sim.to_proc[m->slot].cut_until_ns = until_ns;
        break;
    case FAULT_SWITCHOVER:
        sim.ol.handover_wanted = true;
        break;
    default:
        strike_loggers(kind);
    }
}

static void next_fault(void)
{
    memory.next_fault++;
    memory.fault_ns = memory.patient_ns = 0;
}

/* A fault's moment: so many packets were accepted, the system is in the state that it is meant
 * for, and then a little later. */
static void look_for_fault(void)
{
    if (memory.next_fault == sim.config.faults)
        return;
    const struct fault *fault = &sim.config.fault[memory.next_fault];
    if (memory.accepted < fault->after && !world_drained())
        return;
    if (!memory.fault_ns) {
        if (may_strike(fault->kind))
            memory.fault_ns = sim.now_ns + fault->then_ns;
        else if (!memory.patient_ns)
            memory.patient_ns = sim.now_ns;
        else if (sim.now_ns - memory.patient_ns > PATIENCE_NS)
            next_fault();
        return;
    }
    if (sim.now_ns < memory.fault_ns)
        return;
    if (!may_strike(fault->kind)) {
        memory.fault_ns = 0; /* that moment has passed */
        if (!memory.patient_ns)
            memory.patient_ns = sim.now_ns;
        return;
    }
    strike(fault->kind);
    next_fault();
}

/* ---- the fleet ---------------------------------------------------------------------------- */

void world_died(const struct proc *proc)
{
    memory.restart_ns[proc->slot] = sim.now_ns + rng_below(&sim.faults, 300000);
    if (!proc->watched || !sim.ol.alive)
        return;
    const struct message death = {
        .type = MSG_DEATH, .slot = proc->slot, .incarnation = proc->watched};
    channel_send(&sim.deaths, &death);
}

/* A dead one's slot is filled again when the view goes on, or when a heir is wanted there. */
static bool may_start(uint32_t slot)
{
    const struct ol *ol = &sim.ol;
    const struct proc *m = master();
    if (!ol->alive || ol->stopped || ol->state.member[slot].present)
        return false;
    return !m || (m->active && !ol->state.promoting && ol->view == ol->state.view);
}

static void run_fleet(void)
{
    for (uint32_t slot = 0; slot <= sim.config.backups; slot++) {
        struct proc *proc = &sim.proc[slot];
        if (proc->stopped && sim.now_ns >= memory.continue_ns[slot]) {
            proc->stopped = false;
            world_actors_changed();
        }
        if (!proc->alive && sim.now_ns >= memory.restart_ns[slot] && may_start(slot))
            proc_start(slot);
    }
    if (!sim.il.alive && sim.now_ns >= memory.il_ns)
        il_start(false);
    if (!sim.ol.alive && sim.now_ns >= memory.ol_ns)
        ol_start(false);
    if (sim.ol.stopped && sim.now_ns >= memory.ol_ns) {
        sim.ol.stopped = false;
        world_actors_changed();
    }
}

void world_events(void)
{
    offer();
    look_for_fault();
    run_fleet();
}

/* ---- the end ------------------------------------------------------------------------------ */

static bool all_done(void)
{
    const struct proc *m = master();
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        const struct worker_cursor *cursor = &m->arena->cursors[w];
        const struct release_worker *x = &sim.ol.release.worker[w];
        if (cursor->next_input != sim.il.log[w].next || x->released != cursor->outputs ||
            m->worker[w].ctx.replay || m->worker[w].in_packet)
            return false;
    }
    return sim.ol.leaving_count == 0;
}

/* No snapshot hangs, and every backup has come to hold the base. */
static bool all_hold(void)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct view_member *member = &sim.ol.state.member[slot];
        if (member->present && (int)slot != sim.ol.state.master && !member->eligible)
            return false;
    }
    return !master()->snapshots.pending.epoch;
}

bool world_finished(void)
{
    return world_drained() && memory.next_fault == sim.config.faults && is_protected() &&
           !sim.ol.handover_wanted && !handover_under_way(&sim.ol.handover) && all_done() &&
           all_hold();
}

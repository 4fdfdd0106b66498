/* The output logger's decisions: who belongs, silence, failover. What roles/ol_members.c and
 * ol_failover.c do. */
#include <string.h>

#include "sim/ol.h"
#include "sim/oracle.h"
#include "sim/world.h"

#define DETECT_NS (2 * SIM_MS)
#define HANDOVER_NS (5 * SIM_MS)
#define HANDOVER_AGAIN_NS (1 * SIM_MS)

void ol_send(int slot, const struct message *message)
{
    struct ol *ol = &sim.ol;
    if (slot < 0 || !ol->member[slot].connected)
        return;
    struct message copy = *message;
    copy.view = ol->state.view;
    copy.incarnation = ol->state.member[slot].incarnation;
    if (sim.proc[slot].alive)
        channel_send(&sim.to_proc[slot], &copy);
}

void ol_send_type(int slot, enum message_type type)
{
    const struct message message = {.type = type};
    ol_send(slot, &message);
}

static bool il_there(void)
{
    return sim.ol.il_connected && sim.il.alive;
}

void ol_send_il(const struct message *message)
{
    if (!il_there())
        return;
    struct message copy = *message;
    copy.view = sim.ol.view;
    channel_send(&sim.to_il, &copy);
}

/* ---- what each of them must know ----------------------------------------------------------- */

static void tell_view(void)
{
    struct ol *ol = &sim.ol;
    if (!ol->flowing)
        return;
    struct message message = {.type = MSG_VIEW, .slot = ol->slot, .incarnation = ol->incarnation};
    memcpy(message.cut.next_input, ol->start, sizeof(ol->start));
    ol_send_il(&message);
}

void ol_tell_backup(uint32_t slot, bool anew)
{
    struct ol *ol = &sim.ol;
    const struct view_member *member = &ol->state.member[slot];
    struct message message = {.type = MSG_BACKUP, .present = member->present, .refused = anew};
    if (member->eligible && !anew)
        message.name = (struct base_name){ol->state.base_view, ol->state.base_epoch};
    int master = ol->state.master;
    if (master < 0 || !ol->member[master].connected || !sim.proc[master].alive)
        return;
    message.slot = slot;
    message.view = ol->state.view;
    message.incarnation = member->incarnation;
    channel_send(&sim.to_proc[master], &message);
}

/* Of those that are not there as well: they may have left unheard. */
static void tell_all_backups(void)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if ((int)slot != sim.ol.state.master)
            ol_tell_backup(slot, false);
    }
}

struct message ol_committed_message(void)
{
    const struct view_state *view = &sim.ol.state;
    return (struct message){
        .type = MSG_COMMITTED, .name = {view->base_view, view->base_epoch}, .cut = sim.ol.cut};
}

static void promote(void)
{
    struct ol *ol = &sim.ol;
    struct message message = {.type = MSG_PROMOTE,
                              .name = {ol->state.base_view, ol->state.base_epoch}};
    ol->member[ol->state.master].heard_ns = sim.now_ns;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        const struct release_worker *x = &ol->release.worker[w];
        message.limit[w] = x->stored - x->pal_base;
        for (uint64_t i = 0; i < message.limit[w]; i++)
            sim.promote_pals[w][i] = x->pals[(x->pal_base + 1 + i) & x->pal_mask];
    }
    ol_send(ol->state.master, &message);
}

static void fence_out(int slot)
{
    const struct message fenced = {.type = MSG_FENCED, .view = sim.ol.state.view};
    if (slot >= 0 && sim.ol.member[slot].connected && sim.proc[slot].alive)
        channel_send(&sim.to_proc[slot], &fenced);
}

/* ---- failover ------------------------------------------------------------------------------- */

/* planned: nobody failed, a handover ends the view. */
static void master_failed(bool dead, bool planned)
{
    struct ol *ol = &sim.ol;
    int old = ol->state.master, other = 0;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        other += ol_present(slot) && (int)slot != old && ol->state.member[slot].eligible;
    bool again = ol->state.base_view != ol->state.view; /* nothing committed since */
    enum view_outcome outcome = view_master_failed(&ol->state, dead);
    if (outcome == VIEW_GOES_ON)
        return;
    SIM_POINT();
    if (planned && PLANTED(P_HANDOVER_UNFENCED))
        sim.ol.flowing = false;
    else
        ol_fence();
    /* The base was given up (no backup, logs half full) before this death was known. */
    while (outcome == VIEW_LOST && dead && ol->forgotten) {
        sim.lost = true;
        coro_yield();
    }
    if (outcome == VIEW_LOST || (outcome == VIEW_HEIRLESS && !dead))
        sim_fail("I2", "%s, and nobody holds the base",
                 dead ? "the master died" : "a silent master is fenced");
    SIM_POINT();
    if (outcome == VIEW_PROMOTED) {
        cover(COVER_VIEW_CHANGE);
        cover_if(again && other, COVER_OTHER_BACKUP);
        promote();
    } else {
        cover(COVER_HEIR_WANTED);
    }
    fence_out(old);
    sim_progress();
}

static void await_heir(void)
{
    if (!view_inherit(&sim.ol.state))
        return;
    SIM_POINT();
    cover(COVER_VIEW_CHANGE);
    promote();
    sim_progress();
}

static void member_gone(uint32_t slot)
{
    struct ol *ol = &sim.ol;
    if ((int)slot == ol->state.master) {
        master_failed(true, false);
        return;
    }
    view_leave(&ol->state, slot);
    ol->member[slot].connected = false;
    SIM_POINT();
    ol_tell_backup(slot, false);
}

static void cut_arrived(const struct message *message)
{
    struct ol *ol = &sim.ol;
    struct view_state *view = &ol->state;
    if (!view->promoting || (int)message->slot != view->master || message->name.view != view->view)
        return;
    ol_begin(message->slot, view->view, message->incarnation, &message->cut);
    SIM_POINT();
    view_begun(view);
    SIM_POINT();
    ol_send_type(view->master, MSG_GO);
    memset(ol->limit, 0, sizeof(ol->limit));
    tell_view();
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if (!ol_present(slot) || (int)slot == view->master)
            continue;
        ol_send_type((int)slot, MSG_NEW_VIEW);
        ol_tell_backup(slot, false);
    }
}

/* ---- a planned change of master ------------------------------------------------------------- */

static void ask_for_handover(void)
{
    if (handover_asks(&sim.ol.handover, sim.now_ns, HANDOVER_AGAIN_NS))
        ol_send_type(sim.ol.state.master, MSG_SNAPSHOT);
}

static void look_whether_given_up(void)
{
    struct ol *ol = &sim.ol;
    cover_if(handover_given_up(&ol->handover, &ol->state, il_there(), sim.now_ns) != NULL,
             COVER_SWITCHOVER_GIVEN_UP);
}

static void look_at_handover(void)
{
    struct ol *ol = &sim.ol;
    if (ol->handover_wanted)
        (void)handover_begin(&ol->handover, &ol->state, il_there(), sim.now_ns, HANDOVER_NS);
    ol->handover_wanted = false;
    look_whether_given_up();
    ask_for_handover();
}

void ol_handover_committed(void)
{
    look_whether_given_up();
    if (handover_committed(&sim.ol.handover, &sim.ol.state)) {
        TRACE("switchover: the view ends");
        cover(COVER_SWITCHOVER);
        master_failed(false, true);
    } else {
        ask_for_handover();
    }
}

/* ---- who comes ------------------------------------------------------------------------------ */

static void begin_first_view(uint32_t slot)
{
    struct snapshot_cut start = {0};
    for (uint32_t w = 0; w < SIM_WORKERS; w++)
        start.next_input[w] = 1;
    ol_begin(slot, sim.ol.state.view, sim.ol.state.member[slot].incarnation, &start);
    tell_view();
}

static void admit(uint32_t slot, const struct message *hello)
{
    struct view_state *view = &sim.ol.state;
    bool active;
    if (!view_admit(view, slot, &active))
        return;
    if (!view_holds(view, slot, hello->name.view, hello->name.epoch) &&
        view_holds(view, slot, hello->prepared.view, hello->prepared.epoch))
        cover(COVER_BASE_WAS_PREPARED);
    sim.ol.pid[slot] = hello->pid;
    sim.proc[slot].watched = view->member[slot].incarnation;
    SIM_POINT();
    const struct message welcome = {.type = MSG_WELCOME, .active = active};
    ol_send((int)slot, &welcome);
    if (view->base_epoch && !active) { /* what it holds as prepared may be that, or older */
        const struct message committed = ol_committed_message();
        ol_send((int)slot, &committed);
    }
    if (active) {
        begin_first_view(slot);
        tell_all_backups();
    } else if (!view->promoting) {
        ol_tell_backup(slot, false);
    }
}

/* The same process on a new connection: it gets what it may have missed. */
static void rejoin(uint32_t slot, const struct message *hello)
{
    struct view_state *view = &sim.ol.state;
    bool master = (int)slot == view->master;
    const struct message welcome = {
        .type = MSG_WELCOME, .active = master && !view->promoting, .rejoined = true};
    cover(COVER_REJOINED);
    ol_send((int)slot, &welcome);
    if (master && view->promoting) {
        promote();
        return;
    }
    if (view->base_epoch) {
        const struct message committed = ol_committed_message();
        ol_send((int)slot, &committed);
    }
    if (!master) {
        if (hello->view != view->view && !view->promoting)
            ol_send_type((int)slot, MSG_NEW_VIEW);
        ol_tell_backup(slot, false);
        return;
    }
    if (hello->view != view->view || !hello->active)
        ol_send_type((int)slot, MSG_GO);
    tell_all_backups();
}

static void hello(uint32_t slot, const struct message *message)
{
    struct ol *ol = &sim.ol;
    const struct view_member *member = &ol->state.member[slot];
    ol->member[slot] = (struct ol_member){.connected = true, .heard_ns = sim.now_ns};
    bool same =
        member->present && (message->incarnation ? message->incarnation == member->incarnation
                                                 : message->pid == ol->pid[slot]);
    if (same)
        rejoin(slot, message);
    else if (message->incarnation)
        fence_out((int)slot);
    else
        admit(slot, message);
}

/* ---- silence --------------------------------------------------------------------------------- */

static uint64_t patience_ns(uint32_t slot)
{
    if ((int)slot != sim.ol.state.master)
        return 5 * DETECT_NS;
    return sim.ol.state.promoting ? 20 * DETECT_NS : DETECT_NS;
}

static void look_for_silence(void)
{
    struct ol *ol = &sim.ol;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct proc *proc = &sim.proc[slot];
        if (proc->alive && !proc->stopped && sim.now_ns >= proc->mute_until_ns &&
            sim.now_ns >= sim.from_proc[slot].cut_until_ns)
            ol->member[slot].heard_ns = sim.now_ns;
        if (!ol_present(slot) || sim.now_ns - ol->member[slot].heard_ns < patience_ns(slot))
            continue;
        ol->member[slot].heard_ns = sim.now_ns;
        if ((int)slot == ol->state.master) {
            master_failed(false, false);
        } else {
            cover(COVER_BACKUP_SILENT);
            fence_out((int)slot);
            member_gone(slot);
        }
    }
}

/* ---- messages ------------------------------------------------------------------------------- */

static void on_message(uint32_t slot, const struct message *message)
{
    switch (message->type) {
    case MSG_HELLO:
        hello(slot, message);
        break;
    case MSG_PREPARED:
        ol_on_prepared(slot, message);
        break;
    case MSG_REJECTED:
        if (ol_present(slot) && (int)slot != sim.ol.state.master &&
            message->incarnation == sim.ol.state.member[slot].incarnation) {
            view_refused(&sim.ol.state, slot);
            ol_tell_backup(slot, true);
            ol_try_commit();
        }
        break;
    case MSG_BUILDING: /* the snapshot under way goes on without it, which will follow */
        if (ol_present(slot) && message->incarnation == sim.ol.state.member[slot].incarnation) {
            view_refused(&sim.ol.state, slot);
            ol_try_commit();
        }
        break;
    case MSG_CUT:
        cut_arrived(message);
        break;
    default:
        sim_fail("sim", "the OL gets message %d", (int)message->type);
    }
}

static void on_il_message(const struct message *message)
{
    struct ol *ol = &sim.ol;
    if (message->type == MSG_PRESSED) {
        ol->il_pressed = true;
        return;
    }
    ol->il_connected = true;
    memset(ol->limit, 0, sizeof(ol->limit));
    tell_view();
    if (ol->state.base_epoch) {
        const struct message committed = ol_committed_message();
        ol_send_il(&committed);
    }
}

static void on_death(const struct message *message)
{
    const struct view_member *member = &sim.ol.state.member[message->slot];
    if (member->present && member->incarnation == message->incarnation)
        member_gone(message->slot);
}

static void read_messages(void)
{
    const struct message *message = channel_take(&sim.deaths);
    if (message) {
        struct message copy = *message;
        on_death(&copy);
        sim.worked = true;
    }
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if ((message = channel_take(&sim.from_proc[slot])) == NULL)
            continue;
        struct message copy = *message;
        on_message(slot, &copy);
        sim.worked = true;
    }
    if ((message = channel_take(&sim.from_il)) != NULL) {
        struct message copy = *message;
        on_il_message(&copy);
        sim.worked = true;
    }
}

void ol_control(void)
{
    const struct view_state *view = &sim.ol.state;
    read_messages();
    look_for_silence();
    await_heir();
    ol_try_commit();
    look_at_handover();
    if (view->view && !view->promoting && !view->heir && sim.ol.flowing)
        ol_look_at_logs();
}

/* Nobody is connected yet; who died meanwhile is found dead. */
void ol_control_start(void)
{
    struct ol *ol = &sim.ol;
    ol->il_connected = ol->il_pressed = ol->handover_wanted = false;
    ol->handover = (struct handover){0};
    ol->asked_ns = ol->forgot_ns = sim.now_ns;
    memset(ol->limit, 0, sizeof(ol->limit));
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        ol->member[slot] = (struct ol_member){.heard_ns = sim.now_ns};
        const struct proc *proc = &sim.proc[slot];
        if (!ol_present(slot))
            continue;
        if (!proc->alive || proc->watched != ol->state.member[slot].incarnation) {
            const struct message death = {
                .type = MSG_DEATH, .slot = slot, .incarnation = ol->state.member[slot].incarnation};
            channel_send(&sim.deaths, &death);
        }
    }
}

/* The output logger's decisions: who belongs, commits, credit, silence, failover. What
 * roles/ol_control.c, ol_members.c and ol_failover.c do. */
#include <string.h>

#include "core/credit.h"
#include "sim/ol.h"
#include "sim/oracle.h"
#include "sim/world.h"

#define DETECT_NS (2 * SIM_MS)
#define ASK_NS (500 * SIM_US)
/* Outputs of the burst that a report of progress runs ahead of. */
#define CREDIT_SLACK 8u

static bool present(uint32_t slot)
{
    return sim.ol.state.member[slot].present;
}

static void send(int slot, const struct message *message)
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

static void send_type(int slot, enum message_type type)
{
    const struct message message = {.type = type};
    send(slot, &message);
}

static void send_il(const struct message *message)
{
    if (!sim.ol.il_connected || !sim.il.alive)
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
    send_il(&message);
}

static void tell_backup(uint32_t slot, bool is_present, bool refused)
{
    struct ol *ol = &sim.ol;
    struct message message = {.type = MSG_BACKUP, .present = is_present, .refused = refused};
    if (ol->state.member[slot].eligible && !refused)
        message.name = ol->base;
    if (ol->state.master < 0 || !ol->member[ol->state.master].connected)
        return;
    message.slot = slot;
    message.view = ol->state.view;
    message.incarnation = ol->state.member[slot].incarnation;
    channel_send(&sim.to_proc[ol->state.master], &message);
}

static void tell_all_backups(void)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if (present(slot) && (int)slot != sim.ol.state.master)
            tell_backup(slot, true, false);
    }
}

static struct message committed_message(void)
{
    return (struct message){.type = MSG_COMMITTED, .name = sim.ol.base, .cut = sim.ol.cut};
}

static void promote(int slot)
{
    struct ol *ol = &sim.ol;
    struct message message = {.type = MSG_PROMOTE, .name = ol->base};
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        const struct release_worker *x = &ol->release.worker[w];
        message.limit[w] = x->stored - x->pal_base;
        for (uint64_t i = 0; i < message.limit[w]; i++)
            sim.promote_pals[w][i] = x->pals[(x->pal_base + 1 + i) & x->pal_mask];
    }
    send(slot, &message);
}

/* ---- failover ------------------------------------------------------------------------------- */

static void fail_over(void)
{
    struct ol *ol = &sim.ol;
    int old = ol->state.master;
    ol_fence();
    SIM_POINT();
    int next = view_failover(&ol->state);
    FTMB_ASSERT(next >= 0);
    ol->promoting = true;
    cover(COVER_VIEW_CHANGE);
    world_fenced(old);
    SIM_POINT();
    promote(next);
    if (old >= 0) {
        const struct message fenced = {.type = MSG_FENCED, .view = ol->state.view};
        if (ol->member[old].connected && sim.proc[old].alive)
            channel_send(&sim.to_proc[old], &fenced);
    }
    sim_progress();
}

static void master_failed(bool dead)
{
    struct ol *ol = &sim.ol;
    if (view_eligible(&ol->state) >= 0 || (PLANTED(P_SILENCE_FENCES_ALWAYS) && !dead)) {
        if (view_eligible(&ol->state) < 0)
            sim_fail("I2", "a silent master is fenced, and nobody holds its state");
        fail_over();
        return;
    }
    if (!dead)
        return; /* silence alone never ends a view that nobody can take over */
    /* A process that starts where the base lies will be the heir. */
    uint32_t slot = (uint32_t)ol->state.master;
    ol_fence();
    view_leave(&ol->state, slot);
    ol->member[slot].connected = false;
    world_fenced((int)slot);
}

static void member_gone(uint32_t slot)
{
    struct ol *ol = &sim.ol;
    if ((int)slot == ol->state.master) {
        master_failed(true);
        return;
    }
    view_leave(&ol->state, slot);
    ol->member[slot].connected = false;
    tell_backup(slot, false, false);
}

static void cut_arrived(const struct message *message)
{
    struct ol *ol = &sim.ol;
    if (!ol->promoting || (int)message->slot != ol->state.master ||
        message->incarnation != ol->state.member[message->slot].incarnation)
        return;
    ol_begin(message->slot, ol->state.view, message->incarnation, &message->cut);
    SIM_POINT();
    ol->promoting = false;
    send_type(ol->state.master, MSG_GO);
    tell_view();
    memset(ol->limit, 0, sizeof(ol->limit));
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if (present(slot) && (int)slot != ol->state.master)
            send_type((int)slot, MSG_NEW_VIEW);
    }
    tell_all_backups();
}

/* ---- who comes ------------------------------------------------------------------------------ */

static void rejoin(uint32_t slot, const struct message *hello)
{
    struct ol *ol = &sim.ol;
    cover(COVER_REJOINED);
    if (ol->base.epoch) {
        const struct message committed = committed_message();
        send((int)slot, &committed);
    }
    if ((int)slot != ol->state.master) {
        if (hello->view < ol->state.view && !ol->promoting)
            send_type((int)slot, MSG_NEW_VIEW);
        return;
    }
    if (ol->promoting) {
        promote((int)slot);
    } else if (hello->view < ol->state.view) {
        promote((int)slot); /* its cut is the same again */
        send_type((int)slot, MSG_GO);
    }
    tell_all_backups();
}

static void admit(uint32_t slot, const struct message *hello)
{
    struct ol *ol = &sim.ol;
    bool active, heir = ol->base.epoch && base_same(hello->name, ol->base);
    if (ol->state.master < 0 && ol->state.view && !heir) {
        ol->member[slot].waiting = true;
        ol->member[slot].base = hello->name;
        ol->member[slot].pid = hello->pid;
        return;
    }
    if (!view_admit(&ol->state, slot, &active))
        return;
    ol->state.member[slot].eligible = heir;
    ol->pid[slot] = hello->pid;
    sim.proc[slot].watched = ol->state.member[slot].incarnation;
    const struct message welcome = {.type = MSG_WELCOME, .active = active};
    send((int)slot, &welcome);
    if (active) {
        struct snapshot_cut start = {0};
        for (uint32_t w = 0; w < SIM_WORKERS; w++)
            start.next_input[w] = 1;
        ol_begin(slot, ol->state.view, ol->state.member[slot].incarnation, &start);
        tell_view();
        tell_all_backups();
    } else if (ol->state.master < 0) {
        fail_over();
    } else {
        tell_backup(slot, true, false);
    }
}

static void hello(uint32_t slot, const struct message *message)
{
    struct ol *ol = &sim.ol;
    ol->member[slot] = (struct ol_member){.connected = true, .heard_ns = sim.now_ns};
    if (message->incarnation == 0 && present(slot) && ol->pid[slot] == message->pid) {
        /* It was admitted, and has not heard of it. */
        const struct message welcome = {.type = MSG_WELCOME,
                                        .active = ol->state.view == 1 &&
                                                  (int)slot == ol->state.master};
        send((int)slot, &welcome);
        rejoin(slot, message);
    } else if (message->incarnation == 0) {
        admit(slot, message);
    } else if (present(slot) && ol->state.member[slot].incarnation == message->incarnation) {
        rejoin(slot, message);
    } else {
        const struct message fenced = {.type = MSG_FENCED, .view = ol->state.view};
        channel_send(&sim.to_proc[slot], &fenced);
    }
}

/* ---- commits, credit, silence --------------------------------------------------------------- */

static void try_commit(void)
{
    struct ol *ol = &sim.ol;
    struct view_pending *pending = &ol->state.pending;
    if (!pending->valid || ol->promoting)
        return;
    if (!ol_try_commit(&pending->cut)) {
        cover(COVER_COMMIT_LATER);
        return;
    }
    ol->base = (struct base_name){pending->view, pending->epoch};
    ol->cut = pending->cut;
    oracle_committed(&ol->cut);
    view_commit(&ol->state);
    ol->holding = false;
    if (!world_drained())
        sim_progress();
    const struct message committed = committed_message();
    for (int slot = 0; slot < (int)SIM_SLOTS; slot++) {
        SIM_POINT();
        if (present((uint32_t)slot))
            send(slot, &committed);
    }
    send_il(&committed);
}

static void on_prepared(const struct message *message)
{
    struct ol *ol = &sim.ol;
    if (base_same(message->name, ol->base)) {
        const struct message committed = committed_message();
        send((int)message->slot, &committed);
        return;
    }
    if (!view_prepared(&ol->state, message->slot, message->incarnation, message->name.view,
                       message->name.epoch, &message->cut))
        return;
    if (PLANTED(P_IL_TRIMS_ON_PREPARED) || PLANTED(P_COMMIT_WITHOUT_OL)) {
        const struct message early = {
            .type = MSG_COMMITTED, .name = message->name, .cut = message->cut};
        send_il(&early);
    }
    try_commit();
}

static void ask_for_snapshot(void)
{
    if (sim.now_ns - sim.ol.asked_ns < ASK_NS)
        return;
    sim.ol.asked_ns = sim.now_ns;
    send_type(sim.ol.state.master, MSG_SNAPSHOT);
}

static void give_credit(void)
{
    struct ol *ol = &sim.ol;
    struct message credit = {.type = MSG_CREDIT};
    bool pressed = false;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        const struct release_worker *x = &ol->release.worker[w];
        pressed |= credit_pressed(x);
        credit.limit[w] = credit_limit(x, ol->progress[w], sim.needs.max_pals, CREDIT_SLACK);
    }
    if (pressed)
        ask_for_snapshot();
    if (!ol->il_connected || memcmp(credit.limit, ol->limit, sizeof(credit.limit)) == 0 ||
        sim.to_il.tail - sim.to_il.head > SIM_CHANNEL / 2)
        return;
    memcpy(ol->limit, credit.limit, sizeof(ol->limit));
    send_il(&credit);
}

static void look_for_silence(void)
{
    struct ol *ol = &sim.ol;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct proc *proc = &sim.proc[slot];
        bool beats = proc->alive && !proc->stopped && sim.now_ns >= proc->mute_until_ns &&
                     sim.now_ns >= sim.from_proc[slot].cut_until_ns;
        if (beats)
            ol->member[slot].heard_ns = sim.now_ns;
    }
    int master = ol->state.master;
    if (master < 0 || ol->promoting || sim.now_ns - ol->member[master].heard_ns < DETECT_NS)
        return;
    ol->member[master].heard_ns = sim.now_ns;
    master_failed(false);
}

/* ---- messages ------------------------------------------------------------------------------- */

static void on_message(uint32_t slot, const struct message *message)
{
    switch (message->type) {
    case MSG_HELLO:
        hello(slot, message);
        break;
    case MSG_PREPARED:
        on_prepared(message);
        break;
    case MSG_REJECTED:
        if (present(slot) && (int)slot != sim.ol.state.master &&
            message->incarnation == sim.ol.state.member[slot].incarnation)
            tell_backup(slot, true, true);
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
        ask_for_snapshot();
        return;
    }
    ol->il_connected = true;
    memset(ol->limit, 0, sizeof(ol->limit));
    if (ol->view)
        tell_view();
    if (ol->base.epoch) {
        const struct message committed = committed_message();
        send_il(&committed);
    }
}

static void on_death(const struct message *message)
{
    const struct view_member *member = &sim.ol.state.member[message->slot];
    if (member->present && member->incarnation == message->incarnation)
        member_gone(message->slot);
}

void ol_control(void)
{
    struct ol *ol = &sim.ol;
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
    for (uint32_t slot = 0; slot < SIM_SLOTS && ol->flowing; slot++) {
        if (ol->member[slot].waiting) {
            ol->member[slot].waiting = false;
            admit(slot, &(struct message){.name = ol->member[slot].base, .pid = ol->member[slot].pid});
        }
    }
    look_for_silence();
    try_commit();
    /* The master died before this snapshot's commit, which made a backup eligible. */
    if (ol->state.view && ol->state.master < 0 && view_eligible(&ol->state) >= 0)
        fail_over();
    if (ol->state.view && !ol->promoting && ol->flowing)
        give_credit();
}

/* Nobody is connected yet; who died meanwhile is found dead. */
void ol_control_start(void)
{
    struct ol *ol = &sim.ol;
    ol->il_connected = false;
    ol->asked_ns = sim.now_ns;
    memset(ol->limit, 0, sizeof(ol->limit));
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        ol->member[slot] = (struct ol_member){.heard_ns = sim.now_ns};
        const struct proc *proc = &sim.proc[slot];
        if (!present(slot))
            continue;
        if (!proc->alive || proc->watched != ol->state.member[slot].incarnation) {
            const struct message death = {
                .type = MSG_DEATH,
                .slot = slot,
                .incarnation = ol->state.member[slot].incarnation};
            channel_send(&sim.deaths, &death);
        }
    }
}

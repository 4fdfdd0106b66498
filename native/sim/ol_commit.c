/* The output logger's commits, credit and logs. What roles/ol_control.c does. */
#include <string.h>

#include "core/credit.h"
#include "sim/ol.h"
#include "sim/oracle.h"
#include "sim/world.h"

#define ASK_NS (500 * SIM_US)
/* Outputs of the burst that a report of progress runs ahead of. */
#define CREDIT_SLACK 8u

void ol_try_commit(void)
{
    struct ol *ol = &sim.ol;
    struct view_state *view = &ol->state;
    if (view->promoting || view->heir || !view_ready(view))
        return;
    const struct view_pending pending = view->pending;
    if (!ol_covers(&pending.cut)) {
        cover(COVER_COMMIT_LATER);
        return;
    }
    view_commit(view);
    ol->cut = pending.cut;
    ol->forgotten = ol->holding = false;
    oracle_committed(&ol->cut);
    if (!world_drained())
        sim_progress();
    SIM_POINT();
    ol_trim(&ol->cut);
    const struct message committed = ol_committed_message();
    for (int slot = 0; slot < (int)SIM_SLOTS; slot++) {
        SIM_POINT();
        if (ol_present((uint32_t)slot))
            ol_send(slot, &committed);
    }
    ol_send_il(&committed);
    ol_handover_committed();
}

/* Whoever prepared an earlier one cannot take the one under way before it has rolled back. */
static void tell_superseded(void)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct view_member *member = &sim.ol.state.member[slot];
        const struct message none = {.type = MSG_VOID,
                                     .name = {member->prepared_view, member->prepared_epoch}};
        if (view_superseded(&sim.ol.state, slot))
            ol_send((int)slot, &none);
    }
}

/* Whoever holds it waits to hear what becomes of it, and so does the master, which may have sent
 * it. While a view is to begin that is not known. */
static void answer_stale(uint32_t slot, const struct message *prepared)
{
    struct view_state *view = &sim.ol.state;
    const struct message committed = ol_committed_message();
    if ((int)slot == view->master || view->promoting || view->heir)
        return;
    if (base_same(prepared->name, committed.name)) {
        ol_send((int)slot, &committed);
        return;
    }
    const struct message none = {.type = MSG_VOID, .name = prepared->name};
    cover(COVER_VOID);
    ol_send((int)slot, &none);
    if (!ol_present(slot) || prepared->name.view != view->view || view->member[slot].eligible)
        return;
    view_refused(view, slot);
    ol_tell_backup(slot, true);
}

void ol_on_prepared(uint32_t slot, const struct message *message)
{
    const struct message committed = ol_committed_message();
    switch (view_prepared(&sim.ol.state, slot, message->incarnation, message->name.view,
                          message->name.epoch, &message->cut)) {
    case VIEW_STALE:
        answer_stale(slot, message);
        break;
    case VIEW_LATE:
        cover(COVER_PREPARED_LATE);
        ol_send((int)slot, &committed);
        if (!PLANTED(P_LATE_UNTOLD))
            ol_tell_backup(slot, false); /* the next commit waits for it */
        break;
    case VIEW_PENDING:
        if (PLANTED(P_IL_TRIMS_ON_PREPARED) || PLANTED(P_COMMIT_WITHOUT_OL)) {
            const struct message early = {
                .type = MSG_COMMITTED, .name = message->name, .cut = message->cut};
            ol_send_il(&early);
        }
        tell_superseded();
        ol_try_commit();
    }
}

/* Returns whether a log is half full. */
static bool give_credit(void)
{
    struct ol *ol = &sim.ol;
    struct message credit = {.type = MSG_CREDIT};
    bool pressed = false;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        const struct release_worker *x = &ol->release.worker[w];
        pressed |= credit_pressed(x);
        credit.limit[w] = credit_limit(x, ol->progress[w], sim.needs.max_pals, CREDIT_SLACK);
    }
    if (!ol->il_connected || memcmp(credit.limit, ol->limit, sizeof(credit.limit)) == 0 ||
        sim.to_il.tail - sim.to_il.head > SIM_CHANNEL / 2)
        return pressed;
    memcpy(ol->limit, credit.limit, sizeof(ol->limit));
    ol_send_il(&credit);
    return pressed;
}

static bool alone(void)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if (ol_present(slot) && (int)slot != sim.ol.state.master)
            return false;
    }
    return sim.ol.state.master >= 0;
}

/* The master is alone and a log half full: the base, which only lies in a file, is given up. */
static void forget_logs(void)
{
    struct ol *ol = &sim.ol;
    if (!(ol->state.base_epoch || ol->forgotten) || !alone() || sim.now_ns - ol->forgot_ns < ASK_NS)
        return;
    ol->forgot_ns = sim.now_ns;
    view_forget(&ol->state);
    ol->forgotten = true;
    cover(COVER_FORGOTTEN);
    SIM_POINT();
    uint64_t pals[SIM_WORKERS] = {0}, outputs[SIM_WORKERS];
    (void)ol_release_all();
    release_forget(&ol->release, pals, outputs);
    SIM_POINT();
    view_forgot(&ol->state, pals, ol->progress);
    struct message forget = {.type = MSG_COMMITTED};
    memcpy(forget.cut.next_input, ol->progress, sizeof(ol->progress));
    ol_send_il(&forget);
}

void ol_look_at_logs(void)
{
    struct ol *ol = &sim.ol;
    bool pressed = give_credit() || ol->il_pressed;
    ol->il_pressed = false;
    if (!pressed)
        return;
    if (sim.now_ns - ol->asked_ns >= ASK_NS) {
        ol->asked_ns = sim.now_ns;
        ol_send_type(ol->state.master, MSG_SNAPSHOT);
    }
    forget_logs();
}

/* A view ends: fence, send the logs to the backup, cut, begin the next view.
 *
 * Everything here happens before the first frame of the next view can be accepted. Each step may be
 * taken again by a process that was restarted: the decision is kept before it is acted on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/clock.h"
#include "io/deathwatch.h"
#include "io/event.h"
#include "roles/ol_control.h"

_Static_assert(1 + 2 * FTMB_MAX_WORKERS <= CONTROL_MAX_PARTS, "a promotion is one message");

/* Two pieces per worker: the log is a ring. Returns how many were used. */
static int gather_logs(const struct output_logger *ol, struct msg_promote *promote,
                       struct iovec *iov)
{
    int pieces = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        const struct release_worker *x = &ol->release->worker[w];
        uint64_t count = atomic_load(&x->stored) - x->pal_base;
        uint64_t first = (x->pal_base + 1) & x->pal_mask;
        uint64_t to_end = u64_min(count, x->pal_mask + 1 - first);
        promote->pals[w] = count;
        iov[pieces++] = (struct iovec){&x->pals[first], to_end * sizeof(uint64_t)};
        if (count > to_end)
            iov[pieces++] = (struct iovec){x->pals, (count - to_end) * sizeof(uint64_t)};
    }
    return pieces;
}

/* Waits for it to read: nothing goes on without it. If it is not there, its hello brings it here.
 */
void ol_promote(struct output_logger *ol)
{
    const struct view_state *view = &ol->state.view;
    struct ol_connection *next = ol_replica(ol, view->master);
    ol->heard_ns[view->master] = clock_ns();
    if (!next || next->broken)
        return;
    struct msg_promote promote = {.base_view = view->base_view, .base_epoch = view->base_epoch};
    struct iovec iov[1 + 2 * FTMB_MAX_WORKERS] = {{&promote, sizeof(promote)}};
    int pieces = 1 + gather_logs(ol, &promote, iov + 1);
    next->broken |=
        control_send(next->fd, MSG_PROMOTE, view->view, next->incarnation, iov, pieces) != 0;
}

/* ---- the input that kills ----------------------------------------------------------------- */

/* Two deaths of the same input are no accident: a third process would die of it too. */
static void look_for_poison(struct output_logger *ol, int slot)
{
    struct crash_record record;
    if (ol->watch[slot] < 0 || !deathwatch_crash(ol->watch[slot], &record))
        return;
    const struct crash_hand *hand = &record.hand;
    struct ol_crash *last = &ol->state.crash;
    event_emit("crash", "{s:i,s:i,s:I,s:i}", "slot", slot, "worker", (int)hand->worker, "input",
               (json_int_t)hand->input, "signal", record.signal);
    if (last->known && last->worker == hand->worker && last->input == hand->input) {
        event_emit("poison", "{s:i,s:I}", "worker", (int)hand->worker, "input",
                   (json_int_t)hand->input);
        die(4, "poison: input %llu of worker %u kills every process that runs it",
            (unsigned long long)hand->input, hand->worker);
    }
    *last = (struct ol_crash){.known = true, .worker = hand->worker, .input = hand->input};
    ol_decided(ol);
}

/* ---- the end of a view -------------------------------------------------------------------- */

static void want_heir(struct output_logger *ol)
{
    const struct view_state *view = &ol->state.view;
    json_t *slots = json_array();
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (view->member[slot].holder)
            json_array_append_new(slots, json_integer(slot));
    }
    ol->waiting_ns = clock_ns();
    event_emit("heir_wanted", "{s:I,s:I,s:o}", "base_view", (json_int_t)view->base_view,
               "base_epoch", (json_int_t)view->base_epoch, "slots", slots);
}

static void state_lost(const char *why)
{
    event_emit("state_lost", "{s:s}", "why", why);
    die(4, "state_lost: %s", why);
}

/* The master is dead, or silent. Silence alone never ends a view that nobody can take over. */
void ol_master_failed(struct output_logger *ol, const char *kind)
{
    struct view_state *view = &ol->state.view;
    int old = view->master;
    bool dead = strcmp(kind, "death") == 0;
    event_emit("suspect", "{s:i,s:s}", "slot", old, "kind", kind);
    if (dead)
        look_for_poison(ol, old);
    struct ol_connection *old_connection = ol_replica(ol, old);
    enum view_outcome outcome = view_master_failed(view, dead);
    if (outcome == VIEW_GOES_ON) {
        event_emit("not_fenced", "{s:s}", "why", "no eligible backup");
        return;
    }
    ol_decided(ol);
    ol_run_job(ol, OL_JOB_FENCE);
    if (outcome == VIEW_LOST)
        state_lost("the master died and nobody holds a committed base");
    ol_tell_protection(ol);
    event_emit("fenced", "{s:I}", "view", (json_int_t)view->view);
    ol->waiting_ns = clock_ns();
    if (outcome == VIEW_PROMOTED)
        ol_promote(ol);
    else
        want_heir(ol);
    ol_fence_out(ol, old_connection);
}

/* Nobody here holds the base: a process that finds it in its slot's file may come. Likewise a
 * promoted backup may never answer, with nobody to take its place. */
void ol_await_heir(struct output_logger *ol, uint64_t now)
{
    struct view_state *view = &ol->state.view;
    if (view_inherit(view)) {
        ol_decided(ol);
        event_emit("fenced", "{s:I}", "view", (json_int_t)view->view);
        ol->waiting_ns = now;
        ol_promote(ol);
    }
    if (!view->heir && !view->promoting)
        return;
    if (now > ol->waiting_ns && now - ol->waiting_ns > ol->config->heir_ms * 1000000ull)
        state_lost(view->heir ? "no process that holds the base came within heir_ms"
                              : "the promoted backup did not answer within heir_ms");
}

/* ---- the beginning of the next ------------------------------------------------------------ */

static void begin_view(struct output_logger *ol, const struct ol_connection *master,
                       const struct msg_cut *cut)
{
    uint64_t dropped = 0;
    json_t *pals = json_array();
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        dropped += atomic_load(&ol->release->worker[w].stored) - cut->pals[w];
        json_array_append_new(pals, json_integer((json_int_t)cut->pals[w]));
    }
    ol->job.slot = (uint32_t)master->slot;
    ol->job.view = ol->state.view.view;
    ol->job.incarnation = master->incarnation;
    memcpy(ol->job.pals, cut->pals, sizeof(ol->job.pals));
    memcpy(ol->job.next_input, cut->next_input, sizeof(ol->job.next_input));
    if (!ol_run_job(ol, OL_JOB_BEGIN) && !atomic_load(&ol->quit)) {
        event_emit("released_past_cut", NULL);
        die(4, "released_past_cut: the cut excludes the past of a released output");
    }
    event_emit("cut", "{s:I,s:o,s:I}", "view", (json_int_t)ol->state.view.view, "pals", pals,
               "dropped_pals", (json_int_t)dropped);
}

void ol_cut_arrived(struct output_logger *ol, struct ol_connection *from,
                    const struct control_msg *message)
{
    struct view_state *view = &ol->state.view;
    struct msg_cut cut;
    memcpy(&cut, message->body, sizeof(cut));
    if (!view->promoting || from->slot != view->master || cut.view != view->view)
        return;
    begin_view(ol, from, &cut);
    view_begun(view);
    memcpy(ol->state.next_input, cut.next_input, sizeof(ol->state.next_input));
    ol_decided(ol);
    ol_send(ol, from, MSG_GO, NULL, 0);
    memset(&ol->credit, 0, sizeof(ol->credit));
    ol_tell_view(ol);
    event_emit("view", "{s:I,s:i}", "view", (json_int_t)view->view, "slot", from->slot);
    for (uint32_t slot = 0; slot < ol->config->replicas; slot++) {
        if (!view->member[slot].present || (int)slot == view->master)
            continue;
        ol_send(ol, ol_replica(ol, (int)slot), MSG_NEW_VIEW, NULL, 0);
        ol_tell_backup(ol, slot);
    }
    ol_tell_protection(ol);
}

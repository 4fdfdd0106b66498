/* A view ends: fence, send the logs to the backup, cut, begin the next view.
 *
 * Everything here happens before the first frame of the next view can be accepted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/ol_control.h"

_Static_assert(1 + 2 * FTMB_MAX_WORKERS <= CONTROL_MAX_PARTS, "a promotion is one message");

/* Two pieces per worker: the log is a ring. Returns how many were used. */
static int gather_logs(const struct output_logger *ol, struct msg_promote *promote,
                       struct iovec *iov)
{
    int pieces = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        const struct release_worker *x = &ol->release.worker[w];
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

static void promote(struct output_logger *ol, struct ol_connection *next)
{
    struct msg_promote promote = {.base_view = ol->state.base_view,
                                  .base_epoch = ol->state.base_epoch};
    struct iovec iov[1 + 2 * FTMB_MAX_WORKERS] = {{&promote, sizeof(promote)}};
    int pieces = 1 + gather_logs(ol, &promote, iov + 1);
    ol->promoting = true;
    next->heard_ns = clock_ns();
    int error = control_send(next->fd, MSG_PROMOTE, ol->state.view, next->incarnation, iov, pieces);
    if (error)
        die(4, "state_lost: the backup cannot be promoted: %s", strerror(-error));
}

/* The master is dead, or silent. Silence alone never ends a view that nobody can take over. */
void ol_master_failed(struct output_logger *ol, const char *kind)
{
    int old = ol->state.master;
    event_emit("suspect", "{s:i,s:s}", "slot", old, "kind", kind);
    struct ol_connection *next = ol_replica(ol, view_eligible(&ol->state));
    bool dead = strcmp(kind, "death") == 0;
    if (!next && !dead) {
        event_emit("not_fenced", "{s:s}", "why", "no eligible backup");
        return;
    }
    if (!next) {
        event_emit("state_lost", "{s:s}", "why", "the master died and no backup holds a base");
        die(4, "state_lost: the master died and no backup holds a committed base");
    }
    ol_run_job(ol, OL_JOB_FENCE);
    struct ol_connection *old_connection = ol_replica(ol, old);
    ol_set_protected(ol, false);
    view_failover(&ol->state);
    event_emit("fenced", "{s:I}", "view", (json_int_t)ol->state.view);
    promote(ol, next);
    if (old_connection) {
        struct msg_fenced fenced = {.view = ol->state.view, .by = ol->state.master};
        ol_send(ol, old_connection, MSG_FENCED, &fenced, sizeof(fenced));
        old_connection->orderly = true; /* its end is no news any more */
        old_connection->slot = -1;
    }
}

static void begin_view(struct output_logger *ol, const struct ol_connection *master,
                       const struct msg_cut *cut)
{
    uint64_t dropped = 0;
    json_t *pals = json_array();
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        dropped += atomic_load(&ol->release.worker[w].stored) - cut->pals[w];
        json_array_append_new(pals, json_integer((json_int_t)cut->pals[w]));
    }
    ol->job.slot = (uint32_t)master->slot;
    ol->job.view = ol->state.view;
    ol->job.incarnation = master->incarnation;
    memcpy(ol->job.pals, cut->pals, sizeof(ol->job.pals));
    memcpy(ol->job.next_input, cut->next_input, sizeof(ol->job.next_input));
    if (!ol_run_job(ol, OL_JOB_BEGIN) && !atomic_load(&ol->quit)) {
        event_emit("released_past_cut", NULL);
        die(4, "released_past_cut: the cut excludes the past of a released output");
    }
    event_emit("cut", "{s:I,s:o,s:I}", "view", (json_int_t)ol->state.view, "pals", pals,
               "dropped_pals", (json_int_t)dropped);
}

void ol_cut_arrived(struct output_logger *ol, struct ol_connection *from,
                    const struct control_msg *message)
{
    struct msg_cut cut;
    if (!ol->promoting || from->slot != ol->state.master || message->length < sizeof(cut))
        return;
    memcpy(&cut, message->body, sizeof(cut));
    if (cut.view != ol->state.view)
        return;
    begin_view(ol, from, &cut);
    ol_send(ol, from, MSG_GO, NULL, 0);
    ol_tell_view(ol, cut.next_input);
    ol->promoting = false;
    memset(&ol->credit, 0, sizeof(ol->credit));
    event_emit("view", "{s:I,s:i}", "view", (json_int_t)ol->state.view, "slot", from->slot);
}

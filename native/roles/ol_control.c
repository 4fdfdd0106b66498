/* The output logger's control thread: commits, credit, what is said to it (see also ol_hub.c,
 * ol_members.c, ol_failover.c, ol_handover.c). */
#include "roles/ol_control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/credit.h"
#include "io/clock.h"
#include "io/deathwatch.h"
#include "io/event.h"
#include "io/wait.h"

#define NS_PER_MS 1000000ull
#define TICK_MS 1
/* Outputs of the burst that a progress report runs ahead of (see wire_pals.next_input). */
#define CREDIT_SLACK 64u
#define ASK_INTERVAL_NS (5 * NS_PER_MS)
#define FORGET_INTERVAL_NS (10 * NS_PER_MS)

bool ol_run_job(struct output_logger *ol, enum ol_job_kind kind)
{
    atomic_store_explicit(&ol->job.kind, kind, memory_order_release);
    for (uint64_t rounds = 0; atomic_load_explicit(&ol->job.kind, memory_order_acquire); rounds++) {
        if (atomic_load(&ol->quit))
            return false; /* the lcore has stopped */
        wait_round(rounds);
    }
    return ol->job.ok;
}

/* Backups that hold the base: how many losses in a row are survived. */
void ol_tell_protection(struct output_logger *ol)
{
    const struct view_state *view = &ol->state.view;
    unsigned now = view->master < 0 || view->promoting ? 0 : view_protectors(view);
    unsigned before = ol->protectors;
    ol->protectors = now;
    if (now > before)
        event_emit("protected", "{s:I,s:I,s:i}", "view", (json_int_t)view->view, "epoch",
                   (json_int_t)view->base_epoch, "backups", (int)now);
    else if (now == 0 && before > 0)
        event_emit("unprotected", "{s:s}", "what", "backup");
}

/* ---- commits ------------------------------------------------------------------------------ */

void ol_send_committed(struct output_logger *ol, struct ol_connection *to)
{
    ol_send(ol, to, MSG_COMMITTED, &ol->state.committed, sizeof(ol->state.committed));
}

/* The base is recorded before anything is forgotten because of it, here or elsewhere. */
static void try_commit(struct output_logger *ol)
{
    struct view_state *view = &ol->state.view;
    if (!view_ready(view) || view->promoting || view->master < 0)
        return;
    const struct view_pending pending = view->pending;
    memcpy(ol->job.pals, pending.cut.pals, sizeof(ol->job.pals));
    memcpy(ol->job.outputs, pending.cut.outputs, sizeof(ol->job.outputs));
    if (!ol_run_job(ol, OL_JOB_COVERS))
        return;
    view_commit(view);
    ol->state.committed =
        (struct msg_snapshot){.view = pending.view, .epoch = pending.epoch, .cut = pending.cut};
    ol->state.forgotten = false;
    ol->state.commits++;
    ol_decided(ol);
    ol_run_job(ol, OL_JOB_TRIM);
    ol->asked_ns = ol->committed_ns = clock_ns(); /* who pressed, pressed for this one */
    /* All of them: who holds an older one as prepared takes nothing until it hears that it is void.
     */
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (view->member[slot].present)
            ol_send_committed(ol, ol_replica(ol, slot));
    }
    ol_send_committed(ol, ol_input_logger(ol));
    event_routine("commit", "{s:I,s:I}", "view", (json_int_t)ol->state.committed.view, "epoch",
                  (json_int_t)pending.epoch);
    ol_tell_protection(ol);
    ol_handover_committed(ol);
}

static void ask_for_snapshot(struct output_logger *ol, uint64_t now)
{
    if (now - ol->asked_ns < ASK_INTERVAL_NS)
        return;
    ol->asked_ns = now;
    ol->snapshot_requests++;
    ol_send(ol, ol_replica(ol, ol->state.view.master), MSG_SNAPSHOT, NULL, 0);
}

/* How far the IL may accept input: what is accepted must find room for its PALs and outputs.
 * Returns whether a log is half full. */
static bool give_credit(struct output_logger *ol)
{
    struct msg_credit credit = {0};
    bool pressed = false;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        const struct release_worker *x = &ol->release->worker[w];
        uint64_t progress = atomic_load_explicit(&ol->kept->progress[w], memory_order_acquire);
        pressed |= credit_pressed(x);
        credit.limit[w] = credit_limit(x, progress, ol->config->needs.max_pals, CREDIT_SLACK);
    }
    struct ol_connection *il = ol_input_logger(ol);
    if (il && memcmp(&credit, &ol->credit, sizeof(credit)) != 0) {
        ol->credit = credit;
        ol_send(ol, il, MSG_CREDIT, &credit, sizeof(credit));
    }
    return pressed;
}

static bool alone(const struct output_logger *ol)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (ol->state.view.member[slot].present && slot != ol->state.view.master)
            return false;
    }
    return ol->state.view.master >= 0;
}

/* The master is alone, and a log half full: soon input would be refused, for the sake of a base
 * that only lies in a file. It is given up instead. The IL learns it as if a snapshot had been
 * taken. */
static void forget_logs(struct output_logger *ol, uint64_t now)
{
    bool had_base = ol->state.view.base_epoch || ol->state.forgotten;
    if (!had_base || !alone(ol) || now - ol->forgot_ns < FORGET_INTERVAL_NS)
        return;
    ol->forgot_ns = now;
    if (!ol->state.forgotten) {
        view_forget(&ol->state.view);
        ol->state.forgotten = true;
        ol_decided(ol);
        event_emit("base_forgotten", NULL);
    }
    if (!ol_run_job(ol, OL_JOB_FORGET))
        return;
    view_forgot(&ol->state.view, ol->job.pals, ol->job.next_input);
    ol_decided(ol);
    struct msg_snapshot forget = {.view = ol->state.view.view};
    memcpy(forget.cut.next_input, ol->job.next_input, sizeof(forget.cut.next_input));
    ol_send(ol, ol_input_logger(ol), MSG_COMMITTED, &forget, sizeof(forget));
}

/* ---- time --------------------------------------------------------------------------------- */

static bool all_there(struct output_logger *ol)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (ol->state.view.member[slot].present && !ol_replica(ol, slot))
            return false;
    }
    return ol_input_logger(ol) != NULL;
}

static void look_after_peers(struct output_logger *ol, uint64_t now)
{
    if (ol->rejoining && all_there(ol)) {
        ol->rejoining = false;
        event_emit("protected_again", "{s:s}", "what", "ol");
    }
    if (ol->il_lost_ns && now > ol->il_lost_ns &&
        now - ol->il_lost_ns > ol->config->peer_ms * NS_PER_MS)
        die(5, "the input logger is gone, and has not come back within %u ms (peer_ms)",
            ol->config->peer_ms);
}

static void tick(struct output_logger *ol)
{
    uint64_t now = clock_ns();
    ol_look_for_silence(ol, now);
    event_flush();
    look_after_peers(ol, now);
    ol_await_heir(ol, now);
    try_commit(ol);
    ol_handover_look(ol, now);
    if (!ol->state.view.view || ol->state.view.promoting || ol->state.view.heir)
        return;
    bool half_full = give_credit(ol) || ol->il_pressed == LOG_HALF_FULL;
    bool wanted = half_full || ol->il_pressed == LOG_WANTS_SNAPSHOT;
    ol->il_pressed = LOG_CALM;
    if (wanted)
        ask_for_snapshot(ol, now);
    if (half_full)
        forget_logs(ol, now);
}

/* ---- messages ----------------------------------------------------------------------------- */

/* It has to be sent a full one. */
static void send_anew(struct output_logger *ol, uint32_t slot)
{
    view_refused(&ol->state.view, slot);
    ol_tell_backup(ol, slot);
}

/* It waits to hear what becomes of what it holds, and takes nothing until it does. So does the
 * master, which may have sent it. While a view is to begin that is not known. */
static void answer_stale(struct output_logger *ol, struct ol_connection *from,
                         const struct msg_snapshot *prepared)
{
    const struct view_state *view = &ol->state.view;
    if (from->slot == view->master || view->promoting || view->heir)
        return;
    if (view->base_epoch && prepared->view == view->base_view &&
        prepared->epoch == view->base_epoch) {
        ol_send_committed(ol, from);
        return;
    }
    ol_send(ol, from, MSG_VOID, prepared, sizeof(*prepared));
    if (prepared->view == view->view && !view->member[from->slot].eligible)
        send_anew(ol, (uint32_t)from->slot);
}

/* Whoever prepared an earlier one cannot take the one under way before it has rolled back. */
static void tell_superseded(struct output_logger *ol)
{
    for (uint32_t slot = 0; slot < ol->config->replicas; slot++) {
        const struct view_member *member = &ol->state.view.member[slot];
        const struct msg_snapshot none = {.view = member->prepared_view,
                                          .epoch = member->prepared_epoch};
        if (view_superseded(&ol->state.view, slot))
            ol_send(ol, ol_replica(ol, (int)slot), MSG_VOID, &none, sizeof(none));
    }
}

static void on_prepared(struct output_logger *ol, struct ol_connection *from,
                        const struct control_msg *message)
{
    struct msg_snapshot prepared;
    if (from->slot < 0)
        return;
    memcpy(&prepared, message->body, sizeof(prepared));
    switch (view_prepared(&ol->state.view, (uint32_t)from->slot, from->incarnation, prepared.view,
                          prepared.epoch, &prepared.cut)) {
    case VIEW_STALE:
        answer_stale(ol, from, &prepared);
        break;
    case VIEW_PENDING:
        tell_superseded(ol);
        try_commit(ol);
        break;
    case VIEW_LATE:
        ol_decided(ol);
        ol_send_committed(ol, from);
        ol_tell_backup(ol, (uint32_t)from->slot); /* the next commit waits for it */
        ol_tell_protection(ol);
    }
}

/* It is sent a full one; the snapshot that it refused may be committed without it. */
static void on_rejected(struct output_logger *ol, const struct ol_connection *from)
{
    if (from->slot < 0 || from->slot == ol->state.view.master)
        return;
    send_anew(ol, (uint32_t)from->slot);
    try_commit(ol);
}

/* It may hold the base, and yet have to build: nobody waits for it. */
static void on_building(struct output_logger *ol, const struct ol_connection *from)
{
    if (from->slot < 0 || from->slot == ol->state.view.master)
        return;
    view_refused(&ol->state.view, (uint32_t)from->slot);
    try_commit(ol);
}

static void on_bye(struct output_logger *ol, struct ol_connection *from)
{
    from->orderly = true;
    if (from->slot >= 0)
        ol_member_gone(ol, (uint32_t)from->slot, NULL);
}

void ol_on_message(struct output_logger *ol, struct ol_connection *from,
                   const struct control_msg *message)
{
    if (from->slot >= 0) {
        ol->heard_ns[from->slot] = clock_ns();
        ol->doubted[from->slot] = false;
    }
    switch (message->type) {
    case MSG_HELLO:
    case MSG_HELLO_IL:
        ol_hello(ol, from, message);
        break;
    case MSG_HEARTBEAT:
        break;
    case MSG_PREPARED:
        on_prepared(ol, from, message);
        break;
    case MSG_REJECTED:
        on_rejected(ol, from);
        break;
    case MSG_BUILDING:
        on_building(ol, from);
        break;
    case MSG_PRESSED:
        ol->il_pressed =
            (uint32_t)u64_max(ol->il_pressed, ((const struct msg_pressed *)message->body)->log);
        break;
    case MSG_CUT:
        ol_cut_arrived(ol, from, message);
        break;
    case MSG_BYE:
        on_bye(ol, from);
        break;
    default:
        event_emit("unknown_message", "{s:i}", "type", message->type);
    }
}

static void *control_main(void *self)
{
    struct output_logger *ol = self;
    ol->ticked_ns = clock_ns();
    if (ol->recovered)
        ol_take_up_members(ol);
    while (!atomic_load(&ol->quit)) {
        ol_hub_poll(ol, TICK_MS);
        tick(ol);
    }
    return NULL;
}

int ol_control_start(struct output_logger *ol)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        ol->watch[slot] = -1;
    int error = ol_hub_open(ol);
    if (error)
        return error;
    error = pthread_create(&ol->control_thread, NULL, control_main, ol);
    if (!error)
        pthread_setname_np(ol->control_thread, "ol-control");
    return -error;
}

/* Only after the lcore has stopped; the goodbyes keep the others from taking this for a failure. */
void output_logger_stop(struct output_logger *ol)
{
    if (ol->config->mode != MODE_FTMB)
        return;
    atomic_store(&ol->quit, true);
    pthread_join(ol->control_thread, NULL);
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (ol->watch[slot] >= 0)
            deathwatch_stop(ol->watch[slot]);
    }
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        if (ol->connection[i].fd >= 0)
            ol_send(ol, &ol->connection[i], MSG_BYE, NULL, 0);
    }
}

/* The output logger's control thread: the hub of control messages, commits, credit, silence. */
#include "roles/ol_control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/credit.h"
#include "io/clock.h"
#include "io/deathwatch.h"
#include "io/event.h"

#define NS_PER_MS 1000000ull
#define TICK_MS 1
/* Outputs of the burst that a progress report runs ahead of (see wire_pals.next_input). */
#define CREDIT_SLACK 64u
#define ASK_INTERVAL_NS (5 * NS_PER_MS)
#define FORGET_INTERVAL_NS (10 * NS_PER_MS)
/* A promoted backup beats while it computes its cut. Silent for this many detection times: gone. */
#define PROMOTION_PATIENCE 20u

bool ol_run_job(struct output_logger *ol, enum ol_job_kind kind)
{
    atomic_store_explicit(&ol->job.kind, kind, memory_order_release);
    for (uint64_t rounds = 0; atomic_load_explicit(&ol->job.kind, memory_order_acquire); rounds++) {
        if (atomic_load(&ol->quit))
            return false; /* the lcore has stopped */
        rounds < 64 ? cpu_relax() : (void)sched_yield();
    }
    return ol->job.ok;
}

struct ol_connection *ol_replica(struct output_logger *ol, int slot)
{
    for (int i = 0; slot >= 0 && i < OL_CONNECTIONS; i++) {
        struct ol_connection *c = &ol->connection[i];
        if (c->fd >= 0 && c->slot == slot)
            return c;
    }
    return NULL;
}

struct ol_connection *ol_input_logger(struct output_logger *ol)
{
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        if (ol->connection[i].fd >= 0 && ol->connection[i].is_il)
            return &ol->connection[i];
    }
    return NULL;
}

void ol_send(struct output_logger *ol, struct ol_connection *to, uint16_t type, const void *body,
             size_t length)
{
    if (!to)
        return;
    struct iovec iov = {(void *)(uintptr_t)body, length};
    /* A peer that is gone is noticed by its death watch or by the end of its connection. */
    (void)control_send(to->fd, type, ol->state.view, to->incarnation, &iov, length ? 1 : 0);
}

void ol_set_protected(struct output_logger *ol, bool is_protected)
{
    if (ol->is_protected == is_protected)
        return;
    ol->is_protected = is_protected;
    if (is_protected)
        event_emit("protected", "{s:I,s:I}", "view", (json_int_t)ol->state.view, "epoch",
                   (json_int_t)ol->state.base_epoch);
    else
        event_emit("unprotected", "{s:s}", "what", "backup");
}

/* ---- commits ------------------------------------------------------------------------------ */

static void try_commit(struct output_logger *ol)
{
    struct view_pending *pending = &ol->state.pending;
    if (!pending->valid || ol->promoting)
        return;
    memcpy(ol->job.pals, pending->cut.pals, sizeof(ol->job.pals));
    memcpy(ol->job.outputs, pending->cut.outputs, sizeof(ol->job.outputs));
    if (!ol_run_job(ol, OL_JOB_COMMIT))
        return;
    struct msg_snapshot committed = {
        .view = pending->view, .epoch = pending->epoch, .cut = pending->cut};
    ol->committed = committed;
    int backup = (int)pending->slot;
    view_commit(&ol->state);
    ol->commits++;
    ol_send(ol, ol_replica(ol, backup), MSG_COMMITTED, &committed, sizeof(committed));
    ol_send(ol, ol_replica(ol, ol->state.master), MSG_COMMITTED, &committed, sizeof(committed));
    ol_send(ol, ol_input_logger(ol), MSG_COMMITTED, &committed, sizeof(committed));
    event_emit("commit", "{s:I}", "epoch", (json_int_t)committed.epoch);
    ol_set_protected(ol, true);
}

static void ask_for_snapshot(struct output_logger *ol, uint64_t now)
{
    if (now - ol->asked_ns < ASK_INTERVAL_NS)
        return;
    ol->asked_ns = now;
    ol->snapshot_requests++;
    ol_send(ol, ol_replica(ol, ol->state.master), MSG_SNAPSHOT, NULL, 0);
}

/* How far the IL may accept input: what is accepted must find room for its PALs and outputs. */
static void give_credit(struct output_logger *ol, uint64_t now)
{
    struct msg_credit credit = {0};
    bool pressed = false;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        const struct release_worker *x = &ol->release.worker[w];
        uint64_t progress = atomic_load_explicit(&ol->progress[w], memory_order_acquire);
        pressed |= credit_pressed(x);
        credit.limit[w] = credit_limit(x, progress, ol->config->needs.max_pals, CREDIT_SLACK);
    }
    if (pressed)
        ask_for_snapshot(ol, now);
    struct ol_connection *il = ol_input_logger(ol);
    if (!il || memcmp(&credit, &ol->credit, sizeof(credit)) == 0)
        return;
    ol->credit = credit;
    ol_send(ol, il, MSG_CREDIT, &credit, sizeof(credit));
}

/* ---- silence ------------------------------------------------------------------------------ */

/* A silent master is suspected. Our own stalls are no silence of anybody's: they are subtracted. */
static void look_for_silence(struct output_logger *ol, uint64_t now)
{
    uint64_t stall = now - ol->ticked_ns > 5 * NS_PER_MS ? now - ol->ticked_ns : 0;
    ol->ticked_ns = now;
    for (int i = 0; stall && i < OL_CONNECTIONS; i++)
        ol->connection[i].heard_ns += u64_min(stall, now - ol->connection[i].heard_ns);
    struct ol_connection *master = ol_replica(ol, ol->state.master);
    uint64_t patience = ol->config->detect_ms * NS_PER_MS;
    if (ol->promoting && master && now - master->heard_ns > PROMOTION_PATIENCE * patience)
        die(4, "state_lost: the backup does not answer its promotion");
    if (!master || ol->promoting || now - master->heard_ns < patience)
        return;
    master->heard_ns = now; /* whatever comes of it, do not suspect again at once */
    ol_master_failed(ol, "silence");
}

static bool alone(const struct output_logger *ol)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (ol->state.member[slot].present && slot != ol->state.master)
            return false;
    }
    return ol->state.master >= 0;
}

/* The master is alone: its logs serve nobody. The IL learns it as if a snapshot had been taken. */
static void forget_logs(struct output_logger *ol, uint64_t now)
{
    if (!ol->state.base_epoch || !alone(ol) || now - ol->forgot_ns < FORGET_INTERVAL_NS)
        return;
    ol->forgot_ns = now;
    if (!ol_run_job(ol, OL_JOB_FORGET))
        return;
    struct msg_snapshot forget = {.view = ol->state.view};
    memcpy(forget.cut.next_input, ol->job.next_input, sizeof(forget.cut.next_input));
    ol_send(ol, ol_input_logger(ol), MSG_COMMITTED, &forget, sizeof(forget));
}

static void tick(struct output_logger *ol)
{
    uint64_t now = clock_ns();
    look_for_silence(ol, now);
    try_commit(ol);
    if (!ol->state.view || ol->promoting)
        return;
    forget_logs(ol, now);
    give_credit(ol, now);
}

/* ---- messages ----------------------------------------------------------------------------- */

static void on_prepared(struct output_logger *ol, struct ol_connection *from,
                        const struct control_msg *message)
{
    struct msg_snapshot prepared;
    if (from->slot < 0 || message->length < sizeof(prepared))
        return;
    memcpy(&prepared, message->body, sizeof(prepared));
    if (view_prepared(&ol->state, (uint32_t)from->slot, from->incarnation, prepared.view,
                      prepared.epoch, &prepared.cut))
        try_commit(ol);
}

static void on_message(struct output_logger *ol, struct ol_connection *from,
                       const struct control_msg *message)
{
    from->heard_ns = clock_ns();
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
        if (from->slot >= 0 && from->slot != ol->state.master)
            ol_tell_backup(ol, (uint32_t)from->slot, true); /* begins anew, with a full one */
        break;
    case MSG_PRESSED:
        ask_for_snapshot(ol, clock_ns());
        break;
    case MSG_CUT:
        ol_cut_arrived(ol, from, message);
        break;
    case MSG_BYE:
        from->orderly = true;
        if (from->slot >= 0)
            ol_member_gone(ol, (uint32_t)from->slot, NULL);
        break;
    default:
        event_emit("unknown_message", "{s:i}", "type", message->type);
    }
}

static void drop_connection(struct output_logger *ol, struct ol_connection *c)
{
    int slot = c->slot;
    bool orderly = c->orderly;
    if (c->is_il && !orderly)
        die(5, "the input logger is gone");
    close(c->fd);
    control_buf_free(&c->buffer);
    memset(c, 0, sizeof(*c));
    c->fd = -1;
    c->slot = -1;
    /* On one machine a connection ends when its process does. */
    if (slot >= 0 && !orderly && ol->state.member[slot].present)
        ol_member_gone(ol, (uint32_t)slot, "death");
}

static void read_connection(struct output_logger *ol, struct ol_connection *c)
{
    struct control_msg *message;
    int result = 0;
    while (c->fd >= 0 && (result = control_recv(c->fd, &c->buffer, &message)) == 1)
        on_message(ol, c, message);
    if (c->fd >= 0 && result < 0)
        drop_connection(ol, c);
}

static void accept_connection(struct output_logger *ol)
{
    int fd = control_accept(ol->listen_fd);
    if (fd < 0)
        return;
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        struct ol_connection *c = &ol->connection[i];
        if (c->fd >= 0)
            continue;
        *c = (struct ol_connection){.fd = fd, .slot = -1, .heard_ns = clock_ns()};
        return;
    }
    close(fd);
}

static void read_deaths(struct output_logger *ol)
{
    struct ol_death death;
    while (read(ol->death_pipe[0], &death, sizeof(death)) == sizeof(death)) {
        const struct view_member *member = &ol->state.member[death.slot];
        if (member->present && member->incarnation == death.incarnation)
            ol_member_gone(ol, death.slot, "death");
    }
}

static void *control_main(void *self)
{
    struct output_logger *ol = self;
    ol->ticked_ns = clock_ns();
    while (!atomic_load(&ol->quit)) {
        struct pollfd wait[2 + OL_CONNECTIONS] = {{.fd = ol->listen_fd, .events = POLLIN},
                                                  {.fd = ol->death_pipe[0], .events = POLLIN}};
        for (int i = 0; i < OL_CONNECTIONS; i++)
            wait[2 + i] = (struct pollfd){.fd = ol->connection[i].fd, .events = POLLIN};
        poll(wait, 2 + OL_CONNECTIONS, TICK_MS);
        if (wait[1].revents)
            read_deaths(ol);
        for (int i = 0; i < OL_CONNECTIONS; i++) {
            if (wait[2 + i].revents && ol->connection[i].fd == wait[2 + i].fd)
                read_connection(ol, &ol->connection[i]);
        }
        if (wait[0].revents)
            accept_connection(ol);
        tick(ol);
    }
    return NULL;
}

int ol_control_start(struct output_logger *ol)
{
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/ol.ctl", ol->config->dir);
    view_init(&ol->state);
    for (int i = 0; i < OL_CONNECTIONS; i++)
        ol->connection[i] = (struct ol_connection){.fd = -1, .slot = -1};
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        ol->watch[slot] = -1;
    ol->listen_fd = control_listen(path);
    if (ol->listen_fd < 0) {
        fprintf(stderr, "ftmb-node: cannot listen at %s: %s\n", path, strerror(-ol->listen_fd));
        return ol->listen_fd;
    }
    if (pipe2(ol->death_pipe, O_CLOEXEC | O_NONBLOCK) ||
        pthread_create(&ol->control_thread, NULL, control_main, ol))
        return -errno;
    return 0;
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

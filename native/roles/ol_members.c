/* Who belongs to the system: admission of replicas and of the input logger, and their end. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/deathwatch.h"
#include "io/event.h"
#include "roles/ol_control.h"

struct watched {
    int pipe;
    struct ol_death death;
};

static struct watched watched[VIEW_SLOTS];

/* On the watch's own thread: only pass it on. */
static void on_death(void *arg)
{
    const struct watched *process = arg;
    (void)!write(process->pipe, &process->death, sizeof(process->death));
}

static void watch_process(struct output_logger *ol, uint32_t slot)
{
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/replica-%u.life", ol->config->dir, slot);
    if (ol->watch[slot] >= 0)
        deathwatch_stop(ol->watch[slot]);
    watched[slot] = (struct watched){
        .pipe = ol->death_pipe[1],
        .death = {.slot = slot, .incarnation = ol->state.member[slot].incarnation}};
    ol->watch[slot] = deathwatch_start(path, on_death, &watched[slot]);
    if (ol->watch[slot] < 0)
        event_emit("no_death_watch", "{s:i,s:i}", "slot", (int)slot, "error", -ol->watch[slot]);
}

void ol_tell_view(struct output_logger *ol, const uint64_t *next_input)
{
    struct ol_connection *master = ol_replica(ol, ol->state.master);
    struct ol_connection *il = ol_input_logger(ol);
    if (!master || !il)
        return;
    struct msg_view view = {.slot = (uint32_t)ol->state.master, .incarnation = master->incarnation};
    memcpy(view.next_input, next_input, sizeof(view.next_input));
    ol_send(ol, il, MSG_VIEW, &view, sizeof(view));
}

/* The first view begins with everybody at the start. */
static void begin_first_view(struct output_logger *ol, const struct ol_connection *master)
{
    ol->job.slot = (uint32_t)master->slot;
    ol->job.view = ol->state.view;
    ol->job.incarnation = master->incarnation;
    for (uint32_t w = 0; w < ol->config->workers; w++)
        ol->job.next_input[w] = 1;
    ol_run_job(ol, OL_JOB_BEGIN);
    ol_tell_view(ol, ol->job.next_input);
    event_emit("view", "{s:I,s:i}", "view", (json_int_t)ol->state.view, "slot", master->slot);
}

void ol_tell_backup(struct output_logger *ol, uint32_t slot, bool present)
{
    struct msg_backup backup = {
        .slot = slot, .present = present, .incarnation = ol->state.member[slot].incarnation};
    ol_send(ol, ol_replica(ol, ol->state.master), MSG_BACKUP, &backup, sizeof(backup));
}

static void refuse(struct output_logger *ol, struct ol_connection *to, const char *why)
{
    ol_send(ol, to, MSG_REFUSED, why, strlen(why));
    event_emit("refused_replica", "{s:s}", "why", why);
}

static void admit(struct output_logger *ol, struct ol_connection *from,
                  const struct msg_hello *hello)
{
    if (hello->config_digest != ol->config->config_digest) {
        refuse(ol, from, "its function, parameters, workers or build differ");
        return;
    }
    if (ol->state.master < 0 && ol->state.view > 0) {
        refuse(ol, from, "the master is gone and nobody holds its state");
        return;
    }
    bool active;
    uint32_t incarnation =
        hello->slot < ol->config->replicas ? view_admit(&ol->state, hello->slot, &active) : 0;
    if (incarnation == 0) {
        refuse(ol, from, "its slot does not exist or is taken by a living process");
        return;
    }
    from->slot = (int)hello->slot;
    from->incarnation = incarnation;
    watch_process(ol, hello->slot);
    struct msg_welcome welcome = {.active = active};
    ol_send(ol, from, MSG_WELCOME, &welcome, sizeof(welcome));
    event_emit("joined", "{s:i,s:i,s:I,s:s}", "slot", from->slot, "incarnation", (int)incarnation,
               "pid", (json_int_t)hello->pid, "condition", active ? "active" : "standby");
    if (active)
        begin_first_view(ol, from);
    for (uint32_t slot = 0; slot < ol->config->replicas; slot++) {
        if (ol->state.member[slot].present && (int)slot != ol->state.master &&
            (active || slot == hello->slot))
            ol_tell_backup(ol, slot, true);
    }
}

void ol_hello(struct output_logger *ol, struct ol_connection *from,
              const struct control_msg *message)
{
    if (message->type == MSG_HELLO_IL) {
        uint64_t start[FTMB_MAX_WORKERS];
        for (uint32_t w = 0; w < FTMB_MAX_WORKERS; w++)
            start[w] = 1;
        from->is_il = true;
        memset(&ol->credit, 0, sizeof(ol->credit));
        if (ol->state.view == 1)
            ol_tell_view(ol, start);
        if (ol->state.base_epoch)
            ol_send(ol, from, MSG_COMMITTED, &ol->committed, sizeof(ol->committed));
        return;
    }
    struct msg_hello hello;
    if (message->length < sizeof(hello) || from->slot >= 0)
        return;
    memcpy(&hello, message->body, sizeof(hello));
    admit(ol, from, &hello);
}

/* `kind` NULL: it said goodbye. */
void ol_member_gone(struct output_logger *ol, uint32_t slot, const char *kind)
{
    if ((int)slot == ol->state.master && kind) {
        ol_master_failed(ol, kind);
        return;
    }
    bool was_base = ol->state.member[slot].eligible;
    bool was_master = (int)slot == ol->state.master;
    view_leave(&ol->state, slot);
    struct ol_connection *connection = ol_replica(ol, (int)slot);
    if (connection)
        connection->slot = -1; /* its socket may live on until its memory is torn down */
    if (was_master)
        return;
    if (kind)
        event_emit("backup_lost", "{s:i,s:s}", "slot", (int)slot, "kind", kind);
    ol_tell_backup(ol, slot, false);
    if (was_base)
        ol_set_protected(ol, false);
}

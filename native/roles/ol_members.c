/* Who belongs to the system: admission of replicas and of the input logger, silence, their end. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/deathwatch.h"
#include "io/event.h"
#include "roles/ol_control.h"

#define NS_PER_MS 1000000ull
/* Own stalls below this are not worth correcting. */
#define STALL_NS (5 * NS_PER_MS)
/* A backup may be silent for this many detection times: nothing waits for it but a commit. */
#define BACKUP_PATIENCE 5u
/* A promoted backup beats while it computes its cut. */
#define PROMOTION_PATIENCE 20u
/* After a restart everybody has this long to find us again. */
#define GRACE_NS (500 * NS_PER_MS)

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
    if (ol->config->apart) /* another host's: then silence tells, or a substitute's hello */
        return;
    if (ol->watch[slot] >= 0)
        deathwatch_stop(ol->watch[slot]);
    watched[slot] = (struct watched){
        .pipe = ol->death_pipe[1],
        .death = {.slot = slot, .incarnation = ol->state.view.member[slot].incarnation}};
    ol->watch[slot] = deathwatch_start(path, on_death, &watched[slot]);
    if (ol->watch[slot] < 0)
        event_emit("no_death_watch", "{s:i,s:i}", "slot", (int)slot, "error", -ol->watch[slot]);
}

/* Has this process ended, even if its parent has not asked for it yet? Not known of another host's.
 */
static bool process_gone(const struct output_logger *ol, uint32_t slot)
{
    if (ol->config->apart)
        return false;
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)ol->state.pid[slot], 0);
    if (fd < 0)
        return errno == ESRCH;
    struct pollfd end = {.fd = fd, .events = POLLIN};
    bool gone = poll(&end, 1, 0) == 1;
    close(fd);
    return gone;
}

/* ---- telling ------------------------------------------------------------------------------ */

void ol_tell_view(struct output_logger *ol)
{
    const struct view_state *view = &ol->state.view;
    if (view->master < 0 || view->promoting)
        return;
    struct msg_view message = {.slot = (uint32_t)view->master,
                               .incarnation = view->member[view->master].incarnation};
    memcpy(message.next_input, ol->state.next_input, sizeof(message.next_input));
    ol_send(ol, ol_input_logger(ol), MSG_VIEW, &message, sizeof(message));
}

/* One that refused the last snapshot is sent all of the next: as if it held nothing. */
void ol_tell_backup(struct output_logger *ol, uint32_t slot)
{
    const struct view_state *view = &ol->state.view;
    const struct view_member *member = &view->member[slot];
    struct msg_backup backup = {
        .slot = slot, .present = member->present, .incarnation = member->incarnation};
    if (member->eligible && !member->refused) {
        backup.base_view = view->base_view;
        backup.base_epoch = view->base_epoch;
    }
    ol_send(ol, ol_replica(ol, view->master), MSG_BACKUP, &backup, sizeof(backup));
}

/* Of those that are not there as well: they may have left unheard. */
static void tell_all_backups(struct output_logger *ol)
{
    for (uint32_t slot = 0; slot < ol->config->replicas; slot++) {
        if ((int)slot != ol->state.view.master)
            ol_tell_backup(ol, slot);
    }
}

/* ---- admission ---------------------------------------------------------------------------- */

/* The first view begins with everybody at the start. */
static void begin_first_view(struct output_logger *ol, const struct ol_connection *master)
{
    ol->job.slot = (uint32_t)master->slot;
    ol->job.view = ol->state.view.view;
    ol->job.incarnation = master->incarnation;
    memcpy(ol->job.next_input, ol->state.next_input, sizeof(ol->job.next_input));
    ol_run_job(ol, OL_JOB_BEGIN);
    ol_tell_view(ol);
    event_emit("view", "{s:I,s:i}", "view", (json_int_t)ol->state.view.view, "slot", master->slot);
}

static void refuse(struct output_logger *ol, struct ol_connection *to, const char *why)
{
    ol_send(ol, to, MSG_REFUSED, why, strlen(why));
    event_emit("refused_replica", "{s:s}", "why", why);
}

static void bind_connection(struct output_logger *ol, struct ol_connection *c, uint32_t slot)
{
    struct ol_connection *before = ol_replica(ol, (int)slot);
    if (before && before != c) { /* the same process made a new one: the old one is void */
        before->orderly = before->broken = true;
        before->slot = -1;
    }
    c->slot = (int)slot;
    c->incarnation = ol->state.view.member[slot].incarnation;
    ol->heard_ns[slot] = clock_ns();
}

static void admit(struct output_logger *ol, struct ol_connection *from,
                  const struct msg_hello *hello)
{
    struct view_state *view = &ol->state.view;
    uint32_t slot = hello->slot;
    if (view->master < 0 && view->view > 0 && !view->heir) {
        refuse(ol, from, "the master is gone and nobody holds its state");
        return;
    }
    bool active;
    if (view_admit(view, slot, &active) == 0) {
        refuse(ol, from, "its slot is taken by a living process");
        return;
    }
    if (!view_holds(view, slot, hello->base_view, hello->base_epoch))
        view_holds(view, slot, hello->prepared_view, hello->prepared_epoch);
    ol->state.pid[slot] = hello->pid;
    ol->state.process[slot] = hello->process;
    ol_decided(ol);
    bind_connection(ol, from, slot);
    watch_process(ol, slot);
    struct msg_welcome welcome = {.active = active};
    ol_send(ol, from, MSG_WELCOME, &welcome, sizeof(welcome));
    event_emit("joined", "{s:i,s:i,s:I,s:s}", "slot", from->slot, "incarnation",
               (int)from->incarnation, "pid", (json_int_t)hello->pid, "condition",
               active ? "active" : "standby");
    if (view->base_epoch && !active) /* what it holds as prepared may be that, or older */
        ol_send_committed(ol, from);
    if (active)
        begin_first_view(ol, from);
    if (active)
        tell_all_backups(ol);
    else if (!view->promoting)
        ol_tell_backup(ol, slot);
    ol_tell_protection(ol);
}

/* The same process as before, on a new connection: it gets what it may have missed. */
static void rejoin(struct output_logger *ol, struct ol_connection *from,
                   const struct msg_hello *hello)
{
    struct view_state *view = &ol->state.view;
    uint32_t slot = hello->slot;
    bool master = (int)slot == view->master;
    bool begun = hello->view == view->view && hello->active;
    bind_connection(ol, from, slot);
    struct msg_welcome welcome = {.active = master && !view->promoting, .rejoined = 1};
    ol_send(ol, from, MSG_WELCOME, &welcome, sizeof(welcome));
    char peer[16];
    snprintf(peer, sizeof(peer), "r%u", slot);
    event_emit("peer_back", "{s:s}", "peer", peer);
    if (master && view->promoting) {
        ol_promote(ol);
        return;
    }
    if (view->base_epoch)
        ol_send_committed(ol, from);
    if (!master) {
        if (hello->view != view->view && !view->promoting)
            ol_send(ol, from, MSG_NEW_VIEW, NULL, 0);
        ol_tell_backup(ol, slot);
        return;
    }
    if (!begun)
        ol_send(ol, from, MSG_GO, NULL, 0);
    tell_all_backups(ol);
}

static void hello_il(struct output_logger *ol, struct ol_connection *from,
                     const struct msg_hello_il *hello)
{
    struct ol_connection *before = ol_input_logger(ol);
    if (before && before != from) {
        before->is_il = false;
        before->orderly = before->broken = true;
    }
    from->is_il = true;
    if (ol->state.il_process && ol->state.il_process != hello->process)
        event_emit("restarted", "{s:s}", "what", "il");
    if (ol->il_lost_ns)
        event_emit("peer_back", "{s:s}", "peer", "il");
    if (ol->state.il_missed)
        event_emit("protected_again", "{s:s}", "what", "il");
    ol->il_lost_ns = 0;
    ol->state.il_missed = false;
    ol->state.il_process = hello->process;
    ol_decided(ol);
    memset(&ol->credit, 0, sizeof(ol->credit));
    ol_tell_view(ol);
    if (ol->state.view.base_epoch)
        ol_send_committed(ol, from);
}

void ol_hello(struct output_logger *ol, struct ol_connection *from,
              const struct control_msg *message)
{
    if (message->type == MSG_HELLO_IL) {
        hello_il(ol, from, (const struct msg_hello_il *)message->body);
        return;
    }
    struct msg_hello hello;
    memcpy(&hello, message->body, sizeof(hello));
    if (from->slot >= 0)
        return;
    if (hello.config_digest != ol->config->config_digest) {
        refuse(ol, from, "its function, parameters, workers or build differ");
        return;
    }
    if (hello.slot >= ol->config->replicas) {
        refuse(ol, from, "its slot does not exist");
        return;
    }
    const struct view_member *member = &ol->state.view.member[hello.slot];
    bool same =
        member->present && (hello.incarnation ? hello.incarnation == member->incarnation
                                              : hello.process == ol->state.process[hello.slot]);
    if (same) {
        rejoin(ol, from, &hello);
        return;
    }
    if (hello.incarnation) {
        ol_fence_out(ol, from);
        return;
    }
    /* Its predecessor may have died while we were dead, too. On another host nobody can look, but
     * this one would not have been started. */
    if (member->present && (ol->config->apart || process_gone(ol, hello.slot)))
        ol_member_gone(ol, hello.slot, "death");
    admit(ol, from, &hello);
}

/* ---- the end ------------------------------------------------------------------------------ */

/* `kind` NULL: it said goodbye. */
void ol_member_gone(struct output_logger *ol, uint32_t slot, const char *kind)
{
    struct view_state *view = &ol->state.view;
    if ((int)slot == view->master && kind) {
        ol_master_failed(ol, kind);
        return;
    }
    bool was_master = (int)slot == view->master;
    view_leave(view, slot);
    ol_decided(ol);
    struct ol_connection *connection = ol_replica(ol, (int)slot);
    if (connection) { /* its socket may live on until its memory is torn down */
        connection->slot = -1;
        connection->orderly = true;
    }
    if (was_master)
        return;
    if (kind)
        event_emit("backup_lost", "{s:i,s:s}", "slot", (int)slot, "kind", kind);
    ol_tell_backup(ol, slot);
    ol_tell_protection(ol);
}

/* A connection ended, and nobody had said so before. Its process may live: then it comes back, or
 * is silent. Between hosts the network ends connections of the living, so that is no death, which
 * would end a view that nobody can take over. On one machine only an end does, and where no death
 * watch could be had there is no better news than this. */
void ol_connection_lost(struct output_logger *ol, int slot, bool is_il)
{
    if (is_il) {
        ol->il_lost_ns = clock_ns();
        ol->state.il_missed = true;
        ol_decided(ol);
        event_emit("peer_lost", "{s:s}", "peer", "il");
        event_emit("unprotected", "{s:s}", "what", "il");
        return;
    }
    if (!ol->state.view.member[slot].present)
        return;
    if (ol->watch[slot] < 0 && !ol->config->apart) {
        ol_member_gone(ol, (uint32_t)slot, "death");
        return;
    }
    char peer[16];
    snprintf(peer, sizeof(peer), "r%d", slot);
    event_emit("peer_lost", "{s:s}", "peer", peer);
}

/* ---- silence ------------------------------------------------------------------------------ */

static uint64_t patience(const struct output_logger *ol, uint32_t slot)
{
    uint64_t detect = ol->config->detect_ms * NS_PER_MS;
    if ((int)slot != ol->state.view.master)
        return BACKUP_PATIENCE * detect;
    return ol->state.view.promoting ? PROMOTION_PATIENCE * detect : detect;
}

static void on_silence(struct output_logger *ol, uint32_t slot)
{
    ol->heard_ns[slot] = clock_ns(); /* whatever comes of it, do not suspect again at once */
    if ((int)slot == ol->state.view.master) {
        if (!ol->doubted[slot] || view_eligible(&ol->state.view) >= 0)
            ol_master_failed(ol, "silence");
        ol->doubted[slot] = true;
        return;
    }
    /* It must not come back as if nothing had happened: commits went on without it. */
    ol_fence_out(ol, ol_replica(ol, (int)slot));
    ol_member_gone(ol, slot, "silence");
}

/* Our own stalls are no silence of anybody's: they are subtracted. */
void ol_look_for_silence(struct output_logger *ol, uint64_t now)
{
    uint64_t stall = now - ol->ticked_ns > STALL_NS ? now - ol->ticked_ns : 0;
    ol->ticked_ns = now;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        uint64_t heard = ol->heard_ns[slot];
        ol->heard_ns[slot] = heard < now ? heard + u64_min(stall, now - heard) : heard;
    }
    for (uint32_t slot = 0; slot < VIEW_SLOTS && now >= ol->grace_ns; slot++) {
        uint64_t heard = ol->heard_ns[slot];
        if (ol->state.view.member[slot].present && heard < now && now - heard > patience(ol, slot))
            on_silence(ol, slot);
    }
}

/* ---- after a restart ---------------------------------------------------------------------- */

static void resume_view(struct output_logger *ol)
{
    const struct view_state *view = &ol->state.view;
    const struct snapshot_cut *cut = &ol->state.committed.cut;
    if (view->base_epoch) { /* the base was recorded; its trimming may have been cut off */
        memcpy(ol->job.pals, cut->pals, sizeof(ol->job.pals));
        memcpy(ol->job.outputs, cut->outputs, sizeof(ol->job.outputs));
        ol_run_job(ol, OL_JOB_TRIM);
    }
    if (view->master < 0 || view->promoting)
        return; /* its cut comes (again) before its first frame */
    ol->job.slot = (uint32_t)view->master;
    ol->job.view = view->view;
    ol->job.incarnation = view->member[view->master].incarnation;
    ol_run_job(ol, OL_JOB_RESUME);
}

/* Everybody is where they were; those who died meanwhile are found out about. */
void ol_take_up_members(struct output_logger *ol)
{
    struct view_state *view = &ol->state.view;
    uint64_t now = clock_ns();
    event_emit("unprotected", "{s:s}", "what", "ol");
    ol->rejoining = true;
    ol->grace_ns = now + GRACE_NS + BACKUP_PATIENCE * ol->config->detect_ms * NS_PER_MS;
    ol->waiting_ns = now;
    ol->il_lost_ns = ol->state.il_process ? now : 0;
    ol->protectors = view->promoting || view->master < 0 ? 0 : view_protectors(view);
    resume_view(ol);
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        ol->heard_ns[slot] = now;
        if (!view->member[slot].present)
            continue;
        watch_process(ol, slot); /* also of a dead one: it may have written down what it died of */
        if (process_gone(ol, slot))
            ol_member_gone(ol, slot, "death");
    }
}

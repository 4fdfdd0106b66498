/* The state channel: snapshots from the master to the backup. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/replica.h"

#define NS_PER_MS 1000000ull
#define BULK_NICENESS 9

static void state_path(const struct replica *replica, uint32_t slot, char *path, size_t size)
{
    snprintf(path, size, "%s/state-%u.sock", replica->config->dir, slot);
}

int replica_state_init(struct replica *replica)
{
    char path[NODE_PATH_BYTES + 32];
    state_path(replica, replica->config->slot, path, sizeof(path));
    replica->state_listen_fd = control_listen(path);
    if (replica->state_listen_fd < 0) {
        fprintf(stderr, "ftmb-node: cannot listen at %s: %s\n", path,
                strerror(-replica->state_listen_fd));
        return replica->state_listen_fd;
    }
    return 0;
}

static bool is_active(struct replica *replica)
{
    pthread_mutex_lock(&replica->state_lock);
    bool active = replica->active;
    pthread_mutex_unlock(&replica->state_lock);
    return active;
}

static void wait_until(struct replica *replica, uint64_t deadline_ns)
{
    struct timespec at = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                          .tv_nsec = (long)(deadline_ns % 1000000000u)};
    pthread_cond_timedwait(&replica->state_changed, &replica->state_lock, &at);
}

/* Copying, comparing and digesting do not yield, and pollers do: at the same priority these would
 * keep the core to themselves for milliseconds. Positive: step back by that much. */
static void change_niceness(int by)
{
    (void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + by);
}

static void close_channel(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- master ------------------------------------------------------------------------------ */

static int send_delta(struct replica *replica, int fd)
{
    const struct delta *delta = &replica->snapshotter.delta;
    for (uint64_t at = 0; at < delta->size; at += MSG_DELTA_PIECE) {
        uint64_t length = u64_min(MSG_DELTA_PIECE, delta->size - at);
        struct msg_delta piece = {
            .view = replica->view, .epoch = replica->epoch, .offset = at, .total = delta->size};
        struct iovec body[2] = {{&piece, sizeof(piece)}, {delta->bytes + at, length}};
        int error = control_send(fd, MSG_DELTA, replica->view, replica->incarnation, body, 2);
        if (error)
            return error;
        if (replica->config->yield)
            sched_yield(); /* workers may share this core: give way between pieces */
    }
    return 0;
}

/* The OL will tell that the backup is gone; until then the next attempt is a full one. */
static void forget_attempt(struct replica *replica)
{
    pthread_mutex_lock(&replica->state_lock);
    replica->pending_epoch = 0;
    snapshotter_abandon(&replica->snapshotter, true);
    pthread_mutex_unlock(&replica->state_lock);
}

/* Take, build and send one snapshot. Called without the lock; `pending_epoch` keeps others out. */
static void take_and_send(struct replica *replica, int *fd)
{
    struct snapshotter *s = &replica->snapshotter;
    if (*fd < 0) {
        char path[NODE_PATH_BYTES + 32];
        state_path(replica, replica->backup_slot, path, sizeof(path));
        *fd = control_connect(path, 1000);
    }
    if (*fd < 0) {
        forget_attempt(replica);
        return;
    }
    struct snapshot_name name = {.view = replica->view,
                                 .epoch = replica->epoch,
                                 .base_view = replica->view,
                                 .base_epoch = replica->base_epoch};
    int error = snapshotter_take(s, name, replica->config->check);
    if (error)
        die(3, "cannot take a snapshot: %s", strerror(-error));
    const struct delta_head *head = (const struct delta_head *)s->delta.bytes;
    event_emit("snapshot", "{s:I,s:I,s:I,s:I,s:I,s:b}", "epoch", (json_int_t)name.epoch, "pause_ns",
               (json_int_t)s->pause_ns, "copy_ns", (json_int_t)s->copy_ns, "bytes",
               (json_int_t)head->bytes, "lines", (json_int_t)head->lines, "full",
               head->base_epoch == 0);
    if (send_delta(replica, *fd) == 0)
        return;
    close_channel(fd);
    forget_attempt(replica);
}

/* Is a snapshot to be taken now? With engine `none` only a backup without a base gets one. */
static bool snapshot_due(const struct replica *replica, uint64_t now, uint64_t due)
{
    if (!replica->backup_present || atomic_load(&replica->group.replaying))
        return false;
    if (replica->snapshotter.committed < 0)
        return now >= replica->full_after_ns;
    if (replica->config->engine == ENGINE_NONE)
        return false;
    return now >= due || replica->snapshot_wanted;
}

static void master_main(struct replica *replica)
{
    uint64_t period = replica->config->period_ms * NS_PER_MS;
    uint64_t due = clock_ns() + period;
    uint32_t changes_seen = 0;
    int fd = -1;
    pthread_mutex_lock(&replica->state_lock);
    while (!atomic_load(&replica->quit)) {
        uint64_t now = clock_ns();
        if (changes_seen != replica->backup_changes) {
            changes_seen = replica->backup_changes;
            close_channel(&fd);
            replica->pending_epoch = 0;
            snapshotter_abandon(&replica->snapshotter, true);
        }
        if (replica->pending_epoch) {
            if (now >= due) { /* the last one is not committed yet: skip this one */
                replica->snapshotter.skipped++;
                event_emit("snapshot_skipped", "{s:I}", "pending",
                           (json_int_t)replica->pending_epoch);
                due += period;
            }
            wait_until(replica, u64_min(due, now + 10 * NS_PER_MS));
            continue;
        }
        if (!snapshot_due(replica, now, due)) {
            wait_until(replica, due > now ? u64_min(due, now + 10 * NS_PER_MS) : now + NS_PER_MS);
            continue;
        }
        due = now - due < period ? due + period : now + period; /* no catching up */
        replica->snapshot_wanted = false;
        replica->full_after_ns = now + period; /* a backup that keeps refusing costs no more */
        replica->pending_epoch = ++replica->epoch;
        pthread_mutex_unlock(&replica->state_lock);
        take_and_send(replica, &fd);
        pthread_mutex_lock(&replica->state_lock);
    }
    pthread_mutex_unlock(&replica->state_lock);
    close_channel(&fd);
}

/* ---- backup ------------------------------------------------------------------------------ */

/* The master builds on a snapshot as soon as it hears of its commit; here that news, which comes
 * another way, may still be on its way. Called with the lock. */
static void await_base(struct replica *replica, const struct delta_head *head)
{
    const struct delta_head *staged = (const struct delta_head *)replica->staged.bytes;
    while (replica->staged.size && staged->epoch == head->base_epoch &&
           staged->view == head->view && !replica->active && !atomic_load(&replica->quit))
        wait_until(replica, clock_ns() + 10 * NS_PER_MS);
}

static const char *why_not(const struct replica *replica, const struct delta_head *head)
{
    if (replica->active)
        return "this replica has become the master";
    if (head->view != replica->view)
        return "taken in another view";
    if (head->base_epoch &&
        (head->base_epoch != replica->base_epoch || head->view != replica->base_view))
        return "does not follow the base held here";
    return NULL;
}

/* A whole delta is there: keep it until the OL commits it, or say that it cannot be used. */
static void stage(struct replica *replica)
{
    const struct delta_head *head = (const struct delta_head *)replica->receiving.bytes;
    const char *wrong = delta_check(replica->receiving.bytes, replica->receiving.size,
                                    replica->arena->size, replica->config->config_digest);
    struct msg_snapshot prepared = {0};
    pthread_mutex_lock(&replica->state_lock);
    if (!wrong) {
        await_base(replica, head);
        wrong = why_not(replica, head);
    }
    if (!wrong) {
        prepared =
            (struct msg_snapshot){.view = head->view, .epoch = head->epoch, .cut = head->cut};
        struct delta swap = replica->staged;
        replica->staged = replica->receiving;
        replica->receiving = swap;
        replica->receiving.size = 0;
    }
    pthread_mutex_unlock(&replica->state_lock);
    if (wrong)
        event_emit("snapshot_refused", "{s:s}", "why", wrong);
    if (is_active(replica))
        return; /* promoted meanwhile: it makes snapshots itself now */
    replica_send(replica, wrong ? MSG_REJECTED : MSG_PREPARED, &prepared, sizeof(prepared));
}

/* One piece of a delta; pieces come in order. False: not this protocol. */
static bool take_piece(struct replica *replica, const struct control_msg *message)
{
    struct delta *to = &replica->receiving;
    struct msg_delta piece;
    if (message->type != MSG_DELTA || message->length < sizeof(piece))
        return false;
    memcpy(&piece, message->body, sizeof(piece));
    uint64_t length = message->length - sizeof(piece);
    uint64_t bound = 2 * replica->arena->size + sizeof(struct delta_head);
    if (piece.total > bound || piece.offset > piece.total || length > piece.total - piece.offset)
        return false;
    if (piece.offset == 0)
        to->size = 0;
    if (piece.offset != to->size)
        return false;
    if (to->capacity < piece.total) {
        uint8_t *bytes = realloc(to->bytes, piece.total);
        if (!bytes)
            return false;
        to->bytes = bytes;
        to->capacity = piece.total;
    }
    memcpy(to->bytes + piece.offset, message->body + sizeof(piece), length);
    to->size += length;
    if (to->size == piece.total)
        stage(replica);
    return true;
}

static int receive(struct replica *replica, int fd, struct control_buf *buffer)
{
    struct control_msg *message;
    int result;
    while ((result = control_recv(fd, buffer, &message)) == 1) {
        if (!take_piece(replica, message))
            return -EPROTO;
    }
    return result;
}

static void standby_main(struct replica *replica)
{
    struct control_buf buffer = {0};
    int fd = -1;
    while (!atomic_load(&replica->quit) && !is_active(replica)) {
        struct pollfd wait = {.fd = fd < 0 ? replica->state_listen_fd : fd, .events = POLLIN};
        if (poll(&wait, 1, 20) <= 0)
            continue;
        if (fd < 0) {
            fd = control_accept(replica->state_listen_fd);
            continue;
        }
        int error = receive(replica, fd, &buffer);
        if (error == 0)
            continue;
        if (error == -EPROTO)
            event_emit("snapshot_refused", "{s:s}", "why", "not the state channel's protocol");
        close_channel(&fd);
        control_buf_free(&buffer);
        memset(&buffer, 0, sizeof(buffer));
    }
    close_channel(&fd);
    control_buf_free(&buffer);
}

void replica_apply_committed(struct replica *replica, uint32_t view,
                             const struct msg_snapshot *message)
{
    pthread_mutex_lock(&replica->state_lock);
    const struct delta_head *head = (const struct delta_head *)replica->staged.bytes;
    if (replica->staged.size && head->epoch == message->epoch && head->view == view) {
        /* Only a process with the right could take this back afterwards. */
        bool may = getpriority(PRIO_PROCESS, 0) < 0;
        change_niceness(may ? BULK_NICENESS : 0);
        delta_apply(replica->staged.bytes, replica->arena);
        replica->base_epoch = message->epoch;
        replica->base_view = view;
        bool checked = head->digest != 0;
        bool same = !checked || head->digest == snapshot_digest(replica->arena);
        change_niceness(may ? -BULK_NICENESS : 0);
        replica->staged.size = 0;
        replica->digests_matched += checked && same;
        replica->digests_mismatched += !same;
        if (!same)
            die(4, "digest_mismatch: the backup's state differs after snapshot %llu of view %u",
                (unsigned long long)message->epoch, view);
    }
    pthread_cond_broadcast(&replica->state_changed);
    pthread_mutex_unlock(&replica->state_lock);
}

void *replica_state_main(void *self)
{
    struct replica *replica = self;
    change_niceness(BULK_NICENESS);
    standby_main(replica); /* returns at once where the replica is active from the start */
    if (is_active(replica))
        master_main(replica);
    return NULL;
}

/* Taking snapshots and sending them (see state_sender.h). */
#include "roles/state_sender.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/replica.h"

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define POLL_NS (10 * NS_PER_MS)
#define CONNECT_PAUSE_NS NS_PER_MS
#define PIECES_AT_ONCE 4 /* to one backup, before the others have their turn */
/* Before another full snapshot for a backup that did not take the last one, doubling each time. */
#define FULL_PAUSE_NS (50 * NS_PER_MS)
#define FULL_PAUSE_MAX_NS (6400 * NS_PER_MS)

int state_sender_init(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        char name[FAULT_NAME_BYTES];
        snprintf(name, sizeof(name), "state-%u", slot);
        bool other = slot < replica->config->replicas && slot != replica->config->slot;
        state_channel_init(&sender->backup[slot].channel, other ? fault_link(name, 0) : NULL);
    }
    const char *why;
    const struct snapshot_engine *engine = snapshot_engine_of(replica->config->engine, &why);
    if (!engine)
        die(3, "%s", why);
    if (replica->config->schedule != SCHEDULE_PERIOD)
        die(3, "this build takes snapshots by period only");
    return snapshotter_init(&sender->snapshotter, engine, replica->arena, &replica->group,
                            replica->workers, replica->config->workers);
}

/* ---- what the output logger says ---------------------------------------------------------- */

/* The same backup with the same base again is no news; without a base it asks for all of it. */
void state_sender_backup(struct replica *replica, const struct msg_backup *told)
{
    if (told->slot >= VIEW_SLOTS || told->slot == replica->config->slot)
        return;
    struct backup *backup = &replica->sender.backup[told->slot];
    pthread_mutex_lock(&replica->state_lock);
    bool same =
        backup->told.present && told->present && backup->told.incarnation == told->incarnation;
    backup->refused |= same && told->base_epoch == 0;
    backup->told = *told;
    backup->news = true;
    pthread_mutex_unlock(&replica->state_lock);
    replica_state_wake(replica);
}

void state_sender_committed(struct replica *replica, struct base_name name)
{
    pthread_mutex_lock(&replica->state_lock);
    replica->sender.told_committed = name;
    pthread_mutex_unlock(&replica->state_lock);
    replica_state_wake(replica);
}

void state_sender_wanted(struct replica *replica)
{
    pthread_mutex_lock(&replica->state_lock);
    replica->sender.told_wanted = true;
    pthread_mutex_unlock(&replica->state_lock);
    replica_state_wake(replica);
}

static void begin_anew(struct backup *backup)
{
    state_channel_close(&backup->channel);
    backup->receiving = false;
    backup->base = backup->name = (struct base_name){0};
}

static void take_news(struct backup *backup)
{
    const struct msg_backup *told = &backup->told;
    bool fresh = told->present && (!backup->present || backup->incarnation != told->incarnation);
    if (backup->refused)
        backup->declined = backup->name;
    if (!told->present || fresh || backup->refused)
        begin_anew(backup);
    if (fresh) {
        backup->declined = (struct base_name){0};
        backup->base = (struct base_name){told->base_view, told->base_epoch};
        backup->full_after_ns = 0;
        backup->full_pause_ns = FULL_PAUSE_NS;
    }
    backup->present = told->present;
    backup->incarnation = told->incarnation;
    backup->news = backup->refused = false;
}

static bool holds_image(const struct state_sender *sender, const struct backup *backup)
{
    return sender->committed.epoch && base_same(backup->base, sender->committed);
}

/* Can the snapshot under way still be committed? Only if somebody was sent it and did not refuse.
 */
static bool anybody_has(const struct state_sender *sender, struct base_name name)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        if (backup->present && base_same(backup->name, name))
            return true;
    }
    return false;
}

static void look_at_news(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    pthread_mutex_lock(&replica->state_lock);
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (sender->backup[slot].news)
            take_news(&sender->backup[slot]);
    }
    struct base_name committed = sender->told_committed;
    sender->wanted |= sender->told_wanted;
    sender->told_wanted = false;
    pthread_mutex_unlock(&replica->state_lock);
    if (!sender->pending.epoch)
        return;
    if (base_same(committed, sender->pending)) {
        snapshotter_committed(&sender->snapshotter);
        sender->committed = sender->pending;
        sender->pending.epoch = 0;
        for (int slot = 0; slot < VIEW_SLOTS; slot++) {
            if (holds_image(sender, &sender->backup[slot]))
                sender->backup[slot].full_pause_ns = FULL_PAUSE_NS;
        }
    } else if (!anybody_has(sender, sender->pending)) {
        snapshotter_abandon(&sender->snapshotter);
        sender->pending.epoch = 0;
    }
}

/* ---- taking a snapshot -------------------------------------------------------------------- */

static bool wants_full(const struct state_sender *sender, const struct backup *backup, uint64_t now)
{
    return backup->present && !holds_image(sender, backup) && now >= backup->full_after_ns;
}

/* A promoted replica has its base in its file. It is of use if a backup that stayed holds it too.
 * Not while a snapshot is under way: what that is committed as replaces it. */
static void take_up_base(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    struct base_name base = standby_base(&replica->standby);
    if (sender->committed.epoch || sender->pending.epoch || !base.epoch)
        return;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        if (!backup->present || !base_same(backup->base, base))
            continue;
        snapshotter_start_from(&sender->snapshotter, replica->standby.image);
        sender->committed = base;
        return;
    }
}

/* With engine `none` only a backup without a base gets one. */
static bool snapshot_due(const struct replica *replica, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    bool present = false, full = false, busy = false;
    if (sender->pending.epoch || atomic_load(&replica->group.replaying))
        return false;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        full |= wants_full(sender, backup, now);
        present |= holds_image(sender, backup) && backup->present;
        busy |= backup->receiving && now - backup->moved_ns < SENDER_PATIENCE_NS;
    }
    if (busy)
        return false;
    bool timely =
        replica->config->engine != ENGINE_NONE && (now >= sender->due_ns || sender->wanted);
    return full || (present && timely);
}

static void send_to(struct state_sender *sender, struct backup *backup, bool full, uint64_t now)
{
    if (backup->receiving) /* it has not moved for long */
        begin_anew(backup);
    backup->delta = full ? &sender->snapshotter.full : &sender->snapshotter.delta;
    backup->name = sender->pending;
    backup->receiving = true;
    backup->moved_ns = now;
    backup->connect_after_ns = 0;
    if (full) {
        backup->full_after_ns = now + backup->full_pause_ns;
        backup->full_pause_ns = u64_min(2 * backup->full_pause_ns, FULL_PAUSE_MAX_NS);
    }
    transfer_tx_begin(&backup->tx, backup->delta->size, MSG_DELTA_PIECE, now);
}

static void report(const struct state_sender *sender, bool full, bool lines)
{
    const struct snapshotter *s = &sender->snapshotter;
    const struct delta_head *head = (const struct delta_head *)(lines ? s->delta : s->full).bytes;
    event_emit("snapshot", "{s:I,s:I,s:I,s:I,s:I,s:b}", "epoch", (json_int_t)sender->pending.epoch,
               "pause_ns", (json_int_t)s->pause_ns, "copy_ns", (json_int_t)s->copy_ns, "bytes",
               (json_int_t)head->bytes, "lines", (json_int_t)head->lines, "full", full);
}

static void take_snapshot(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    uint64_t period = replica->config->period_us * NS_PER_US;
    bool full = false, lines = false;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        full |= wants_full(sender, backup, now);
        lines |= backup->present && holds_image(sender, backup);
    }
    /* No catching up on periods that were missed. */
    sender->due_ns = now - sender->due_ns < period ? sender->due_ns + period : now + period;
    sender->wanted = false;
    sender->pending = (struct base_name){atomic_load(&replica->view), ++sender->epoch};
    struct snapshot_name name = {.view = sender->pending.view,
                                 .epoch = sender->pending.epoch,
                                 .base_view = sender->committed.view,
                                 .base_epoch = sender->committed.epoch};
    int error = snapshotter_take(&sender->snapshotter, name, full, lines, replica->config->check);
    if (error)
        die(3, "cannot take a snapshot: %s", strerror(-error));
    report(sender, full, lines);
    sender->pending_full = full;
    sender->pending_lines = lines;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        struct backup *backup = &sender->backup[slot];
        if (wants_full(sender, backup, now) || (backup->present && holds_image(sender, backup)))
            send_to(sender, backup, !holds_image(sender, backup), now);
        else if (backup->receiving && (backup->delta == &sender->snapshotter.full ? full : lines))
            begin_anew(backup); /* what it was being sent has been overwritten */
    }
}

/* A backup that came while a snapshot is under way gets that one too. The OL may wait for it: one
 * that joins with the present base counts from then on. */
static void catch_up(struct state_sender *sender, uint64_t now)
{
    for (int slot = 0; slot < VIEW_SLOTS && sender->pending.epoch; slot++) {
        struct backup *backup = &sender->backup[slot];
        if (!backup->present || base_same(backup->name, sender->pending) ||
            base_same(backup->declined, sender->pending))
            continue; /* what it declined it would not look at again, whatever it acknowledges */
        bool lines = sender->pending_lines && holds_image(sender, backup);
        if (lines || (sender->pending_full && now >= backup->full_after_ns))
            send_to(sender, backup, !lines, now);
    }
}

/* ---- sending ------------------------------------------------------------------------------ */

/* Nobody waits here: a process that is not there yet is tried again. */
static void connect_to(struct replica *replica, struct backup *backup, uint64_t now)
{
    char path[NODE_PATH_BYTES + 32];
    if (now < backup->connect_after_ns)
        return;
    backup->connect_after_ns = now + CONNECT_PAUSE_NS;
    uint32_t slot = (uint32_t)(backup - replica->sender.backup);
    replica_state_path(replica, slot, path, sizeof(path));
    int fd = control_connect(path, 0);
    if (fd < 0)
        return;
    state_channel_open(&backup->channel, fd);
    transfer_tx_reconnect(&backup->tx, now);
}

static int read_acks(struct backup *backup, uint64_t now)
{
    struct control_msg *message;
    int result;
    while ((result = state_channel_recv(&backup->channel, &message)) == 1) {
        struct msg_delta_ack ack;
        if (message->type != MSG_DELTA_ACK || message->length < sizeof(ack))
            return -EPROTO;
        memcpy(&ack, message->body, sizeof(ack));
        if (!backup->receiving || ack.view != backup->name.view || ack.epoch != backup->name.epoch)
            continue;
        uint64_t acked = backup->tx.acked;
        transfer_tx_ack(&backup->tx, ack.have, ack.resend, now);
        if (backup->tx.acked != acked)
            backup->moved_ns = now;
    }
    return result;
}

static int send_piece(struct replica *replica, struct backup *backup, struct transfer_piece piece)
{
    struct msg_delta head = {.view = backup->name.view,
                             .epoch = backup->name.epoch,
                             .offset = piece.offset,
                             .total = backup->delta->size};
    struct iovec body[2] = {{&head, sizeof(head)},
                            {backup->delta->bytes + piece.offset, piece.length}};
    int error = state_channel_send(&backup->channel, MSG_DELTA, backup->name.view, body, 2);
    if (replica->config->yield)
        sched_yield(); /* workers may share this core: give way between pieces */
    return error;
}

/* 1: there is more to send at once; 0: not now; or a negative errno. */
static int send_some(struct replica *replica, struct backup *backup, uint64_t now)
{
    struct transfer_piece piece;
    int ready = 1;
    for (int i = 0; i < PIECES_AT_ONCE; i++) {
        ready = state_channel_ready(&backup->channel);
        if (ready <= 0)
            return ready;
        if (!transfer_tx_next(&backup->tx, &piece) && !transfer_tx_repeat(&backup->tx, now, &piece))
            return 0;
        int error = send_piece(replica, backup, piece);
        if (error)
            return error;
    }
    return 1;
}

/* One backup's turn. Returns whether there is more to send at once. */
static bool serve(struct replica *replica, struct backup *backup, uint64_t now)
{
    if (!backup->present)
        return false;
    if (backup->receiving && backup->channel.fd < 0)
        connect_to(replica, backup, now);
    if (backup->channel.fd < 0)
        return false;
    int result = read_acks(backup, now);
    if (result >= 0 && backup->receiving && transfer_tx_done(&backup->tx)) {
        backup->receiving = false;
        backup->base = backup->name;
    }
    if (result >= 0 && backup->receiving)
        result = send_some(replica, backup, now);
    if (result < 0)
        state_channel_close(&backup->channel);
    return result == 1;
}

static uint64_t sleep_until(const struct replica *replica, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    uint64_t until = now + POLL_NS;
    if (sender->due_ns > now)
        until = u64_min(until, sender->due_ns);
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (sender->backup[slot].receiving)
            until = u64_min(until, now + TRANSFER_REPEAT_NS);
    }
    return until;
}

/* Sleep until something is to be read, can be written, or is due. */
static void sleep_well(struct replica *replica, uint64_t now)
{
    uint64_t length = sleep_until(replica, now) - now;
    struct timespec timeout = {.tv_nsec = (long)length};
    struct pollfd wait[1 + VIEW_SLOTS] = {{.fd = replica->state_wake, .events = POLLIN}};
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct state_channel *channel = &replica->sender.backup[slot].channel;
        short events = POLLIN | (channel->out.used ? POLLOUT : 0);
        wait[1 + slot] = (struct pollfd){.fd = channel->fd, .events = events};
    }
    uint64_t count;
    if (ppoll(wait, 1 + VIEW_SLOTS, &timeout, NULL) > 0 && wait[0].revents)
        (void)!read(replica->state_wake, &count, sizeof(count));
}

/* The logs of the replay are of no use once it is over. */
static void free_logs(struct replica *replica)
{
    if (!atomic_load(&replica->group.replaying))
        free(atomic_exchange(&replica->logs, NULL));
}

void state_sender_main(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    uint64_t period = replica->config->period_us * NS_PER_US;
    sender->due_ns = clock_ns() + period;
    while (!atomic_load(&replica->quit)) {
        uint64_t now = clock_ns();
        look_at_news(replica);
        free_logs(replica);
        take_up_base(replica);
        catch_up(&replica->sender, now);
        if (snapshot_due(replica, now)) {
            take_snapshot(replica, now);
        } else if (sender->pending.epoch && now >= sender->due_ns) {
            sender->snapshotter.skipped++; /* the last one is not committed yet */
            event_emit("snapshot_skipped", "{s:I}", "pending", (json_int_t)sender->pending.epoch);
            sender->due_ns += period;
        }
        now = clock_ns();
        bool more = false;
        for (int slot = 0; slot < VIEW_SLOTS; slot++)
            more |= serve(replica, &sender->backup[slot], now);
        if (!more)
            sleep_well(replica, now);
    }
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        state_channel_close(&sender->backup[slot].channel);
}

/* Sending a delta to backups, each at its own pace (see state_sender.h). */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "roles/replica.h"

#define CONNECT_PAUSE_NS 1000000ull
#define PIECES_AT_ONCE 4 /* to one backup, before the others have their turn */
/* Before another build for a backup that did not take the last one, doubling each time. */
#define FULL_PAUSE_MAX_NS (128 * STATE_FULL_PAUSE_NS)

void state_serve_anew(struct backup *backup)
{
    state_channel_close(&backup->channel);
    backup->receiving = backup->building = backup->prepared = false;
    backup->base = backup->name = (struct base_name){0};
}

void state_serve_held(struct backup *backup)
{
    backup->receiving = backup->building = false;
    backup->prepared = true;
    backup->base = backup->name;
}

/* A build goes on with the delta that follows the last one, or begins. */
static void go_on_building(const struct state_sender *sender, struct backup *backup, uint64_t now)
{
    const struct snapshot_name *name = &sender->snapshotter.name;
    if (!backup->building || backup->built_epoch != name->previous_epoch) {
        backup->building = true;
        backup->full_after_ns = now + backup->full_pause_ns;
        backup->full_pause_ns = u64_min(2 * backup->full_pause_ns, FULL_PAUSE_MAX_NS);
    }
    backup->built_epoch = name->epoch;
}

void state_serve_begin(struct replica *replica, struct backup *backup, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    const struct snapshotter *snapshotter = &sender->snapshotter;
    if (backup->receiving) /* it has not moved for long */
        state_serve_anew(backup);
    bool holds = snapshotter->name.base_epoch && base_same(backup->base, sender->committed);
    if (!holds)
        go_on_building(sender, backup, now);
    backup->prepared = false;
    backup->name = sender->pending;
    backup->receiving = true;
    backup->moved_ns = now;
    /* A slice may be the one that ends the build. */
    bool may_end = !holds && snapshotter->name.slice.lines;
    uint64_t work = may_end ? replica->arena->size : snapshotter->delta.size;
    backup->patience_ns =
        SENDER_PATIENCE_NS + u64_max(work, backup->work) * SENDER_PATIENCE_NS_PER_BYTE;
    backup->work = work;
    backup->connect_after_ns = 0;
    transfer_tx_begin(&backup->tx, snapshotter->delta.size, MSG_DELTA_PIECE, now);
}

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
        backup->prepared = ack.prepared && transfer_tx_done(&backup->tx);
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
                             .total = replica->sender.snapshotter.delta.size};
    struct iovec body[2] = {{&head, sizeof(head)},
                            {replica->sender.snapshotter.delta.bytes + piece.offset, piece.length}};
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

static int hear(struct backup *backup, uint64_t now)
{
    int result = read_acks(backup, now);
    if (result >= 0 && backup->receiving && transfer_tx_done(&backup->tx)) {
        backup->receiving = false;
        if (backup->prepared)
            state_serve_held(backup);
        else if (!backup->building) /* it should have been able to prepare it */
            backup->base = (struct base_name){0};
    }
    if (result < 0)
        state_channel_close(&backup->channel);
    return result;
}

void state_serve_hear(struct backup *backup, uint64_t now)
{
    if (backup->present && backup->channel.fd >= 0)
        hear(backup, now);
}

bool state_serve(struct replica *replica, struct backup *backup, uint64_t now)
{
    if (!backup->present)
        return false;
    if (backup->receiving && backup->channel.fd < 0)
        connect_to(replica, backup, now);
    if (backup->channel.fd < 0)
        return false;
    int result = hear(backup, now);
    if (result >= 0 && backup->receiving)
        result = send_some(replica, backup, now);
    if (result < 0)
        state_channel_close(&backup->channel);
    return result == 1;
}

void state_serve_sleep(struct replica *replica, uint64_t now, uint64_t until)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (replica->sender.backup[slot].receiving)
            until = u64_min(until, now + TRANSFER_REPEAT_NS);
    }
    struct timespec timeout = {.tv_nsec = until > now ? (long)(until - now) : 0};
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

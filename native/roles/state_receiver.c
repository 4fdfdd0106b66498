/* Receiving deltas (see state_receiver.h). */
#include "roles/state_receiver.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/event.h"
#include "roles/replica.h"

#define POLL_MS 20

int state_receiver_init(struct replica *replica)
{
    struct state_receiver *receiver = &replica->receiver;
    char path[NODE_PATH_BYTES + 32], name[FAULT_NAME_BYTES];
    snprintf(name, sizeof(name), "state-%u", replica->config->slot);
    struct fault_link *faults = fault_link(name, 1);
    for (int i = 0; i < VIEW_SLOTS; i++)
        state_channel_init(&receiver->from[i], faults);
    replica_state_path(replica, replica->config->slot, path, sizeof(path));
    receiver->listen_fd = control_listen(path);
    if (receiver->listen_fd < 0)
        fprintf(stderr, "ftmb-node: cannot listen at %s: %s\n", path,
                strerror(-receiver->listen_fd));
    return receiver->listen_fd < 0 ? receiver->listen_fd : 0;
}

/* May the bytes of this transfer overwrite what was received last? Not while that is prepared and
 * the OL has not said what becomes of it; the sender repeats until it has. */
static bool has_room(struct replica *replica, const struct msg_delta *piece)
{
    if (!transfer_rx_newer(&replica->receiver.rx, piece->view, piece->epoch))
        return true;
    pthread_mutex_lock(&replica->state_lock);
    bool room = !replica->promoting && !standby_prepared(&replica->standby).epoch;
    pthread_mutex_unlock(&replica->state_lock);
    return room;
}

static void tell_of_full(const struct msg_delta *piece, const uint8_t *bytes, uint64_t length)
{
    struct delta_head head;
    if (piece->offset || length < sizeof(head))
        return;
    memcpy(&head, bytes, sizeof(head));
    if (head.base_epoch == 0)
        event_emit("receiving", "{s:I,s:b}", "epoch", (json_int_t)piece->epoch, "full", 1);
}

/* One piece of a delta; what came of it, if it was the last one. False: not this protocol. */
static bool take_piece(struct replica *replica, const struct control_msg *message,
                       struct staged *staged)
{
    struct transfer_rx *rx = &replica->receiver.rx;
    struct standby *standby = &replica->standby;
    struct msg_delta piece;
    if (message->type != MSG_DELTA || message->length < sizeof(piece))
        return false;
    memcpy(&piece, message->body, sizeof(piece));
    const uint8_t *bytes = message->body + sizeof(piece);
    uint64_t length = message->length - sizeof(piece);
    if (piece.total > standby->delta_capacity)
        return false;
    /* Of an ended view, or of one that has not begun here: nobody's business yet. */
    if (piece.view != atomic_load(&replica->view) || !has_room(replica, &piece))
        return true;
    switch (transfer_rx_take(rx, piece.view, piece.epoch, piece.total,
                             (struct transfer_piece){piece.offset, length})) {
    case TRANSFER_BAD:
        return false;
    case TRANSFER_IGNORE:
        return true;
    case TRANSFER_TAKE:
        break;
    }
    tell_of_full(&piece, bytes, length);
    memcpy(standby->delta + piece.offset, bytes, length);
    if (transfer_rx_whole(rx))
        *staged = replica_stage(replica, rx->total);
    return true;
}

/* Acknowledgements are cumulative: where one has no room, a later one says as much. */
static int acknowledge(struct replica *replica, struct state_channel *channel)
{
    struct transfer_rx *rx = &replica->receiver.rx;
    struct msg_delta_ack ack = {
        .view = rx->view, .resend = rx->gap, .epoch = rx->epoch, .have = rx->have};
    ack.prepared = rx->epoch && transfer_rx_whole(rx) &&
                   replica_holds(replica, (struct base_name){rx->view, rx->epoch});
    struct iovec body = {&ack, sizeof(ack)};
    int ready = state_channel_ready(channel);
    if (ready <= 0)
        return ready;
    transfer_rx_acked(rx);
    return state_channel_send(channel, MSG_DELTA_ACK, rx->view, &body, 1);
}

static int receive(struct replica *replica, struct state_channel *channel)
{
    struct control_msg *message;
    int result;
    while ((result = state_channel_recv(channel, &message)) == 1) {
        struct staged staged = {0};
        if (!take_piece(replica, message, &staged))
            return -EPROTO;
        if (staged.type || transfer_rx_ack_due(&replica->receiver.rx, false))
            result = acknowledge(replica, channel);
        /* Afterwards: the master must not hear of the commit of what it does not know to be here,
         * or it would send all of the state anew. */
        if (staged.type)
            replica_send(replica, staged.type, &staged.message,
                         staged.type == MSG_BUILDING ? 0 : sizeof(staged.message));
        if (result < 0)
            return result;
    }
    if (result == 0 && transfer_rx_ack_due(&replica->receiver.rx, true))
        result = acknowledge(replica, channel);
    return result;
}

/* A new connection takes a free place, or else the first: there is one master. */
static void accept_connection(struct state_receiver *receiver)
{
    int fd = control_accept(receiver->listen_fd);
    if (fd < 0)
        return;
    int place = 0;
    for (int i = VIEW_SLOTS - 1; i >= 0; i--)
        place = receiver->from[i].fd < 0 ? i : place;
    state_channel_open(&receiver->from[place], fd);
}

static void drain_wake(int fd)
{
    uint64_t count;
    (void)!read(fd, &count, sizeof(count));
}

void state_receiver_main(struct replica *replica)
{
    struct state_receiver *receiver = &replica->receiver;
    while (!atomic_load(&replica->quit) && !atomic_load(&replica->active)) {
        struct pollfd wait[2 + VIEW_SLOTS] = {{.fd = receiver->listen_fd, .events = POLLIN},
                                              {.fd = replica->state_wake, .events = POLLIN}};
        int timeout = POLL_MS;
        for (int i = 0; i < VIEW_SLOTS; i++) {
            wait[2 + i] = (struct pollfd){.fd = receiver->from[i].fd, .events = POLLIN};
            if (receiver->from[i].held_until_ns)
                timeout = 1;
        }
        poll(wait, 2 + VIEW_SLOTS, timeout);
        if (wait[1].revents)
            drain_wake(replica->state_wake);
        for (int i = 0; i < VIEW_SLOTS; i++) {
            struct state_channel *channel = &receiver->from[i];
            int result = channel->fd < 0 ? 0 : receive(replica, channel);
            if (result == -EPROTO)
                event_emit("snapshot_refused", "{s:s}", "why", "not the state channel's protocol");
            if (result < 0)
                state_channel_close(channel);
        }
        if (wait[0].revents)
            accept_connection(receiver);
    }
    for (int i = 0; i < VIEW_SLOTS; i++)
        state_channel_close(&receiver->from[i]);
}

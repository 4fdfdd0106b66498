/* A standby at the end of a master's state channel (see backup_peer.h). */
#include "tests/backup_peer.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void backup_open(struct backup_peer *backup, uint32_t slot)
{
    char name[32];
    snprintf(name, sizeof(name), "state-%u.sock", slot);
    *backup = (struct backup_peer){.slot = slot,
                                   .incarnation = 10 + slot,
                                   .listen_fd = peer_listen(name),
                                   .channel = {.fd = -1}};
    struct arena *arena = peer_arena();
    void *memory = mmap(NULL, standby_bytes(arena->size), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    standby_create(&backup->standby, arena, memory);
}

void backup_close(struct backup_peer *backup)
{
    struct arena *arena = backup->standby.working;
    uint64_t size = arena->size;
    if (backup->channel.fd >= 0)
        peer_close(&backup->channel);
    close(backup->listen_fd);
    munmap(backup->standby.head, standby_bytes(size));
    munmap(arena, size);
}

static void tell(struct peer *ol, struct msg_backup message)
{
    peer_send(ol, MSG_BACKUP, 1, 1, &message, sizeof(message));
}

void backup_tell(struct peer *ol, const struct backup_peer *backup, bool present,
                 struct base_name base)
{
    tell(ol, (struct msg_backup){.slot = backup->slot,
                                 .present = present,
                                 .incarnation = backup->incarnation,
                                 .base_view = base.view,
                                 .base_epoch = base.epoch});
}

static void acknowledge(struct backup_peer *backup)
{
    struct transfer_rx *rx = &backup->rx;
    if (backup->mute && transfer_rx_whole(rx))
        return;
    struct msg_delta_ack ack = {
        .view = rx->view, .resend = rx->gap, .epoch = rx->epoch, .have = rx->have};
    struct base_name name = {rx->view, rx->epoch};
    ack.prepared = transfer_rx_whole(rx) && (base_same(standby_prepared(&backup->standby), name) ||
                                             base_same(standby_base(&backup->standby), name));
    transfer_rx_acked(rx);
    struct iovec body = {&ack, sizeof(ack)};
    /* A connection that the master has given up meanwhile is no fault. */
    (void)control_send(backup->channel.fd, MSG_DELTA_ACK, 1, 0, &body, 1);
}

bool backup_take(struct backup_peer *backup, int ms, bool lose)
{
    const struct control_msg *message = peer_recv(&backup->channel, ms);
    struct transfer_rx *rx = &backup->rx;
    struct msg_delta piece;
    if (!message || lose)
        return message != NULL;
    CHECK(message->type == MSG_DELTA);
    memcpy(&piece, message->body, sizeof(piece));
    uint64_t length = message->length - sizeof(piece);
    CHECK(piece.view == 1 && piece.total <= backup->standby.delta_capacity);
    /* What is prepared is kept until the output logger, the test, has spoken. */
    if (transfer_rx_newer(rx, piece.view, piece.epoch) && standby_prepared(&backup->standby).epoch)
        return true;
    if (transfer_rx_take(rx, piece.view, piece.epoch, piece.total,
                         (struct transfer_piece){piece.offset, length}) == TRANSFER_TAKE) {
        memcpy(backup->standby.delta + piece.offset, message->body + sizeof(piece), length);
        if (transfer_rx_whole(rx))
            backup->wrong = standby_prepare(&backup->standby, rx->total);
    }
    if (transfer_rx_ack_due(rx, false))
        acknowledge(backup);
    return true;
}

void backup_receive(struct backup_peer *backup, uint64_t epoch)
{
    while (!transfer_rx_whole(&backup->rx) || backup->rx.epoch <= epoch) {
        if (backup->channel.fd < 0)
            backup->channel = peer_accept(backup->listen_fd);
        if (!backup_take(backup, 2000, false))
            peer_close(&backup->channel); /* the master begins anew on another one */
    }
}

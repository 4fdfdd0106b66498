/* A master in a process of its own, with two backups that are the test: what each is sent, and that
 * none holds up the other. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/transfer.h"
#include "io/clock.h"
#include "tests/replica_peer.h"

static struct peer ol;
static uint64_t arena_size;

/* A backup: a standby without a process. */
struct backup {
    uint32_t slot;
    int listen_fd;
    struct peer channel;
    struct standby standby;
    struct transfer_rx rx;
};

static void backup_open(struct backup *backup, uint32_t slot)
{
    char name[32];
    snprintf(name, sizeof(name), "state-%u.sock", slot);
    *backup = (struct backup){.slot = slot, .listen_fd = peer_listen(name), .channel = {.fd = -1}};
    void *memory = mmap(NULL, standby_bytes(arena_size), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    standby_create(&backup->standby, peer_arena(), memory);
}

static bool whole(const struct delta_head *head)
{
    return delta_is_whole(head, arena_size);
}

static void tell_backup(const struct backup *backup, bool present, struct base_name base)
{
    struct msg_backup message = {.slot = backup->slot,
                                 .present = present,
                                 .incarnation = 10 + backup->slot,
                                 .base_view = base.view,
                                 .base_epoch = base.epoch};
    peer_send(&ol, MSG_BACKUP, 1, 1, &message, sizeof(message));
}

static void acknowledge(struct backup *backup)
{
    struct transfer_rx *rx = &backup->rx;
    struct msg_delta_ack ack = {
        .view = rx->view, .resend = rx->gap, .epoch = rx->epoch, .have = rx->have};
    ack.prepared = transfer_rx_whole(rx); /* no slice here is less than everything */
    transfer_rx_acked(rx);
    struct iovec body = {&ack, sizeof(ack)};
    /* A connection that the master has given up meanwhile is no fault. */
    (void)control_send(backup->channel.fd, MSG_DELTA_ACK, 1, 0, &body, 1);
}

/* Take one piece, if one comes within `ms`. `lose`: as if it had not come. */
static bool take_piece(struct backup *backup, int ms, bool lose)
{
    const struct control_msg *message = peer_recv(&backup->channel, ms);
    struct msg_delta piece;
    if (!message || lose)
        return message != NULL;
    CHECK(message->type == MSG_DELTA);
    memcpy(&piece, message->body, sizeof(piece));
    uint64_t length = message->length - sizeof(piece);
    CHECK(piece.view == 1 && piece.total <= backup->standby.delta_capacity);
    if (transfer_rx_take(&backup->rx, piece.view, piece.epoch, piece.total,
                         (struct transfer_piece){piece.offset, length}) == TRANSFER_TAKE)
        memcpy(backup->standby.delta + piece.offset, message->body + sizeof(piece), length);
    if (transfer_rx_ack_due(&backup->rx, false))
        acknowledge(backup);
    return true;
}

/* A whole delta, newer than `epoch`, prepared. Returns its head. */
static struct delta_head receive(struct backup *backup, uint64_t epoch)
{
    while (!transfer_rx_whole(&backup->rx) || backup->rx.epoch <= epoch) {
        if (backup->channel.fd < 0)
            backup->channel = peer_accept(backup->listen_fd);
        if (!take_piece(backup, 2000, false))
            peer_close(&backup->channel); /* the master begins anew on another one */
    }
    CHECK(!standby_prepare(&backup->standby, backup->rx.total));
    return *standby_delta(&backup->standby);
}

static void commit(struct backup *first, struct backup *second, struct base_name name)
{
    CHECK(standby_commit(&first->standby, name));
    if (second)
        CHECK(standby_commit(&second->standby, name));
    struct msg_snapshot committed = {.view = name.view, .epoch = name.epoch};
    peer_send(&ol, MSG_COMMITTED, 1, 1, &committed, sizeof(committed));
}

/* The next delta, which must follow (or be full), is received and committed. */
static struct base_name advance(struct backup *backup, bool full)
{
    struct base_name base = standby_base(&backup->standby);
    struct delta_head head = receive(backup, base.epoch);
    CHECK(full ? whole(&head) : head.base_epoch == base.epoch);
    struct base_name name = {head.view, head.epoch};
    commit(backup, NULL, name);
    return name;
}

/* Lost acknowledgements and lost pieces. */
static void test_losses(struct backup *backup)
{
    tell_backup(backup, true, (struct base_name){0});
    backup->channel = peer_accept(backup->listen_fd);
    CHECK(take_piece(backup, 5000, true)); /* the first is lost: all that follow lie behind a gap */
    while (!transfer_rx_whole(&backup->rx))
        CHECK(take_piece(backup, 5000, false));
    CHECK(backup->rx.gaps > 0);
    CHECK(!standby_prepare(&backup->standby, backup->rx.total));
    commit(backup, NULL, standby_prepared(&backup->standby));
    /* No acknowledgement: the last piece comes again and again (how often: test_core_transfer.c).
     */
    struct base_name base = standby_base(&backup->standby);
    unsigned again = 0;
    while (again < 4 && take_piece(backup, 5000, true))
        again++;
    CHECK(again >= 2);
    if (again <
        4) /* where this test stood still for 100 ms the master begins anew, with all of it */
        peer_close(&backup->channel);
    struct delta_head head = receive(backup, base.epoch);
    CHECK(whole(&head) || (head.base_epoch == base.epoch && head.base_view == base.view));
    commit(backup, NULL, standby_prepared(&backup->standby));
    /* The connection ends in the middle. */
    CHECK(take_piece(backup, 5000, true));
    peer_close(&backup->channel);
    (void)receive(backup, standby_base(&backup->standby).epoch);
    commit(backup, NULL, standby_prepared(&backup->standby));
}

/* A snapshot that the backup refused: the next one is full. */
static void test_refused(struct backup *backup)
{
    struct base_name base = standby_base(&backup->standby);
    struct delta_head refused = receive(backup, base.epoch);
    CHECK(refused.base_epoch == base.epoch);
    standby_roll_back(&backup->standby);
    tell_backup(backup, true, (struct base_name){0});
    peer_close(&backup->channel);
    struct delta_head head = receive(backup, refused.epoch);
    CHECK(whole(&head));
    commit(backup, NULL, standby_prepared(&backup->standby));
    /* The same backup with the base that it has: nothing new. */
    tell_backup(backup, true, standby_base(&backup->standby));
    advance(backup, false);
    advance(backup, false);
}

static bool waits(int listen_fd, int ms)
{
    struct pollfd wait = {.fd = listen_fd, .events = POLLIN};
    return poll(&wait, 1, ms) == 1;
}

/* `two` has just come: the next delta of `one` that is of a snapshot which both are sent. What was
 * under way already, or was begun before the master knew, does not have the other in it. */
static struct delta_head receive_shared(struct backup *one, struct backup *two)
{
    struct delta_head lines = receive(one, standby_base(&one->standby).epoch);
    while (!waits(two->listen_fd, 50)) {
        commit(one, NULL, standby_prepared(&one->standby));
        lines = receive(one, lines.epoch);
    }
    return lines;
}

/* Both get the same snapshot. Then one of them stops to read. */
static void test_two(struct backup *one, struct backup *two)
{
    tell_backup(two, true, (struct base_name){0});
    struct delta_head lines = receive_shared(one, two);
    struct delta_head full = receive(two, 0);
    CHECK(whole(&full) && lines.base_epoch == standby_base(&one->standby).epoch);
    CHECK(memcmp(&lines, &full, sizeof(full)) == 0); /* one delta serves both */
    commit(one, two, standby_prepared(&one->standby));
    CHECK(snapshot_first_difference(one->standby.image, two->standby.image) == UINT64_MAX);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t epoch = standby_base(&one->standby).epoch;
        struct delta_head a = receive(one, epoch), b = receive(two, epoch);
        CHECK(a.base_epoch == epoch && b.base_epoch == epoch);
        commit(one, two, standby_prepared(&one->standby));
    }
    /* `two` is there, acknowledges nothing, and the OL goes on with `one` alone. */
    uint64_t start = clock_ns();
    for (unsigned i = 0; i < 10; i++)
        advance(one, false);
    CHECK(clock_ns() - start < 3000000000ull);
    /* It comes back to life; what it is sent then is all of it. */
    peer_close(&two->channel);
    tell_backup(two, true, (struct base_name){0});
    uint64_t since = standby_base(&one->standby).epoch;
    while (two->rx.epoch <= since || !transfer_rx_whole(&two->rx)) {
        if (two->channel.fd < 0 && waits(two->listen_fd, 0))
            two->channel = peer_accept(two->listen_fd);
        else if (two->channel.fd < 0)
            advance(one, false);
        else if (!take_piece(two, 2000, false))
            peer_close(&two->channel);
    }
    CHECK(!standby_prepare(&two->standby, two->rx.total));
    CHECK(whole(standby_delta(&two->standby)));
    standby_roll_back(&two->standby);
    tell_backup(two, false, (struct base_name){0});
    advance(one, false);
}

/* Of two backups one declines the snapshot that both are sent, and the other goes: nobody will ever
 * have it, so the master takes the next. */
static void test_declined(struct backup *one, struct backup *two)
{
    tell_backup(two, true, (struct base_name){0});
    struct delta_head lines = receive_shared(one, two);
    peer_close(&two->channel);
    struct delta_head full = receive(two, lines.epoch - 1);
    CHECK(whole(&full) && full.epoch == lines.epoch);
    standby_roll_back(&two->standby);
    usleep(100000); /* so that it may be sent everything again */
    tell_backup(two, true, (struct base_name){0});
    usleep(100000);
    tell_backup(one, false, (struct base_name){0});
    struct delta_head next = receive(two, full.epoch);
    CHECK(whole(&next));
    commit(two, NULL, standby_prepared(&two->standby));
    advance(two, false);
}

int main(void)
{
    struct backup one, two;
    signal(SIGPIPE, SIG_IGN);
    peer_begin();
    arena_size = peer_arena()->size;
    int ol_listen = peer_listen("ol.ctl");
    pid_t pid = peer_start(0);
    ol = peer_accept(ol_listen);
    peer_welcome(&ol, 1, 1, true, false);
    backup_open(&one, 1);
    backup_open(&two, 2);
    test_losses(&one);
    test_refused(&one);
    test_two(&one, &two);
    test_declined(&one, &two);
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    peer_close(&ol);
    peer_close(&one.channel);
    peer_close(&two.channel);
    close(ol_listen);
    peer_end();
    return 0;
}

/* A master in a process of its own, with two backups that are the test: what each is sent, and that
 * none holds up the other. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/clock.h"
#include "tests/backup_peer.h"

static struct peer ol;
static uint64_t arena_size;

static bool whole(const struct delta_head *head)
{
    return delta_is_whole(head, arena_size);
}

/* A whole delta, newer than `epoch`, prepared. Returns its head. */
static struct delta_head receive(struct backup_peer *backup, uint64_t epoch)
{
    backup_receive(backup, epoch);
    CHECK(!backup->wrong && standby_prepared(&backup->standby).epoch == backup->rx.epoch);
    return *standby_delta(&backup->standby);
}

static void commit(struct backup_peer *first, struct backup_peer *second, struct base_name name)
{
    CHECK(standby_commit(&first->standby, name));
    if (second)
        CHECK(standby_commit(&second->standby, name));
    struct msg_snapshot committed = {.view = name.view, .epoch = name.epoch};
    peer_send(&ol, MSG_COMMITTED, 1, 1, &committed, sizeof(committed));
}

/* The next delta, which must follow (or be full), is received and committed. */
static struct base_name advance(struct backup_peer *backup, bool full)
{
    struct base_name base = standby_base(&backup->standby);
    struct delta_head head = receive(backup, base.epoch);
    CHECK(full ? whole(&head) : head.base_epoch == base.epoch);
    struct base_name name = {head.view, head.epoch};
    commit(backup, NULL, name);
    return name;
}

/* Lost acknowledgements and lost pieces. */
static void test_losses(struct backup_peer *backup)
{
    backup_tell(&ol, backup, true, (struct base_name){0});
    backup->channel = peer_accept(backup->listen_fd);
    CHECK(
        backup_take(backup, 5000, true)); /* the first is lost: all that follow lie behind a gap */
    while (!transfer_rx_whole(&backup->rx))
        CHECK(backup_take(backup, 5000, false));
    CHECK(backup->rx.gaps > 0);
    CHECK(!backup->wrong);
    commit(backup, NULL, standby_prepared(&backup->standby));
    /* No acknowledgement: the last piece comes again and again (how often: test_core_transfer.c).
     */
    struct base_name base = standby_base(&backup->standby);
    unsigned again = 0;
    while (again < 4 && backup_take(backup, 5000, true))
        again++;
    CHECK(again >= 2);
    if (again <
        4) /* where this test stood still for 100 ms the master begins anew, with all of it */
        peer_close(&backup->channel);
    struct delta_head head = receive(backup, base.epoch);
    CHECK(whole(&head) || (head.base_epoch == base.epoch && head.base_view == base.view));
    commit(backup, NULL, standby_prepared(&backup->standby));
    /* The connection ends in the middle. */
    CHECK(backup_take(backup, 5000, true));
    peer_close(&backup->channel);
    (void)receive(backup, standby_base(&backup->standby).epoch);
    commit(backup, NULL, standby_prepared(&backup->standby));
}

/* A snapshot that the backup refused: the next one is full. */
static void test_refused(struct backup_peer *backup)
{
    struct base_name base = standby_base(&backup->standby);
    struct delta_head refused = receive(backup, base.epoch);
    CHECK(refused.base_epoch == base.epoch);
    standby_roll_back(&backup->standby);
    backup_tell(&ol, backup, true, (struct base_name){0});
    peer_close(&backup->channel);
    struct delta_head head = receive(backup, refused.epoch);
    CHECK(whole(&head));
    commit(backup, NULL, standby_prepared(&backup->standby));
    /* The same backup with the base that it has: nothing new. */
    backup_tell(&ol, backup, true, standby_base(&backup->standby));
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
static struct delta_head receive_shared(struct backup_peer *one, struct backup_peer *two)
{
    struct delta_head lines = receive(one, standby_base(&one->standby).epoch);
    while (!waits(two->listen_fd, 50)) {
        commit(one, NULL, standby_prepared(&one->standby));
        lines = receive(one, lines.epoch);
    }
    return lines;
}

/* Both get the same snapshot. Then one of them stops to read. */
static void test_two(struct backup_peer *one, struct backup_peer *two)
{
    backup_tell(&ol, two, true, (struct base_name){0});
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
    CHECK(clock_ns() - start < 10000000000ull);
    /* It comes back to life; what it is sent then is all of it. */
    peer_close(&two->channel);
    backup_tell(&ol, two, true, (struct base_name){0});
    uint64_t since = standby_base(&one->standby).epoch;
    while (two->rx.epoch <= since || !transfer_rx_whole(&two->rx)) {
        if (two->channel.fd < 0 && waits(two->listen_fd, 0))
            two->channel = peer_accept(two->listen_fd);
        else if (two->channel.fd < 0)
            advance(one, false);
        else if (!backup_take(two, 2000, false))
            peer_close(&two->channel);
    }
    CHECK(!two->wrong);
    CHECK(whole(standby_delta(&two->standby)));
    standby_roll_back(&two->standby);
    backup_tell(&ol, two, false, (struct base_name){0});
    advance(one, false);
}

/* Of two backups one declines the snapshot that both are sent, and the other goes: nobody will ever
 * have it, so the master takes the next. */
static void test_declined(struct backup_peer *one, struct backup_peer *two)
{
    backup_tell(&ol, two, true, (struct base_name){0});
    struct delta_head lines = receive_shared(one, two);
    peer_close(&two->channel);
    struct delta_head full = receive(two, lines.epoch - 1);
    CHECK(whole(&full) && full.epoch == lines.epoch);
    standby_roll_back(&two->standby);
    usleep(100000); /* so that it may be sent everything again */
    backup_tell(&ol, two, true, (struct base_name){0});
    usleep(100000);
    backup_tell(&ol, one, false, (struct base_name){0});
    struct delta_head next = receive(two, full.epoch);
    CHECK(whole(&next));
    commit(two, NULL, standby_prepared(&two->standby));
    advance(two, false);
}

int main(void)
{
    struct backup_peer one, two;
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

/* A real output logger and two real backups; the master and the input logger are the test. A commit
 * does not wait for a backup that builds, whatever base it holds; one that prepares late what is
 * committed already counts from then on, and may take over. */
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "roles/config.h"
#include "tests/ol_peer.h"

static struct peer r0, il, channel[3];
static struct arena *state, *sent, *taken; /* the master's, its image when it last sent a delta */
static struct delta delta;

static void adjust(struct node_config *config)
{
    config->workers = 1;
}

/* What changed since the last one, and a slice; on the committed snapshot `base`, 0: on none. */
static void make_delta(uint64_t epoch, uint64_t base, uint64_t previous,
                       struct snapshot_slice slice)
{
    const struct arena_extent *mine = &state->extents[1];
    for (uint64_t at = epoch * 8; at < mine->used; at += 64u << 10)
        *(uint64_t *)((uint8_t *)state + mine->start + at) += epoch;
    snapshot_copy(state, taken);
    struct snapshot_name name = {.view = 1,
                                 .epoch = epoch,
                                 .base_view = base ? 1 : 0,
                                 .base_epoch = base,
                                 .previous_epoch = previous,
                                 .slice = slice};
    CHECK(delta_build(&delta, taken, sent, name, true));
    snapshot_copy(taken, sent);
}

/* Again and again until it is taken, as a master does: not while the last one waits for its commit.
 */
static void send_to(uint32_t slot)
{
    uint64_t epoch = ((const struct delta_head *)delta.bytes)->epoch;
    for (unsigned i = 0; i < 200; i++) {
        const struct control_msg *message;
        peer_send_pieces(&channel[slot], &delta);
        while ((message = peer_recv(&channel[slot], 50))) {
            const struct msg_delta_ack *ack = (const struct msg_delta_ack *)message->body;
            CHECK(message->type == MSG_DELTA_ACK);
            if (ack->epoch == epoch && ack->have == delta.size)
                return;
        }
    }
    CHECK(!"the backup does not take it");
}

static void expect_commit(uint64_t epoch)
{
    const struct msg_snapshot *committed = peer_expect(&r0, MSG_COMMITTED);
    CHECK(committed->view == 1 && committed->epoch == epoch);
}

/* The output logger waits for somebody. (Where it need not, this may not have been long enough, and
 * nobody notices; it never fails for that.) */
static void expect_none(void)
{
    CHECK(peer_recv(&r0, 100) == NULL);
}

static pid_t start_backup(uint32_t slot)
{
    char name[32];
    pid_t pid = peer_start(slot);
    ol_peer_expect_backup(&r0, slot, true, 0);
    snprintf(name, sizeof(name), "state-%u.sock", slot);
    channel[slot] = peer_connect(name);
    return pid;
}

/* Both hold the first snapshot: the second one since it prepared it late. */
static void test_late(struct snapshot_slice all)
{
    make_delta(1, 0, 0, all);
    send_to(1);
    expect_commit(1);
    send_to(2);
    ol_peer_expect_backup(&r0, 2, true, 1);
}

/* The base is given up, and slices are sent instead. The first backup has all of them when the
 * second one, which may take over, has had its first. */
static void test_builder(struct snapshot_slice front, struct snapshot_slice back)
{
    make_delta(2, 0, 0, front);
    send_to(1);
    make_delta(3, 0, 2, back);
    send_to(1);
    expect_none();
    send_to(2);
    expect_commit(3);
}

/* The build ends when what it ends with is committed. From then on commits wait for that backup,
 * and it takes over where the others die. */
static void test_built_late(struct snapshot_slice front, pid_t first)
{
    make_delta(4, 3, 3, front);
    send_to(1);
    expect_commit(4);
    send_to(2);
    ol_peer_expect_backup(&r0, 2, true, 4);
    make_delta(5, 4, 4, (struct snapshot_slice){0});
    send_to(1);
    expect_none();
    CHECK(kill(first, SIGKILL) == 0 && peer_wait(first) == -SIGKILL);
    ol_peer_expect_backup(&r0, 1, false, 0);
    /* Without a death watch that is a death. (Those that were forked have the socket, too.) */
    CHECK(shutdown(r0.fd, SHUT_RDWR) == 0);
    const struct control_msg *message;
    const struct msg_view *view;
    do {
        message = ol_peer_next_of_il(&il);
        view = (const struct msg_view *)message->body;
    } while (message->type != MSG_VIEW || view->slot == 0);
    CHECK(message->view == 2 && view->slot == 2);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    peer_begin();
    peer_adjust = adjust;
    state = peer_arena();
    sent = peer_arena();
    taken = peer_arena();
    uint64_t lines = snapshot_lines(state->size), half = lines / 2;
    struct snapshot_slice front = {0, half}, back = {half, lines - half};
    pid_t logger = ol_peer_start();
    r0 = ol_peer_hello((struct msg_hello){.slot = 0});
    ol_peer_expect_welcome(&r0, 1, true, false);
    ol_peer_expect_backup(&r0, 1, false, 0);
    ol_peer_expect_backup(&r0, 2, false, 0);
    il = ol_peer_hello_il();
    pid_t first = start_backup(1), second = start_backup(2);
    test_late((struct snapshot_slice){0, lines});
    test_builder(front, back);
    test_built_late(front, first);
    CHECK(kill(second, SIGKILL) == 0 && peer_wait(second) == -SIGKILL);
    CHECK(kill(logger, SIGKILL) == 0 && peer_wait(logger) == -SIGKILL);
    ol_peer_end();
    return 0;
}

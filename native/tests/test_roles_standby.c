/* A standby in a process of its own: what it takes, refuses, keeps and says, whatever happens to
 * its connections, to its views and to itself. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hash.h"
#include "tests/replica_peer.h"

#define SLOT 1u

static struct arena *state, *base, *taken; /* the master's, its last committed, its latest image */
static struct base_name committed;
static struct delta delta;
static int ol_listen;
static struct peer ol, channel;

static void change_state(void)
{
    state->cursors[0].next_input++;
    state->cursors[1].pals += 3;
    uint64_t at = state->extents[1].start + 4096 * (state->cursors[0].next_input % 8);
    *(uint64_t *)((uint8_t *)state + at) += 77;
}

static void make_delta(uint32_t view, uint64_t epoch, bool full)
{
    change_state();
    snapshot_copy(state, taken);
    struct snapshot_name name = {
        .view = view, .epoch = epoch, .base_view = committed.view, .base_epoch = committed.epoch};
    CHECK(delta_build(&delta, taken, full ? NULL : base, name, true));
}

static struct delta_head *head(void)
{
    return (struct delta_head *)delta.bytes;
}

static void seal(void)
{
    head()->checksum = delta_checksum(delta.bytes);
}

static void send_piece(uint64_t at, uint64_t length)
{
    peer_send_piece(&channel, &delta, at, length);
}

/* All pieces; the acknowledgement that everything is there. */
static void send_delta(void)
{
    peer_send_pieces(&channel, &delta);
    const struct msg_delta_ack *ack;
    do
        ack = peer_expect(&channel, MSG_DELTA_ACK);
    while (ack->epoch != head()->epoch || ack->have != delta.size);
}

static void expect_prepared(void)
{
    const struct msg_snapshot *prepared = peer_expect(&ol, MSG_PREPARED);
    CHECK(prepared->view == head()->view && prepared->epoch == head()->epoch);
    CHECK(memcmp(&prepared->cut, &head()->cut, sizeof(prepared->cut)) == 0);
}

static void commit(void)
{
    struct msg_snapshot message = {
        .view = head()->view, .epoch = head()->epoch, .cut = head()->cut};
    peer_send(&ol, MSG_COMMITTED, head()->view, 1, &message, sizeof(message));
    snapshot_copy(taken, base);
    committed = (struct base_name){head()->view, head()->epoch};
}

/* What the base's file holds, once it has the committed name. */
static void check_file(void)
{
    char path[128];
    struct stat info;
    snprintf(path, sizeof(path), "%s/base-%u", peer_dir, SLOT);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && fstat(fd, &info) == 0);
    const struct standby_head *file =
        mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(file != MAP_FAILED && (info.st_mode & 0777) == 0600);
    close(fd);
    for (unsigned i = 0; i < 5000 && (file->prepared || file->epoch != committed.epoch); i++)
        usleep(1000);
    CHECK(file->view == committed.view && file->epoch == committed.epoch && !file->prepared);
    const struct arena *image = (const struct arena *)((const uint8_t *)file + STANDBY_HEAD_BYTES);
    CHECK(snapshot_first_difference(base, image) == UINT64_MAX);
    CHECK(snapshot_digest(base) == snapshot_digest(image));
    munmap((void *)(uintptr_t)file, (size_t)info.st_size);
}

static void join(uint32_t view, uint32_t incarnation)
{
    ol = peer_accept(ol_listen);
    struct msg_hello hello = peer_welcome(&ol, view, incarnation, false, false);
    CHECK(hello.slot == SLOT && hello.config_digest == peer_config_digest());
    CHECK(hello.incarnation == 0 && !hello.active);
    CHECK(hello.base_view == committed.view && hello.base_epoch == committed.epoch);
    channel = peer_connect("state-1.sock");
}

/* When a backup says that it is prepared the master knows already that everything is there: else
 * the news of the commit could overtake that, and the backup would count as one without the base.
 */
static void test_acknowledged_first(uint64_t epoch)
{
    make_delta(1, epoch, false);
    peer_send_pieces(&channel, &delta);
    expect_prepared();
    const struct control_msg *message;
    uint64_t have = 0;
    while (have != delta.size && (message = peer_recv(&channel, 0))) {
        const struct msg_delta_ack *ack = (const struct msg_delta_ack *)message->body;
        CHECK(message->type == MSG_DELTA_ACK && ack->epoch == epoch);
        have = ack->have;
    }
    CHECK(have == delta.size);
    commit();
    check_file();
}

/* ---- refused ------------------------------------------------------------------------------ */

static void test_refused(uint64_t epoch)
{
    for (unsigned how = 0; how < 4; how++) {
        make_delta(1, epoch + how, false);
        uint64_t last = delta.size - 8;
        switch (how) {
        case 0: /* damaged */
            delta.bytes[last] ^= 1;
            break;
        case 1: /* sound, but it does not lead to the state that was digested */
            delta.bytes[last] ^= 1;
            seal();
            break;
        case 2: /* built on what is not held here */
            head()->base_epoch++;
            seal();
            break;
        default: /* of another configuration */
            head()->config_digest++;
            seal();
        }
        send_delta();
        peer_expect(&ol, MSG_REJECTED);
        check_file();
        /* The base was kept: the next one may build on it. The working copy was, too, else the
         * digest would be wrong. */
        make_delta(1, epoch + 10 + how, false);
        send_delta();
        expect_prepared();
        commit();
        check_file();
        epoch += 20;
    }
}

/* ---- lost, repeated, out of order --------------------------------------------------------- */

static void test_pieces(uint64_t epoch)
{
    make_delta(1, epoch, true);
    CHECK(delta.size > 4 * MSG_DELTA_PIECE);
    send_piece(MSG_DELTA_PIECE, MSG_DELTA_PIECE);
    const struct msg_delta_ack *ack = peer_expect(&channel, MSG_DELTA_ACK);
    CHECK(ack->epoch == epoch && ack->have == 0 && ack->resend);
    send_piece(0, MSG_DELTA_PIECE);
    ack = peer_expect(&channel, MSG_DELTA_ACK);
    CHECK(ack->have == MSG_DELTA_PIECE && !ack->resend);
    send_piece(0, MSG_DELTA_PIECE);
    ack = peer_expect(&channel, MSG_DELTA_ACK);
    CHECK(ack->have == MSG_DELTA_PIECE);
    /* The connection ends; what is there stays there. */
    peer_close(&channel);
    channel = peer_connect("state-1.sock");
    send_piece(3 * MSG_DELTA_PIECE, MSG_DELTA_PIECE);
    ack = peer_expect(&channel, MSG_DELTA_ACK);
    CHECK(ack->have == MSG_DELTA_PIECE && ack->resend);
    send_delta();
    expect_prepared();
    /* Prepared, and the OL has not spoken: the next one has to wait for its turn. */
    head()->epoch++;
    send_piece(0, MSG_DELTA_PIECE);
    CHECK(!peer_recv(&channel, 50));
    head()->epoch--;
    commit();
    check_file();
    /* What makes no sense costs the connection, not the base. */
    make_delta(1, epoch + 2, false);
    send_piece(0, 0);
    CHECK(!peer_recv(&channel, 5000));
    peer_close(&channel);
    channel = peer_connect("state-1.sock");
    send_delta();
    expect_prepared();
    commit();
    check_file();
}

/* ---- views, connections, processes -------------------------------------------------------- */

static void test_new_view(void)
{
    make_delta(1, 500, false);
    send_delta();
    expect_prepared();
    peer_send(&ol, MSG_NEW_VIEW, 2, 1, NULL, 0); /* what is prepared is void */
    check_file();            /* it has heard: the next view's delta comes by another connection */
    make_delta(2, 1, false); /* on the base of the view before */
    send_delta();
    expect_prepared();
    commit();
    check_file();
    struct delta current = delta;
    delta = (struct delta){0};
    make_delta(1, 501, true); /* of a master that does not know better */
    send_piece(0, MSG_DELTA_PIECE);
    CHECK(!peer_recv(&channel, 50) && !peer_recv(&ol, 0));
    free(delta.bytes);
    delta = current;
}

static void test_reconnect(void)
{
    make_delta(2, 2, false);
    head()->config_digest++;
    seal();
    send_delta();
    peer_expect(&ol, MSG_REJECTED);
    peer_close(&ol);
    ol = peer_accept(ol_listen);
    peer_welcome(&ol, 2, 1, false, true);
    peer_expect(&ol, MSG_REJECTED); /* the OL may not have heard */
    make_delta(2, 3, false);
    send_delta();
    expect_prepared();
    peer_close(&ol);
    ol = peer_accept(ol_listen);
    struct msg_hello hello = peer_welcome(&ol, 2, 1, false, true);
    CHECK(hello.incarnation == 1 && hello.view == 2);
    CHECK(hello.base_view == committed.view && hello.base_epoch == committed.epoch);
    expect_prepared(); /* it is told again */
    commit();
    commit(); /* so is this */
    check_file();
    /* It was committed, and then its view ended, while the connection was lost. */
    make_delta(2, 4, false);
    send_delta();
    expect_prepared();
    peer_close(&ol);
    ol = peer_accept(ol_listen);
    peer_welcome(&ol, 3, 1, false, true);
    expect_prepared();
    commit();
    check_file();
}

/* A process that is killed leaves its base, and what it had prepared, to the next one. */
static pid_t test_killed(pid_t pid)
{
    make_delta(2, 5, false);
    send_delta();
    expect_prepared();
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    peer_close(&ol);
    peer_close(&channel);
    pid = peer_start(SLOT);
    join(2, 2);
    expect_prepared();
    commit();
    check_file();
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    peer_close(&ol);
    peer_close(&channel);
    pid = peer_start(SLOT);
    join(2, 3);
    CHECK(!peer_recv(&ol, 50));
    return pid;
}

static void test_promoted(pid_t pid)
{
    make_delta(2, 6, false);
    send_delta();
    expect_prepared();
    /* The OL had committed it; the news of that did not come through. */
    snapshot_copy(taken, base);
    committed = (struct base_name){2, 6};
    struct msg_promote promote = {.base_view = 2, .base_epoch = 6};
    for (unsigned i = 0; i < 3; i++) {
        peer_send(&ol, MSG_PROMOTE, 3, 3, &promote, sizeof(promote));
        const struct msg_cut *cut = peer_expect(&ol, MSG_CUT);
        CHECK(cut->view == 3);
        for (unsigned w = 0; w < 2; w++) {
            CHECK(cut->pals[w] == state->cursors[w].pals);
            CHECK(cut->next_input[w] == state->cursors[w].next_input);
        }
    }
    check_file();
    struct msg_fenced fenced = {.view = 4, .by = 2};
    peer_send(&ol, MSG_FENCED, 4, 3, &fenced, sizeof(fenced));
    CHECK(peer_wait(pid) == 6);
    check_file();
}

static void test_wrong_promotion(void)
{
    peer_close(&ol);
    peer_close(&channel);
    pid_t pid = peer_start(SLOT);
    join(4, 4);
    struct msg_promote promote = {.base_view = 2, .base_epoch = 7};
    peer_send(&ol, MSG_PROMOTE, 5, 4, &promote, sizeof(promote));
    CHECK(peer_wait(pid) == 4);
    /* Nobody answers any more. */
    peer_close(&ol);
    peer_close(&channel);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    peer_begin();
    state = peer_arena();
    base = peer_arena();
    taken = peer_arena();
    ol_listen = peer_listen("ol.ctl");
    pid_t pid = peer_start(SLOT);
    join(1, 1);
    make_delta(1, 1, true);
    send_delta();
    expect_prepared();
    commit();
    check_file();
    test_acknowledged_first(2);
    test_refused(10);
    test_pieces(200);
    test_new_view();
    test_reconnect();
    pid = test_killed(pid);
    test_promoted(pid);
    test_wrong_promotion();
    close(ol_listen);
    peer_end();
    return 0;
}

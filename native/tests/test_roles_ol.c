/* A real output logger in a process of its own that is killed at the worst moments; replicas and
 * input logger are the test. What it had decided holds, and who it told is told again. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/ol_peer.h"

static pid_t pid; /* of the output logger */
static struct peer r0, r1, il;

/* Its end is the end of all connections. */
static void kill_it(void)
{
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    peer_close(&r0);
    peer_close(&r1);
    peer_close(&il);
}

/* ---- the others --------------------------------------------------------------------------- */

static void expect_committed(struct peer *peer, uint64_t epoch)
{
    const struct msg_snapshot *committed = peer_expect(peer, MSG_COMMITTED);
    CHECK(committed->view == 1 && committed->epoch == epoch);
}

static void expect_of_il(uint16_t type)
{
    CHECK(ol_peer_next_of_il(&il)->type == type);
}

static void il_hello(void)
{
    il = ol_peer_hello_il();
}

/* Is there a master to send inputs to? The input logger would be told of it first. */
static bool view_runs(void)
{
    peer_close(&il);
    il_hello();
    return ol_peer_next_of_il(&il)->type == MSG_VIEW;
}

static void send_prepared(uint64_t epoch)
{
    struct msg_snapshot prepared = {.view = 1, .epoch = epoch, .cut = {.next_input = {1}}};
    peer_send(&r1, MSG_PREPARED, 1, 2, &prepared, sizeof(prepared));
}

static void send_cut(struct peer *peer, uint32_t view)
{
    struct msg_cut cut = {.view = view, .next_input = {1}};
    peer_send(peer, MSG_CUT, 0, 0, &cut, sizeof(cut));
}

/* ---- tests -------------------------------------------------------------------------------- */

static void test_beginning(void)
{
    pid = ol_peer_start();
    r0 = ol_peer_hello((struct msg_hello){.slot = 0});
    ol_peer_expect_welcome(&r0, 1, true, false);
    ol_peer_expect_backup(&r0, 1, false, 0);
    ol_peer_expect_backup(&r0, 2, false, 0);
    il_hello();
    expect_of_il(MSG_VIEW);
    r1 = ol_peer_hello((struct msg_hello){.slot = 1});
    ol_peer_expect_welcome(&r1, 2, false, false);
    ol_peer_expect_backup(&r0, 1, true, 0);
    send_prepared(1);
    expect_committed(&r1, 1);
    expect_committed(&r0, 1);
    expect_of_il(MSG_COMMITTED);
}

/* A backup that refused is sent all of the next snapshot, also if the master could not be told. */
static void test_refused(void)
{
    peer_send(&r1, MSG_REJECTED, 1, 2, NULL, 0);
    ol_peer_expect_backup(&r0, 1, true, 0);
    struct peer before = r0;
    r0 = ol_peer_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1, .active = 1});
    ol_peer_expect_welcome(&r0, 1, true, true);
    peer_close(&before);
    expect_committed(&r0, 1);
    ol_peer_expect_backup(&r0, 1, true, 0);
    ol_peer_expect_backup(&r0, 2, false, 0);
}

/* Who does not keep to the protocol loses its connection, and nobody else anything. */
static void test_bad_messages(void)
{
    static const uint8_t body[8192];
    static const struct {
        uint16_t type;
        size_t length;
    } bad[] = {{0, 0}, {MSG_TYPES, 0}, {65535, 9}, {MSG_HELLO, 3}, {MSG_CUT, 0}, {MSG_BYE, 8000}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct peer stranger = peer_connect("ol.ctl");
        peer_send(&stranger, bad[i].type, 1, 2, body, bad[i].length);
        struct control_msg *message;
        int result;
        while ((result = control_recv(stranger.fd, &stranger.buffer, &message)) == 0)
            usleep(1000);
        CHECK(result == -ECONNRESET);
        peer_close(&stranger);
    }
    send_prepared(2);
    expect_committed(&r1, 2);
    expect_committed(&r0, 2);
    expect_of_il(MSG_COMMITTED);
}

static void test_restart(void)
{
    kill_it();
    pid = ol_peer_start();
    r0 = ol_peer_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1, .active = 1});
    ol_peer_expect_welcome(&r0, 1, true, true);
    expect_committed(&r0, 2);
    ol_peer_expect_backup(&r0, 1, true, 2);
    ol_peer_expect_backup(&r0, 2, false, 0);
    struct peer impostor =
        ol_peer_hello((struct msg_hello){.slot = 1, .incarnation = 7, .view = 1});
    const struct msg_fenced *fenced = peer_expect(&impostor, MSG_FENCED);
    CHECK(fenced->view == 1 && fenced->by == 0);
    peer_close(&impostor);
    r1 = ol_peer_hello((struct msg_hello){.slot = 1, .incarnation = 2, .view = 1});
    ol_peer_expect_welcome(&r1, 2, false, true);
    expect_committed(&r1, 2);
    ol_peer_expect_backup(&r0, 1, true, 2);
    il_hello();
    expect_of_il(MSG_VIEW);
    expect_of_il(MSG_COMMITTED);
}

static void expect_promotion(struct peer *peer, uint32_t view)
{
    const struct control_msg *message = peer_recv(peer, 10000);
    CHECK(message && message->type == MSG_PROMOTE && message->view == view);
    const struct msg_promote *promote = (const struct msg_promote *)message->body;
    CHECK(promote->base_view == 1 && promote->base_epoch == 2 && promote->pals[0] == 0);
}

/* Killed between a promotion and its answer: the next one asks again, and begins the view. */
static void test_killed_while_promoting(void)
{
    peer_close(&r0); /* without a death watch that is a death */
    expect_promotion(&r1, 2);
    kill_it();
    pid = ol_peer_start();
    struct peer old = ol_peer_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1});
    peer_expect(&old, MSG_FENCED);
    peer_close(&old);
    il_hello();
    expect_of_il(MSG_COMMITTED); /* but no view: none has begun */
    r1 = ol_peer_hello((struct msg_hello){.slot = 1, .incarnation = 2, .view = 1});
    ol_peer_expect_welcome(&r1, 2, false, true);
    expect_promotion(&r1, 2);
    send_cut(&r1, 1); /* of another promotion: nothing */
    send_cut(&r1, 2);
    peer_expect(&r1, MSG_GO);
    expect_of_il(MSG_VIEW);
}

/* Nobody is left, but the slot's file holds the base: also the next output logger waits for it. */
static void test_heir(void)
{
    r0 = ol_peer_hello((struct msg_hello){.slot = 0});
    ol_peer_expect_welcome(&r0, 3, false, false);
    expect_committed(&r0, 2);
    ol_peer_expect_backup(&r1, 0, true, 0);
    peer_close(&r1);
    while (view_runs())
        usleep(1000);
    CHECK(peer_recv(&r0, 0) == NULL); /* it holds nothing: not promoted */
    kill_it();
    pid = ol_peer_start();
    r1 = ol_peer_hello((struct msg_hello){.slot = 1, .base_view = 1, .base_epoch = 2});
    ol_peer_expect_welcome(&r1, 4, false, false);
    expect_committed(&r1, 2);
    expect_promotion(&r1, 3);
    send_cut(&r1, 3);
    peer_expect(&r1, MSG_GO);
}

/* What a backup has prepared is overtaken before its cut has arrived: it hears of it, since it
 * takes nothing until it does. */
static void test_overtaken(void)
{
    struct peer r2 = ol_peer_hello((struct msg_hello){.slot = 2});
    ol_peer_expect_welcome(&r2, 5, false, false);
    r0 = ol_peer_hello((struct msg_hello){.slot = 0, .incarnation = 3, .view = 3});
    ol_peer_expect_welcome(&r0, 3, false, true);
    struct msg_snapshot prepared = {
        .view = 3, .epoch = 1, .cut = {.next_input = {1}, .outputs = {1}}};
    peer_send(&r0, MSG_PREPARED, 3, 3, &prepared, sizeof(prepared));
    expect_committed(&r0, 2);
    usleep(20000); /* it is what is to be committed, and cannot be */
    prepared.epoch = 2;
    prepared.cut.outputs[0] = 0;
    peer_send(&r2, MSG_PREPARED, 3, 5, &prepared, sizeof(prepared));
    expect_committed(&r2, 2);
    const struct msg_snapshot *committed = peer_expect(&r2, MSG_COMMITTED);
    CHECK(committed->view == 3 && committed->epoch == 2);
    const struct msg_snapshot *none = peer_expect(&r0, MSG_VOID);
    CHECK(none->view == 3 && none->epoch == 1);
    committed = peer_expect(&r0, MSG_COMMITTED);
    CHECK(committed->view == 3 && committed->epoch == 2);
    /* Of what came too late the master hears too: it would wait for the commit. */
    while (peer_recv(&r1, 100))
        continue;
    prepared.epoch = 1;
    peer_send(&r0, MSG_PREPARED, 3, 3, &prepared, sizeof(prepared));
    CHECK(((const struct msg_snapshot *)peer_expect(&r0, MSG_VOID))->epoch == 1);
    ol_peer_expect_backup(&r1, 0, true, 0);
    peer_close(&r2);
}

/* To an output logger on another host a connection that ends is no death, also of a master whom
 * nobody could follow; and a pid names no process. */
static void test_apart(void)
{
    pid = ol_peer_start_apart();
    r0 = ol_peer_hello((struct msg_hello){.slot = 0});
    ol_peer_expect_welcome(&r0, 1, true, false);
    r1 = ol_peer_hello((struct msg_hello){.slot = 1});
    ol_peer_expect_welcome(&r1, 2, false, false);
    peer_close(&r1);
    peer_close(&r0);
    r0 = ol_peer_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1, .active = 1});
    ol_peer_expect_welcome(&r0, 1, true, true);
    r1 = ol_peer_hello((struct msg_hello){.slot = 1, .incarnation = 2, .view = 1});
    ol_peer_expect_welcome(&r1, 2, false, true);
    peer_close(&r1); /* it had not heard its welcome */
    r1 = ol_peer_hello((struct msg_hello){.slot = 1});
    ol_peer_expect_welcome(&r1, 2, false, true);
    peer_close(&r1); /* this time its host died, too */
    r1 = ol_peer_hello((struct msg_hello){.slot = 1, .process = 3});
    ol_peer_expect_welcome(&r1, 3, false, false);
    kill_it();
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    peer_begin();
    test_beginning();
    test_refused();
    test_bad_messages();
    test_restart();
    test_killed_while_promoting();
    test_heir();
    test_overtaken();
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    ol_peer_end();
    peer_begin();
    test_apart();
    ol_peer_end();
    return 0;
}

/* A real output logger in a process of its own that is killed at the worst moments; replicas and
 * input logger are the test. What it had decided holds, and who it told is told again. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "io/eal.h"
#include "io/event.h"
#include "roles/output_logger.h"
#include "tests/replica_peer.h"

#define SLOTS 3u

static pid_t pid; /* of the output logger */
static struct peer r0, r1, il;

/* ---- the output logger -------------------------------------------------------------------- */

static void open_links(struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS], struct io_lane *out)
{
    uint16_t ports[2];
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        char name[16];
        snprintf(name, sizeof(name), "slot%u", slot);
        CHECK(io_open_ring(name, 1, ports) == 0);
        replica[slot][0] = (struct io_lane){.port = ports[0]};
    }
    CHECK(io_open_ring("out", 2, ports) == 0);
    out[0] = (struct io_lane){.port = ports[0], .queue = 0};
    out[1] = (struct io_lane){.port = ports[0], .queue = 1};
}

static void run_output_logger(void)
{
    static struct output_logger logger;
    static struct node_config config = {.mode = MODE_FTMB,
                                        .workers = 1,
                                        .replicas = SLOTS,
                                        .pals = 4096,
                                        .outputs = 1024,
                                        .detect_ms = 60000,
                                        .heir_ms = 60000,
                                        .peer_ms = 60000};
    struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS] = {0}, out[OL_PORTS];
    const unsigned cpu = (unsigned)sched_getcpu();
    memcpy(config.dir, peer_dir, sizeof(peer_dir));
    config.config_digest = peer_config_digest();
    CHECK(io_eal_init("ol", peer_dir, 64, &cpu, 1) == 0);
    open_links(replica, out);
    CHECK(output_logger_create(&logger, &config, replica, out, io_pool("ol", 1024)) == 0);
    struct role role = output_logger_role(&logger);
    for (;;) {
        if (role.poll(role.self) == 0)
            sched_yield();
    }
}

static void start(void)
{
    fflush(NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    event_process("ol");
    run_output_logger();
}

/* Its end is the end of all connections. */
static void kill_it(void)
{
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    peer_close(&r0);
    peer_close(&r1);
    peer_close(&il);
}

/* ---- the others --------------------------------------------------------------------------- */

static struct peer say_hello(struct msg_hello hello)
{
    struct peer peer = peer_connect("ol.ctl");
    hello.pid = (uint32_t)getpid();
    hello.config_digest = peer_config_digest();
    peer_send(&peer, MSG_HELLO, 0, 0, &hello, sizeof(hello));
    return peer;
}

static void expect_welcome(struct peer *peer, uint32_t incarnation, bool active, bool rejoined)
{
    const struct control_msg *message = peer_recv(peer, 10000);
    CHECK(message && message->type == MSG_WELCOME && message->incarnation == incarnation);
    const struct msg_welcome *welcome = (const struct msg_welcome *)message->body;
    CHECK(welcome->active == active && welcome->rejoined == rejoined);
}

static void expect_committed(struct peer *peer, uint64_t epoch)
{
    const struct msg_snapshot *committed = peer_expect(peer, MSG_COMMITTED);
    CHECK(committed->view == 1 && committed->epoch == epoch);
}

static void expect_backup(struct peer *peer, uint32_t slot, bool present, uint64_t base_epoch)
{
    const struct msg_backup *backup = peer_expect(peer, MSG_BACKUP);
    CHECK(backup->slot == slot && backup->present == present && backup->base_epoch == base_epoch);
}

/* Credit is told whenever it changes. */
static uint16_t next_of_il(void)
{
    const struct control_msg *message;
    do
        message = peer_recv(&il, 10000);
    while (message && message->type == MSG_CREDIT);
    CHECK(message);
    return message->type;
}

static void expect_of_il(uint16_t type)
{
    CHECK(next_of_il() == type);
}

static void il_hello(void)
{
    struct msg_hello_il hello = {.pid = (uint32_t)getpid()};
    il = peer_connect("ol.ctl");
    peer_send(&il, MSG_HELLO_IL, 0, 0, &hello, sizeof(hello));
}

/* Is there a master to send inputs to? The input logger would be told of it first. */
static bool view_runs(void)
{
    peer_close(&il);
    il_hello();
    return next_of_il() == MSG_VIEW;
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
    start();
    r0 = say_hello((struct msg_hello){.slot = 0});
    expect_welcome(&r0, 1, true, false);
    expect_backup(&r0, 1, false, 0);
    expect_backup(&r0, 2, false, 0);
    il_hello();
    expect_of_il(MSG_VIEW);
    r1 = say_hello((struct msg_hello){.slot = 1});
    expect_welcome(&r1, 2, false, false);
    expect_backup(&r0, 1, true, 0);
    send_prepared(1);
    expect_committed(&r1, 1);
    expect_committed(&r0, 1);
    expect_of_il(MSG_COMMITTED);
}

/* A backup that refused is sent all of the next snapshot, also if the master could not be told. */
static void test_refused(void)
{
    peer_send(&r1, MSG_REJECTED, 1, 2, NULL, 0);
    expect_backup(&r0, 1, true, 0);
    struct peer before = r0;
    r0 = say_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1, .active = 1});
    expect_welcome(&r0, 1, true, true);
    peer_close(&before);
    expect_committed(&r0, 1);
    expect_backup(&r0, 1, true, 0);
    expect_backup(&r0, 2, false, 0);
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
    start();
    r0 = say_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1, .active = 1});
    expect_welcome(&r0, 1, true, true);
    expect_committed(&r0, 2);
    expect_backup(&r0, 1, true, 2);
    expect_backup(&r0, 2, false, 0);
    struct peer impostor = say_hello((struct msg_hello){.slot = 1, .incarnation = 7, .view = 1});
    const struct msg_fenced *fenced = peer_expect(&impostor, MSG_FENCED);
    CHECK(fenced->view == 1 && fenced->by == 0);
    peer_close(&impostor);
    r1 = say_hello((struct msg_hello){.slot = 1, .incarnation = 2, .view = 1});
    expect_welcome(&r1, 2, false, true);
    expect_committed(&r1, 2);
    expect_backup(&r0, 1, true, 2);
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
    start();
    struct peer old = say_hello((struct msg_hello){.slot = 0, .incarnation = 1, .view = 1});
    peer_expect(&old, MSG_FENCED);
    peer_close(&old);
    il_hello();
    expect_of_il(MSG_COMMITTED); /* but no view: none has begun */
    r1 = say_hello((struct msg_hello){.slot = 1, .incarnation = 2, .view = 1});
    expect_welcome(&r1, 2, false, true);
    expect_promotion(&r1, 2);
    send_cut(&r1, 1); /* of another promotion: nothing */
    send_cut(&r1, 2);
    peer_expect(&r1, MSG_GO);
    expect_of_il(MSG_VIEW);
}

/* Nobody is left, but the slot's file holds the base: also the next output logger waits for it. */
static void test_heir(void)
{
    r0 = say_hello((struct msg_hello){.slot = 0});
    expect_welcome(&r0, 3, false, false);
    expect_committed(&r0, 2);
    expect_backup(&r1, 0, true, 0);
    peer_close(&r1);
    while (view_runs())
        usleep(1000);
    CHECK(peer_recv(&r0, 0) == NULL); /* it holds nothing: not promoted */
    kill_it();
    start();
    r1 = say_hello((struct msg_hello){.slot = 1, .base_view = 1, .base_epoch = 2});
    expect_welcome(&r1, 4, false, false);
    expect_committed(&r1, 2);
    expect_promotion(&r1, 3);
    send_cut(&r1, 3);
    peer_expect(&r1, MSG_GO);
}

/* What a backup has prepared is overtaken before its cut has arrived: it hears of it, since it
 * takes nothing until it does. */
static void test_overtaken(void)
{
    struct peer r2 = say_hello((struct msg_hello){.slot = 2});
    expect_welcome(&r2, 5, false, false);
    r0 = say_hello((struct msg_hello){.slot = 0, .incarnation = 3, .view = 3});
    expect_welcome(&r0, 3, false, true);
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
    expect_backup(&r1, 0, true, 0);
    peer_close(&r2);
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
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", peer_dir);
    CHECK(system(command) == 0); /* DPDK's directories too */
    return 0;
}

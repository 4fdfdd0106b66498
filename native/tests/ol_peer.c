/* A real output logger in a process of its own (see ol_peer.h). */
#include "tests/ol_peer.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "io/eal.h"
#include "io/event.h"
#include "roles/output_logger.h"

#define SLOTS 3u

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

static _Noreturn void run_output_logger(bool apart)
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
    config.apart = apart; /* the socket is where peers of one host look for it, all the same */
    CHECK((size_t)snprintf(config.hosts.ol, sizeof(config.hosts.ol), "%s/ol.ctl", peer_dir) <
          sizeof(config.hosts.ol));
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

static pid_t start(bool apart)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    event_process("ol");
    run_output_logger(apart);
}

pid_t ol_peer_start(void)
{
    return start(false);
}

pid_t ol_peer_start_apart(void)
{
    return start(true);
}

void ol_peer_end(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", peer_dir);
    CHECK(system(command) == 0);
}

struct peer ol_peer_hello(struct msg_hello hello)
{
    struct peer peer = peer_connect("ol.ctl");
    hello.pid = (uint32_t)getpid();
    hello.process = hello.process ? hello.process : 1;
    hello.config_digest = peer_config_digest();
    peer_send(&peer, MSG_HELLO, 0, 0, &hello, sizeof(hello));
    return peer;
}

void ol_peer_expect_welcome(struct peer *peer, uint32_t incarnation, bool active, bool rejoined)
{
    const struct control_msg *message = peer_recv(peer, 10000);
    CHECK(message && message->type == MSG_WELCOME && message->incarnation == incarnation);
    const struct msg_welcome *welcome = (const struct msg_welcome *)message->body;
    CHECK(welcome->active == active && welcome->rejoined == rejoined);
}

void ol_peer_expect_backup(struct peer *peer, uint32_t slot, bool present, uint64_t base_epoch)
{
    const struct msg_backup *backup = peer_expect(peer, MSG_BACKUP);
    CHECK(backup->slot == slot && backup->present == present && backup->base_epoch == base_epoch);
}

struct peer ol_peer_hello_il(void)
{
    struct msg_hello_il hello = {.process = 1};
    struct peer il = peer_connect("ol.ctl");
    peer_send(&il, MSG_HELLO_IL, 0, 0, &hello, sizeof(hello));
    return il;
}

const struct control_msg *ol_peer_next_of_il(struct peer *il)
{
    const struct control_msg *message;
    do
        message = peer_recv(il, 10000);
    while (message && message->type == MSG_CREDIT);
    CHECK(message);
    return message;
}

/* A vhost-user link between two processes, both of which get killed: the survivor goes on, traffic
 * resumes with the successor, and frames the server keeps for resending arrive intact each time. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "io/clock.h"
#include "io/eal.h"
#include "io/port.h"

#define QUEUES 2
#define BUFFERS 8192
#define BURST 16
/* Answers per queue and phase: several times the buffers, so that a leak would stop the traffic. */
#define ENOUGH 40000
#define TIMEOUT_NS 30000000000u

struct payload {
    uint32_t queue, number, incarnation, filler[17];
};

static char dir[] = "/tmp/ftmb-test-XXXXXX";
static char path[64];
static struct rte_mempool *pool;
static volatile sig_atomic_t ending;

static void start(const char *name, unsigned cpu)
{
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    CHECK(io_eal_init(name, dir, 64, &cpu, 1) == 0);
    pool = io_pool("frames", BUFFERS);
    CHECK(pool != NULL);
}

static struct rte_mbuf *make_frame(uint32_t queue, uint32_t number, uint32_t incarnation)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
    struct payload *p;

    if (m == NULL)
        return NULL;
    p = (struct payload *)rte_pktmbuf_append(m, sizeof(*p));
    *p = (struct payload){.queue = queue, .number = number, .incarnation = incarnation};
    for (uint32_t i = 0; i < RTE_DIM(p->filler); i++)
        p->filler[i] = number * 31 + i;
    return m;
}

static const struct payload *check_frame(struct rte_mbuf *m, uint32_t queue)
{
    const struct payload *p = rte_pktmbuf_mtod(m, const struct payload *);

    CHECK(m->nb_segs == 1 && m->pkt_len == sizeof(*p) && p->queue == queue);
    for (uint32_t i = 0; i < RTE_DIM(p->filler); i++)
        CHECK(p->filler[i] == p->number * 31 + i);
    return p;
}

/* Answer a question with one frame sent twice, keeping a reference meanwhile, as a resend does. */
static void answer(struct io_lane lane, uint32_t number, uint32_t incarnation)
{
    struct rte_mbuf *m = make_frame(lane.queue, number, incarnation);

    for (int time = 0; m != NULL && time < 2; time++) {
        rte_mbuf_refcnt_update(m, 1);
        if (io_tx(lane, &m, 1) == 0)
            rte_mbuf_refcnt_update(m, -1);
    }
    rte_pktmbuf_free(m);
}

static void on_terminate(int signal)
{
    (void)signal;
    ending = 1;
}

/* Looks at the link all the time, which must be safe while the peer dies. */
static void *watch_link(void *arg)
{
    while (!ending) {
        (void)io_link_up(*(uint16_t *)arg);
        usleep(500);
    }
    return NULL;
}

static void serve(uint32_t incarnation)
{
    struct rte_mbuf *got[BURST];
    struct io_lane lane;
    pthread_t watcher;

    signal(SIGTERM, on_terminate);
    start("server", 0);
    CHECK(io_open_server("link", path, QUEUES, pool, &lane.port) == 0);
    CHECK(pthread_create(&watcher, NULL, watch_link, &lane.port) == 0);
    while (!ending) {
        unsigned work = 0;

        for (lane.queue = 0; lane.queue < QUEUES; lane.queue++) {
            unsigned n = io_rx(lane, got, BURST);

            for (unsigned i = 0; i < n; i++) {
                answer(lane, check_frame(got[i], lane.queue)->number, incarnation);
                rte_pktmbuf_free(got[i]);
            }
            work += n;
        }
        if (work == 0)
            usleep(20);
    }
    pthread_join(watcher, NULL);
    io_eal_end();
    _exit(0);
}

/* Ask on every queue until ENOUGH answers of `incarnation` have come on each. */
static void ask(uint16_t port, uint32_t incarnation)
{
    uint32_t asked = 0, answers[QUEUES] = {0};
    uint64_t deadline = clock_ns() + TIMEOUT_NS;

    while (answers[0] < ENOUGH || answers[1] < ENOUGH) {
        CHECK(clock_ns() < deadline);
        for (uint16_t q = 0; q < QUEUES; q++) {
            struct io_lane lane = {port, q};
            struct rte_mbuf *m = make_frame(q, asked++, 0), *got[BURST];
            unsigned n = io_rx(lane, got, BURST);

            if (m != NULL && io_tx(lane, &m, 1) == 0)
                rte_pktmbuf_free(m);
            for (unsigned i = 0; i < n; i++) {
                answers[q] += check_frame(got[i], q)->incarnation == incarnation;
                rte_pktmbuf_free(got[i]);
            }
        }
    }
    CHECK(io_link_up(port));
}

/* Reports on `progress` when it has heard enough of each server from `first` to `last`. */
static void be_client(int progress, uint32_t first, uint32_t last, bool linger)
{
    uint16_t port;

    start("client", 0);
    CHECK(io_open_client("link", path, QUEUES, pool, &port) == 0);
    for (uint32_t i = first; i <= last; i++) {
        ask(port, i);
        CHECK(write(progress, "x", 1) == 1);
    }
    while (linger)
        pause();
    io_eal_end();
    _exit(0);
}

static pid_t start_server(uint32_t incarnation)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0)
        serve(incarnation);
    return pid;
}

static pid_t start_client(int progress[2], uint32_t first, uint32_t last, bool linger)
{
    pid_t pid;

    CHECK(pipe(progress) == 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        be_client(progress[1], first, last, linger);
    close(progress[1]);
    return pid;
}

static void end(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitpid(pid, NULL, 0) == pid);
}

int main(void)
{
    int progress[2], status;
    pid_t server, client;
    char byte;

    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/link.sock", dir);
    server = start_server(1);
    client = start_client(progress, 1, 2, true);
    CHECK(read(progress[0], &byte, 1) == 1); /* else the client failed: its message is above */
    end(server);
    server = start_server(2);
    CHECK(read(progress[0], &byte, 1) == 1);
    end(client);
    /* One client follows a killed one, the next one that ended by itself. */
    for (int i = 0; i < 2; i++) {
        client = start_client(progress, 2, 2, false);
        CHECK(read(progress[0], &byte, 1) == 1);
        CHECK(waitpid(client, &status, 0) == client && status == 0);
    }
    /* It outlived all three, and still comes to a good end without a peer. */
    CHECK(waitpid(server, &status, WNOHANG) == 0);
    usleep(500000);
    CHECK(kill(server, SIGTERM) == 0);
    CHECK(waitpid(server, &status, 0) == server && status == 0);
    /* What the killed processes left is all inside the directory, so it goes with it. */
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK(system(command) == 0);
    return 0;
}

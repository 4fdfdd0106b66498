/* A logger's process is killed under full traffic, both ways, and another takes its place on the
 * same link, again and again. The surviving end is the server's: a replica, or generator and sink.
 *
 * What holds, and what the loggers rely on: a frame that a client was given is never given to its
 * successor (so an input that a dead input logger had logged does not come in a second time); a
 * frame that waits in the ring goes to the successor; frames that the client sent arrive once. What
 * is lost is what a client had in hand when it died: at most one burst each way.
 *
 * Only a fresh server loses more, a ring at most: its driver sets the link up twice, and what comes
 * before the second time is gone. So the clients wait for it here; streams recover from it, and the
 * output logger has nothing to release that early. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/eal.h"
#include "io/port.h"
#include "tests/core_test.h"

#define QUEUES 2
#define BUFFERS 8192
#define BURST 32
#define KILLS 8
#define MOST (1u << 23) /* frames each way and queue */
#define TIMEOUT_NS 60000000000u
#define FILLER 15

struct payload {
    uint32_t queue, number;
    uint32_t filler[FILLER];
};

/* Of one direction and queue; survives the processes. */
struct flow {
    _Atomic uint32_t next;    /* number of the next frame to send */
    _Atomic uint32_t arrived; /* in all */
    uint8_t count[MOST];      /* arrivals by number */
};

static struct shared {
    struct flow to_client[QUEUES], to_server[QUEUES];
    _Atomic bool open; /* the server is */
    _Atomic bool ending;
} * shared;

static char dir[] = "/tmp/ftmb-test-XXXXXX";
static char path[64];
static struct rte_mempool *pool;

static void start(const char *name)
{
    unsigned cpu = 0;
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    CHECK(io_eal_init(name, dir, 64, &cpu, 1) == 0);
    pool = io_pool("frames", BUFFERS);
    CHECK(pool != NULL);
}

static struct rte_mbuf *make_frame(uint32_t queue, uint32_t number)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
    if (m == NULL)
        return NULL;
    struct payload *p = (struct payload *)rte_pktmbuf_append(m, sizeof(*p));
    p->queue = queue;
    p->number = number;
    for (uint32_t i = 0; i < FILLER; i++)
        p->filler[i] = number * 31 + i;
    return m;
}

static void take(struct flow *flow, const struct rte_mbuf *m, uint32_t queue)
{
    const struct payload *p = rte_pktmbuf_mtod(m, const struct payload *);
    CHECK(m->nb_segs == 1 && m->pkt_len == sizeof(*p) && p->queue == queue && p->number < MOST);
    for (uint32_t i = 0; i < FILLER; i++)
        CHECK(p->filler[i] == p->number * 31 + i);
    flow->count[p->number]++;
    atomic_fetch_add(&flow->arrived, 1);
}

static unsigned receive(struct io_lane lane, struct flow *flow)
{
    struct rte_mbuf *got[BURST];
    uint16_t n = io_rx(lane, got, BURST);
    for (uint16_t i = 0; i < n; i++) {
        take(flow, got[i], lane.queue);
        rte_pktmbuf_free(got[i]);
    }
    return n;
}

/* The number goes up before the hand-over, as the output logger's count does: a process that dies
 * in between loses frames, but its successor does not send them again. */
static unsigned offer(struct io_lane lane, struct flow *flow)
{
    struct rte_mbuf *burst[BURST];
    uint32_t first = atomic_load(&flow->next), n = 0;
    while (n < BURST && first + n < MOST && (burst[n] = make_frame(lane.queue, first + n)) != NULL)
        n++;
    atomic_store(&flow->next, first + n);
    uint16_t sent = io_tx(lane, burst, (uint16_t)n);
    atomic_store(&flow->next, first + sent);
    rte_pktmbuf_free_bulk(burst + sent, n - sent);
    return sent;
}

static void run(uint16_t port, struct flow *in, struct flow *out)
{
    while (!atomic_load(&shared->open))
        usleep(100);
    while (!atomic_load(&shared->ending)) {
        unsigned work = 0;
        for (uint16_t q = 0; q < QUEUES; q++) {
            work += receive((struct io_lane){port, q}, &in[q]);
            work += offer((struct io_lane){port, q}, &out[q]);
        }
        if (work == 0)
            usleep(20);
    }
    /* What is still in the rings. */
    for (uint64_t quiet = clock_ns(); clock_ns() - quiet < 200000000;)
        for (uint16_t q = 0; q < QUEUES; q++)
            if (receive((struct io_lane){port, q}, &in[q]))
                quiet = clock_ns();
}

static pid_t start_process(bool server)
{
    pid_t pid = fork();
    uint16_t port;
    CHECK(pid >= 0);
    if (pid != 0)
        return pid;
    start(server ? "server" : "client");
    if (server)
        CHECK(io_open_server("link", path, QUEUES, pool, &port) == 0);
    if (server)
        atomic_store(&shared->open, true);
    else
        CHECK(io_open_client("link", path, QUEUES, pool, &port) == 0);
    run(port, server ? shared->to_server : shared->to_client,
        server ? shared->to_client : shared->to_server);
    io_eal_end();
    _exit(0);
}

/* Until `more` further frames have arrived in each flow. */
static void await_traffic(uint32_t more)
{
    uint64_t deadline = clock_ns() + TIMEOUT_NS;
    struct flow *flows[] = {&shared->to_client[0], &shared->to_client[1], &shared->to_server[0],
                            &shared->to_server[1]};
    uint32_t until[4];
    for (unsigned i = 0; i < 4; i++)
        until[i] = atomic_load(&flows[i]->arrived) + more;
    for (unsigned i = 0; i < 4; i++) {
        while (atomic_load(&flows[i]->arrived) < until[i]) {
            CHECK(clock_ns() < deadline);
            usleep(100);
        }
    }
}

static void check_flows(const char *name, const struct flow *flows)
{
    uint32_t sent = 0, lost = 0, twice = 0;
    for (unsigned q = 0; q < QUEUES; q++) {
        uint32_t next = atomic_load(&flows[q].next);
        CHECK(next < MOST);
        sent += next;
        for (uint32_t n = 0; n < next; n++) {
            lost += flows[q].count[n] == 0;
            twice += flows[q].count[n] > 1;
        }
    }
    printf("%s: %u sent, %u lost, %u twice in %d deaths\n", name, sent, lost, twice, KILLS);
    CHECK(twice == 0 && lost <= KILLS * BURST);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    int status;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/link.sock", dir);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pid_t server = start_process(true), client = start_process(false);
    for (unsigned i = 0; i < KILLS; i++) {
        await_traffic(1 + (uint32_t)seed_below(&seed, 20000));
        CHECK(kill(client, SIGKILL) == 0 && waitpid(client, &status, 0) == client);
        CHECK(WIFSIGNALED(status)); /* else it failed: its message is above */
        client = start_process(false);
    }
    await_traffic(10000);
    atomic_store(&shared->ending, true);
    CHECK(waitpid(client, &status, 0) == client && status == 0);
    CHECK(waitpid(server, &status, 0) == server && status == 0);
    check_flows("to the client", shared->to_client);
    check_flows("to the server", shared->to_server);
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK(system(command) == 0);
    return 0;
}

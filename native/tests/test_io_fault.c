/* The fault layer over a ring: what becomes of frames is what the counters say and what the seed
 * says; nothing is lost beside that, no buffer, and never a damaged frame taken for a good one. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_ethdev.h>

#include "core/hash.h"
#include "core/wire.h"
#include "io/clock.h"
#include "io/eal.h"
#include "io/port.h"
#include "tests/core_test.h"

#define BUFFERS 4096
#define FRAMES 20000u
#define VIEW 7u
#define INCARNATION 9u
#define WORKERS 2u
#define MESSAGES 20000u

static struct rte_mempool *pool;
static uint8_t deliveries[FRAMES + 1];

static struct rte_mbuf *make_frame(uint32_t worker, uint64_t seq)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
    uint16_t length = (uint16_t)(14 + seq % 200);

    CHECK(m != NULL);
    struct wire_input *in =
        (struct wire_input *)rte_pktmbuf_append(m, (uint16_t)(sizeof(*in) + length));
    wire_head_put(&in->head, WIRE_INPUT, worker, 0, length, VIEW, INCARNATION, seq);
    in->stamp_ns = seq;
    memset(in + 1, (int)(seq & 0xff), length);
    return m;
}

/* Would the worker of this lane take it for a frame of its stream? Then it must be whole. */
static bool check_frame(const struct rte_mbuf *m, uint32_t worker)
{
    const struct wire_input *in = rte_pktmbuf_mtod(m, const struct wire_input *);
    const uint8_t *packet = (const uint8_t *)(in + 1);

    if (!wire_valid((const uint8_t *)in, rte_pktmbuf_data_len(m), WORKERS) ||
        in->head.worker != worker || in->head.view != VIEW || in->head.incarnation != INCARNATION)
        return false;
    CHECK(in->head.type == WIRE_INPUT && in->stamp_ns == in->head.seq);
    CHECK(in->head.length == 14 + in->head.seq % 200);
    for (uint16_t i = 0; i < in->head.length; i++)
        CHECK(packet[i] == (in->head.seq & 0xff));
    CHECK(in->head.seq >= 1 && in->head.seq <= FRAMES);
    deliveries[in->head.seq]++;
    return true;
}

static uint64_t counter(const char *link, const char *name)
{
    json_t *all = fault_stats();
    CHECK(all != NULL);
    json_t *value = json_object_get(json_object_get(all, link), name);
    CHECK(json_is_integer(value));
    uint64_t result = (uint64_t)json_integer_value(value);
    json_decref(all);
    return result;
}

static uint64_t receive(struct io_lane lane, uint64_t *bad)
{
    struct rte_mbuf *got[FTMB_BURST];
    uint16_t n = io_rx(lane, got, FTMB_BURST);

    for (uint16_t i = 0; i < n; i++)
        *bad += !check_frame(got[i], lane.queue);
    rte_pktmbuf_free_bulk(got, n);
    return n;
}

/* All frames through one lane; returns a hash of every frame's fate. */
static uint64_t pass_frames(struct io_lane from, struct io_lane to)
{
    uint64_t received = 0, bad = 0;

    memset(deliveries, 0, sizeof(deliveries));
    for (uint64_t seq = 1; seq <= FRAMES; seq++) {
        struct rte_mbuf *m = make_frame(to.queue, seq);
        CHECK(io_tx(from, &m, 1) == 1);
        if (seq % 16 == 0)
            received += receive(to, &bad);
    }
    /* Until the last one that is held has come: the look that finds nothing begins late enough,
     * however long the machine stood still before it. */
    uint64_t quiet = clock_ns(), looked, n;
    do {
        looked = clock_ns();
        n = receive(to, &bad);
        received += n;
        if (n)
            quiet = looked;
    } while (n || looked - quiet < 5000000);
    uint64_t seen = counter("il-0", "fault_seen"), dropped = counter("il-0", "fault_dropped");
    uint64_t repeated = counter("il-0", "fault_repeated");
    uint64_t garbled = counter("il-0", "fault_garbled");
    CHECK(seen == FRAMES && bad == garbled && counter("il-0", "fault_overflow") == 0);
    CHECK(received == FRAMES - dropped + repeated + garbled);
    uint64_t none = 0, twice = 0;
    for (uint64_t seq = 1; seq <= FRAMES; seq++) {
        CHECK(deliveries[seq] <= 2);
        none += deliveries[seq] == 0;
        twice += deliveries[seq] == 2;
    }
    CHECK(none <= dropped && twice <= repeated && none + repeated == dropped + twice);
    CHECK(rte_mempool_avail_count(pool) == BUFFERS);
    /* Each within half to twice of its rate. */
    const char *const names[] = {"dropped", "repeated", "reordered", "delayed", "garbled"};
    for (unsigned i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof(name), "fault_%s", names[i]);
        uint64_t count = counter("il-0", name);
        CHECK(count > FRAMES / 20 && count < FRAMES / 5);
    }
    return hash_bytes(0, deliveries, sizeof(deliveries));
}

/* More frames than may be held: the rest is lost and counted, and closing gives all back. */
static void test_bound(void)
{
    uint16_t ports[2];
    uint64_t bad = 0;

    CHECK(io_open_ring("b", 1, ports) == 0);
    fault_attach(ports[1], fault_link("state-1", 0)); /* any kind that delays for long */
    struct io_lane from = {ports[0], 0}, to = {ports[1], 0};
    for (uint64_t seq = 1; seq <= 1000; seq++) {
        struct rte_mbuf *m = make_frame(0, seq);
        CHECK(io_tx(from, &m, 1) == 1);
        receive(to, &bad);
    }
    uint64_t delayed = counter("state-1", "fault_delayed");
    CHECK(delayed > 2 * FAULT_HELD);
    CHECK(counter("state-1", "fault_overflow") == delayed - FAULT_HELD);
    CHECK(rte_mempool_avail_count(pool) == BUFFERS - FAULT_HELD);
    io_close(ports[0]);
    io_close(ports[1]);
    CHECK(rte_mempool_avail_count(pool) == BUFFERS);
}

static void test_cut(void)
{
    uint16_t ports[2];
    uint64_t bad = 0;

    CHECK(io_open_ring("c", 1, ports) == 0);
    struct io_lane near = {ports[0], 0}, far = {ports[1], 0};
    struct fault_link *link = fault_link("ctl-3", 1); /* of a kind without rates */
    fault_attach(near.port, link);
    CHECK(!fault_is_cut(link) && !fault_is_cut(NULL) && io_fault[near.port] == NULL);
    CHECK(!fault_cut("il-3", true));
    struct rte_mbuf *m = make_frame(0, 1);
    CHECK(io_tx(far, &m, 1) == 1 && fault_cut("ctl-3", true) && fault_is_cut(link));
    CHECK(receive(near, &bad) == 0); /* what was under way is lost too */
    m = make_frame(0, 2);
    CHECK(io_tx(near, &m, 1) == 1 && receive(far, &bad) == 0);
    m = make_frame(0, 3);
    CHECK(io_tx(far, &m, 1) == 1 && receive(near, &bad) == 0);
    CHECK(rte_mempool_avail_count(pool) == BUFFERS && counter("ctl-3", "fault_cut") == 3);
    CHECK(fault_cut("ctl-3", false) && io_fault[near.port] == NULL);
    m = make_frame(0, 4);
    CHECK(io_tx(near, &m, 1) == 1 && receive(far, &bad) == 1);
    m = make_frame(0, 5);
    CHECK(io_tx(far, &m, 1) == 1 && receive(near, &bad) == 1 && bad == 0);
    io_close(ports[0]);
    io_close(ports[1]);
}

static void test_messages(void)
{
    struct fault_link *link = fault_link("state-0", 1);
    uint32_t fates[4] = {0}, hold_us = 0;

    CHECK(fault_message(NULL, &hold_us) == FAULT_PASS);
    for (unsigned i = 0; i < MESSAGES; i++) {
        enum fault_fate fate = fault_message(link, &hold_us);
        fates[fate]++;
        CHECK(fate != FAULT_HOLD || hold_us > 0);
    }
    CHECK(fates[FAULT_DROP] == counter("state-0", "fault_dropped"));
    CHECK(fates[FAULT_REPEAT] == counter("state-0", "fault_repeated"));
    for (unsigned i = 0; i < 4; i++)
        CHECK(fates[i] > MESSAGES / 40);
}

/* The fates of all frames, as a process with this seed sees them. */
static uint64_t in_a_process(uint64_t seed)
{
    int channel[2], status;
    uint64_t fate;

    CHECK(pipe(channel) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        const struct fault_rates all = {0.1, 0.1, 0.1, 0.1, 0.1, 10};
        const struct fault_rates slow = {0.1, 0.1, 0, 0.5, 0, 1000000};
        char dir[] = "/tmp/ftmb-test-XXXXXX";
        unsigned cpu = 0;
        uint16_t ports[2];
        CHECK(mkdtemp(dir) != NULL && io_eal_init("fault", dir, 64, &cpu, 1) == 0);
        pool = io_pool("frames", BUFFERS);
        CHECK(pool != NULL && fault_stats() == NULL);
        fault_configure(seed, "il", &all);
        fault_configure(seed, "state", &slow);
        CHECK(io_open_ring("a", WORKERS, ports) == 0);
        fault_attach(ports[1], fault_link("il-0", 0));
        fate = pass_frames((struct io_lane){ports[0], 1}, (struct io_lane){ports[1], 1});
        test_bound();
        test_cut();
        test_messages();
        io_eal_end();
        CHECK(rmdir(dir) == 0);
        CHECK(write(channel[1], &fate, sizeof(fate)) == sizeof(fate));
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(read(channel[0], &fate, sizeof(fate)) == sizeof(fate));
    close(channel[0]);
    close(channel[1]);
    return fate;
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    uint64_t fate = in_a_process(seed);
    CHECK(in_a_process(seed) == fate);
    CHECK(in_a_process(seed + 1) != fate);
    return 0;
}

/* A worker between links that lose, repeat, reorder, delay, damage and are cut: every input is
 * executed once and in order, and so leaves every output and PAL, whatever the links do. The worker
 * and the links are real; the test plays both loggers. */
#include <string.h>

#include <rte_ethdev.h>

#include "core/wire.h"
#include "io/clock.h"
#include "io/eal.h"
#include "nf_harness.h"
#include "roles/worker.h"
#include "tests/core_test.h"

#define WORKERS 2u
#define WORKER 1u
#define INPUTS 20000u
#define BUFFERS 16384u
#define LOGGER_WINDOW 512u
#define LENGTH 64u
#define TIMEOUT_NS 60000000000ull

static struct rte_mempool *pool;
static struct worker worker;
static struct io_lane il, ol; /* the loggers' ends */
static struct stream_tx inputs;
static struct stream_rx outputs;
static uint64_t delivered, pals, bad, old_view;

static struct rte_mbuf *make(enum wire_type type, uint32_t bytes, uint32_t length, uint64_t seq)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
    CHECK(m != NULL);
    struct wire_head *head = (struct wire_head *)rte_pktmbuf_append(m, (uint16_t)bytes);
    wire_head_put(head, type, WORKER, 0, length, worker.view, worker.incarnation, seq);
    return m;
}

static bool transmit(struct io_lane lane, struct rte_mbuf *m)
{
    if (io_tx(lane, &m, 1) == 1)
        return true;
    rte_pktmbuf_free(m);
    return false;
}

/* Input number n: one packet that names it. */
static struct rte_mbuf *input(uint64_t number)
{
    struct rte_mbuf *m = make(WIRE_INPUT, sizeof(struct wire_input) + LENGTH, LENGTH, number);
    struct wire_input *in = rte_pktmbuf_mtod(m, struct wire_input *);
    in->stamp_ns = number * 1000;
    memset(in + 1, 0, LENGTH);
    memcpy(in + 1, &number, sizeof(number));
    return m;
}

static bool sound(const struct rte_mbuf *m)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    if (!wire_valid((const uint8_t *)head, rte_pktmbuf_data_len(m), WORKERS) ||
        head->worker != WORKER) {
        bad++;
        return false;
    }
    bool current = wire_current(head, worker.view, worker.incarnation);
    old_view += !current;
    return current;
}

static void play_input_logger(void)
{
    struct rte_mbuf *got[FTMB_BURST];
    uint64_t now = clock_ns(), first, count;
    uint16_t n = io_rx(il, got, FTMB_BURST);
    for (uint16_t i = 0; i < n; i++) {
        const struct wire_ack *ack = rte_pktmbuf_mtod(got[i], const struct wire_ack *);
        if (sound(got[i])) {
            CHECK(ack->head.type == WIRE_ACK);
            stream_tx_settle(&inputs, ack->head.seq, now);
            stream_tx_report(&inputs, &ack->report, now);
        }
        rte_pktmbuf_free(got[i]);
    }
    while (inputs.next <= INPUTS && stream_tx_unacked(&inputs) < LOGGER_WINDOW)
        inputs.next++;
    count = stream_tx_run(&inputs, FTMB_BURST, &first);
    uint64_t sent = 0;
    while (sent < count && transmit(il, input(first + sent)))
        sent++;
    stream_tx_sent(&inputs, first, sent);
    if (stream_tx_probe_due(&inputs, now))
        transmit(il, make(WIRE_PROBE, sizeof(struct wire_head), 0, inputs.cursor - 1));
}

/* The next frame of the stream: nothing is missing, nothing comes twice, all is as it was made. */
static void deliver(struct rte_mbuf *m)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    if (head->type == WIRE_PAL) {
        const struct wire_pals *frame = (const struct wire_pals *)head;
        CHECK(frame->head.length == 0 || frame->first == pals + 1);
        CHECK(frame->next_input > delivered && frame->next_input <= INPUTS + 1);
        pals += frame->head.length / sizeof(uint64_t);
    } else {
        const struct wire_output *frame = (const struct wire_output *)head;
        uint64_t number;
        CHECK(head->type == WIRE_OUTPUT && frame->number == delivered + 1);
        CHECK(frame->vector[WORKER] <= pals && head->length == LENGTH);
        memcpy(&number, (const uint8_t *)frame + wire_output_bytes(WORKERS), sizeof(number));
        CHECK(number == ++delivered);
    }
    rte_pktmbuf_free(m);
}

static void play_output_logger(void)
{
    struct rte_mbuf *got[FTMB_BURST], *m;
    while ((m = stream_rx_early(&outputs)) != NULL) {
        stream_rx_take_early(&outputs);
        deliver(m);
    }
    uint16_t n = io_rx(ol, got, FTMB_BURST);
    for (uint16_t i = 0; i < n; i++) {
        const struct wire_head *head = rte_pktmbuf_mtod(got[i], const struct wire_head *);
        enum stream_verdict verdict = STREAM_GAP;
        if (sound(got[i]) && head->type == WIRE_PROBE)
            stream_rx_probe(&outputs, head->seq);
        else if (sound(got[i]))
            verdict = stream_rx_frame(&outputs, head->seq, got[i]);
        if (verdict == STREAM_TAKE)
            deliver(got[i]);
        else if (verdict != STREAM_KEPT)
            rte_pktmbuf_free(got[i]);
    }
    uint64_t taken = stream_rx_taken(&outputs);
    if (!stream_rx_ack_due(&outputs, taken, n == 0))
        return;
    m = make(WIRE_ACK, sizeof(struct wire_ack), 0, taken);
    stream_rx_report(&outputs, &rte_pktmbuf_mtod(m, struct wire_ack *)->report);
    if (transmit(ol, m))
        stream_rx_acked(&outputs, taken);
}

/* One end each way and link: all four directions are disturbed. */
static void open_links(uint64_t *seed)
{
    static const char *const kinds[] = {"il", "ol"};
    uint16_t ports[2][2];
    for (unsigned k = 0; k < 2; k++) {
        char near[] = "xx-0", far[] = "xx-1";
        struct fault_rates rates = {.delay_us = 1 + (uint32_t)seed_below(seed, 2000)};
        double *rate[] = {&rates.drop, &rates.repeat, &rates.reorder, &rates.delay, &rates.garble};
        for (unsigned i = 0; i < 5; i++)
            *rate[i] = (double)(1 + seed_below(seed, 100)) / (seed_below(seed, 2) ? 1000 : 10000);
        rates.garble += 0.005;
        fault_configure(seed_next(seed), kinds[k], &rates);
        printf("%s: drop %g repeat %g reorder %g delay %g garble %g, %u us\n", kinds[k], rates.drop,
               rates.repeat, rates.reorder, rates.delay, rates.garble, rates.delay_us);
        memcpy(near, kinds[k], 2);
        memcpy(far, kinds[k], 2);
        CHECK(io_open_ring(kinds[k], WORKERS, ports[k]) == 0);
        fault_attach(ports[k][0], fault_link(near, 0));
        fault_attach(ports[k][1], fault_link(far, 1));
    }
    il = (struct io_lane){ports[0][0], WORKER};
    ol = (struct io_lane){ports[1][0], WORKER};
    worker.input = (struct io_lane){ports[0][1], WORKER};
    worker.output = (struct io_lane){ports[1][1], WORKER};
}

static void run(uint64_t seed)
{
    static const char *const links[] = {"il-0", "il-1", "ol-0", "ol-1"};
    uint64_t deadline = clock_ns() + TIMEOUT_NS, restore = 0;
    const char *cut = NULL;
    stream_tx_reset(&inputs, 1, clock_ns());
    while (delivered < INPUTS || stream_tx_unacked(&inputs) || stream_tx_unacked(&worker.out) ||
           cut) {
        CHECK(clock_ns() < deadline);
        if (!cut && seed_below(&seed, 3000) == 0) {
            cut = links[seed_below(&seed, 4)];
            restore = clock_ns() + 1000000 * (1 + seed_below(&seed, 50));
            CHECK(fault_cut(cut, true));
        }
        if (cut && clock_ns() > restore) {
            CHECK(fault_cut(cut, false));
            cut = NULL;
        }
        play_input_logger();
        worker_poll(&worker);
        play_output_logger();
    }
}

int main(int argc, char **argv)
{
    static struct worker_group group;
    static struct node_config config;
    const struct ctx_env env = {0};
    uint64_t seed = seed_begin(argc, argv);
    char dir[] = "/tmp/ftmb-test-XXXXXX";
    unsigned cpu = 0;
    struct harness h;
    CHECK(mkdtemp(dir) != NULL && io_eal_init("stream", dir, 128, &cpu, 1) == 0);
    pool = io_pool("frames", BUFFERS);
    CHECK(pool != NULL);
    harness_open(&h, "monitor", WORKERS, NULL);
    config.nf = h.nf;
    config.needs = h.needs;
    config.workers = WORKERS;
    config.mode = MODE_FTMB;
    config.pal_batch = seed_below(&seed, 4) != 0;
    group.view = 3;
    group.incarnation = 5;
    group.active = 1;
    CHECK(worker_init(&worker, WORKER, &config, &group, h.arena, &env, il, ol, pool) == 0);
    open_links(&seed);
    stream_rx_reset(&outputs, 1);
    worker_begin(&worker, NULL);
    run(seed_next(&seed));
    CHECK(h.arena->cursors[WORKER].packets == INPUTS && delivered == INPUTS);
    CHECK(pals == h.arena->cursors[WORKER].pals && pals >= INPUTS);
    CHECK(worker.bad > 0 && worker.old_view > 0); /* damaged frames came, and were told apart */
    printf("sent again: %llu inputs, %llu frames of the worker; the loggers dropped %llu + %llu\n",
           (unsigned long long)inputs.resent, (unsigned long long)worker.out.resent,
           (unsigned long long)bad, (unsigned long long)old_view);
    harness_close(&h);
    io_close(il.port);
    io_close(worker.input.port);
    io_close(ol.port);
    io_close(worker.output.port);
    CHECK(rte_mempool_avail_count(pool) == BUFFERS);
    io_eal_end();
    CHECK(rmdir(dir) == 0);
    return 0;
}

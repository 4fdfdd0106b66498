/* How long workers wait at the gate of a new epoch. Not a test: run it by hand, on a machine that
 * does nothing else:
 *
 *   bench_flip [flips [period_us [nf [megabytes]]]]
 *
 * Two workers, fed from memory, are pinned on a core each; the thread that makes snapshots goes
 * where the kernel puts it, and has to share that core: a function that stores into a new line with
 * every packet (monitor over a large state) dirties lines faster than they are collected then, and
 * the period is what that takes. It sleeps at once after its one store that flips the epoch, since
 * it may have interrupted a worker in the middle of a packet, and later collects the lines in
 * pieces, with a yield after each. First the workers run for a while alone: what their bursts take
 * then shows how long the machine itself stalls them. The last line is for programs: JSON. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include "tests/bench_packets.h"
#include "traffic/histogram.h"

#define WORKERS 2u
#define LINES_A_PIECE 128u /* some 15 us */
#define ALONE_S 5u

static struct bench {
    struct bench_packets packets;
    struct histogram alone[WORKERS], bursts[WORKERS]; /* what a burst takes */
    atomic_bool flipping, end;
    atomic_uint ready;
    uint64_t count[WORKERS];
    uint64_t lost;            /* flips whose snapshot was given up, an undo log being full */
    struct histogram waits;   /* of each worker at each flip, 0 for none */
    struct histogram longest; /* of a flip */
    struct histogram joined;  /* from the store until the flipper saw that all had joined */
    struct histogram pieces;
    struct histogram lines;
    struct delta delta;
} bench;

static void *work(void *self)
{
    uint32_t worker = (uint32_t)(uintptr_t)self;
    bench_pin(worker);
    atomic_fetch_add(&bench.ready, 1);
    while (atomic_load(&bench.ready) < WORKERS)
        sched_yield();
    uint64_t before = bench_now();
    while (!atomic_load_explicit(&bench.end, memory_order_relaxed)) {
        bool flipping = atomic_load_explicit(&bench.flipping, memory_order_relaxed);
        bench_burst(&bench.packets, worker);
        uint64_t now = bench_now();
        histogram_add(flipping ? &bench.bursts[worker] : &bench.alone[worker], now - before);
        before = now;
        bench.count[worker] += FTMB_BURST;
    }
    return NULL;
}

static bool sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    return delta_add(self, offset, content, length);
}

static void sleep_ns(uint64_t ns)
{
    nanosleep(&(struct timespec){(time_t)(ns / SECOND), (long)(ns % SECOND)}, NULL);
}

static void collect(void)
{
    struct marks_scan scan = {0};
    enum marks_progress progress;
    do {
        uint64_t begun = bench_now();
        progress = marks_collect(&bench.packets.marks, &scan, LINES_A_PIECE, sink, &bench.delta);
        histogram_add(&bench.pieces, bench_now() - begun);
        sched_yield();
    } while (progress == MARKS_MORE || progress == MARKS_WAIT);
    histogram_add(&bench.lines, ((struct delta_head *)bench.delta.bytes)->lines);
    if (progress == MARKS_DONE)
        return;
    bench.lost++; /* the machine stood still for too long */
    while (!marks_give_up(&bench.packets.marks, &scan, LINES_A_PIECE))
        sched_yield();
}

static void flip(void)
{
    static struct arena header;
    struct epoch_group *group = &bench.packets.group;
    marks_open(&bench.packets.marks, epoch_open(group) + 1);
    uint64_t begun = bench_now();
    epoch_flip(group, false);
    do
        sleep_ns(30000);
    while (!epoch_complete(group, bench.packets.h.arena, &header));
    histogram_add(&bench.joined, bench_now() - begun);
    CHECK(delta_begin(&bench.delta, (struct snapshot_name){.view = 1, .epoch = 1}, &header));
    collect();
    CHECK(delta_finish(&bench.delta));
}

/* By now nobody is at the gate of that epoch any more: a whole period has passed, or they have at
 * least been through their packets. */
static void record_waits(void)
{
    uint64_t longest = 0;
    for (uint32_t w = 0; w < WORKERS; w++) {
        uint64_t waited = atomic_load(&bench.packets.group.seat[w].waited_ns);
        histogram_add(&bench.waits, waited);
        longest = u64_max(longest, waited);
    }
    histogram_add(&bench.longest, longest);
}

static void flip_many(uint64_t flips, uint64_t period_ns)
{
    uint64_t due = bench_now();
    for (uint64_t i = 0; i < flips; i++) {
        due = u64_max(due + period_ns, bench_now());
        struct timespec until = {(time_t)(due / SECOND), (long)(due % SECOND)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        if (i)
            record_waits();
        flip();
    }
    sleep_ns(period_ns);
    record_waits();
}

static void print(const char *what, const struct histogram *h, const char *unit, double scale)
{
    printf("  %-44s p50 %9.2f  p99 %9.2f  p99.9 %9.2f  max %9.2f %s\n", what,
           (double)histogram_quantile(h, 0.5) / scale, (double)histogram_quantile(h, 0.99) / scale,
           (double)histogram_quantile(h, 0.999) / scale, (double)h->max / scale, unit);
}

/* Stalls by far longer than a burst, per second and worker. */
static void print_bursts(const char *what, struct histogram *of_worker, double seconds)
{
    for (uint32_t w = 1; w < WORKERS; w++)
        histogram_merge(&of_worker[0], &of_worker[w]);
    print(what, &of_worker[0], "us", 1e3);
    printf("  %-44s %.1f /s over 20 us, %.1f /s over 100 us, %.1f /s over 1 ms\n", "",
           (double)histogram_above(of_worker, 20000) / seconds / WORKERS,
           (double)histogram_above(of_worker, 100000) / seconds / WORKERS,
           (double)histogram_above(of_worker, 1000000) / seconds / WORKERS);
}

int main(int argc, char **argv)
{
    uint64_t flips = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000;
    uint64_t period_ns = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1000) * 1000;
    const char *nf = argc > 3 ? argv[3] : "nat";
    uint64_t megabytes = argc > 4 ? strtoull(argv[4], NULL, 0) : 64;
    pthread_t thread[WORKERS];
    struct histogram *all[] = {&bench.alone[0],  &bench.alone[1], &bench.bursts[0],
                               &bench.bursts[1], &bench.waits,    &bench.longest,
                               &bench.joined,    &bench.pieces,   &bench.lines};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        histogram_init(all[i]);
    bench_open(&bench.packets, nf, WORKERS, megabytes, 1.0);
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    for (uint32_t w = 0; w < WORKERS; w++) {
        bench.packets.worker[w].ctx->marks = &bench.packets.marks;
        CHECK(pthread_create(&thread[w], NULL, work, (void *)(uintptr_t)w) == 0);
    }
    sleep_ns(ALONE_S * SECOND);
    atomic_store(&bench.flipping, true);
    uint64_t begun = bench_now(), before = bench.count[0] + bench.count[1];
    flip_many(flips, period_ns);
    double seconds = (double)(bench_now() - begun) / 1e9;
    uint64_t packets = bench.count[0] + bench.count[1] - before;
    atomic_store(&bench.end, true);
    for (uint32_t w = 0; w < WORKERS; w++)
        pthread_join(thread[w], NULL);
    printf("%s, %.0f MB of state, %llu flips (%llu lost), one each %.2f ms (wanted: %.2f), "
           "%.2f Mpps\n",
           nf, (double)arena_allocated(bench.packets.h.arena) / 1e6, (unsigned long long)flips,
           (unsigned long long)bench.lost, seconds * 1e3 / (double)flips, (double)period_ns / 1e6,
           (double)packets / seconds / 1e6);
    print("wait at the gate, each worker", &bench.waits, "us", 1e3);
    print("wait at the gate, the longest of a flip", &bench.longest, "us", 1e3);
    print("store until seen that all have joined", &bench.joined, "us", 1e3);
    print("a piece of collecting", &bench.pieces, "us", 1e3);
    print("lines", &bench.lines, "", 1);
    print_bursts("a burst of 32, no snapshots (the machine)", bench.alone, ALONE_S);
    print_bursts("a burst of 32, with snapshots", bench.bursts, seconds);
    printf("{\"kind\":\"bench_flip\",\"nf\":\"%s\",\"megabytes\":%llu,\"flips\":%llu,\"lost\":%llu,"
           "\"wait_p999_ns\":%llu,\"wait_max_ns\":%llu}\n",
           nf, (unsigned long long)megabytes, (unsigned long long)flips,
           (unsigned long long)bench.lost,
           (unsigned long long)histogram_quantile(&bench.waits, 0.999),
           (unsigned long long)bench.waits.max);
    free(bench.delta.bytes);
    bench_close(&bench.packets);
    return 0;
}

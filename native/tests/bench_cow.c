/* What the engine `cow` costs a worker per packet. Not a test: run it by hand.
 *
 *   bench_cow [repetitions [nf [megabytes]]]    default: 20, monitor and nat, 64 and 512
 *   bench_cow count ARM NF MEGABYTES PACKETS    for an instruction counter, see below
 *
 * One worker, fed from memory, on a core of its own; the thread that flips epochs and collects
 * lines is on another one. The arms follow each other in random order, each repetition has all of
 * them, and what is compared is one repetition's arm with the same repetition's `none`: medians,
 * with the interval that holds the true one in 95 of 100 cases. `none again` shows what that is
 * worth here.
 *
 *   none      without marks, and without a look at epochs
 *   marks     every line is marked already, nothing is flipped
 *   cow 20    an epoch every 20 ms
 *   cow 5     an epoch every 5 ms
 *
 * Counting: the epochs flip after as many packets as there are at a million a second, by the same
 * thread. Only bursts are to be counted:
 *   valgrind --tool=callgrind --collect-atstart=no --toggle-collect='bench_burst*' bench_cow count
 * ... */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "tests/bench_packets.h"

#define ARM_NS (200 * MS)
#define MOST_REPETITIONS 200u

enum arm { NONE, NONE_AGAIN, MARKED, COW_20, COW_5, ARMS };

static const struct {
    const char *name;
    uint64_t period_ns;
} arms[ARMS] = {
    {"none", 0}, {"none again", 0}, {"marks", 0}, {"cow 20", 20 * MS}, {"cow 5", 5 * MS}};

static struct bench {
    struct bench_packets packets;
    struct delta delta;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t period_ns; /* wanted of the collecting thread; 0: none */
    bool busy, end;
    uint64_t flips, lines, lost, undo;
    double ns[ARMS][MOST_REPETITIONS];
} bench = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static uint64_t cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* ---- the collecting thread ----------------------------------------------------------------- */

static bool sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    return delta_add(self, offset, content, length);
}

static void sleep_until(uint64_t ns)
{
    struct timespec until = {(time_t)(ns / SECOND), (long)(ns % SECOND)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void flip(void)
{
    static struct arena header;
    marks_open(&bench.packets.marks, epoch_open(&bench.packets.group) + 1);
    epoch_flip(&bench.packets.group, false);
    while (!epoch_complete(&bench.packets.group, bench.packets.h.arena, &header))
        sleep_until(bench_now() + 30000);
    CHECK(delta_begin(&bench.delta, (struct snapshot_name){.view = 1, .epoch = 1}, &header));
}

static void take_lines(void)
{
    struct marks *marks = &bench.packets.marks;
    struct marks_scan scan = {0};
    enum marks_progress progress;
    do {
        progress = marks_collect(marks, &scan, 64, sink, &bench.delta);
        sched_yield();
    } while (progress == MARKS_MORE || progress == MARKS_WAIT);
    bench.flips++;
    bench.lines += ((struct delta_head *)bench.delta.bytes)->lines;
    bench.undo += marks->undo_last;
    bench.lost += progress == MARKS_LOST;
    while (progress == MARKS_LOST && !marks_give_up(marks, &scan, 64))
        sched_yield();
}

static void snapshot(void)
{
    flip();
    take_lines();
}

static void *collect(void *self)
{
    (void)self;
    bench_pin(0);
    pthread_mutex_lock(&bench.lock);
    while (!bench.end) {
        uint64_t period = bench.period_ns, due = bench_now() + period;
        bench.busy = period != 0;
        pthread_cond_broadcast(&bench.changed);
        if (!period) {
            pthread_cond_wait(&bench.changed, &bench.lock);
            continue;
        }
        pthread_mutex_unlock(&bench.lock);
        snapshot();
        sleep_until(due);
        pthread_mutex_lock(&bench.lock);
    }
    pthread_mutex_unlock(&bench.lock);
    return NULL;
}

/* Have snapshots made every so often; with 0, once the last one is ready. */
static void command(uint64_t period_ns)
{
    pthread_mutex_lock(&bench.lock);
    bench.period_ns = period_ns;
    pthread_cond_broadcast(&bench.changed);
    while (bench.busy != (period_ns != 0))
        pthread_cond_wait(&bench.changed, &bench.lock);
    pthread_mutex_unlock(&bench.lock);
}

/* ---- the worker ---------------------------------------------------------------------------- */

static void run_for(enum arm arm, uint64_t ns, uint64_t *packets)
{
    uint64_t end = bench_now() + ns;
    do {
        for (unsigned i = 0; i < 16; i++) {
            if (arm <= NONE_AGAIN)
                bench_burst_alone(&bench.packets, 0);
            else
                bench_burst(&bench.packets, 0);
        }
        *packets += 16 * FTMB_BURST;
    } while (bench_now() < end);
}

/* All lines clean, which a snapshot does while no worker is busy. */
static void clean(void)
{
    for (unsigned i = 0; i < 2; i++)
        snapshot();
}

static double run_arm(enum arm arm)
{
    uint64_t packets = 0, before;
    struct ftmb_ctx *ctx = bench.packets.worker[0].ctx;
    clean();
    bench.flips = bench.lines = bench.lost = 0;
    ctx->marks = arm <= NONE_AGAIN ? NULL : &bench.packets.marks;
    if (arms[arm].period_ns)
        command(arms[arm].period_ns);
    run_for(arm, ARM_NS / 4, &packets);
    before = cpu_now();
    packets = 0;
    run_for(arm, ARM_NS, &packets);
    uint64_t took = cpu_now() - before;
    if (arms[arm].period_ns)
        command(0);
    return (double)took / (double)packets;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Which of n ordered values bound the median with 95 % (binomial, without a table: the largest k
 * whose tail of the binomial distribution is at most 2.5 %). */
static unsigned rank_of_bound(unsigned n)
{
    double term = 1, tail = 0;
    for (unsigned i = 0; i < n; i++)
        term /= 2;
    for (unsigned k = 0; k < n / 2; k++) {
        tail += term;
        if (tail > 0.025)
            return k;
        term = term * (n - k) / (k + 1);
    }
    return n / 2;
}

static void print_arm(enum arm arm, unsigned repetitions, uint64_t flips, uint64_t lines,
                      uint64_t lost)
{
    double ratio[MOST_REPETITIONS] = {0}, ns[MOST_REPETITIONS] = {0};
    unsigned bound = rank_of_bound(repetitions);
    unsigned low = bound ? bound - 1 : 0, high = repetitions - 1 - low;
    for (unsigned i = 0; i < repetitions; i++) {
        ns[i] = bench.ns[arm][i];
        ratio[i] = ns[i] / bench.ns[NONE][i];
    }
    qsort(ns, repetitions, sizeof(*ns), by_value);
    qsort(ratio, repetitions, sizeof(*ratio), by_value);
    printf("  %-10s  %6.1f ns a packet  %.3f [%.3f, %.3f]", arms[arm].name, ns[repetitions / 2],
           ratio[repetitions / 2], ratio[low], ratio[high]);
    if (flips)
        printf("  %llu lines a snapshot, %llu of %llu lost", (unsigned long long)(lines / flips),
               (unsigned long long)lost, (unsigned long long)flips);
    printf("\n");
}

static void run_case(const char *nf, uint64_t megabytes, unsigned repetitions)
{
    uint64_t flips[ARMS] = {0}, lines[ARMS] = {0}, lost[ARMS] = {0}, seed = 1;
    pthread_t thread;
    bench_open(&bench.packets, nf, 1, megabytes, 1.0);
    bench_pin(1);
    bench.end = false;
    CHECK(pthread_create(&thread, NULL, collect, NULL) == 0);
    for (unsigned r = 0; r < repetitions; r++) {
        enum arm order[ARMS] = {NONE, NONE_AGAIN, MARKED, COW_20, COW_5};
        for (unsigned i = ARMS - 1; i > 0; i--) {
            unsigned other = (unsigned)(test_random(&seed) % (i + 1));
            enum arm arm = order[i];
            order[i] = order[other];
            order[other] = arm;
        }
        for (unsigned i = 0; i < ARMS; i++) {
            bench.ns[order[i]][r] = run_arm(order[i]);
            flips[order[i]] += bench.flips;
            lines[order[i]] += bench.lines;
            lost[order[i]] += bench.lost;
        }
    }
    printf("%s, %.0f MB of state, %u repetitions\n", nf,
           (double)arena_allocated(bench.packets.h.arena) / 1e6, repetitions);
    for (enum arm arm = 0; arm < ARMS; arm++)
        print_arm(arm, repetitions, flips[arm], lines[arm], lost[arm]);
    pthread_mutex_lock(&bench.lock);
    bench.end = true;
    pthread_cond_broadcast(&bench.changed);
    pthread_mutex_unlock(&bench.lock);
    pthread_join(thread, NULL);
    bench_close(&bench.packets);
}

/* The epochs' ends and the collecting are this thread's too, and not timed: half of the lines are
 * still to be collected when a quarter of the period has passed. */
static int count(const char *name, const char *nf, uint64_t megabytes, uint64_t packets)
{
    enum arm arm = 0;
    while (arm < ARMS && strcmp(arms[arm].name, name) != 0)
        arm++;
    CHECK(arm < ARMS);
    bench_open(&bench.packets, nf, 1, megabytes, 1.0);
    clean();
    bench.flips = bench.lines = bench.undo = 0;
    bench.packets.worker[0].ctx->marks = arm <= NONE_AGAIN ? NULL : &bench.packets.marks;
    uint64_t each = arms[arm].period_ns / 1000 / FTMB_BURST, bursts = packets / FTMB_BURST;
    uint64_t outside = 0, collecting = 0, begun = cpu_now();
    for (uint64_t i = 0; i < bursts; i++) {
        if (arm <= NONE_AGAIN)
            bench_burst_alone(&bench.packets, 0);
        else
            bench_burst(&bench.packets, 0);
        if (!each || (i % each != 0 && i % each != each / 4))
            continue;
        uint64_t before = cpu_now();
        if (i % each == 0)
            flip();
        else
            take_lines();
        outside += cpu_now() - before;
        collecting += i % each ? cpu_now() - before : 0;
    }
    uint64_t took = cpu_now() - begun - outside;
    printf("%s, %s: %.1f ns a packet, %.3f lines marked and %.3f saved a packet; collecting a "
           "line %.1f ns\n",
           nf, name, (double)took / (double)packets, (double)bench.lines / (double)packets,
           (double)bench.undo / (double)packets,
           bench.lines ? (double)collecting / (double)bench.lines : 0);
    bench_close(&bench.packets);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "count") == 0)
        return count(argv[2], argv[3], strtoull(argv[4], NULL, 0), strtoull(argv[5], NULL, 0));
    unsigned repetitions = argc > 1 ? (unsigned)atoi(argv[1]) : 20;
    CHECK(repetitions > 0 && repetitions <= MOST_REPETITIONS);
    static const char *const functions[] = {"monitor", "nat"};
    static const uint64_t sizes[] = {64, 512};
    for (unsigned i = 0; i < 4; i++) {
        if ((argc > 2 && strcmp(functions[i / 2], argv[2]) != 0) ||
            (argc > 3 && strtoull(argv[3], NULL, 0) != sizes[i % 2]))
            continue;
        run_case(functions[i / 2], sizes[i % 2], repetitions);
    }
    return 0;
}

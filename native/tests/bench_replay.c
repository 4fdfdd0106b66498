/* How fast a replica replays, beside how fast it ran. Not a test: run it by hand, on a machine that
 * does nothing else:
 *
 *   bench_replay [repetitions [packets [nf [megabytes]]]]
 *
 * By default 100, 65536, nat and monitor, 64.
 *
 * Two workers, fed from memory, are pinned on a core each. They handle so many packets each, as the
 * master, and keep the log of their accesses; then the state is as before, and they handle the same
 * packets once more, as the backup that replays them in the order of the log. What the links and
 * the loggers take is not in it. The replay always comes second, so it finds the packets and much
 * of the state in the caches already: the ratio is kind to it. The state that the replay leaves is
 * compared with the one that it was to find again, byte by byte. The last line is for programs:
 * JSON. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/replay.h"
#include "tests/bench_packets.h"

#define WORKERS 2u
#define MOST_REPETITIONS 1000u
#define MOST_PACKETS (UINT64_C(1) << 24)
#define MOST_MEGABYTES 4096u

static struct bench {
    struct bench_packets packets;
    struct replay replay;
    uint64_t bursts;           /* of each worker */
    uint64_t *log[WORKERS];    /* its accesses */
    uint64_t next[WORKERS];    /* where its flows were at the base */
    uint64_t now[WORKERS];     /* and its clock */
    void *base, *after;        /* the arena before, and after the first run */
    pthread_barrier_t barrier; /* the workers and main() */
    atomic_bool end;
    uint64_t began[WORKERS], ended[WORKERS];
    double run[MOST_REPETITIONS], again[MOST_REPETITIONS]; /* ns a packet, of both together */
    double ready[MOST_REPETITIONS];                        /* us: cut and preparation */
} bench;

static void handle(uint32_t index)
{
    struct ftmb_ctx *ctx = bench.packets.worker[index].ctx;
    uint64_t *log = bench.log[index];
    for (uint64_t i = 0; i < bench.bursts; i++) {
        bench_burst_alone(&bench.packets, index);
        if (ctx->replay)
            continue;
        memcpy(log, ctx->pals, ctx->pal_count * sizeof(*log));
        log += ctx->pal_count;
    }
    if (!ctx->replay)
        bench.replay.count[index] = (uint64_t)(log - bench.log[index]);
}

static void *work(void *self)
{
    uint32_t index = (uint32_t)(uintptr_t)self;
    bench_pin(index);
    for (;;) {
        pthread_barrier_wait(&bench.barrier);
        if (atomic_load(&bench.end))
            return NULL;
        bench.began[index] = bench_now();
        handle(index);
        bench.ended[index] = bench_now();
        pthread_barrier_wait(&bench.barrier);
    }
}

/* Nanoseconds that a packet takes where both workers handle theirs. */
static double timed(void)
{
    pthread_barrier_wait(&bench.barrier);
    pthread_barrier_wait(&bench.barrier);
    uint64_t began = u64_min(bench.began[0], bench.began[1]);
    uint64_t ended = u64_max(bench.ended[0], bench.ended[1]);
    return (double)(ended - began) / (double)(WORKERS * bench.bursts * FTMB_BURST);
}

static void place(struct replay *replay)
{
    for (uint32_t w = 0; w < WORKERS; w++) {
        struct bench_worker *worker = &bench.packets.worker[w];
        worker->next = bench.next[w];
        worker->now = bench.now[w];
        worker->ctx->replay = replay;
        memset(worker->ctx->deps, 0, sizeof(worker->ctx->deps));
    }
}

static double prepare(void)
{
    struct replay *replay = &bench.replay;
    for (uint32_t w = 0; w < WORKERS; w++)
        replay->log[w] = bench.log[w];
    uint64_t begun = bench_now(), count = replay->count[0];
    CHECK(replay_cut(replay, arena_seq(bench.packets.h.arena)) == REPLAY_OK);
    CHECK(replay->count[0] == count); /* nothing is missing */
    CHECK(replay_prepare(replay, arena_seq(bench.packets.h.arena)) == REPLAY_OK);
    return (double)(bench_now() - begun) / 1e3;
}

static void repeat(unsigned repetition)
{
    struct arena *arena = bench.packets.h.arena;
    uint64_t size = bench.packets.h.arena_size;
    memcpy(bench.base, arena, size);
    for (uint32_t w = 0; w < WORKERS; w++) {
        bench.next[w] = bench.packets.worker[w].next;
        bench.now[w] = bench.packets.worker[w].now;
    }
    place(NULL);
    bench.run[repetition] = timed();
    memcpy(bench.after, arena, size);
    memcpy(arena, bench.base, size);
    bench.ready[repetition] = prepare();
    place(&bench.replay);
    bench.again[repetition] = timed();
    CHECK(replay_done(&bench.replay));
    CHECK(memcmp(bench.after, arena, size) == 0);
    place(NULL);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, unsigned count, double q)
{
    qsort(values, count, sizeof(*values), ascending);
    return values[(unsigned)(q * (count - 1) + 0.5)];
}

static void report(const char *nf, uint64_t megabytes, unsigned repetitions)
{
    double ratio[MOST_REPETITIONS] = {0};
    for (unsigned i = 0; i < repetitions; i++)
        ratio[i] = bench.run[i] / bench.again[i];
    double low = quantile(ratio, repetitions, 0.25), high = quantile(ratio, repetitions, 0.75);
    double middle = quantile(ratio, repetitions, 0.5);
    double run = quantile(bench.run, repetitions, 0.5);
    double again = quantile(bench.again, repetitions, 0.5);
    double ready = quantile(bench.ready, repetitions, 0.5);
    uint64_t packets = WORKERS * bench.bursts * FTMB_BURST;
    printf("%s, %llu MB, %llu packets: ran %.2f Mpps, replayed %.2f Mpps, %.2f times as fast "
           "[%.2f, %.2f: half of the repetitions]; cut and preparation %.0f us\n",
           nf, (unsigned long long)megabytes, (unsigned long long)packets, 1e3 / run, 1e3 / again,
           middle, low, high, ready);
    printf("{\"nf\": \"%s\", \"megabytes\": %llu, \"packets\": %llu, \"repetitions\": %u, "
           "\"run_ns\": %.1f, \"replay_ns\": %.1f, \"ratio\": %.3f, \"ready_us\": %.1f}\n",
           nf, (unsigned long long)megabytes, (unsigned long long)packets, repetitions, run, again,
           middle, ready);
}

static void run_case(const char *nf, uint64_t megabytes, uint64_t packets, unsigned repetitions)
{
    pthread_t thread[WORKERS];
    bench_open(&bench.packets, nf, WORKERS, megabytes, 1.0);
    struct harness *h = &bench.packets.h;
    bench.bursts = packets / FTMB_BURST;
    uint64_t most = bench.bursts * FTMB_BURST * h->needs.max_pals;
    CHECK(replay_init(&bench.replay, WORKERS, h->arena->variables, WORKERS * most) == REPLAY_OK);
    for (uint32_t w = 0; w < WORKERS; w++)
        CHECK((bench.log[w] = calloc(most + 1, sizeof(uint64_t))) != NULL);
    CHECK((bench.base = malloc(h->arena_size)) && (bench.after = malloc(h->arena_size)));
    CHECK(pthread_barrier_init(&bench.barrier, NULL, WORKERS + 1) == 0);
    atomic_store(&bench.end, false);
    for (uint32_t w = 0; w < WORKERS; w++)
        CHECK(pthread_create(&thread[w], NULL, work, (void *)(uintptr_t)w) == 0);
    for (unsigned i = 0; i < repetitions; i++)
        repeat(i);
    atomic_store(&bench.end, true);
    pthread_barrier_wait(&bench.barrier);
    for (uint32_t w = 0; w < WORKERS; w++) {
        pthread_join(thread[w], NULL);
        free(bench.log[w]);
    }
    report(nf, megabytes, repetitions);
    free(bench.base);
    free(bench.after);
    replay_free(&bench.replay);
    bench_close(&bench.packets);
}

/* The argument at `place`, or what there is by default; ends with 2 if it is none. */
static uint64_t number(int argc, char **argv, int place, uint64_t least, uint64_t most,
                       uint64_t other)
{
    if (argc <= place)
        return other;
    char *end;
    errno = 0;
    uint64_t value = strtoull(argv[place], &end, 0);
    if (errno || end == argv[place] || *end || value < least || value > most) {
        fprintf(stderr, "bench_replay: argument %d is %s; a number from %llu to %llu\n", place,
                argv[place], (unsigned long long)least, (unsigned long long)most);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    unsigned repetitions = (unsigned)number(argc, argv, 1, 1, MOST_REPETITIONS, 100);
    uint64_t packets = number(argc, argv, 2, FTMB_BURST, MOST_PACKETS, 65536);
    uint64_t megabytes = number(argc, argv, 4, 1, MOST_MEGABYTES, 64);
    static const char *const functions[] = {"nat", "monitor"};
    bool found = false;
    for (unsigned i = 0; i < 2; i++) {
        if (argc > 3 && strcmp(functions[i], argv[3]) != 0)
            continue;
        found = true;
        run_case(functions[i], megabytes, packets, repetitions);
    }
    if (!found) {
        fprintf(stderr, "bench_replay: no function %s; nat or monitor\n", argv[3]);
        return 2;
    }
    return 0;
}

/* Time per packet of the network functions, without FTMB and with it, as JSON on standard output.
 * Not a test: run it by hand, or `make bench`, which adds what counts instructions.
 *
 *   bench_functions [milliseconds [repetitions]]   every case, both modes in turn
 *   bench_functions list                           names of the cases
 *   bench_functions count CASE MODE PACKETS        so many packets, for an instruction counter
 *
 * Packets come from memory, in bursts with hints as in a replica, of 10,000 known flows, 60 bytes.
 * Mode `ftmb` logs: PALs are copied out of a burst and every output gets its vector, as a worker
 * does. `none` takes the same variables and logs nothing. Both run in the same arena, one after the
 * other in pieces of a few milliseconds, each worker pinned to a processor of its own. Snapshots'
 * marks are another matter (bench_cow). Times are those of the thread: the machine may be shared.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "nf/nf.h"
#include "tests/nf_harness.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define FLOWS 10000u
#define DRAWN 65536u
#define FRAME_BYTES 128u
#define REPETITIONS 64u
#define CASES 128u

/* A line for each function; the sweep of `monitor` comes on top. */
struct bench_case {
    char name[40];
    const char *function;
    uint32_t workers;
    struct harness_setting settings[8];
};

static const struct bench_case functions[] = {
    {"monitor", "monitor", 1, {{NULL, 0}}},
    {"nat", "nat", 1, {{NULL, 0}}},
    {"ratelimit", "ratelimit", 1, {{"user_kbps", 100000000}, {"total_kbps", 100000000}, {NULL, 0}}},
    {"firewall", "firewall", 1, {{NULL, 0}}},
    {"lb", "lb", 1, {{NULL, 0}}},
    {"lb-least", "lb", 1, {{"least", 1}, {NULL, 0}}},
    {"chain", "chain", 1, {{"nat", 0}, {"firewall", 0}, {"monitor", 0}, {NULL, 0}}},
    {"monitor-pthread", "monitor-pthread", 1, {{"sample_every", 0}, {NULL, 0}}},
    {"nat-pthread", "nat-pthread", 1, {{NULL, 0}}},
    {"wanopt", "wanopt", 1, {{NULL, 0}}},
    {"ids", "ids", 1, {{NULL, 0}}},
};

struct bench_worker {
    struct bench *bench;
    struct ftmb_ctx *ctx;
    uint64_t now;
    uint32_t next;
    uint8_t frame[FTMB_BURST][FRAME_BYTES];
    uint64_t vectors[FTMB_BURST][FTMB_MAX_WORKERS];
    uint64_t *sent; /* where a burst's PALs are copied to */
    uint64_t packets, pals;
    double ns; /* of the latest piece, for a packet */
    pthread_t thread;
};

struct bench {
    struct harness h;
    struct bench_worker worker[2];
    uint8_t template[HARNESS_FRAME];
    uint32_t length;
    uint64_t piece_ns;
    uint64_t limit; /* packets; 0: for piece_ns */
    pthread_barrier_t start;
};

static uint16_t drawn[DRAWN];

static uint64_t clock_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    rounds < 64 ? cpu_relax() : (void)sched_yield();
}

static const struct ctx_env waiting = {.relax = relax};

static void pin(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        fprintf(stderr, "processor %u is not there: not pinned\n", cpu);
}

/* The checksums are wrong, which costs the same. A worker has every other flow. */
static void set_flow(const struct bench *b, uint8_t *frame, uint32_t flow)
{
    memcpy(frame, b->template, b->length);
    uint32_t address = __builtin_bswap32(0x0a000000 + flow / 64);
    uint16_t port = __builtin_bswap16((uint16_t)(1024 + flow % 64));
    memcpy(frame + 14 + 12, &address, 4);
    memcpy(frame + 34, &port, 2);
}

static void burst(struct bench *b, struct bench_worker *w)
{
    const struct nf *nf = b->h.nf;
    struct ftmb_ctx *ctx = w->ctx;
    struct nf_packet packet[FTMB_BURST];
    for (unsigned i = 0; i < FTMB_BURST; i++) {
        uint32_t flow = drawn[w->next++ % DRAWN] / b->h.workers * b->h.workers + ctx->worker;
        set_flow(b, w->frame[i], flow % FLOWS);
        packet[i] = (struct nf_packet){
            .data = w->frame[i], .length = b->length, .capacity = FRAME_BYTES, .port = NF_INSIDE};
    }
    for (unsigned stage = 0; nf->prefetch && stage < 2; stage++) {
        for (unsigned i = 0; i < FTMB_BURST; i++)
            nf->prefetch(ctx, &packet[i], stage);
    }
    ctx->pal_count = 0;
    for (unsigned i = 0; i < FTMB_BURST; i++) {
        ctx->now_ns = ctx->cursor->now_ns = w->now += 500;
        ctx->cursor->next_input++;
        ctx->emitted = NULL;
        nf->process(ctx, &packet[i]);
        FTMB_ASSERT(ctx->emitted);
        if (ctx->mode == ACCESS_LOG)
            shared_vector(ctx, w->vectors[i]);
    }
    memcpy(w->sent, ctx->pals, ctx->pal_count * sizeof(uint64_t));
    w->packets += FTMB_BURST;
    w->pals += ctx->pal_count;
}

/* All workers begin together, and none measures what it does when the other has ended. */
static void *piece(void *self)
{
    struct bench_worker *w = self;
    struct bench *b = w->bench;
    pin(w->ctx->worker);
    pthread_barrier_wait(&b->start);
    uint64_t begun = clock_of(CLOCK_THREAD_CPUTIME_ID), packets = 0;
    uint64_t end = clock_of(CLOCK_MONOTONIC) + b->piece_ns;
    do {
        for (unsigned i = 0; i < 32; i++)
            burst(b, w);
        packets += 32 * FTMB_BURST;
    } while (b->limit ? packets < b->limit : clock_of(CLOCK_MONOTONIC) < end);
    w->ns = (double)(clock_of(CLOCK_THREAD_CPUTIME_ID) - begun) / (double)packets;
    return NULL;
}

/* Nanoseconds of a packet, the mean of the workers. */
static double measure(struct bench *b, enum access_mode mode)
{
    double sum = 0;
    for (uint32_t w = 0; w < b->h.workers; w++) {
        b->worker[w].ctx->mode = (uint8_t)mode;
        b->worker[w].packets = b->worker[w].pals = 0;
        CHECK(pthread_create(&b->worker[w].thread, NULL, piece, &b->worker[w]) == 0);
    }
    for (uint32_t w = 0; w < b->h.workers; w++) {
        CHECK(pthread_join(b->worker[w].thread, NULL) == 0);
        sum += b->worker[w].ns;
    }
    return sum / b->h.workers;
}

static void bench_open(struct bench *b, const struct bench_case *c)
{
    memset(b, 0, sizeof(*b));
    harness_open(&b->h, c->function, c->workers, c->settings);
    CHECK(pthread_barrier_init(&b->start, NULL, c->workers) == 0);
    struct frame_spec spec = {.protocol = 17,
                              .source = 0x0a000001,
                              .destination = 0xc0000201,
                              .source_port = 1024,
                              .destination_port = 80,
                              .payload = 18};
    b->length = frame_build(b->template, &spec, 1);
    for (uint32_t flow = 0; flow < FLOWS; flow++) {
        uint8_t frame[FRAME_BYTES];
        set_flow(b, frame, flow);
        b->h.now += 1000;
        CHECK(harness_packet(&b->h, flow % c->workers, NF_INSIDE, frame, b->length));
    }
    for (uint32_t i = 0; i < c->workers; i++) {
        struct bench_worker *w = &b->worker[i];
        w->bench = b;
        w->ctx = &b->h.ctx[i];
        w->now = b->h.now;
        w->ctx->env = &waiting;
        w->ctx->pal_capacity = FTMB_BURST * b->h.needs.max_pals + 1;
        w->ctx->pals = calloc(w->ctx->pal_capacity, sizeof(uint64_t));
        w->sent = calloc(w->ctx->pal_capacity, sizeof(uint64_t));
        CHECK(w->ctx->pals && w->sent);
    }
}

static void bench_close(struct bench *b)
{
    for (uint32_t w = 0; w < b->h.workers; w++) {
        free(b->worker[w].ctx->pals);
        free(b->worker[w].sent);
    }
    pthread_barrier_destroy(&b->start);
    harness_checks(&b->h);
    harness_close(&b->h);
}

/* monitor with 0 to 10 accesses a packet, alone or sharing, with 0, half or all of them reads. */
static uint32_t all_cases(struct bench_case *cases)
{
    static const uint32_t accesses[] = {0, 1, 2, 3, 5, 7, 10};
    uint32_t count = sizeof(functions) / sizeof(functions[0]);
    memcpy(cases, functions, sizeof(functions));
    for (uint32_t workers = 1; workers <= 2; workers++) {
        for (uint32_t reads = 0; reads <= 100; reads += 50) {
            for (unsigned a = 0; a < sizeof(accesses) / sizeof(accesses[0]); a++) {
                struct bench_case *c = &cases[count++];
                CHECK(count < CASES);
                *c = (struct bench_case){
                    .function = "monitor",
                    .workers = workers,
                    .settings = {{"counters_per_packet", accesses[a]}, {"reads", reads}}};
                snprintf(c->name, sizeof(c->name), "sweep-%u-%u-%u", workers, reads, accesses[a]);
            }
        }
    }
    return count;
}

struct row {
    double ns[2][REPETITIONS];
    double pals; /* of a packet */
};

static void run_case(const struct bench_case *c, uint64_t piece_ns, unsigned repetition,
                     struct row *row)
{
    static struct bench b;
    bench_open(&b, c);
    b.piece_ns = piece_ns;
    measure(&b, ACCESS_LOG); /* warm */
    row->pals = (double)b.worker[0].pals / (double)b.worker[0].packets;
    for (unsigned i = 0; i < 2; i++) {
        enum access_mode mode = (i ^ repetition) & 1 ? ACCESS_LOG : ACCESS_PLAIN;
        row->ns[mode == ACCESS_LOG][repetition] = measure(&b, mode);
    }
    bench_close(&b);
}

static void print_row(const struct bench_case *c, const struct row *row, unsigned repetitions,
                      bool last)
{
    printf("  {\"name\": \"%s\", \"function\": \"%s\", \"workers\": %u, \"pals\": %.4f", c->name,
           c->function, c->workers, row->pals);
    for (unsigned mode = 0; mode < 2; mode++) {
        printf(", \"%s_ns\": [", mode ? "ftmb" : "none");
        for (unsigned r = 0; r < repetitions; r++)
            printf("%s%.2f", r ? ", " : "", row->ns[mode][r]);
        printf("]");
    }
    printf("}%s\n", last ? "" : ",");
}

static int count_instructions(const struct bench_case *c, const char *mode, uint64_t packets)
{
    static struct bench b;
    bench_open(&b, c);
    b.limit = packets;
    measure(&b, strcmp(mode, "ftmb") == 0 ? ACCESS_LOG : ACCESS_PLAIN);
    bench_close(&b);
    return 0;
}

int main(int argc, char **argv)
{
    static struct bench_case cases[CASES];
    static struct row rows[CASES];
    uint32_t count = all_cases(cases);
    uint64_t seed = 1;
    for (unsigned i = 0; i < DRAWN; i++)
        drawn[i] = (uint16_t)(test_random(&seed) % FLOWS);
    if (argc > 1 && strcmp(argv[1], "list") == 0) {
        for (uint32_t i = 0; i < count; i++)
            puts(cases[i].name);
        return 0;
    }
    if (argc == 5 && strcmp(argv[1], "count") == 0) {
        for (uint32_t i = 0; i < count; i++) {
            if (strcmp(cases[i].name, argv[2]) == 0)
                return count_instructions(&cases[i], argv[3], strtoull(argv[4], NULL, 0));
        }
        fprintf(stderr, "bench_functions: there is no case '%s'\n", argv[2]);
        return 2;
    }
    uint64_t piece_ns = (argc > 1 ? strtoull(argv[1], NULL, 0) : 10) * MS;
    unsigned repetitions = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 15;
    CHECK(repetitions >= 1 && repetitions <= REPETITIONS);
    for (unsigned r = 0; r < repetitions; r++) {
        for (uint32_t i = 0; i < count; i++)
            run_case(&cases[i], piece_ns, r, &rows[i]);
    }
    printf("{\"version\": 1, \"kind\": \"bench_functions\", \"piece_ms\": %llu, \"rows\": [\n",
           (unsigned long long)(piece_ns / MS));
    for (uint32_t i = 0; i < count; i++)
        print_row(&cases[i], &rows[i], repetitions, i + 1 == count);
    puts("]}");
    return 0;
}

/* Network functions under real concurrency: several threads as workers, logged; then the same
 * inputs again, in the logged order, from an empty state. Everything must come out the same, byte
 * for byte: each output, and the whole arena. Then once more with the logs cut off somewhere, as
 * a crash does: the replay goes on freely and the state stays sound. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "core/replay.h"
#include "tests/nf_harness.h"
#include "tests/odd_nf.h"
#include "tests/wanopt_frames.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#define WORKERS 3u
#define INPUTS 12000u
#define LOG_CAPACITY (INPUTS * 64u)

struct worker {
    struct ftmb_ctx ctx;
    const struct nf *nf;
    uint64_t seed;
    uint64_t digest; /* of all outputs, in order */
    uint64_t outputs;
    pthread_barrier_t *start;
    pthread_t thread;
};

struct run {
    struct harness h; /* the arena; its contexts are not used */
    struct worker workers[WORKERS];
    pthread_barrier_t start;
};

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    if (rounds > 100)
        sched_yield();
    else
        cpu_relax();
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    fprintf(stderr, "worker %u diverged: %s (pal %llx, variable %u)\n", worker, why,
            (unsigned long long)pal, id);
    exit(1);
}

static struct wanopt_frames wanopt_frames;

static const struct ctx_env env = {.relax = relax, .diverged = diverged};

static void digest(struct worker *worker, const struct nf_packet *packet)
{
    uint64_t d = worker->digest ^ packet->port;
    for (uint32_t i = 0; i < packet->length; i++)
        d = (d ^ packet->data[i]) * 0x100000001b3ull;
    worker->digest = d;
    worker->outputs++;
}

/* The i-th input depends on worker and i only. Inside hosts are shared by all workers, as they
 * are when hosts talk to several servers; packets from outside go to any of the few endpoints. */
static uint32_t input(struct worker *worker, uint8_t *frame, enum nf_port *port)
{
    uint64_t r = test_random(&worker->seed);
    if (strcmp(worker->nf->name, "wanopt") == 0) {
        worker->ctx.now_ns += (r >> 48) % 65536;
        return wanopt_frames_draw(&wanopt_frames, r, frame, port);
    }
    const uint8_t protocols[3] = {17, 6, 1};
    const uint8_t flags[4] = {2, 16, 17, 4};
    static const char *const payloads[4] = {"--../../", "../-----", "--------", "/etc/pas"};
    *port = r % 3 == 0 ? NF_OUTSIDE : NF_INSIDE;
    struct frame_spec spec = {.protocol = protocols[(r >> 8) % 3],
                              .source = 0x0a000001 + (r >> 16) % 40,
                              .source_port = 3000,
                              .destination = 0xc0000201,
                              .destination_port = 80,
                              .payload = 8,
                              .tcp_flags = flags[(r >> 24) % 4],
                              .icmp_type = 8};
    if (*port == NF_OUTSIDE) {
        spec.source = 0xc0000201;
        spec.destination = 0xc6120001 + (r >> 32) % 4;
        spec.destination_port = spec.source_port = (uint16_t)(1024 + (r >> 40) % 16);
        spec.icmp_type = 0;
    }
    worker->ctx.now_ns += (r >> 48) % 65536 * 6; /* 0.2 ms: mappings expire all the time */
    bool nat = strcmp(worker->nf->name, "nat") == 0;
    if (nat && *port == NF_INSIDE && r % 7 == 0) { /* to another inside host */
        spec.destination = 0xc6120001 + (r >> 32) % 4;
        spec.destination_port = (uint16_t)(1024 + (r >> 40) % 16);
    }
    uint32_t length = frame_build(frame, &spec, r);
    memcpy(frame + length - 8, payloads[(r >> 56) % 4], 8); /* parts of what `ids` looks for */
    if (nat && r % 11 < 4) { /* the first fragment, or another, of the flow's one datagram */
        frame[18] = frame[19] = 0;
        frame[20] = r % 11 == 0 ? 0x20 : 0;
        frame[21] = r % 11 == 0 ? 0 : 2;
    }
    return length;
}

static void *work(void *self)
{
    struct worker *worker = self;
    struct ftmb_ctx *ctx = &worker->ctx;
    uint64_t yields = (uintptr_t)worker ^ worker->seed;
    pthread_barrier_wait(worker->start);
    for (unsigned i = 0; i < INPUTS; i++) {
        uint8_t frame[HARNESS_FRAME];
        enum nf_port port;
        uint32_t length = input(worker, frame, &port);
        struct nf_packet packet = {frame, length, HARNESS_FRAME, (uint8_t)port};
        ctx->emitted = NULL;
        ctx->cursor->now_ns = ctx->now_ns;
        if (i % 10 == 9 && worker->nf->tick)
            worker->nf->tick(ctx);
        else
            worker->nf->process(ctx, &packet);
        CHECK(ctx->held_count == 0);
        if (ctx->emitted)
            digest(worker, &packet);
        if (test_random(&yields) % 4 == 0)
            sched_yield(); /* more interleavings on few cores, others in every run */
    }
    return NULL;
}

static void open_run(struct run *run, const struct nf *nf, const struct harness_setting *settings,
                     uint64_t seed, bool locked, struct replay *replay)
{
    harness_open_nf(&run->h, nf, WORKERS, settings);
    pthread_barrier_init(&run->start, NULL, WORKERS);
    for (uint32_t w = 0; w < WORKERS; w++) {
        struct worker *worker = &run->workers[w];
        *worker = (struct worker){.ctx = run->h.ctx[w],
                                  .nf = run->h.nf,
                                  .seed = seed + w * 1000003,
                                  .start = &run->start};
        worker->ctx.pals = calloc(LOG_CAPACITY, sizeof(uint64_t));
        CHECK(worker->ctx.pals);
        worker->ctx.pal_capacity = LOG_CAPACITY;
        worker->ctx.env = &env;
        worker->ctx.reads_locked = locked;
        worker->ctx.replay = replay;
        worker->ctx.now_ns = 1000 * SECOND + w * 3 * MS; /* stamps are not in step */
    }
}

/* Did what is hard to replay happen often? */
static void check_eventful(struct run *run)
{
    const char *name = run->h.nf->name;
    if (strncmp(name, "nat", 3) == 0)
        CHECK(harness_counter(&run->h, "mappings_expired") > 1000);
    if (strcmp(name, "nat") == 0)
        CHECK(harness_counter(&run->h, "hairpinned") > 100 &&
              harness_counter(&run->h, "fragments") > 100 &&
              harness_counter(&run->h, "datagrams_forgotten") > 100);
    if (strcmp(name, "ratelimit") == 0)
        CHECK(harness_counter(&run->h, "dropped_user") + harness_counter(&run->h, "dropped_total") >
              1000); /* which of them, the interleaving says */
    if (strcmp(name, "lb") == 0)
        CHECK(harness_counter(&run->h, "ended") > 1000);
    if (strcmp(name, "ids") == 0)
        CHECK(harness_counter(&run->h, "half_ended") > 500 &&
              harness_counter(&run->h, "rule_traversal") > 50 &&
              harness_counter(&run->h, "scanners") > 100 &&
              harness_counter(&run->h, "dropped_flood") > 100);
    if (strcmp(name, "wanopt") == 0)
        CHECK(harness_counter(&run->h, "shortened") > 1000 &&
              harness_counter(&run->h, "restored") > 1000 &&
              harness_counter(&run->h, "dropped_missing") > 1000 &&
              harness_counter(&run->h, "dropped_report") > 1000 &&
              harness_counter(&run->h, "dropped_bad_shim") == 0 &&
              harness_counter(&run->h, "chunks_replaced") > 1000);
    if (strcmp(name, "firewall") == 0)
        CHECK(harness_counter(&run->h, "ended") > 1000 &&
              harness_counter(&run->h, "dropped_half_open") > 10);
    if (strcmp(name, "chain") == 0)
        CHECK(harness_counter(&run->h, "nat.mappings_expired") > 0 &&
              harness_counter(&run->h, "firewall.dropped_state") > 0 &&
              harness_counter(&run->h, "ratelimit.dropped_user") > 1000);
}

static void execute(struct run *run)
{
    for (uint32_t w = 0; w < WORKERS; w++)
        CHECK(!pthread_create(&run->workers[w].thread, NULL, work, &run->workers[w]));
    for (uint32_t w = 0; w < WORKERS; w++)
        CHECK(!pthread_join(run->workers[w].thread, NULL));
    harness_checks(&run->h);
    check_eventful(run);
    harness_retire(&run->h);
}

static void close_run(struct run *run)
{
    for (uint32_t w = 0; w < WORKERS; w++)
        free(run->workers[w].ctx.pals);
    pthread_barrier_destroy(&run->start);
    harness_close(&run->h);
}

/* Give `replay` the logs of `first`, up to `share` 256ths of each. */
static void load(struct replay *replay, const struct run *first, uint64_t share, uint64_t *total)
{
    uint64_t slots = 0;
    for (uint32_t w = 0; w < WORKERS; w++)
        slots += first->workers[w].ctx.pal_count;
    CHECK(replay_init(replay, WORKERS, first->h.needs.variables, slots) == REPLAY_OK);
    for (uint32_t w = 0; w < WORKERS; w++) {
        const struct ftmb_ctx *ctx = &first->workers[w].ctx;
        uint64_t count = ctx->pal_count * (share - w * 7 * (share < 256)) / 256;
        while (count < ctx->pal_count && count > 0 && (ctx->pals[count] & PAL_INSIDE))
            count--; /* a frame never ends inside a section */
        replay->log[w] = ctx->pals;
        replay->count[w] = count;
    }
    *total = slots;
}

static void test_function(const struct nf *nf, const struct harness_setting *settings,
                          uint64_t seed, bool locked)
{
    struct run *runs = calloc(3, sizeof(*runs));
    CHECK(runs);
    struct replay replay;
    uint64_t pals, waits = 0;
    open_run(&runs[0], nf, settings, seed, locked, NULL);
    execute(&runs[0]);

    load(&replay, &runs[0], 256, &pals);
    open_run(&runs[1], nf, settings, seed, locked, &replay);
    CHECK(replay_prepare(&replay, arena_seq(runs[1].h.arena)) == REPLAY_OK);
    execute(&runs[1]);
    CHECK(replay_done(&replay));
    for (uint32_t w = 0; w < WORKERS; w++) {
        CHECK(runs[1].workers[w].ctx.pal_count == 0);
        CHECK(runs[0].workers[w].outputs == runs[1].workers[w].outputs);
        CHECK(runs[0].workers[w].digest == runs[1].workers[w].digest);
        waits += runs[0].workers[w].ctx.waits;
    }
    CHECK(memcmp(runs[0].h.arena, runs[1].h.arena, runs[0].h.arena_size) == 0);
    replay_free(&replay);

    load(&replay, &runs[0], 150, &pals);
    open_run(&runs[2], nf, settings, seed, locked, &replay);
    CHECK(replay_cut(&replay, arena_seq(runs[2].h.arena)) == REPLAY_OK);
    CHECK(replay_prepare(&replay, arena_seq(runs[2].h.arena)) == REPLAY_OK);
    uint64_t kept = replay.count[0] + replay.count[1] + replay.count[2];
    execute(&runs[2]);
    CHECK(replay_done(&replay) && kept < pals);
    printf("%s%s: %llu accesses, %llu waited, %llu kept by the cut\n", nf->name,
           locked ? ", reads locked" : "", (unsigned long long)pals, (unsigned long long)waits,
           (unsigned long long)kept);
    replay_free(&replay);
    for (unsigned i = 0; i < 3; i++)
        close_run(&runs[i]);
    free(runs);
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed(argc, argv);
    const struct harness_setting nat[] = {{"capacity", 48},      {"udp_ms", 10},  {"tcp_ms", 20},
                                          {"transitory_ms", 10}, {"icmp_ms", 10}, {"datagrams", 8},
                                          {"datagram_ms", 10},   {NULL, 0}};
    const struct harness_setting monitor[] = {
        {"counters_per_packet", 3}, {"workers_per_counter", 2}, {"flows", 64}, {NULL, 0}};
    const struct harness_setting reading[] = {
        {"counters_per_packet", 3}, {"reads", 40}, {"flows", 64}, {NULL, 0}};
    /* 0.2 ms between packets of a worker: a user is over the limit as often as not. */
    const struct harness_setting ratelimit[] = {{"users", 16},        {"user_kbps", 100},
                                                {"user_burst", 200},  {"total_kbps", 2000},
                                                {"total_burst", 500}, {NULL, 0}};
    const struct harness_setting firewall[] = {
        {"capacity", 16}, {"half_open", 8}, {"window", 0},         {"udp_ms", 10},
        {"tcp_ms", 20},   {"icmp_ms", 10},  {"transitory_ms", 10}, {NULL, 0}};
    const struct harness_setting lb[] = {{"capacity", 24}, {"least", 1},   {"table", 251},
                                         {"udp_ms", 10},   {"tcp_ms", 10}, {"closing_ms", 10},
                                         {NULL, 0}};
    const struct harness_setting chain[] = {
        {"nat", 0},      {"capacity", 48}, {"udp_ms", 10},      {"tcp_ms", 20},     {"icmp_ms", 10},
        {"firewall", 0}, {"capacity", 16}, {"window", 0},       {"udp_ms", 10},     {"tcp_ms", 20},
        {"icmp_ms", 10}, {"ratelimit", 0}, {"user_burst", 200}, {"user_kbps", 100}, {"monitor", 0},
        {"flows", 64},   {NULL, 0}};
    const struct harness_setting ids[] = {{"drop", 1},      {"capacity", 80},      {"sources", 16},
                                          {"half_open", 4}, {"columns", 16},       {"rows", 3},
                                          {"udp_ms", 10},   {"transitory_ms", 10}, {"tcp_ms", 10},
                                          {"window_ms", 5}, {"scan_ports", 3},     {NULL, 0}};
    const struct harness_setting mortal[] = {{"draws", 3}, {NULL, 0}};
    const struct harness_setting wanopt[] = {{"capacity", 40}, {"min_chunk", 32}, {NULL, 0}};
    wanopt_frames_make(&wanopt_frames, wanopt);
    for (unsigned locked = 0; locked < 2; locked++) {
        test_function(nf_find("nat"), nat, seed, locked);
        test_function(nf_find("monitor"), monitor, seed, locked);
        test_function(nf_find("monitor"), reading, seed, locked);
        test_function(nf_find("ratelimit"), ratelimit, seed, locked);
        test_function(nf_find("firewall"), firewall, seed, locked);
        test_function(nf_find("lb"), lb, seed, locked);
        test_function(nf_find("chain"), chain, seed, locked);
        test_function(nf_find("ids"), ids, seed, locked);
        test_function(nf_find("wanopt"), wanopt, seed, locked);
        test_function(nf_find("mortal"), mortal, seed, locked);
#ifndef FTMB_TSAN /* its arena lies where the thread sanitizer allows no mapping */
        const struct harness_setting plain[] = {{"flows", 64}, {"sample_every", 5}, {NULL, 0}};
        test_function(nf_find("monitor-pthread"), plain, seed, locked);
        test_function(nf_find("nat-pthread"), nat, seed, locked);
        test_function(&nf_odd, NULL, seed, locked);
#endif
    }
    return 0;
}

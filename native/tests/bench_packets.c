/* See bench_packets.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/bench_packets.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "io/slices.h"
#include "traffic/pick.h"

#define DRAWN (1u << 21)
#define UNDO_ENTRIES ((16u << 20) / sizeof(struct undo_entry))
#define PORTS 40000u

uint64_t bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

void bench_pin(unsigned core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        fprintf(stderr, "core %u is not there: not pinned\n", core);
}

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    rounds < 64 ? cpu_relax() : (void)sched_yield();
}

static uint64_t clock_of(void *env)
{
    (void)env;
    return bench_now();
}

/* Their checksums are wrong, which costs the same. */
static void set_flow(const struct bench_packets *b, uint8_t *frame, uint32_t flow)
{
    memcpy(frame, b->template, 60);
    uint32_t address = __builtin_bswap32(0x0a000000 + flow / PORTS);
    uint16_t port = __builtin_bswap16((uint16_t)(1024 + flow % PORTS));
    memcpy(frame + 14 + 12, &address, 4);
    memcpy(frame + 34, &port, 2);
}

static void open_function(struct bench_packets *b, const char *nf, uint32_t workers,
                          uint64_t megabytes)
{
    uint64_t bytes = megabytes << 20;
    if (strcmp(nf, "nat") == 0) {
        uint64_t capacity = bytes / 46; /* slot, bucket, ring, and the rest */
        struct harness_setting nat[] = {
            {"capacity", capacity}, {"addresses", capacity / 64000 + 1}, {NULL, 0}};
        harness_open(&b->h, nf, workers, nat);
        b->flows = (uint32_t)(capacity / 20 * 18);
    } else {
        uint64_t flows = bytes / 32 / workers * 3 / 4; /* of a worker: a full table */
        struct harness_setting monitor[] = {{"flows", flows}, {NULL, 0}};
        harness_open(&b->h, nf, workers, monitor);
        b->flows = (uint32_t)(flows * workers);
    }
}

static void *mapped(uint64_t bytes)
{
    uint64_t huge = align_up(bytes, 2u << 20);
    void *memory = aligned_alloc(2u << 20, huge);
    CHECK(memory);
    madvise(memory, huge, MADV_HUGEPAGE);
    memset(memory, 0, huge);
    return memory;
}

static void open_worker(struct bench_packets *b, uint32_t index, struct pick *pick)
{
    struct bench_worker *w = &b->worker[index];
    uint32_t workers = b->h.workers;
    w->ctx = &b->h.ctx[index];
    w->ctx->env = &b->env;
    w->ctx->epochs = &b->group;
    w->ctx->pal_capacity = FTMB_BURST * b->h.needs.max_pals;
    w->ctx->pals = calloc(w->ctx->pal_capacity + 1, sizeof(uint64_t));
    w->flow = mapped(DRAWN * sizeof(*w->flow));
    w->now = b->h.now;
    for (uint32_t i = 0; i < DRAWN; i++)
        w->flow[i] = pick_place(pick, pick_take(pick, pick_draw(pick))) / workers * workers + index;
    epoch_sit(w->ctx);
}

void bench_open(struct bench_packets *b, const char *nf, uint32_t workers, uint64_t megabytes,
                double zipf)
{
    memset(b, 0, sizeof(*b));
    ask_for_short_slices(); /* as the data plane does it where cores are shared */
    open_function(b, nf, workers, megabytes);
    b->env = (struct ctx_env){.relax = relax, .clock = clock_of};
    b->group.workers = workers;
    struct frame_spec spec = {.protocol = 17,
                              .source = 0x0a000001,
                              .destination = 0xc0000201,
                              .source_port = 1024,
                              .destination_port = 80,
                              .payload = 18};
    b->length = frame_build(b->template, &spec, 1);
    b->flows = b->flows / workers * workers;
    for (uint32_t f = 0; f < b->flows; f++) {
        uint8_t frame[BENCH_FRAME];
        set_flow(b, frame, f);
        CHECK(harness_packet(&b->h, f % workers, NF_INSIDE, frame, b->length));
    }
    b->marks_bytes = marks_bytes(b->h.arena_size, workers, UNDO_ENTRIES);
    b->marks_memory = mapped(b->marks_bytes);
    marks_create(&b->marks, b->h.arena, b->marks_memory, UNDO_ENTRIES);
    struct pick pick;
    CHECK(pick_init(&pick, b->flows, zipf, 1) == 0);
    for (uint32_t w = 0; w < workers; w++)
        open_worker(b, w, &pick);
    pick_free(&pick);
}

void bench_close(struct bench_packets *b)
{
    for (uint32_t w = 0; w < b->h.workers; w++) {
        free(b->worker[w].ctx->pals);
        free(b->worker[w].flow);
    }
    free(b->marks_memory);
    harness_close(&b->h);
}

static void fill_burst(struct bench_packets *b, struct bench_worker *w, struct nf_packet *packet)
{
    const struct nf *nf = b->h.nf;
    for (unsigned i = 0; i < FTMB_BURST; i++) {
        set_flow(b, w->frame[i], w->flow[w->next++ % DRAWN]);
        packet[i] = (struct nf_packet){
            .data = w->frame[i], .length = b->length, .capacity = BENCH_FRAME, .port = NF_INSIDE};
    }
    for (unsigned stage = 0; nf->prefetch && stage < 2; stage++) {
        for (unsigned i = 0; i < FTMB_BURST; i++)
            nf->prefetch(w->ctx, &packet[i], stage);
    }
    w->ctx->pal_count = 0;
}

static void one(struct bench_packets *b, struct bench_worker *w, struct nf_packet *packet)
{
    struct ftmb_ctx *ctx = w->ctx;
    ctx->now_ns = ctx->cursor->now_ns = w->now += 100;
    ctx->cursor->next_input++;
    ctx->cursor->packets++;
    ctx->emitted = NULL;
    b->h.nf->process(ctx, packet);
    FTMB_ASSERT(ctx->emitted);
}

void bench_burst(struct bench_packets *b, uint32_t worker)
{
    struct bench_worker *w = &b->worker[worker];
    struct nf_packet packet[FTMB_BURST];
    fill_burst(b, w, packet);
    while (!epoch_enter(w->ctx) && !epoch_turn(w->ctx))
        cpu_relax();
    for (unsigned i = 0; i < FTMB_BURST; i++) {
        while (!epoch_same(w->ctx) && !epoch_turn(w->ctx))
            cpu_relax();
        one(b, w, &packet[i]);
    }
    epoch_leave(w->ctx);
}

void bench_burst_alone(struct bench_packets *b, uint32_t worker)
{
    struct bench_worker *w = &b->worker[worker];
    struct nf_packet packet[FTMB_BURST];
    fill_burst(b, w, packet);
    for (unsigned i = 0; i < FTMB_BURST; i++)
        one(b, w, &packet[i]);
}

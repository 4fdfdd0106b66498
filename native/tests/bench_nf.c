/* Time per packet of the network functions, one thread, logging on and off. Not a test: run it by
 * hand (bench_nf [seconds per case]). Packets of uniformly random flows, 60 bytes, built in a
 * buffer that is refilled from a template; the cost of that alone is measured and subtracted. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "nf/nf.h"
#include "tests/nf_harness.h"

#include <string.h>
#include <time.h>

#define BURST 32u

struct bench {
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    uint32_t length;
    uint32_t flows;
    uint64_t rng;
    uint32_t (*endpoints)[2]; /* outside endpoint of each flow, for the way back */
};

/* Of this thread: the machine may be shared. */
static uint64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* xorshift: the harness's generator would cost as much as a packet. */
static uint32_t pick(struct bench *b)
{
    b->rng ^= b->rng << 13;
    b->rng ^= b->rng >> 7;
    b->rng ^= b->rng << 17;
    return (uint32_t)((b->rng >> 32) * b->flows >> 32);
}

/* Put flow `f` into the frame. Its checksums are wrong, which costs the same. */
static void set_flow(struct bench *b, uint8_t *frame, uint32_t f, bool inbound)
{
    memcpy(frame, b->frame, 60);
    uint32_t address = __builtin_bswap32(0x0a000000 + f / 40000);
    uint16_t port = __builtin_bswap16((uint16_t)(1024 + f % 40000));
    if (inbound) {
        memcpy(frame + 14 + 16, &b->endpoints[f][0], 4);
        memcpy(frame + 34 + 2, &b->endpoints[f][1], 2);
    } else {
        memcpy(frame + 14 + 12, &address, 4);
        memcpy(frame + 34, &port, 2);
    }
}

static void one(struct bench *b, uint32_t f, bool inbound, bool idle, uint64_t *sum)
{
    static uint8_t ring[BURST][128];
    static uint32_t at;
    struct ftmb_ctx *ctx = &b->h.ctx[0];
    uint8_t *frame = ring[at++ % BURST];
    set_flow(b, frame, f, inbound);
    if (idle) {
        *sum += frame[35];
        return;
    }
    struct nf_packet packet = {.data = frame,
                               .length = b->length,
                               .capacity = 128,
                               .port = inbound ? NF_OUTSIDE : NF_INSIDE};
    ctx->now_ns = b->h.now += 500;
    ctx->pal_count = 0;
    ctx->emitted = NULL;
    b->h.nf->process(ctx, &packet);
    CHECK(ctx->emitted);
    *sum += ctx->pal_count;
}

/* Nanoseconds per packet. */
static double measure(struct bench *b, double seconds, bool inbound, bool idle, uint64_t *sum)
{
    uint64_t count = 0, start = clock_now(), end = start + (uint64_t)(seconds * 1e9), now;
    do {
        for (unsigned i = 0; i < 4096; i++)
            one(b, pick(b), inbound, idle, sum);
        count += 4096;
        now = clock_now();
    } while (now < end);
    return (double)(now - start) / (double)count;
}

static void bench_case(const char *nf, uint32_t flows, double seconds)
{
    static struct bench b;
    memset(&b, 0, sizeof(b));
    struct harness_setting nat[] = {
        {"addresses", 16}, {"capacity", flows < 65536 ? 65536 : flows}, {NULL, 0}};
    /* Samples would be work that `monitor` does not have. */
    struct harness_setting monitor[] = {
        {"flows", flows}, {"capacity", flows}, {"sample_every", 0}, {NULL, 0}};
    bool is_nat = strncmp(nf, "nat", 3) == 0;
    harness_open(&b.h, nf, 1, is_nat ? nat : monitor); /* what it has of these */
    b.flows = flows;
    b.rng = 88172645463325252ull;
    b.endpoints = calloc(flows, sizeof(*b.endpoints));
    CHECK(b.endpoints);
    struct frame_spec spec = {.protocol = 17,
                              .source = 0x0a000001,
                              .destination = 0xc0000201,
                              .source_port = 1024,
                              .destination_port = 80,
                              .payload = 18};
    b.length = frame_build(b.frame, &spec, 1);
    uint64_t sum = 0, start = clock_now();
    for (uint32_t f = 0; f < flows; f++) {
        uint8_t frame[128];
        set_flow(&b, frame, f, false);
        CHECK(harness_packet(&b.h, 0, NF_INSIDE, frame, b.length));
        uint32_t address = __builtin_bswap32(frame_address(b.h.out, false));
        b.endpoints[f][0] = address;
        b.endpoints[f][1] = __builtin_bswap16(frame_port(b.h.out, false));
    }
    double created = (double)(clock_now() - start) / flows;
    for (unsigned logged = 0; logged < 2; logged++) {
        b.h.ctx[0].mode = logged ? ACCESS_LOG : ACCESS_PLAIN;
        double floor = measure(&b, seconds / 4, false, true, &sum);
        double out = measure(&b, seconds, false, false, &sum) - floor;
        floor = measure(&b, seconds / 4, true, true, &sum);
        double in = is_nat ? measure(&b, seconds, true, false, &sum) - floor : 0;
        printf("%-15s %8u flows  %-6s  out %6.1f ns", nf, flows, logged ? "logged" : "plain", out);
        printf(is_nat ? "  in %6.1f ns" : "               ", in);
        printf("  (new flow, with the harness, %.0f ns; arena %.1f MB; %llu)\n", created,
               (double)arena_allocated(b.h.arena) / 1e6, (unsigned long long)(sum & 1));
    }
    free(b.endpoints);
    harness_close(&b.h);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1.0;
    const uint32_t flows[] = {1000, 65536, 1000000};
    static const char *const functions[] = {"nat", "nat-pthread", "monitor", "monitor-pthread",
                                            "ids"};
    for (unsigned f = 0; f < 5; f++) {
        for (unsigned i = 0; i < 3; i++)
            bench_case(functions[f], flows[i], seconds);
    }
    return 0;
}

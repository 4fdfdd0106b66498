/* Runs a program as it was written, before anything is injected into it: with the C library's locks
 * and clock, in threads of its own, over packets that are made here. `ftmb check-nf` builds it with
 * the thread sanitizer, which tells the races.
 *
 *   check SECONDS THREADS SEED [PARAMETER=VALUE...]
 *
 * The program is called as FTMB calls it, through its `struct nf` (linked as `checked_nf`), whose
 * calls of the runtime do nothing here. As under FTMB, the packets of a flow from inside all meet
 * the same thread; what comes from outside meets any. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "inject/inject.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FRAME_BYTES 2048u
#define FLOWS 64u /* of a thread and a protocol, at a time */

struct worker {
    struct ftmb_ctx ctx;
    pthread_t thread;
    uint64_t random;
    uint64_t packets;
    uint64_t forwarded;
    uint8_t last[64]; /* head of what was forwarded last to the outside */
};

extern const struct nf checked_nf;
static struct arena arena;
static struct worker workers[FTMB_MAX_WORKERS];
static double seconds;
static unsigned failed;

/* ---- the runtime, for a program into which nothing was injected ------------------------------ */

bool inject_needs(const struct inject_image *image, uint64_t heap, uint32_t max_pals,
                  struct nf_needs *out, char *why)
{
    (void)image;
    (void)why;
    *out = (struct nf_needs){.shared_bytes = heap, .max_pals = max_pals, .max_outputs = 1};
    return true;
}

bool inject_open(struct arena *unused, const struct inject_image *image, uint64_t heap)
{
    (void)unused;
    (void)image;
    (void)heap;
    return true;
}

void *inject_opened(void)
{
    return &arena;
}

void inject_enter(struct ftmb_ctx *ctx)
{
    (void)ctx;
}

void inject_leave(void)
{
}

static void panic(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    exit(2);
}

void (*ftmb_panic)(const char *file, int line, const char *what) = panic;

/* ---- packets -------------------------------------------------------------------------------- */

static uint64_t draw(struct worker *worker)
{
    worker->random = worker->random * 6364136223846793005ull + 1442695040888963407ull;
    return worker->random >> 20;
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* An IPv4 packet without addresses and ports; its checksums are wrong, which nobody minds. */
static uint32_t build(uint8_t *frame, uint8_t protocol, bool reply, uint64_t r)
{
    static const uint8_t flags[4] = {2, 16, 17, 4}; /* SYN, ACK, FIN and ACK, RST */
    memset(frame, 0, 60);
    frame[12] = 8;
    frame[14] = 0x45;
    put16(frame + 16, 46);
    frame[22] = 64;
    frame[23] = protocol;
    if (protocol == 1)
        frame[34] = reply ? 0 : 8;
    if (protocol == 17)
        put16(frame + 38, 26);
    if (protocol == 6) {
        frame[46] = 0x50;
        frame[47] = flags[r % 4];
    }
    return 60;
}

/* Hosts are shared by all threads, flows are not; now and then there are new ones. */
static uint32_t from_inside(struct worker *worker, uint8_t *frame)
{
    static const uint8_t protocols[4] = {17, 6, 6, 1};
    uint64_t r = draw(worker);
    uint32_t length = build(frame, protocols[r % 4], false, r >> 2);
    uint64_t flow = (worker->packets / 65536 * 16 + (r >> 4) % FLOWS) * arena.workers;
    memcpy(frame + 26, (const uint8_t[4]){10, 0, 0, (uint8_t)(1 + (r >> 12) % 16)}, 4);
    memcpy(frame + 30, (const uint8_t[4]){192, 0, 2, (uint8_t)(1 + (r >> 16) % 4)}, 4);
    put16(frame + (frame[23] == 1 ? 38 : 34), 1024 + (flow + worker->ctx.worker) % 60000);
    if (frame[23] != 1)
        put16(frame + 36, (r >> 20) % 8 * 100 + 80);
    return length;
}

/* To where the latest packet seemed to come from, or to a port nearby. */
static uint32_t from_outside(struct worker *worker, uint8_t *frame)
{
    uint64_t r = draw(worker);
    const uint8_t *last = worker->last;
    uint32_t length = build(frame, last[23], true, r >> 2);
    memcpy(frame + 26, last + 30, 4);
    memcpy(frame + 30, last + 26, 4);
    unsigned at = last[23] == 1 ? 38 : 34;
    unsigned port = last[at] << 8 | last[at + 1];
    if (r % 2)
        port = 1024 + (r >> 8) % 256;
    if (last[23] == 1) {
        put16(frame + 38, port);
    } else {
        memcpy(frame + 34, last + 36, 2);
        put16(frame + 36, port);
    }
    return length;
}

static uint32_t garbage(struct worker *worker, uint8_t *frame)
{
    uint32_t length = (uint32_t)(draw(worker) % 128);
    for (uint32_t i = 0; i < length; i++)
        frame[i] = (uint8_t)draw(worker);
    if (length > 14 && length % 2)
        memcpy(frame + 12, (const uint8_t[3]){8, 0, 0x45}, 3);
    return length;
}

static void one(struct worker *worker)
{
    uint8_t frame[FRAME_BYTES];
    uint64_t r = draw(worker);
    struct nf_packet packet = {.data = frame, .capacity = FRAME_BYTES, .port = NF_INSIDE};
    if (r % 32 == 0) {
        packet.length = garbage(worker, frame);
        packet.port = r >> 8 & 1;
    } else if (r % 3 == 0 && worker->last[12]) {
        packet.length = from_outside(worker, frame);
        packet.port = NF_OUTSIDE;
    } else {
        packet.length = from_inside(worker, frame);
    }
    worker->ctx.emitted = NULL;
    checked_nf.process(&worker->ctx, &packet);
    worker->packets++;
    if (!worker->ctx.emitted)
        return;
    worker->forwarded++;
    if (packet.port == NF_OUTSIDE && packet.length >= sizeof(worker->last) - 4)
        memcpy(worker->last, packet.data, sizeof(worker->last) - 4);
}

/* ---- the run -------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *work(void *self)
{
    struct worker *worker = self;
    double end = now() + seconds;
    do {
        for (unsigned i = 0; i < 256; i++)
            one(worker);
        if (checked_nf.tick)
            checked_nf.tick(&worker->ctx);
    } while (now() < end);
    return NULL;
}

static void set_params(uint64_t *params, char **words, int count)
{
    for (unsigned i = 0; checked_nf.params[i].name; i++) {
        const struct nf_param *param = &checked_nf.params[i];
        size_t name = strlen(param->name);
        params[i] = param->value;
        for (int w = 0; w < count; w++) {
            if (strncmp(words[w], param->name, name) == 0 && words[w][name] == '=')
                params[i] = strtoull(words[w] + name + 1, NULL, 0);
        }
        if (params[i] < param->min || params[i] > param->max)
            panic(__FILE__, __LINE__, "a parameter is out of its range");
    }
}

static void counter(void *self, const char *name, uint64_t value)
{
    (void)self;
    (void)name;
    (void)value;
}

static void check(void *self, const char *name, bool ok, const char *detail)
{
    (void)self;
    if (!ok) {
        fprintf(stderr, "check %s: %s\n", name, detail);
        failed++;
    }
}

int main(int argc, char **argv)
{
    uint64_t params[NF_MAX_PARAMS], packets = 0, forwarded = 0;
    struct nf_needs needs;
    char why[160] = "";
    if (argc < 4)
        panic(__FILE__, __LINE__, "check SECONDS THREADS SEED [PARAMETER=VALUE...]");
    seconds = strtod(argv[1], NULL);
    arena.workers = (uint32_t)strtoul(argv[2], NULL, 10);
    set_params(params, argv + 4, argc - 4);
    if (!checked_nf.needs(params, arena.workers, &needs, why))
        panic(__FILE__, __LINE__, why);
    if (!checked_nf.init(&arena, params))
        panic(__FILE__, __LINE__, "the program could not be opened");
    for (uint32_t w = 0; w < arena.workers; w++) {
        struct worker *worker = &workers[w];
        worker->ctx = (struct ftmb_ctx){.arena = &arena, .worker = w, .workers = arena.workers};
        worker->random = strtoull(argv[3], NULL, 10) * 1000 + w;
    }
    for (uint32_t w = 0; w < arena.workers; w++) {
        if (pthread_create(&workers[w].thread, NULL, work, &workers[w]))
            panic(__FILE__, __LINE__, "a thread could not be started");
    }
    for (uint32_t w = 0; w < arena.workers; w++) {
        pthread_join(workers[w].thread, NULL);
        packets += workers[w].packets;
        forwarded += workers[w].forwarded;
    }
    checked_nf.report(&arena, &(struct nf_report){NULL, counter, check});
    printf("%llu packets, %llu forwarded\n", (unsigned long long)packets,
           (unsigned long long)forwarded);
    return failed ? 3 : 0;
}

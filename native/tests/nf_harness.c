/* A network function with its arena and contexts, on one thread (see nf_harness.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/nf_harness.h"

#include <string.h>
#include <sys/mman.h>

#include "nf/chain.h"

#define HUGE_PAGE (2ull << 20)

static void panic(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, what);
    exit(1);
}

static void no_waiting(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    (void)rounds;
    panic(__FILE__, __LINE__, "one thread met a variable that is taken");
}

static const struct ctx_env single_thread = {.relax = no_waiting};

static void set_param(const struct nf *nf, uint64_t *values, const struct harness_setting *setting)
{
    for (unsigned i = 0; nf->params[i].name; i++) {
        if (strcmp(setting->name, nf->params[i].name) != 0)
            continue;
        CHECK(setting->value >= nf->params[i].min && setting->value <= nf->params[i].max);
        values[i] = setting->value;
    }
}

static void set_params(struct harness *h, const struct harness_setting *settings)
{
    const struct nf *nf = h->nf;
    uint64_t *values = h->params;
    unsigned stages = 0;
    for (unsigned i = 0; nf->params[i].name; i++)
        values[i] = nf->params[i].value;
    for (const struct harness_setting *s = settings; s && s->name; s++) {
        const struct nf *stage = h->nf->stages ? nf_find(s->name) : NULL;
        if (stage) {
            nf = stage;
            values = chain_set(h->params, stages++, stage);
        } else {
            set_param(nf, values, s);
        }
    }
}

static uint64_t mapped_bytes(const struct harness *h)
{
    return align_up(h->arena_size, HUGE_PAGE);
}

/* Where there is room, or where the function wants it: then there is one such arena at a time. */
static void *map_arena(const struct harness *h)
{
    uint64_t bytes = mapped_bytes(h);
    void *memory;
    if (h->nf->placed) {
        memory = mmap(ARENA_ADDRESS, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        CHECK(memory == ARENA_ADDRESS);
    } else {
        memory = aligned_alloc(HUGE_PAGE, bytes);
        CHECK(memory);
    }
    /* As in a replica; a wish, for the benchmark's sake. */
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 0, h->arena_size);
    return memory;
}

static void unmap_arena(struct harness *h)
{
    if (h->arena == ARENA_ADDRESS)
        munmap(h->arena, mapped_bytes(h));
    else
        free(h->arena);
}

void harness_open(struct harness *h, const char *nf, uint32_t workers,
                  const struct harness_setting *settings)
{
    harness_open_nf(h, nf_find(nf), workers, settings);
}

void harness_open_nf(struct harness *h, const struct nf *nf, uint32_t workers,
                     const struct harness_setting *settings)
{
    char why[160] = "";
    ftmb_panic = panic;
    memset(h, 0, sizeof(*h));
    h->nf = nf;
    h->workers = workers;
    h->now = 1000 * SECOND;
    CHECK(h->nf);
    set_params(h, settings);
    if (!h->nf->needs(h->params, workers, &h->needs, why)) {
        fprintf(stderr, "%s: %s\n", nf->name, why);
        CHECK(!"parameters accepted");
    }
    h->arena_size =
        arena_bytes(h->needs.shared_bytes, h->needs.worker_bytes, workers, h->needs.variables);
    void *memory = map_arena(h);
    h->published = aligned_alloc(CACHE_LINE, workers * sizeof(*h->published));
    h->pals = calloc(h->needs.max_pals + 1, sizeof(*h->pals));
    CHECK(h->published && h->pals);
    memset(h->published, 0, workers * sizeof(*h->published));
    h->arena = arena_create(memory, h->arena_size, h->needs.shared_bytes, h->needs.worker_bytes,
                            workers, h->needs.variables, 0);
    CHECK(h->arena);
    uint8_t *root = h->nf->init(h->arena, h->params);
    CHECK(root);
    h->arena->root_offset = (uint64_t)(root - (uint8_t *)h->arena);
    for (uint32_t w = 0; w < workers; w++) {
        h->ctx[w] = (struct ftmb_ctx){
            .arena = h->arena,
            .cursor = &h->arena->cursors[w],
            .seq = arena_seq(h->arena),
            .worker = w,
            .workers = workers,
            .variables = h->needs.variables,
            .mode = ACCESS_LOG,
            .pals = h->pals,
            .pal_capacity = h->needs.max_pals, /* one more is a broken invariant */
            .published = h->published,
            .env = &single_thread,
        };
    }
}

void harness_retire(struct harness *h)
{
    if (h->arena != ARENA_ADDRESS)
        return;
    void *copy = aligned_alloc(HUGE_PAGE, mapped_bytes(h));
    CHECK(copy);
    memcpy(copy, h->arena, h->arena_size);
    unmap_arena(h);
    h->arena = copy;
}

void harness_close(struct harness *h)
{
    unmap_arena(h);
    free(h->published);
    free(h->pals);
}

static void begin(struct harness *h, struct ftmb_ctx *ctx)
{
    ctx->now_ns = h->now;
    ctx->cursor->now_ns = h->now;
    ctx->pal_count = 0;
    ctx->emitted = NULL;
}

static void end(struct harness *h, const struct ftmb_ctx *ctx)
{
    CHECK(ctx->held_count == 0);
    h->pal_count = ctx->pal_count;
    h->pal_total += ctx->pal_count;
    if (ctx->pal_count > h->pal_peak)
        h->pal_peak = ctx->pal_count;
}

bool harness_packet(struct harness *h, uint32_t worker, enum nf_port port, const uint8_t *frame,
                    uint32_t length)
{
    struct ftmb_ctx *ctx = &h->ctx[worker];
    uint32_t capacity = h->capacity > length ? h->capacity : length;
    uint8_t *copy = malloc(capacity ? capacity : 1);
    CHECK(copy && capacity <= HARNESS_FRAME);
    memcpy(copy, frame, length);
    struct nf_packet packet = {
        .data = copy, .length = length, .capacity = capacity, .port = (uint8_t)port};
    for (unsigned stage = 0; h->nf->prefetch && stage < 2; stage++)
        h->nf->prefetch(ctx, &packet, stage);
    begin(h, ctx);
    h->nf->process(ctx, &packet);
    end(h, ctx);
    bool forwarded = ctx->emitted != NULL;
    h->out_length = 0;
    if (forwarded) {
        CHECK(ctx->emitted == &packet && packet.length <= packet.capacity);
        h->out_length = packet.length;
        h->out_port = packet.port;
        memcpy(h->out, packet.data, packet.length);
    }
    free(copy);
    return forwarded;
}

void harness_tick(struct harness *h, uint32_t worker)
{
    begin(h, &h->ctx[worker]);
    if (h->nf->tick)
        h->nf->tick(&h->ctx[worker]);
    end(h, &h->ctx[worker]);
    CHECK(!h->ctx[worker].emitted);
}

uint32_t harness_writes(const struct harness *h)
{
    uint32_t writes = 0;
    for (uint32_t i = 0; i < h->pal_count; i++)
        writes += (h->pals[i] & PAL_WRITE) != 0;
    return writes;
}

struct wanted {
    const char *name;
    uint64_t value;
    unsigned found;
    unsigned checks;
};

static void on_counter(void *self, const char *name, uint64_t value)
{
    struct wanted *wanted = self;
    if (wanted->name && strcmp(wanted->name, name) == 0) {
        wanted->value = value;
        wanted->found++;
    }
}

static void on_check(void *self, const char *name, bool ok, const char *detail)
{
    struct wanted *wanted = self;
    wanted->checks++;
    if (!ok && !wanted->name) {
        fprintf(stderr, "check %s is false: %s\n", name, detail);
        exit(1);
    }
}

static void no_counter(void *self, const char *name, uint64_t value)
{
    (void)self;
    (void)name;
    (void)value;
}

static void one_check(void *self, const char *name, bool ok, const char *detail)
{
    struct wanted *wanted = self;
    (void)detail;
    if (strcmp(wanted->name, name) == 0) {
        wanted->value = ok;
        wanted->found++;
    }
}

bool harness_check_holds(struct harness *h, const char *name)
{
    struct wanted wanted = {.name = name};
    h->nf->report(h->arena, &(struct nf_report){&wanted, no_counter, one_check});
    CHECK(wanted.found == 1);
    return wanted.value;
}

uint64_t harness_counter(struct harness *h, const char *name)
{
    struct wanted wanted = {.name = name};
    h->nf->report(h->arena, &(struct nf_report){&wanted, on_counter, on_check});
    CHECK(wanted.found == 1);
    return wanted.value;
}

void harness_check_arena(const struct nf *nf, struct arena *arena)
{
    struct wanted wanted = {0};
    nf->report(arena, &(struct nf_report){&wanted, on_counter, on_check});
    CHECK(wanted.checks > 0);
}

void harness_checks(struct harness *h)
{
    harness_check_arena(h->nf, h->arena);
}

uint64_t test_seed(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 0x5eed0001;
    printf("seed %llu\n", (unsigned long long)seed);
    return seed ? seed : 1;
}

uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

/* Plain sum of big-endian words, unfolded. */
static uint64_t sum_words(const uint8_t *data, uint32_t length)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i + 1 < length; i += 2)
        sum += get16(data + i);
    return length & 1 ? sum + ((uint64_t)data[length - 1] << 8) : sum;
}

static uint32_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

/* Sum over what an L4 checksum covers, the checksum field included. */
static uint64_t l4_sum(const uint8_t *ip)
{
    uint32_t header = (ip[0] & 15u) * 4;
    uint32_t length = get16(ip + 2) - header;
    if (ip[9] == 17)
        length = get16(ip + header + 4);
    uint64_t sum = sum_words(ip + header, length);
    return ip[9] == 1 ? sum : sum + sum_words(ip + 12, 8) + ip[9] + length;
}

static uint32_t l4_field(uint8_t protocol)
{
    return protocol == 6 ? 16 : protocol == 17 ? 6 : 2;
}

void frame_checksum(uint8_t *frame)
{
    uint8_t *ip = frame + 14, *field = ip + (ip[0] & 15u) * 4 + l4_field(ip[9]);
    put16(field, 0);
    uint32_t checksum = ~fold(l4_sum(ip)) & 0xffff;
    put16(field, ip[9] == 17 && !checksum ? 0xffff : checksum);
}

uint32_t frame_build(uint8_t *frame, const struct frame_spec *spec, uint64_t salt)
{
    uint32_t header = 20 + 4u * spec->option_words;
    uint32_t l4 = (spec->protocol == 6 ? 20u : 8u) + spec->payload;
    uint32_t length = 14 + header + l4;
    CHECK(length <= HARNESS_FRAME);
    memset(frame, 0, length);
    for (uint32_t i = length - spec->payload; i < length; i++)
        frame[i] = (uint8_t)test_random(&salt);
    memcpy(frame, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00", 14);
    uint8_t *ip = frame + 14, *at = ip + header;
    ip[0] = (uint8_t)(0x40 | (header / 4));
    put16(ip + 2, header + l4);
    put16(ip + 4, (uint32_t)salt & 0xffff);
    ip[6] = spec->dont_fragment ? 0x40 : 0;
    ip[8] = 64;
    ip[9] = spec->protocol;
    put32(ip + 12, spec->source);
    put32(ip + 16, spec->destination);
    memset(ip + 20, 1, header - 20); /* option "no operation" */
    put16(ip + 10, ~fold(sum_words(ip, header)) & 0xffff);
    put16(at + (spec->protocol == 1 ? 4 : 0), spec->source_port);
    if (spec->protocol != 1)
        put16(at + 2, spec->destination_port);
    if (spec->protocol == 1)
        at[0] = spec->icmp_type;
    if (spec->protocol == 6) {
        at[12] = 0x50;
        at[13] = spec->tcp_flags;
    }
    if (spec->protocol == 17)
        put16(at + 4, l4);
    if (spec->protocol != 17 || !spec->no_udp_checksum)
        frame_checksum(frame);
    return length;
}

bool frame_checksums_right(const uint8_t *frame, uint32_t length)
{
    const uint8_t *ip = frame + 14;
    uint32_t header = (ip[0] & 15u) * 4;
    CHECK(length >= 14 + get16(ip + 2));
    if (fold(sum_words(ip, header)) != 0xffff)
        return false;
    if (ip[9] == 17 && get16(ip + header + 6) == 0)
        return true;
    return fold(l4_sum(ip)) == 0xffff;
}

uint32_t frame_address(const uint8_t *frame, bool destination)
{
    const uint8_t *at = frame + 14 + (destination ? 16 : 12);
    return get16(at) << 16 | get16(at + 2);
}

uint16_t frame_port(const uint8_t *frame, bool destination)
{
    const uint8_t *l4 = frame + 14 + (frame[14] & 15u) * 4;
    if (frame[14 + 9] == 1)
        return (uint16_t)get16(l4 + 4);
    return (uint16_t)get16(l4 + (destination ? 2 : 0));
}

/* A chain does what its functions do one after the other, each fed with what the one before it put
 * out: the same packets, the same PALs but for where ids begin, the same counters. */
#include "nf/chain.h"
#include "tests/nf_harness.h"
#include "tests/wanopt_frames.h"

#include <string.h>

#define WORKERS 2u
#define INPUTS 20000u
#define PALS_MAX 256u

/* The functions of a chain, each by itself in a harness. */
struct alone {
    struct harness h[NF_STAGES];
    uint32_t first_id[NF_STAGES];
    uint32_t count;
    uint64_t pals[PALS_MAX]; /* of the latest input, ids as a chain has them */
    uint32_t pal_count;
};

static const struct harness_setting border[] = {
    {"nat", 0},      {"capacity", 60},           {"addresses", 2}, {"udp_ms", 3000},
    {"firewall", 0}, {"capacity", 60},           {"window", 0},    {"udp_ms", 500},
    {"monitor", 0},  {"counters_per_packet", 3}, {"flows", 40},    {NULL, 0}};
static const struct harness_setting inside_out[] = {
    {"monitor", 0},      {"flows", 40}, {"ratelimit", 0}, {"user_kbps", 200},
    {"user_burst", 300}, {"lb", 0},     {"least", 1},     {"capacity", 40},
    {"monitor", 0},      {"flows", 10}, {NULL, 0}};

static void open_alone(struct alone *alone, const struct harness_setting *settings)
{
    memset(alone, 0, sizeof(*alone));
    for (const struct harness_setting *s = settings; s->name; s++) {
        struct harness_setting own[16] = {{NULL, 0}};
        const char *name = s->name;
        for (unsigned i = 0; s[1].name && !nf_find(s[1].name); i++)
            own[i] = *++s;
        harness_open(&alone->h[alone->count], name, WORKERS, own);
        if (alone->count)
            alone->first_id[alone->count] =
                alone->first_id[alone->count - 1] + alone->h[alone->count - 1].needs.variables;
        alone->count++;
    }
}

static void close_alone(struct alone *alone)
{
    for (uint32_t s = 0; s < alone->count; s++)
        harness_close(&alone->h[s]);
}

static void add_pals(struct alone *alone, uint32_t stage)
{
    const struct harness *h = &alone->h[stage];
    for (uint32_t i = 0; i < h->pal_count; i++)
        alone->pals[alone->pal_count++] =
            h->pals[i] + ((uint64_t)alone->first_id[stage] << PAL_VERSION_BITS);
}

/* The packet through all, in the order for its side. */
static bool run_alone(struct alone *alone, const struct harness *chain, uint32_t worker,
                      enum nf_port port, uint8_t *frame, uint32_t *length)
{
    alone->pal_count = 0;
    for (uint32_t i = 0; i < alone->count; i++) {
        uint32_t s = port == NF_INSIDE ? i : alone->count - 1 - i;
        struct harness *h = &alone->h[s];
        h->now = chain->now;
        bool forwarded = harness_packet(h, worker, port, frame, *length);
        add_pals(alone, s);
        if (!forwarded)
            return false;
        CHECK(h->out_port == 1 - port);
        *length = h->out_length;
        memcpy(frame, h->out, *length);
    }
    return true;
}

/* Few endpoints, so that flows come back; now and then the answer to what came out. */
static uint32_t any_frame(const struct harness *h, uint64_t *seed, uint8_t *frame,
                          enum nf_port *port)
{
    static const uint8_t protocols[] = {1, 6, 17, 17};
    uint64_t r = test_random(seed);
    struct frame_spec spec = {.protocol = protocols[r % 4],
                              .source = 0x0a000000 + (uint32_t)(r >> 8) % 8,
                              .destination = 0xc0000200 + (uint32_t)(r >> 16) % 4,
                              .source_port = (uint16_t)(1000 + (r >> 24) % 12),
                              .destination_port = (uint16_t)(80 + (r >> 32) % 3),
                              .payload = 30,
                              .tcp_flags = (uint8_t)(1u << (r >> 40) % 5),
                              .icmp_type = 8};
    *port = NF_INSIDE;
    if (h->out_length && h->out_port == NF_OUTSIDE && (r >> 48) % 3) {
        *port = NF_OUTSIDE;
        spec.protocol = h->out[14 + 9];
        spec.source = frame_address(h->out, true);
        spec.destination = frame_address(h->out, false);
        spec.source_port = frame_port(h->out, true);
        spec.destination_port = frame_port(h->out, false);
        spec.icmp_type = 0;
    }
    return frame_build(frame, &spec, r);
}

static void same_counter(void *self, const char *name, uint64_t value)
{
    CHECK(harness_counter(self, name) == value);
}

static void check_holds(void *self, const char *name, bool ok, const char *detail)
{
    (void)self;
    (void)name;
    (void)detail;
    CHECK(ok);
}

static void test_as_one_after_the_other(const struct harness_setting *settings, uint64_t seed)
{
    static struct alone alone;
    struct harness h;
    uint32_t answered = 0, forwarded = 0, longest = 0;
    open_alone(&alone, settings);
    harness_open(&h, "chain", WORKERS, settings);
    for (unsigned i = 0; i < INPUTS; i++) {
        uint8_t frame[HARNESS_FRAME];
        enum nf_port port;
        uint32_t worker = (uint32_t)(test_random(&seed) % WORKERS);
        uint32_t length = any_frame(&h, &seed, frame, &port);
        h.now += test_random(&seed) % 200 ? test_random(&seed) % MS : 5 * SECOND;
        if (i % 20 == 19) {
            harness_tick(&h, worker);
            alone.pal_count = 0;
            for (uint32_t s = 0; s < alone.count; s++) {
                alone.h[s].now = h.now;
                harness_tick(&alone.h[s], worker);
                add_pals(&alone, s);
            }
        } else {
            bool out = harness_packet(&h, worker, port, frame, length);
            CHECK(run_alone(&alone, &h, worker, port, frame, &length) == out);
            CHECK(!out || (h.out_length == length && h.out_port == 1 - port));
            CHECK(!out || memcmp(h.out, frame, length) == 0);
            forwarded += out;
            answered += out && port == NF_OUTSIDE;
        }
        CHECK(h.pal_count == alone.pal_count);
        CHECK(memcmp(h.pals, alone.pals, h.pal_count * sizeof(uint64_t)) == 0);
        longest = h.pal_count > longest ? h.pal_count : longest;
    }
    printf("%u forwarded, %u of them answers, at most %u PALs\n", forwarded, answered, longest);
    CHECK(forwarded > INPUTS / 10 && answered > INPUTS / 20 && forwarded < INPUTS - INPUTS / 19);
    CHECK(longest > alone.count);
    harness_checks(&h);
    for (uint32_t s = 0; s < alone.count; s++) {
        harness_checks(&alone.h[s]);
        alone.h[s].nf->report(chain_part(h.arena, s),
                              &(struct nf_report){&alone.h[s], same_counter, check_holds});
    }
    harness_close(&h);
    close_alone(&alone);
}

static const struct frame_spec udp = {.protocol = 17,
                                      .source = 0x0a000001,
                                      .destination = 0xc0000201,
                                      .source_port = 5000,
                                      .destination_port = 53,
                                      .payload = 18};

/* Who is first for a packet from outside: the last of the list. */
static void test_direction(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    uint32_t length = frame_build(frame, &udp, 1);
    harness_open(&h, "chain", 1, border);
    CHECK(!harness_packet(&h, 0, NF_OUTSIDE, frame, length));
    CHECK(harness_counter(&h, "monitor.packets") == 1);
    CHECK(harness_counter(&h, "firewall.dropped_rule") == 1);
    CHECK(harness_counter(&h, "nat.dropped_no_mapping") == 0);
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(h.out_port == NF_OUTSIDE && frame_address(h.out, false) != udp.source);
    harness_close(&h);
    harness_open(
        &h, "chain", 1,
        (struct harness_setting[]){{"firewall", 0}, {"monitor", 0}, {"nat", 0}, {NULL, 0}});
    CHECK(!harness_packet(&h, 0, NF_OUTSIDE, frame, length));
    CHECK(harness_counter(&h, "monitor.packets") == 0);
    CHECK(harness_counter(&h, "nat.dropped_no_mapping") == 1);
    harness_close(&h);
}

/* The same function more than once: each has state and counters of its own. */
static void test_twice_the_same(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    uint32_t length = frame_build(frame, &udp, 1);
    harness_open(
        &h, "chain", 1,
        (struct harness_setting[]){{"monitor", 0}, {"firewall", 0}, {"monitor", 0}, {NULL, 0}});
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    for (unsigned i = 0; i < 3; i++)
        CHECK(!harness_packet(&h, 0, NF_OUTSIDE, frame, length));
    CHECK(harness_counter(&h, "monitor.packets") == 1);
    CHECK(harness_counter(&h, "monitor2.packets") == 4);
    harness_checks(&h);
    harness_close(&h);
}

/* Both ends of a line in one chain, from either side: what leaves is what came, to the byte, though
 * between the stages it is another packet. */
static void test_line(uint64_t seed)
{
    static const struct harness_setting ends[] = {{"wanopt", 0},    {"capacity", 16}, {"wanopt", 0},
                                                  {"capacity", 16}, {"line", 0},      {NULL, 0}};
    static const struct harness_setting own[] = {{NULL, 0}};
    static struct wanopt_frames frames;
    struct harness h;
    wanopt_frames_make(&frames, own);
    harness_open(&h, "chain", WORKERS, ends);
    h.capacity = HARNESS_FRAME;
    for (unsigned i = 0; i < 2000; i++) {
        const struct wanopt_frame *frame = &frames.plain[test_random(&seed) % WANOPT_FRAMES];
        enum nf_port port = test_random(&seed) % 3 ? NF_INSIDE : NF_OUTSIDE;
        uint32_t worker = (uint32_t)(test_random(&seed) % WORKERS);
        h.now += MS;
        CHECK(harness_packet(&h, worker, port, frame->bytes, frame->length));
        CHECK(h.out_port == 1 - port && h.out_length == frame->length);
        CHECK(memcmp(h.out, frame->bytes, frame->length) == 0);
    }
    CHECK(harness_counter(&h, "wanopt.shortened") > 100);
    CHECK(harness_counter(&h, "wanopt2.shortened") > 100);
    CHECK(harness_counter(&h, "wanopt.shortened") == harness_counter(&h, "wanopt2.restored"));
    CHECK(harness_counter(&h, "wanopt2.shortened") == harness_counter(&h, "wanopt.restored"));
    CHECK(harness_counter(&h, "wanopt.chunks_replaced") > 10);
    harness_checks(&h);
    harness_close(&h);
}

struct turns {
    uint64_t back[2]; /* of the first and the last stage */
    bool forwarded;
    enum nf_port port; /* that it leaves at, having come in inside */
    uint64_t first, between, last, dropped;
};

/* Stages that send packets back, with a monitor between them. */
static void test_turns(void)
{
    static const struct turns cases[] = {
        {{0, 0}, true, NF_OUTSIDE, 1, 1, 1, 0},
        {{1, 0}, true, NF_INSIDE, 1, 0, 0, 0},
        {{0, 1}, true, NF_INSIDE, 2, 2, 1, 0},
        {{2, 1}, false, NF_INSIDE, 2, 2, 1, 1},
    };
    uint8_t frame[HARNESS_FRAME];
    uint32_t length = frame_build(frame, &udp, 1);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct turns *c = &cases[i];
        struct harness h;
        harness_open(&h, "chain", 1,
                     (struct harness_setting[]){{"mortal", 0},
                                                {"back", c->back[0]},
                                                {"monitor", 0},
                                                {"mortal", 0},
                                                {"back", c->back[1]},
                                                {NULL, 0}});
        CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length) == c->forwarded);
        CHECK(!c->forwarded || h.out_port == c->port);
        CHECK(harness_counter(&h, "mortal.packets") == c->first);
        CHECK(harness_counter(&h, "monitor.packets") == c->between);
        CHECK(harness_counter(&h, "mortal2.packets") == c->last);
        CHECK(harness_counter(&h, "dropped_turned") == c->dropped);
        CHECK(h.pal_count == c->first + c->between + c->last && h.pal_count <= h.needs.max_pals);
        harness_checks(&h);
        harness_close(&h);
    }
}

/* Why a chain is refused; "" if it is not. `stages`: functions, NULL where there is none. */
static const char *refusal(const char *const *stages, const char *param, uint64_t value)
{
    static char why[160];
    uint64_t values[NF_MAX_VALUES] = {0};
    struct nf_needs out;
    why[0] = 0;
    for (unsigned s = 0; s < NF_STAGES; s++) {
        const struct nf *nf = stages[s] ? nf_find(stages[s]) : NULL;
        CHECK(nf || !stages[s]);
        uint64_t *own = nf ? chain_set(values, s, nf) : NULL;
        for (unsigned i = 0; nf && param && nf->params[i].name; i++) {
            if (strcmp(nf->params[i].name, param) == 0)
                own[i] = value;
        }
    }
    CHECK(nf_find("chain")->needs(values, 2, &out, why) == (why[0] == 0));
    return why;
}

static void test_refused(void)
{
    const char *const none[NF_STAGES] = {NULL};
    const char *const gap[NF_STAGES] = {"nat", NULL, "monitor"};
    const char *const nested[NF_STAGES] = {"nat", "chain"};
    const char *const limit[NF_STAGES] = {"monitor", "ratelimit"};
    const char *const many[NF_STAGES] = {"lb", "lb", "lb", "lb"};
    CHECK(strcmp(refusal(none, NULL, 0), "stage1: a chain needs its first function") == 0);
    CHECK(strcmp(refusal(gap, NULL, 0), "stage3, monitor: there is none before it") == 0);
    CHECK(strstr(refusal(nested, NULL, 0), "stage2, chain: a chain cannot be a stage"));
    CHECK(refusal(limit, "user_kbps", 0)[0] == 0);
    CHECK(strstr(refusal(many, "capacity", 1u << 24), "stage") != NULL);
#ifndef FTMB_TSAN
    const char *const placed[NF_STAGES] = {"monitor-pthread"};
    CHECK(strstr(refusal(placed, NULL, 0), "so it runs alone"));
#endif
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed(argc, argv);
    test_as_one_after_the_other(border, seed);
    test_as_one_after_the_other(inside_out, seed);
    test_direction();
    test_twice_the_same();
    test_line(seed);
    test_turns();
    test_refused();
    return 0;
}

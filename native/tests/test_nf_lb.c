/* lb: Maglev's table against the published algorithm and what it promises, connections that keep
 * their backends, loads, odd packets. Random traffic is for the oracle
 * (tests/test_nf_lb_oracle.py).
 */
#include "nf/lb.h"
#include "tests/nf_harness.h"

#include <string.h>

#define CLIENT 0x0a000001u
#define VIP 0xc0000201u

static const struct frame_spec udp = {.protocol = 17,
                                      .source = CLIENT,
                                      .destination = VIP,
                                      .source_port = 5000,
                                      .destination_port = 53,
                                      .payload = 20};

/* ---- the table ----------------------------------------------------------------------------- */

/* The pseudocode of the paper (figure 5), permutations written out as it has them. */
static void published(uint8_t *table, uint32_t size, uint32_t up)
{
    uint32_t *permutation[LB_MAX_BACKENDS], next[LB_MAX_BACKENDS] = {0}, n = 0;
    for (uint32_t i = 0; i < LB_MAX_BACKENDS; i++) {
        uint64_t offset = sets_mix(2 * i + 1) % size, skip = sets_mix(2 * i + 2) % (size - 1) + 1;
        permutation[i] = malloc(size * sizeof(uint32_t));
        CHECK(permutation[i]);
        for (uint64_t j = 0; j < size; j++)
            permutation[i][j] = (uint32_t)((offset + j * skip) % size);
    }
    memset(table, 0xff, size);
    for (uint32_t i = 0; n < size; i = (i + 1) % LB_MAX_BACKENDS) {
        if (!(up >> i & 1))
            continue;
        uint32_t c = permutation[i][next[i]];
        while (table[c] != 0xff)
            c = permutation[i][++next[i]];
        table[c] = (uint8_t)i;
        next[i]++;
        n++;
    }
    for (uint32_t i = 0; i < LB_MAX_BACKENDS; i++)
        free(permutation[i]);
}

static void test_published(void)
{
    const uint32_t sizes[] = {37, 251, 65537}, ups[] = {1, 0x80000000, 0x5a, 0xff, UINT32_MAX};
    for (unsigned s = 0; s < 3; s++) {
        uint8_t *ours = malloc(sizes[s]), *theirs = malloc(sizes[s]);
        CHECK(ours && theirs);
        for (unsigned u = 0; u < sizeof(ups) / sizeof(ups[0]); u++) {
            maglev_fill(ours, sizes[s], ups[u]);
            published(theirs, sizes[s], ups[u]);
            CHECK(memcmp(ours, theirs, sizes[s]) == 0);
        }
        free(ours);
        free(theirs);
    }
}

/* Each backend's share is even, to within one place; and when one goes, what the others had stays
 * theirs but for a small part (the paper's section 5.3: a table of 65537 keeps nearly all). */
static void test_promises(void)
{
    enum { SIZE = 65537 };
    uint8_t *all = malloc(SIZE), *less = malloc(SIZE);
    CHECK(all && less);
    for (uint32_t backends = 2; backends <= LB_MAX_BACKENDS; backends += 6) {
        uint32_t up = (uint32_t)((1ull << backends) - 1), share[LB_MAX_BACKENDS] = {0};
        maglev_fill(all, SIZE, up);
        for (uint32_t i = 0; i < SIZE; i++)
            share[all[i]]++;
        for (uint32_t b = 0; b < backends; b++)
            CHECK(share[b] == SIZE / backends || share[b] == SIZE / backends + 1);
        for (uint32_t gone = 0; gone < backends; gone += 3) {
            uint32_t moved = 0, left = 0;
            maglev_fill(less, SIZE, up & ~(1u << gone));
            for (uint32_t i = 0; i < SIZE; i++) {
                CHECK(less[i] != gone);
                left += all[i] != gone;
                moved += all[i] != gone && less[i] != all[i];
            }
            CHECK(moved < left / 10);
        }
    }
    free(all);
    free(less);
}

/* ---- packets ------------------------------------------------------------------------------- */

/* The backend that a packet went to; all but the destination's MAC address is as it was. */
static int to(struct harness *h, struct frame_spec spec)
{
    uint8_t frame[HARNESS_FRAME];
    uint32_t length = frame_build(frame, &spec, 9);
    if (!harness_packet(h, (uint32_t)(h->now & 1), NF_INSIDE, frame, length))
        return -1;
    CHECK(h->out_port == NF_OUTSIDE && h->out_length == length);
    CHECK(memcmp(h->out, "\x02\x00\x00\x00\x01", 5) == 0);
    CHECK(memcmp(h->out + 6, frame + 6, length - 6) == 0);
    return h->out[5];
}

static struct frame_spec number(uint32_t n)
{
    struct frame_spec spec = udp;
    spec.source_port = (uint16_t)(1000 + n);
    return spec;
}

static struct frame_spec tcp(uint32_t n, uint8_t flags)
{
    struct frame_spec spec = number(n);
    spec.protocol = 6;
    spec.tcp_flags = flags;
    return spec;
}

/* Connections keep their backend; as many go to each as the table says. */
static void test_keeps(void)
{
    struct harness h;
    int first[2000];
    uint32_t count[4] = {0};
    harness_open(&h, "lb", 2, (struct harness_setting[]){{"backends", 4}, {NULL, 0}});
    harness_tick(&h, 0);
    harness_tick(&h, 1);
    for (uint32_t n = 0; n < 2000; n++) {
        first[n] = to(&h, number(n));
        CHECK(first[n] >= 0 && first[n] < 4 && h.pal_count == 1 && harness_writes(&h) == 1);
        count[first[n]]++;
    }
    for (uint32_t b = 0; b < 4; b++)
        CHECK(count[b] > 400 && count[b] < 600);
    h.now += SECOND + 1;
    for (uint32_t n = 0; n < 2000; n++)
        CHECK(to(&h, number(n)) == first[n]);
    CHECK(harness_counter(&h, "opened") == 2000 && harness_counter(&h, "connections") == 2000);
    harness_checks(&h);
    harness_close(&h);
}

/* With `least`, each new connection goes where the fewest are, also after some have ended. */
static void test_least(void)
{
    struct harness h;
    uint32_t load[5] = {0};
    harness_open(&h, "lb", 2,
                 (struct harness_setting[]){{"backends", 5},
                                            {"down", 4},
                                            {"least", 1},
                                            {"capacity", 400},
                                            {"udp_ms", 1000},
                                            {NULL, 0}});
    harness_tick(&h, 0);
    harness_tick(&h, 1);
    for (uint32_t n = 0; n < 100; n++) {
        int b = to(&h, n % 3 ? tcp(n, TCP_SYN) : number(n));
        CHECK(b >= 0 && b < 5 && b != 2 && h.pal_count == 2);
        CHECK(to(&h, n % 3 ? tcp(n, TCP_ACK) : number(n)) == b && h.pal_count == 1);
        load[b]++;
        for (unsigned other = 0; other < 5; other++)
            CHECK(other == 2 || (load[other] <= n / 4 + 1 && load[other] >= (n + 1) / 4));
    }
    h.now += 2 * SECOND; /* 34 UDP ones end */
    for (unsigned i = 0; i < 1000; i++, h.now += MS)
        harness_tick(&h, i & 1);
    CHECK(harness_counter(&h, "connections") == 66 && harness_counter(&h, "ended") == 34);
    harness_checks(&h);
    for (uint32_t n = 200; n < 234; n++)
        CHECK(to(&h, tcp(n, TCP_SYN)) >= 0);
    harness_checks(&h);
    for (unsigned b = 0; b < 5; b++)
        CHECK(lb_loads(h.arena, arena_root(h.arena))->connections[b] == (b == 2 ? 0 : 25));
    harness_close(&h);
}

/* A SYN after a FIN is a new connection; before, it is one of the old. */
static void test_anew(void)
{
    struct harness h;
    harness_open(&h, "lb", 2, (struct harness_setting[]){{"least", 1}, {"backends", 3}, {NULL, 0}});
    CHECK(to(&h, tcp(1, TCP_SYN)) == 0 && to(&h, tcp(2, TCP_SYN)) == 1);
    CHECK(to(&h, tcp(3, TCP_SYN)) == 2 && to(&h, tcp(4, TCP_SYN)) == 0);
    CHECK(to(&h, tcp(1, TCP_SYN)) == 0 && to(&h, tcp(1, TCP_FIN | TCP_ACK)) == 0);
    CHECK(to(&h, tcp(1, TCP_ACK)) == 0 && harness_counter(&h, "opened") == 4);
    CHECK(to(&h, tcp(5, TCP_SYN)) == 1 && to(&h, tcp(6, TCP_SYN)) == 2);
    CHECK(to(&h, tcp(7, TCP_SYN)) == 0); /* three of backend 0: one of them is closing */
    CHECK(to(&h, tcp(1, TCP_SYN)) == 0 && harness_counter(&h, "ended") == 1);
    CHECK(harness_counter(&h, "connections") == 7);
    harness_checks(&h);
    harness_close(&h);
}

/* A full set: the table decides, without an entry, and always the same. */
static void test_untracked(void)
{
    struct harness h;
    int first[30];
    harness_open(&h, "lb", 2, (struct harness_setting[]){{"capacity", 2}, {NULL, 0}});
    for (uint32_t n = 0; n < 30; n++)
        first[n] = to(&h, number(n));
    for (uint32_t n = 0; n < 30; n++)
        CHECK(first[n] >= 0 && to(&h, number(n)) == first[n]);
    CHECK(harness_counter(&h, "connections") == 8 && harness_counter(&h, "untracked") == 44);
    harness_checks(&h);
    harness_close(&h);
}

static void test_odd_packets(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    struct frame_spec other = udp, options = udp, large = udp;
    harness_open(&h, "lb", 2, NULL);
    other.destination = 0xc0000301;
    options.option_words = 10;
    large.payload = 1900;
    struct frame_spec echo = {.protocol = 1, .source = CLIENT, .destination = VIP, .icmp_type = 8};
    CHECK(to(&h, other) == -1 && harness_counter(&h, "dropped_not_virtual") == 1);
    CHECK(to(&h, options) == to(&h, udp) && to(&h, large) == to(&h, udp));
    int backend = to(&h, echo);
    echo.icmp_type = 3; /* an error goes the same way as an echo */
    CHECK(backend >= 0 && to(&h, echo) == backend && h.pal_count == 0);
    uint32_t length = frame_build(frame, &udp, 1);
    for (uint32_t cut = 0; cut <= length; cut++) /* what comes from outside passes as it is */
        CHECK(harness_packet(&h, 0, NF_OUTSIDE, frame, cut) && h.out_port == NF_INSIDE &&
              h.out_length == cut && memcmp(h.out, frame, cut) == 0);
    for (uint32_t cut = 0; cut < length; cut++)
        CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, cut));
    CHECK(harness_counter(&h, "dropped_malformed") == length);
    frame[14 + 6] = 0x20;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    frame[14 + 6] = 0, frame[14 + 9] = 47;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    frame[12] = 0x86, frame[13] = 0xdd;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_fragment") == 1);
    CHECK(harness_counter(&h, "dropped_protocol") == 1);
    CHECK(harness_counter(&h, "dropped_not_ipv4") == 1);
    frame[12] = 0x08, frame[13] = 0x06;
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length) && h.out_port == NF_OUTSIDE &&
          memcmp(h.out, frame, length) == 0);
    harness_checks(&h);
    harness_close(&h);
}

static void test_refused(void)
{
    const struct nf *nf = nf_find("lb");
    const struct {
        const char *name;
        uint64_t value;
        const char *why;
    } bad[] = {{"table", 65536, "prime"}, {"table", 7, "fewer places"}, {"down", 255, "down"}};
    CHECK(nf);
    for (unsigned n = 0; n < 3; n++) {
        uint64_t values[NF_MAX_PARAMS];
        struct nf_needs out;
        char why[160] = "";
        for (unsigned i = 0; nf->params[i].name; i++)
            values[i] =
                strcmp(nf->params[i].name, bad[n].name) ? nf->params[i].value : bad[n].value;
        CHECK(!nf->needs(values, 1, &out, why) && strstr(why, bad[n].why));
    }
}

int main(void)
{
    test_published();
    test_promises();
    test_keeps();
    test_least();
    test_anew();
    test_untracked();
    test_odd_packets();
    test_refused();
    return 0;
}

/* nat-pthread: its accesses and their order, its sizes, and that its checks can fail. What it does
 * with packets is compared with the model of `nat` (test_nf_nat_model.c). */
#include "tests/nf_harness.h"

#include <string.h>

#define POOL 0xc6120001u
#define TCP_ACK 16
#define TCP_RST 4

static uint8_t frame[HARNESS_FRAME];

static bool out(struct harness *h, uint32_t worker, uint8_t protocol, uint16_t port)
{
    struct frame_spec spec = {.protocol = protocol,
                              .source = 0x0a000001,
                              .destination = 0xc0000201,
                              .source_port = port,
                              .destination_port = 80,
                              .tcp_flags = TCP_ACK,
                              .payload = 20};
    return harness_packet(h, worker, NF_INSIDE, frame, frame_build(frame, &spec, port));
}

/* To where the latest packet came from. */
static bool back(struct harness *h, uint32_t worker, uint8_t protocol, uint8_t flags)
{
    struct frame_spec spec = {.protocol = protocol,
                              .source = 0xc0000201,
                              .destination = frame_address(h->out, false),
                              .source_port = 80,
                              .destination_port = frame_port(h->out, false),
                              .tcp_flags = flags,
                              .payload = 20};
    return harness_packet(h, worker, NF_OUTSIDE, frame, frame_build(frame, &spec, flags));
}

/* A known flow: its stripe. A new one: stripe, pool, outside lock, in one section. From outside:
 * the outside lock; one that ends a connection: its stripe after that. */
static void test_accesses(void)
{
    struct harness h;
    harness_open(&h, "nat-pthread", 2, NULL);
    CHECK(out(&h, 0, 6, 4000) && h.pal_count == 3 && harness_writes(&h) == 3);
    CHECK(!(h.pals[0] & PAL_INSIDE) && (h.pals[1] & PAL_INSIDE) && (h.pals[2] & PAL_INSIDE));
    uint32_t stripe = pal_id(h.pals[0]), pool = pal_id(h.pals[1]), outside = pal_id(h.pals[2]);
    CHECK(stripe != pool && pool != outside && stripe != outside);
    CHECK(out(&h, 1, 6, 4000) && h.pal_count == 1 && pal_id(h.pals[0]) == stripe);
    CHECK(back(&h, 0, 6, TCP_ACK) && h.pal_count == 1 && pal_id(h.pals[0]) == outside);
    CHECK(out(&h, 1, 6, 4000));
    CHECK(back(&h, 0, 6, TCP_RST) && h.pal_count == 2 && !(h.pals[1] & PAL_INSIDE));
    CHECK(pal_id(h.pals[0]) == outside && pal_id(h.pals[1]) == stripe);
    harness_checks(&h);
    harness_close(&h);
}

/* Each removal is a section of its own, in the same order; so is a look that finds nothing. */
static void test_removal(void)
{
    struct harness h;
    harness_open(
        &h, "nat-pthread", 1,
        (struct harness_setting[]){{"addresses", 1}, {"capacity", 4}, {"udp_ms", 10}, {NULL, 0}});
    CHECK(out(&h, 0, 17, 4000));
    uint32_t stripe = pal_id(h.pals[0]), pool = pal_id(h.pals[1]);
    CHECK(out(&h, 0, 17, 4001) && pal_id(h.pals[0]) == stripe); /* there is one stripe */
    h.now += SECOND;
    harness_tick(&h, 0);
    CHECK(harness_counter(&h, "mappings_expired") == 2 && harness_counter(&h, "mappings") == 0);
    CHECK(h.pal_count == 6 + 4); /* it looks four times: there is time for more stripes */
    for (unsigned i = 0; i < 10; i++) {
        bool inside = i < 6 && i % 3 != 0;
        CHECK(((h.pals[i] & PAL_INSIDE) != 0) == inside);
        CHECK(inside || pal_id(h.pals[i]) == stripe);
        CHECK(i >= 6 || i % 3 != 1 || pal_id(h.pals[i]) == pool);
    }
    CHECK(h.pal_peak <= h.needs.max_pals);
    harness_checks(&h);
    harness_close(&h);
}

/* The most that a packet may need: no address has room, and as much has expired as is removed. */
static void test_most_accesses(void)
{
    struct harness h;
    harness_open(
        &h, "nat-pthread", 1,
        (struct harness_setting[]){{"addresses", 16}, {"capacity", 64}, {"udp_ms", 10}, {NULL, 0}});
    for (uint16_t i = 0; i < 64; i++)
        CHECK(out(&h, 0, 6, 4000 + i)); /* established: they stay */
    CHECK(!out(&h, 0, 17, 3000) && harness_counter(&h, "dropped_no_port") == 1);
    CHECK(h.pal_count == 32);
    CHECK(h.pal_peak <= h.needs.max_pals);
    harness_checks(&h);
    harness_close(&h);
}

/* Memory is enough for every number of mappings, and all of them can be made. */
static void test_sizes(void)
{
    static const uint64_t capacity[] = {1, 3, 4, 5, 100, 4097, 65536, 16ull * 64512};
    for (unsigned i = 0; i < sizeof(capacity) / sizeof(capacity[0]); i++) {
        uint64_t addresses = capacity[i] < 16 ? 1 : 16;
        struct harness h;
        harness_open(&h, "nat-pthread", 1 + i % 4,
                     (struct harness_setting[]){
                         {"addresses", addresses}, {"capacity", capacity[i]}, {NULL, 0}});
        for (uint32_t n = 0; n < u64_min(capacity[i], 5000); n++)
            CHECK(out(&h, n % h.workers, 17, (uint16_t)(1024 + n)));
        CHECK(out(&h, 0, 17, 9999) == (capacity[i] > 5000));
        harness_checks(&h);
        harness_close(&h);
    }
}

/* The checks can fail: lose one store, as a broken replay would. */
static void test_checks_can_fail(void)
{
    struct harness h;
    harness_open(&h, "nat-pthread", 1, (struct harness_setting[]){{"capacity", 8}, {NULL, 0}});
    CHECK(out(&h, 0, 17, 4000));
    uint64_t at = h.arena->extents[0].start, used = h.arena->extents[0].used;
    uint8_t *before = malloc(used), *after = malloc(used);
    CHECK(before && after);
    memcpy(before, (uint8_t *)h.arena + at, used);
    CHECK(out(&h, 0, 17, 4001));
    memcpy(after, (uint8_t *)h.arena + at, used);
    unsigned chains = 0, slots = 0, counted = 0;
    for (uint64_t i = 0; i < used; i += 8) { /* one word at a time */
        memcpy((uint8_t *)h.arena + at + i, before + i, 8);
        chains += !harness_check_holds(&h, "chains");
        slots += !harness_check_holds(&h, "slots");
        counted += !harness_check_holds(&h, "counted");
        memcpy((uint8_t *)h.arena + at + i, after + i, 8);
    }
    harness_checks(&h);
    CHECK(chains >= 2 && slots >= 2 && counted >= 2);
    free(before);
    free(after);
    harness_close(&h);
}

int main(void)
{
    test_accesses();
    test_removal();
    test_most_accesses();
    test_sizes();
    test_checks_can_fail();
    return 0;
}

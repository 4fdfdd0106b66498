/* monitor-pthread: transparency, what it counts, its accesses, and that its checks can fail. */
#include "tests/nf_harness.h"

#include <string.h>

static uint32_t udp(uint8_t *frame, uint16_t from, uint16_t to)
{
    struct frame_spec spec = {.protocol = 17,
                              .source = 0x0a000001,
                              .destination = 0xc0000201,
                              .source_port = from,
                              .destination_port = to,
                              .payload = 30};
    return frame_build(frame, &spec, from);
}

static void open_monitor(struct harness *h, uint32_t workers, uint64_t flows, uint64_t samples)
{
    harness_open(
        h, "monitor-pthread", workers,
        (struct harness_setting[]){{"flows", flows}, {"sample_every", samples}, {NULL, 0}});
}

/* Whatever comes in leaves unchanged on the other side, garbage and short frames too. */
static void test_transparent(uint64_t *rng)
{
    struct harness h;
    open_monitor(&h, 2, 64, 10);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t frame[HARNESS_FRAME];
        uint32_t length = (uint32_t)(test_random(rng) % 200);
        for (uint32_t b = 0; b < length; b++)
            frame[b] = (uint8_t)test_random(rng);
        if (i % 2 && length > 14)
            memcpy(frame + 12, "\x08\x00\x45", 3);
        enum nf_port port = test_random(rng) & 1 ? NF_INSIDE : NF_OUTSIDE;
        CHECK(harness_packet(&h, i & 1, port, frame, length));
        CHECK(h.out_port == 1 - port && h.out_length == length);
        CHECK(memcmp(h.out, frame, length) == 0);
        bytes += length;
    }
    CHECK(harness_counter(&h, "packets") == 20000);
    CHECK(harness_counter(&h, "bytes") == bytes);
    CHECK(harness_counter(&h, "untracked") > 0);
    uint64_t samples = harness_counter(&h, "samples");
    CHECK(samples > 1700 &&
          samples < 2300); /* 2,000 expected, 42 their deviation; the seed fixed */
    harness_checks(&h);
    harness_close(&h);
}

/* A known flow: the totals. A new one: the table of services before them, and its service. */
static void test_accesses(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    open_monitor(&h, 2, 1000, 0);
    uint32_t length = udp(frame, 5000, 53);
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(h.pal_count == 3 && harness_writes(&h) == 3);
    uint64_t totals = h.pals[2];
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(h.pal_count == 1 && harness_writes(&h) == 1 && pal_id(h.pals[0]) == pal_id(totals));
    length = udp(frame, 5001, 6000); /* a service without a name: looked up, named */
    CHECK(harness_packet(&h, 1, NF_INSIDE, frame, length));
    CHECK(h.pal_count == 4 && pal_id(h.pals[0]) == pal_id(h.pals[1]));
    harness_checks(&h);
    harness_close(&h);
    open_monitor(&h, 1, 1000, 1); /* each packet is sampled: two locks, one in the other */
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(h.pal_count == 3 && pal_id(h.pals[0]) == pal_id(h.pals[2]));
    CHECK(!(h.pals[1] & PAL_INSIDE) && (h.pals[2] & PAL_INSIDE));
    CHECK(harness_counter(&h, "samples") == 2);
    CHECK(h.pal_peak <= h.needs.max_pals);
    harness_close(&h);
}

/* The table tracks exactly `flows` flows; the others are forwarded and counted. */
static void test_full_table(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    open_monitor(&h, 1, 100, 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned f = 0; f < 150; f++)
            CHECK(harness_packet(&h, 0, NF_INSIDE, frame, udp(frame, (uint16_t)(2000 + f), 80)));
    }
    CHECK(harness_counter(&h, "flows") == 100);
    CHECK(harness_counter(&h, "untracked") == 150);
    harness_checks(&h);
    harness_close(&h);
}

/* Memory is enough for every number of flows and workers, and what it asks for is what it gets. */
static void test_sizes(void)
{
    static const uint64_t flows[] = {1, 2, 3, 4, 100, 3072, 3073, 65536, 1u << 20};
    for (uint32_t workers = 1; workers <= FTMB_MAX_WORKERS; workers += 3) {
        for (unsigned i = 0; i < sizeof(flows) / sizeof(flows[0]); i++) {
            uint64_t params[2] = {flows[i], 0};
            struct nf_needs needs;
            char why[160] = "";
            const struct nf *nf = nf_find("monitor-pthread");
            if (!nf->needs(params, workers, &needs, why)) {
                CHECK(flows[i] * workers > 1u << 21 && strstr(why, "256 MiB"));
                continue;
            }
            if (flows[i] * workers > 1u << 18)
                continue; /* much memory, for nothing */
            struct harness h;
            uint8_t frame[HARNESS_FRAME];
            open_monitor(&h, workers, flows[i], 0);
            CHECK(harness_packet(&h, workers - 1, NF_OUTSIDE, frame, udp(frame, 1, 2)));
            CHECK(harness_counter(&h, "flows") == 1);
            harness_close(&h);
        }
    }
}

/* The check can fail: lose one update, as a broken replay would. */
static void test_check_can_fail(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    open_monitor(&h, 1, 16, 0);
    uint64_t at = h.arena->extents[0].start, used = h.arena->extents[0].used;
    uint8_t *before = malloc(used), *after = malloc(used);
    CHECK(before && after);
    memcpy(before, (uint8_t *)h.arena + at, used);
    harness_packet(&h, 0, NF_INSIDE, frame, udp(frame, 1, 2));
    memcpy(after, (uint8_t *)h.arena + at, used);
    unsigned failed = 0;
    for (uint64_t i = 0; i < used; i += 8) { /* one word at a time */
        memcpy((uint8_t *)h.arena + at + i, before + i, 8);
        failed += !harness_check_holds(&h, "sums");
        memcpy((uint8_t *)h.arena + at + i, after + i, 8);
    }
    CHECK(harness_check_holds(&h, "sums") &&
          failed == 4); /* packets and bytes, of the thread and in all */
    free(before);
    free(after);
    harness_close(&h);
}

int main(int argc, char **argv)
{
    uint64_t rng = test_seed(argc, argv);
    test_transparent(&rng);
    test_accesses();
    test_full_table();
    test_sizes();
    test_check_can_fail();
    return 0;
}

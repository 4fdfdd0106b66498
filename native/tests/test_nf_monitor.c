/* monitor: transparency, counters, sharing, a full flow table. */
#include "tests/nf_harness.h"

#include <string.h>

static const struct frame_spec udp = {.protocol = 17,
                                      .source = 0x0a000001,
                                      .destination = 0xc0000201,
                                      .source_port = 5000,
                                      .destination_port = 53,
                                      .payload = 30};

/* Whatever comes in leaves unchanged on the other side, garbage and short frames too. */
static void test_transparent(uint64_t *rng)
{
    struct harness h;
    harness_open(&h, "monitor", 2, (struct harness_setting[]){{"flows", 64}, {NULL, 0}});
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
        CHECK(h.pal_count == 1 && harness_writes(&h) == 1);
        bytes += length;
    }
    CHECK(harness_counter(&h, "packets") == 20000);
    CHECK(harness_counter(&h, "bytes") == bytes);
    CHECK(harness_counter(&h, "untracked") > 0);
    harness_checks(&h);
    harness_close(&h);
}

/* The table tracks exactly `flows` flows; the others are forwarded and counted. */
static void test_full_table(void)
{
    struct harness h;
    harness_open(&h, "monitor", 1, (struct harness_setting[]){{"flows", 100}, {NULL, 0}});
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned f = 0; f < 150; f++) {
            uint8_t frame[HARNESS_FRAME];
            struct frame_spec spec = udp;
            spec.source_port = (uint16_t)(2000 + f);
            CHECK(harness_packet(&h, 0, NF_INSIDE, frame, frame_build(frame, &spec, f)));
        }
    }
    CHECK(harness_counter(&h, "flows") == 100);
    CHECK(harness_counter(&h, "untracked") == 150);
    harness_checks(&h);
    harness_close(&h);
}

/* Variables touched and needed, for every degree of sharing. */
static void test_sharing(void)
{
    for (uint32_t workers = 1; workers <= FTMB_MAX_WORKERS; workers++) {
        for (uint32_t share = 0; share <= FTMB_MAX_WORKERS; share++) {
            for (uint32_t touched = 0; touched <= 16; touched += 4) {
                struct harness h;
                harness_open(&h, "monitor", workers,
                             (struct harness_setting[]){{"counters_per_packet", touched},
                                                        {"workers_per_counter", share},
                                                        {"flows", 16},
                                                        {NULL, 0}});
                uint32_t sharing = share == 0 || share > workers ? workers : share;
                CHECK(h.needs.variables == (workers + sharing - 1) / sharing * touched);
                CHECK(h.needs.max_pals == touched);
                uint8_t frame[HARNESS_FRAME];
                uint32_t length = frame_build(frame, &udp, 1);
                for (uint32_t w = 0; w < workers; w++) {
                    harness_packet(&h, w, NF_INSIDE, frame, length);
                    CHECK(h.pal_count == touched && harness_writes(&h) == touched);
                    for (uint32_t c = 0; c < touched; c++)
                        CHECK(pal_id(h.pals[c]) == w / sharing * touched + c);
                }
                harness_checks(&h);
                harness_close(&h);
            }
        }
    }
}

/* Every so manieth access is a read, for any share of them. */
static void test_reads(void)
{
    for (uint32_t reads = 0; reads <= 100; reads += 25) {
        struct harness h;
        uint8_t frame[HARNESS_FRAME];
        uint32_t length = frame_build(frame, &udp, 1), writes = 0;
        harness_open(&h, "monitor", 3,
                     (struct harness_setting[]){{"counters_per_packet", 5},
                                                {"workers_per_counter", 2},
                                                {"reads", reads},
                                                {NULL, 0}});
        for (uint32_t i = 0; i < 300; i++) {
            CHECK(harness_packet(&h, i % 3, NF_INSIDE, frame, length) && h.pal_count == 5);
            writes += harness_writes(&h);
        }
        CHECK(writes == 1500 - 15 * reads);
        CHECK(harness_counter(&h, "reads") == 15 * reads);
        harness_checks(&h);
        harness_close(&h);
    }
}

/* The check can fail: lose one update, as a broken replay would. */
static void test_check_can_fail(void)
{
    struct harness h;
    harness_open(&h, "monitor", 1, NULL);
    uint8_t frame[HARNESS_FRAME];
    uint32_t length = frame_build(frame, &udp, 1);
    uint64_t bytes = arena_allocated(h.arena);
    uint8_t *before = malloc(bytes);
    CHECK(before);
    uint64_t at = h.arena->extents[0].start, used = h.arena->extents[0].used;
    memcpy(before, (uint8_t *)h.arena + at, used);
    harness_packet(&h, 0, NF_INSIDE, frame, length);
    CHECK(harness_check_holds(&h, "sums"));
    memcpy((uint8_t *)h.arena + at, before, used);
    CHECK(!harness_check_holds(&h, "sums"));
    free(before);
    harness_close(&h);
}

int main(int argc, char **argv)
{
    uint64_t rng = test_seed(argc, argv);
    test_transparent(&rng);
    test_full_table();
    test_sharing();
    test_reads();
    test_check_can_fail();
    return 0;
}

/* Incremental checksums against a full computation. */
#include "nf/checksum.h"
#include "tests/nf_harness.h"

#define WORDS 20u

static uint16_t full(const uint16_t *words)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < WORDS; i++)
        sum += words[i];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* Words that are often 0 or 0xffff: there the two zeros of one's complement meet. */
static uint16_t word(uint64_t *rng)
{
    uint64_t r = test_random(rng);
    if ((r >> 60) == 0)
        return 0;
    return (r >> 60) == 1 ? 0xffff : (uint16_t)r;
}

static void test_random_changes(uint64_t *rng)
{
    for (unsigned round = 0; round < 300000; round++) {
        uint16_t words[WORDS];
        words[WORDS - 1] = 0x4500; /* like a header, never all zeros */
        for (unsigned i = 0; i < WORDS - 1; i++)
            words[i] = round % 7 == 0 ? 0 : word(rng);
        uint16_t before = full(words);
        uint32_t old, new = (uint32_t)word(rng) << 16 | word(rng);
        uint16_t port = word(rng);
        memcpy(&old, words + 2, 4);
        uint16_t delta =
            checksum_join(checksum_delta32(old, new), checksum_delta16(words[5], port));
        memcpy(words + 2, &new, 4);
        words[5] = port;
        uint16_t after = checksum_apply(before, delta);
        CHECK(after == full(words));
        CHECK(checksum_apply(after, checksum_reverse(delta)) == before);
    }
}

/* The example of RFC 1624, section 4: equation 2 would give 0xffff. */
static void test_rfc_example(void)
{
    CHECK(checksum_apply(0xdd2f, checksum_delta16(0x5555, 0x3285)) == 0x0000);
}

static void test_udp_rules(void)
{
    uint8_t field[2] = {0, 0};
    checksum_patch_udp(field, 0x1234);
    CHECK(field[0] == 0 && field[1] == 0); /* no checksum stays none */

    uint16_t value = 0xdd2f;
    memcpy(field, &value, 2);
    checksum_patch_udp(field, checksum_delta16(0x5555, 0x3285));
    CHECK(field[0] == 0xff && field[1] == 0xff); /* zero is sent as 0xffff ... */
    checksum_patch_udp(field, checksum_delta16(0x3285, 0x5555));
    memcpy(&value, field, 2);
    CHECK(value == 0xdd2f); /* ... and counts as zero afterwards */
}

/* An error in the packet stays visible. */
static void test_wrong_stays_wrong(uint64_t *rng)
{
    for (unsigned round = 0; round < 10000; round++) {
        uint16_t delta = checksum_delta16(word(rng), word(rng));
        uint16_t right = (uint16_t)test_random(rng);
        uint16_t wrong = (uint16_t)(right ^ (1u << (test_random(rng) & 15)));
        CHECK(checksum_apply(right, delta) != checksum_apply(wrong, delta));
    }
}

int main(int argc, char **argv)
{
    uint64_t rng = test_seed(argc, argv);
    test_rfc_example();
    test_random_changes(&rng);
    test_udp_rules();
    test_wrong_stays_wrong(&rng);
    return 0;
}

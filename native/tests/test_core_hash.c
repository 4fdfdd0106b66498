/* The hash of outputs and snapshots: what it depends on, and that it reads nothing else. */
#include "core/hash.h"

#include "tests/core_test.h"

/* Every bit of every input counts, wherever it stands in memory. */
static void test_every_bit(uint64_t seed)
{
    for (size_t length = 0; length <= 150; length++) {
        /* A block of exactly this size: a sanitizer sees any byte read beyond it. */
        uint8_t *bytes = malloc(length ? length : 1);
        uint8_t shifted[200];
        seed_fill(&seed, bytes, length);
        uint64_t h = hash_bytes(7, bytes, length);
        for (size_t shift = 1; shift < 9; shift++) {
            memcpy(shifted + shift, bytes, length);
            CHECK(hash_bytes(7, shifted + shift, length) == h);
        }
        for (size_t bit = 0; bit < 8 * length; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            CHECK(hash_bytes(7, bytes, length) != h);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        CHECK(hash_bytes(8, bytes, length) != h);
        free(bytes);
    }
}

/* Zeroes at the end are content: a longer input of zeroes is another input. */
static void test_length_counts(void)
{
    static const uint8_t zeroes[300];
    for (size_t a = 0; a <= 300; a++) {
        for (size_t b = 0; b < a; b++)
            CHECK(hash_bytes(0, zeroes, a) != hash_bytes(0, zeroes, b));
    }
}

/* Blocks that change places change the hash, at every granularity that the hash works with. */
static void test_order_counts(uint64_t seed)
{
    uint8_t bytes[256], swapped[256];
    seed_fill(&seed, bytes, sizeof(bytes));
    uint64_t h = hash_bytes(0, bytes, sizeof(bytes));
    for (size_t block = 1; block <= 128; block *= 2) {
        for (size_t a = 0; a + block <= 256; a += block) {
            for (size_t b = a + block; b + block <= 256; b += block) {
                if (memcmp(bytes + a, bytes + b, block) == 0)
                    continue;
                memcpy(swapped, bytes, sizeof(bytes));
                memcpy(swapped + a, bytes + b, block);
                memcpy(swapped + b, bytes + a, block);
                CHECK(hash_bytes(0, swapped, sizeof(bytes)) != h);
            }
        }
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Counters, the likeliest content of packets: no collisions, and about half of the bits flip. */
static void test_spread(void)
{
    enum { COUNT = 200000 };
    uint64_t *h = malloc(COUNT * sizeof(*h));
    uint64_t flipped = 0;
    uint8_t packet[60] = {0};
    for (uint32_t i = 0; i < COUNT; i++) {
        memcpy(packet + 42, &i, sizeof(i));
        h[i] = hash_bytes(0, packet, sizeof(packet));
        if (i)
            flipped += (uint64_t)__builtin_popcountll(h[i] ^ h[i - 1]);
    }
    CHECK(flipped / COUNT >= 30 && flipped / COUNT <= 34);
    qsort(h, COUNT, sizeof(*h), compare);
    for (uint32_t i = 1; i < COUNT; i++)
        CHECK(h[i] != h[i - 1]);
    free(h);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_every_bit(seed);
    test_length_counts();
    test_order_counts(seed);
    test_spread();
    return 0;
}

/* The role header: which frames are well-formed, for any bytes. */
#include "core/wire.h"

#include "tests/core_test.h"

/* Is a frame with this head and `length` bytes in all valid? The block is exactly that long. */
static bool valid(struct wire_head head, uint32_t length, uint32_t workers)
{
    uint8_t *frame = calloc(1, length + 1);
    memcpy(frame + 1, &head, u64_min(length, sizeof(head))); /* + 1: not aligned either */
    bool result = wire_valid(frame + 1, length, workers);
    free(frame);
    return result;
}

static struct wire_head head_of(enum wire_type type, uint32_t length)
{
    struct wire_head head;
    wire_head_put(&head, type, 1, 0, length, 3, 4, 5);
    return head;
}

static uint32_t header_bytes(enum wire_type type, uint32_t workers)
{
    switch (type) {
    case WIRE_INPUT:
    case WIRE_TICK:
        return sizeof(struct wire_input);
    case WIRE_PAL:
        return sizeof(struct wire_pals);
    case WIRE_OUTPUT:
        return (uint32_t)sizeof(struct wire_output) + 8 * workers;
    case WIRE_ACK:
        return sizeof(struct wire_ack);
    default:
        return sizeof(struct wire_head);
    }
}

static void test_put(void)
{
    struct wire_head head;
    memset(&head, 0xff, sizeof(head));
    wire_head_put(&head, WIRE_OUTPUT, 7, 1, 1536, 0x01020304, 0x05060708, 0x1122334455667788ull);
    const uint8_t *bytes = (const uint8_t *)&head;
    static const uint8_t expected[24] = {0xb2, 0xf7, 1,    4,    7,    1,    0,    6,
                                         4,    3,    2,    1,    8,    7,    6,    5,
                                         0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    CHECK(memcmp(bytes, expected, sizeof(expected)) == 0);
}

static uint32_t most_bytes(unsigned type)
{
    if (type == WIRE_INPUT || type == WIRE_OUTPUT)
        return WIRE_MAX_PACKET;
    return type == WIRE_PAL ? WIRE_MAX_PALS * 8 : 0;
}

/* Exactly the bytes that the head declares are enough, one less is not: a frame cut off anywhere is
 * refused, and so is one that is longer than any can be. */
static void test_lengths(void)
{
    for (uint32_t workers = 2; workers <= FTMB_MAX_WORKERS; workers++) {
        for (enum wire_type type = WIRE_INPUT; type <= WIRE_PROBE; type++) {
            uint32_t need = header_bytes(type, workers);
            for (uint32_t length = 0; length < need; length++)
                CHECK(!valid(head_of(type, 0), length, workers));
            CHECK(valid(head_of(type, 0), need, workers));
            CHECK(valid(head_of(type, 0), need + 4, workers)); /* links pad short frames */
            uint32_t most = most_bytes(type);
            for (uint32_t more = 8; more <= most; more += 8) {
                CHECK(valid(head_of(type, more), need + more, workers));
                for (uint32_t length = 0; length<need + more; length += more> 8 ? 97 : 1)
                    CHECK(!valid(head_of(type, more), length, workers));
                CHECK(!valid(head_of(type, more), need + more - 1, workers));
            }
            CHECK(!valid(head_of(type, most + 8), need + most + 8, workers));
            CHECK(!valid(head_of(type, 65535), need + 64, workers));
        }
    }
    CHECK(!valid(head_of(WIRE_PAL, 12), sizeof(struct wire_pals) + 12, 2));
    CHECK(valid(head_of(WIRE_PAL, 16), sizeof(struct wire_pals) + 16, 2));
    CHECK(sizeof(struct wire_pals) + WIRE_MAX_PALS * 8 <= WIRE_MAX_FRAME);
    CHECK(wire_output_bytes(FTMB_MAX_WORKERS) + WIRE_MAX_PACKET <= WIRE_MAX_FRAME);
}

static void test_fields(void)
{
    struct wire_head good = head_of(WIRE_PROBE, 0), bad = good;
    CHECK(valid(good, sizeof(good), 2) && !valid(good, sizeof(good), 1));
    bad.magic ^= 1;
    CHECK(!valid(bad, sizeof(bad), 2));
    bad = good;
    bad.version++;
    CHECK(!valid(bad, sizeof(bad), 2));
    bad = good;
    bad.port = 2;
    CHECK(!valid(bad, sizeof(bad), 2));
    bad = good;
    bad.worker = 255;
    CHECK(!valid(bad, sizeof(bad), FTMB_MAX_WORKERS));
    for (unsigned type = 0; type < 256; type++) {
        bad = good;
        bad.type = (uint8_t)type;
        CHECK(valid(bad, 200, 2) == (type >= WIRE_INPUT && type <= WIRE_PROBE));
    }
}

/* Whatever is accepted keeps what its readers rely on; nothing beyond the frame is read. */
static void test_random(uint64_t seed)
{
    unsigned accepted = 0;
    for (unsigned i = 0; i < 500000; i++) {
        uint32_t length = (uint32_t)seed_below(&seed, 130);
        uint32_t workers = 1 + (uint32_t)seed_below(&seed, FTMB_MAX_WORKERS);
        uint8_t *frame = malloc(length ? length : 1);
        seed_fill(&seed, frame, length);
        struct wire_head head;
        if (i % 4 && length >= sizeof(head)) { /* nearly right */
            wire_head_put(&head, (enum wire_type)seed_below(&seed, 8),
                          (uint32_t)seed_below(&seed, 9), (uint32_t)seed_below(&seed, 3),
                          8 * (uint32_t)seed_below(&seed, 12), 1, 1, 1);
            head.length += seed_below(&seed, 8) == 0;
            memcpy(frame, &head, sizeof(head));
        }
        if (wire_valid(frame, length, workers)) {
            accepted++;
            CHECK(length >= sizeof(head));
            memcpy(&head, frame, sizeof(head));
            CHECK(head.worker < workers && head.port <= 1);
            CHECK(header_bytes(head.type, workers) + head.length <= length);
            CHECK(head.type != WIRE_PAL || head.length % 8 == 0);
            CHECK(head.length <= most_bytes(head.type));
        }
        free(frame);
    }
    CHECK(accepted > 1000);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_put();
    test_lengths();
    test_fields();
    test_random(seed);
    return 0;
}

/* Small rules that roles and simulator share: frames of PALs, credit, room. */
#include "core/credit.h"
#include "core/framing.h"
#include "core/room.h"

#include "tests/core_test.h"

#define PALS 300u

/* Sections of random lengths up to `longest`. */
static void fill(uint64_t *seed, uint64_t *pals, uint32_t count, uint32_t longest)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        pals[i] = pal_make(true, left != 0, i, i);
        left = left ? left - 1 : (uint32_t)seed_below(seed, longest);
    }
}

/* Frames follow each other, end outside sections, and, batched, hold as much as possible. */
static void test_frames(uint64_t *seed)
{
    uint64_t pals[PALS];
    for (unsigned round = 0; round < 2000; round++) {
        uint32_t count = 1 + (uint32_t)seed_below(seed, PALS);
        uint32_t longest = 1 + (uint32_t)seed_below(seed, 20);
        uint32_t capacity = longest + (uint32_t)seed_below(seed, 10);
        bool batch = seed_below(seed, 2);
        fill(seed, pals, count, longest);
        for (uint32_t from = 0; from < count;) {
            uint32_t end = framing_end(pals, from, count, capacity, batch);
            CHECK(end > from && end <= count && end - from <= capacity);
            CHECK(end == count || !(pals[end] & PAL_INSIDE));
            uint32_t next = end + 1;
            while (next < count && (pals[next] & PAL_INSIDE))
                next++;
            CHECK(!batch || end == count || next - from > capacity);
            for (uint32_t i = from + 1; !batch && i < end; i++)
                CHECK(pals[i] & PAL_INSIDE);
            from = end;
        }
    }
}

/* A section that fits no frame is a broken invariant, not a split one. */
static void test_section_too_long(void)
{
    uint64_t pals[9] = {pal_make(true, false, 1, 0)};
    for (uint32_t i = 1; i < 9; i++)
        pals[i] = pal_make(true, true, 1 + i, 0);
    CHECK(framing_end(pals, 0, 9, 9, true) == 9);
    CHECK_PANICS(framing_end(pals, 0, 9, 8, true));
    CHECK_PANICS(framing_end(pals, 0, 9, 8, false));
}

/* Whatever is accepted within the limit fits, and the limit is never below what was done. */
static void test_credit(void)
{
    struct release_worker x = {.pal_mask = 63, .hash_mask = 31};
    atomic_store(&x.stored, 10);
    x.pal_base = 6;
    atomic_store(&x.arrived, 9);
    x.out_base = 4;
    CHECK(credit_limit(&x, 21, 3, 2) == 20 + 20); /* 60 PALs of room, 27 outputs less 2 */
    CHECK(credit_limit(&x, 21, 0, 2) == 20 + 25);
    CHECK(credit_limit(&x, 21, 61, 2) == 20);
    CHECK(credit_limit(&x, 21, 1, 100) == 20);
    CHECK(!credit_pressed(&x));
    atomic_store(&x.stored, 6 + 33);
    CHECK(credit_pressed(&x));
    atomic_store(&x.stored, 10);
    atomic_store(&x.arrived, 4 + 17);
    CHECK(credit_pressed(&x));
}

/* Room is kept for one input more than a burst, and a worker whose log is not finished uses it. */
static void test_room(void)
{
    CHECK(room_inputs(0, 100, 8, 50, 10, false) == 8);
    CHECK(room_inputs(40, 100, 8, 50, 10, false) == 8);
    CHECK(room_inputs(41, 100, 8, 50, 10, false) == 0);
    CHECK(room_inputs(41, 100, 8, 50, 10, true) == 1);
    CHECK(room_inputs(90, 100, 8, 50, 10, true) == 1);
    CHECK(room_inputs(91, 100, 8, 50, 10, true) == 0);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_frames(&seed);
    test_section_too_long();
    test_credit();
    test_room();
    return 0;
}

/* Packets of any bytes and lengths through a network function, with ticks and time between them;
 * then its own checks of its state must hold. FUZZ_NF names the function, FUZZ_SETTINGS its size.
 */
#include "fuzz/input.h"
#include "tests/nf_harness.h"

#define WORKERS 2u

static struct harness harness;
static void *fresh; /* the arena as it was at first */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct harness_setting settings[] = {FUZZ_SETTINGS, {NULL, 0}};
    struct input input = {bytes, size};
    if (!fresh) {
        harness_open(&harness, FUZZ_NF, WORKERS, settings);
        harness.capacity = 1600;
        fresh = malloc(harness.arena_size);
        HOLDS(fresh);
        memcpy(fresh, harness.arena, harness.arena_size);
    }
    memcpy(harness.arena, fresh, harness.arena_size);
    harness.now = 1000 * SECOND;
    while (input.left) {
        uint8_t what = input_u8(&input);
        harness.now += (uint64_t)(what >> 4) * (what & 8 ? SECOND : MS);
        if (what & 4) {
            harness_tick(&harness, what & 1);
            continue;
        }
        size_t length = input_u16(&input) % 1537;
        uint8_t *frame = input_block(&input, &length);
        harness_packet(&harness, what & 1, what & 2 ? NF_OUTSIDE : NF_INSIDE, frame,
                       (uint32_t)length);
        free(frame);
    }
    harness_checks(&harness);
    return 0;
}

/* PAL logs from outside: the cut of any logs is refused or consistent, and can be prepared. */
#include "core/replay.h"
#include "fuzz/input.h"

#define WORKERS 3u
#define VARIABLES 5u
#define PALS 64u

/* From six bytes: few variables and versions near the base, so that logs can fit each other; or,
 * rarely, eight bytes as they come. */
static uint64_t take_pal(struct input *input)
{
    uint8_t kind = input_u8(input);
    if (kind >= 0xf0) {
        uint64_t pal;
        input_take(input, &pal, sizeof(pal));
        return pal;
    }
    uint32_t id = kind % 8 < VARIABLES + 1 ? kind % 8 : PAL_ID_DETERMINANT;
    return pal_make(kind & 8, kind & 16, id, input_u8(input) - 2);
}

/* Every access that is left finds each write of a lower version, from the base on, in the logs. */
static bool consistent(const struct replay *replay, const _Atomic uint64_t *seq)
{
    for (uint32_t w = 0; w < replay->workers; w++) {
        for (uint64_t i = 0; i < replay->count[w]; i++) {
            uint64_t pal = replay->log[w][i], id = pal_id(pal);
            if (id == PAL_ID_DETERMINANT)
                continue;
            uint64_t base = atomic_load(&seq[id]) >> 1, writes = 0;
            for (uint32_t v = 0; v < replay->workers; v++) {
                for (uint64_t k = 0; k < replay->count[v]; k++) {
                    uint64_t other = replay->log[v][k];
                    writes += (other & PAL_WRITE) && pal_id(other) == id &&
                              pal_version_since(other, base) < pal_version_since(pal, base);
                }
            }
            if (writes != pal_version_since(pal, base))
                return false;
        }
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    _Atomic uint64_t seq[VARIABLES];
    uint64_t log[WORKERS][PALS], cut[WORKERS];
    struct replay replay;
    HOLDS(replay_init(&replay, WORKERS, VARIABLES, 4) == REPLAY_OK);
    for (uint32_t x = 0; x < VARIABLES; x++)
        atomic_init(&seq[x], 2 * (x % 2 ? PAL_VERSION_MASK - 1 : input_u8(&input) % 4u));
    for (uint32_t w = 0; w < WORKERS; w++) {
        replay.log[w] = log[w];
        replay.count[w] = input_u8(&input) % (PALS + 1);
        for (uint64_t i = 0; i < replay.count[w]; i++)
            log[w][i] = take_pal(&input);
    }
    if (replay_cut(&replay, seq) == REPLAY_OK) {
        HOLDS(consistent(&replay, seq));
        memcpy(cut, replay.count, sizeof(cut));
        HOLDS(replay_cut(&replay, seq) == REPLAY_OK);
        HOLDS(memcmp(cut, replay.count, sizeof(cut)) == 0);
        HOLDS(replay_prepare(&replay, seq) == REPLAY_OK);
    }
    replay_free(&replay);
    return 0;
}

/* Snapshot deltas from outside: delta_check() refuses them, or delta_apply() stays inside the
 * arena. */
#include "fuzz/seal.h"

#define ARENA_BYTES 8192u
#define DIGEST 0x1234u

/* An arena that is valid is all that these need to be safe. */
static void look_at(const uint8_t *delta, const struct arena *arena)
{
    struct delta_head head;
    uint64_t at = 0, offset, length;
    char where[48];
    memcpy(&head, delta, sizeof(head));
    snapshot_digest(arena);
    uint64_t differs = delta_compare(delta, arena);
    HOLDS(head.hashes || differs == UINT64_MAX);
    snapshot_where(arena, differs, where);
    HOLDS(memchr(where, 0, sizeof(where)));
    for (unsigned n = 0; snapshot_range(arena, head.slice, &at, &offset, &length); n++)
        HOLDS(n <= ARENA_EXTENTS && offset + length <= ARENA_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    bool sealed = input_u8(&input) % 8 != 0;
    size_t length = input.left;
    uint8_t *delta = input_block(&input, &length);
    uint8_t *arena = aligned_alloc(CACHE_LINE, ARENA_BYTES);
    HOLDS(arena);
    memset(arena, 0, ARENA_BYTES);
    if (sealed)
        seal(delta, length, DIGEST);
    if (!delta_check(delta, length, ARENA_BYTES, DIGEST)) {
        delta_apply(delta, arena);
        if (arena_valid((const struct arena *)arena, ARENA_BYTES))
            look_at(delta, (const struct arena *)arena);
    }
    free(arena);
    free(delta);
    return 0;
}

/* Snapshot deltas from outside: delta_check() refuses them, or delta_apply() stays inside the
 * arena.
 *
 * A fuzzer cannot guess a checksum, so most inputs are sealed first: head completed, checksum made
 * right. That needs the function that makes it, which is private: hence the included source. */
#include "core/snapshot.c"
#include "fuzz/input.h"

#define ARENA_BYTES 8192u
#define DIGEST 0x1234u

static void seal(uint8_t *bytes, size_t size)
{
    struct delta_head head;
    if (size < sizeof(head))
        return;
    memcpy(&head, bytes, sizeof(head));
    head.magic = DELTA_MAGIC;
    head.version = DELTA_VERSION;
    head.bytes = size;
    head.config_digest = DIGEST;
    head.checksum = checksum_of(head, bytes);
    memcpy(bytes, &head, sizeof(head));
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
        seal(delta, length);
    if (!delta_check(delta, length, ARENA_BYTES, DIGEST)) {
        delta_apply(delta, arena);
        if (arena_valid((const struct arena *)arena, ARENA_BYTES))
            snapshot_digest((const struct arena *)arena);
    }
    free(arena);
    free(delta);
    return 0;
}

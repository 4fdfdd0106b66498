/* Images, deltas and digests of the arena (see snapshot.h). */
#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"

/* The planted fault is for the test that the fuzzer finds it (native/fuzz). */
#ifdef FTMB_PLANT_FUZZ
#define DELTA_SLACK 1u
#else
#define DELTA_SLACK 0u
#endif

/* The pieces of an image: piece 0 is the header, piece 1 + e is extent e. */
static bool piece(const struct arena *arena, uint32_t index, uint64_t *start, uint64_t *length)
{
    if (index == 0) {
        *start = 0;
        *length = sizeof(struct arena);
        return true;
    }
    if (index > arena->workers + 1)
        return false;
    *start = arena->extents[index - 1].start;
    *length = arena->extents[index - 1].used;
    return true;
}

void snapshot_cut_of(const struct arena *arena, struct snapshot_cut *cut)
{
    memset(cut, 0, sizeof(*cut));
    for (uint32_t w = 0; w < arena->workers; w++) {
        cut->next_input[w] = arena->cursors[w].next_input;
        cut->pals[w] = arena->cursors[w].pals;
        cut->outputs[w] = arena->cursors[w].outputs;
    }
}

uint64_t snapshot_copy(const struct arena *arena, void *image)
{
    uint64_t start, length, total = 0;
    for (uint32_t i = 0; piece(arena, i, &start, &length); i++) {
        memcpy((uint8_t *)image + start, (const uint8_t *)arena + start, length);
        total += length;
    }
    return total;
}

uint64_t snapshot_digest(const struct arena *image)
{
    uint64_t start, length, digest = 0;
    for (uint32_t i = 0; piece(image, i, &start, &length); i++)
        digest = hash_bytes(digest, (const uint8_t *)image + start, length);
    return digest;
}

uint64_t snapshot_first_difference(const struct arena *a, const struct arena *b)
{
    uint64_t start, length;
    for (uint32_t i = 0; piece(a, i, &start, &length); i++) {
        for (uint64_t at = 0; at < length; at += SNAPSHOT_LINE) {
            uint64_t n = u64_min(SNAPSHOT_LINE, length - at);
            if (memcmp((const uint8_t *)a + start + at, (const uint8_t *)b + start + at, n) != 0)
                return start + at;
        }
    }
    return UINT64_MAX;
}

static bool reserve(struct delta *delta, uint64_t more)
{
    if (delta->size + more <= delta->capacity)
        return true;
    uint64_t capacity = u64_max(delta->capacity * 2, delta->size + more + (1u << 16));
    uint8_t *bytes = realloc(delta->bytes, capacity);
    if (!bytes)
        return false;
    delta->bytes = bytes;
    delta->capacity = capacity;
    return true;
}

static bool add_run(struct delta *delta, const struct arena *image, uint64_t offset,
                    uint64_t length)
{
    uint64_t padded = align_up(length, 8);
    if (!reserve(delta, sizeof(struct delta_run) + padded))
        return false;
    struct delta_run run = {.offset = offset, .length = length};
    memcpy(delta->bytes + delta->size, &run, sizeof(run));
    uint8_t *data = delta->bytes + delta->size + sizeof(run);
    memcpy(data, (const uint8_t *)image + offset, length);
    memset(data + length, 0, padded - length);
    delta->size += sizeof(run) + padded;
    ((struct delta_head *)delta->bytes)->runs++;
    ((struct delta_head *)delta->bytes)->lines += (length + SNAPSHOT_LINE - 1) / SNAPSHOT_LINE;
    return true;
}

/* Runs of consecutive lines that differ, within one piece. */
static bool add_piece(struct delta *delta, const struct arena *image, const struct arena *previous,
                      uint64_t start, uint64_t length)
{
    uint64_t run_start = 0, run_length = 0;
    for (uint64_t at = 0; at < length; at += SNAPSHOT_LINE) {
        uint64_t n = u64_min(SNAPSHOT_LINE, length - at);
        const uint8_t *now = (const uint8_t *)image + start + at;
        bool differs = !previous || memcmp(now, (const uint8_t *)previous + start + at, n) != 0;
        if (differs) {
            if (run_length == 0)
                run_start = start + at;
            run_length += n;
        }
        bool last = at + SNAPSHOT_LINE >= length;
        if (run_length && (!differs || last)) {
            if (!add_run(delta, image, run_start, run_length))
                return false;
            run_length = 0;
        }
    }
    return true;
}

/* Of the whole delta, its head with an empty checksum. */
static uint64_t checksum_of(struct delta_head head, const uint8_t *bytes)
{
    head.checksum = 0;
    return hash_bytes(hash_bytes(0, &head, sizeof(head)), bytes + sizeof(head),
                      head.bytes - sizeof(head));
}

bool delta_build(struct delta *delta, const struct arena *image, const struct arena *previous,
                 struct snapshot_name name, bool digest)
{
    delta->size = 0;
    if (!reserve(delta, sizeof(struct delta_head)))
        return false;
    struct delta_head head = {.magic = DELTA_MAGIC,
                              .version = DELTA_VERSION,
                              .view = name.view,
                              .epoch = name.epoch,
                              .base_epoch = previous ? name.base_epoch : 0,
                              .base_view = previous ? name.base_view : 0,
                              .digest = digest ? snapshot_digest(image) : 0,
                              .config_digest = image->config_digest};
    snapshot_cut_of(image, &head.cut);
    memcpy(delta->bytes, &head, sizeof(head));
    delta->size = sizeof(head);
    uint64_t start, length;
    for (uint32_t i = 0; piece(image, i, &start, &length); i++) {
        if (!add_piece(delta, image, previous, start, length))
            return false;
    }
    struct delta_head *done = (struct delta_head *)delta->bytes;
    done->bytes = delta->size;
    done->checksum = checksum_of(*done, delta->bytes);
    return true;
}

const char *delta_check(const uint8_t *bytes, uint64_t size, uint64_t arena_size,
                        uint64_t config_digest)
{
    struct delta_head head;
    if (size < sizeof(head))
        return "shorter than its head";
    memcpy(&head, bytes, sizeof(head));
    if (head.magic != DELTA_MAGIC || head.version != DELTA_VERSION)
        return "not a delta of this version";
    if (head.bytes != size)
        return "incomplete";
    if (head.config_digest != config_digest)
        return "made by another configuration";
    if (head.checksum != checksum_of(head, bytes))
        return "checksum is wrong";
    uint64_t at = sizeof(head);
    for (uint64_t r = 0; r < head.runs; r++) {
        struct delta_run run;
        if (size - at < sizeof(run))
            return "a run is cut off";
        memcpy(&run, bytes + at, sizeof(run));
        at += sizeof(run);
        if (run.offset > arena_size || run.length > arena_size - run.offset + DELTA_SLACK)
            return "a run lies outside the arena";
        if (align_up(run.length, 8) > size - at)
            return "a run is cut off";
        at += align_up(run.length, 8);
    }
    return at == size ? NULL : "bytes after the last run";
}

void delta_apply(const uint8_t *bytes, void *arena)
{
    const struct delta_head *head = (const struct delta_head *)bytes;
    uint64_t at = sizeof(*head);
    for (uint64_t r = 0; r < head->runs; r++) {
        struct delta_run run;
        memcpy(&run, bytes + at, sizeof(run));
        at += sizeof(run);
        memcpy((uint8_t *)arena + run.offset, bytes + at, run.length);
        at += align_up(run.length, 8);
    }
}

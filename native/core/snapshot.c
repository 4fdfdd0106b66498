/* Images, deltas and digests of the arena (see snapshot.h). */
#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"

/* The planted fault is for the test that the fuzzer finds it (native/fuzz). */
#ifdef FTMB_PLANT_FUZZ
#define DELTA_SLACK ARENA_LINE
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

void snapshot_where(const struct arena *arena, uint64_t offset, char *where)
{
    uint64_t seq_end = arena->seq_offset + arena->variables * sizeof(uint64_t);
    const char *part = "no memory of the arena";
    if (offset < sizeof(struct arena))
        part = "header";
    else if (offset >= arena->seq_offset / ARENA_LINE * ARENA_LINE && offset < seq_end)
        part = "variables";
    else if (offset >= arena->extents[0].start &&
             offset < arena->extents[0].start + arena->extents[0].limit)
        part = "shared memory";
    for (uint32_t w = 0; w < arena->workers; w++) {
        const struct arena_extent *x = &arena->extents[1 + w];
        if (offset >= x->start && offset < x->start + x->limit) {
            memcpy(where, "memory of worker ", 17);
            where[17] = (char)('0' + w);
            where[18] = 0;
            return;
        }
    }
    memcpy(where, part, strlen(part) + 1);
}

bool snapshot_range(const struct arena *arena, struct snapshot_slice slice, uint64_t *at,
                    uint64_t *offset, uint64_t *length)
{
    uint64_t begin = u64_max(*at, slice.first * ARENA_LINE);
    uint64_t end = u64_min(arena->size, (slice.first + slice.lines) * ARENA_LINE);
    for (uint32_t e = 0; e <= arena->workers; e++) {
        const struct arena_extent *x = &arena->extents[e];
        uint64_t from = u64_max(begin, x->start), to = u64_min(end, x->start + x->used);
        if (from >= to)
            continue;
        *offset = from;
        *length = to - from;
        *at = to;
        return true;
    }
    return false;
}

struct snapshot_slice snapshot_slice_at(const struct arena *arena, uint64_t first, uint64_t bytes)
{
    uint64_t lines = snapshot_lines(arena->size), at = 0, offset, length;
    struct snapshot_slice rest = {first, lines - first};
    while (snapshot_range(arena, rest, &at, &offset, &length)) {
        if (length >= bytes) {
            rest.lines = u64_min(rest.lines, snapshot_lines(offset + bytes) - first);
            break;
        }
        bytes -= length;
    }
    return rest;
}

/* ---- making a delta ----------------------------------------------------------------------- */

static bool reserve(struct delta *delta, uint64_t more)
{
    if (delta->size + more <= delta->capacity)
        return true;
    if (delta->fixed)
        return false;
    uint64_t capacity = u64_max(delta->capacity * 2, delta->size + more + (1u << 16));
    uint8_t *bytes = realloc(delta->bytes, capacity);
    if (!bytes)
        return false;
    delta->bytes = bytes;
    delta->capacity = capacity;
    return true;
}

static struct delta_head *head_of(struct delta *delta)
{
    return (struct delta_head *)delta->bytes;
}

uint64_t delta_checksum(const uint8_t *bytes)
{
    struct delta_head head;
    memcpy(&head, bytes, sizeof(head));
    head.checksum = 0;
    uint64_t sum = hash_bytes(0, &head, sizeof(head));
    for (uint64_t at = sizeof(head), length; at < head.bytes; at += length) {
        length = u64_min(SNAPSHOT_PIECE, head.bytes - at);
        sum = hash_bytes(sum, bytes + at, length);
        breathe();
    }
    return sum;
}

bool delta_begin(struct delta *delta, struct snapshot_name name, const struct arena *header)
{
    delta->size = delta->last_run = delta->hashes = 0;
    if (!reserve(delta, sizeof(struct delta_head)))
        return false;
    struct delta_head head = {.magic = DELTA_MAGIC,
                              .version = DELTA_VERSION,
                              .view = name.view,
                              .epoch = name.epoch,
                              .base_epoch = name.base_epoch,
                              .base_view = name.base_epoch ? name.base_view : 0,
                              .previous_epoch = name.previous_epoch,
                              .slice = name.slice,
                              .config_digest = header->config_digest};
    snapshot_cut_of(header, &head.cut);
    memcpy(delta->bytes, &head, sizeof(head));
    delta->size = sizeof(head);
    return delta_add(delta, 0, header, sizeof(*header));
}

bool delta_add(struct delta *delta, uint64_t offset, const void *content, uint64_t length)
{
    struct delta_run run = {.offset = offset, .length = length};
    struct delta_run *last = (struct delta_run *)(delta->bytes + delta->last_run);
    bool follows =
        delta->last_run && last->offset + last->length == offset && last->length % 8 == 0;
    uint64_t padded = align_up(length, 8);
    if (!reserve(delta, padded + (follows ? 0 : sizeof(run))))
        return false;
    if (follows) {
        last = (struct delta_run *)(delta->bytes + delta->last_run);
        last->length += length;
    } else {
        delta->last_run = delta->size;
        memcpy(delta->bytes + delta->size, &run, sizeof(run));
        delta->size += sizeof(run);
        head_of(delta)->runs++;
    }
    memcpy(delta->bytes + delta->size, content, length);
    memset(delta->bytes + delta->size + length, 0, padded - length);
    delta->size += padded;
    head_of(delta)->lines += (length + ARENA_LINE - 1) / ARENA_LINE;
    return true;
}

/* The next line of an image in the order in which lines are hashed and compared. */
struct line_walk {
    uint32_t piece;
    uint64_t at;
};

static bool next_line(const struct arena *image, struct line_walk *walk, uint64_t *offset,
                      uint64_t *length)
{
    uint64_t start, bytes;
    for (; piece(image, walk->piece, &start, &bytes); walk->piece++, walk->at = 0) {
        if (walk->at >= bytes)
            continue;
        *offset = start + walk->at;
        *length = u64_min(ARENA_LINE, bytes - walk->at);
        walk->at += ARENA_LINE;
        return true;
    }
    return false;
}

static uint32_t hash_line(const struct arena *image, uint64_t offset, uint64_t length)
{
    return (uint32_t)hash_bytes(offset, (const uint8_t *)image + offset, length);
}

bool delta_hash(struct delta *delta, const struct arena *image)
{
    uint64_t most = snapshot_lines(arena_allocated(image)) + ARENA_EXTENTS + 1;
    if (most > delta->hash_capacity) {
        uint32_t *hash = realloc(delta->hash, most * sizeof(*hash));
        if (!hash)
            return false;
        delta->hash = hash;
        delta->hash_capacity = most;
    }
    struct line_walk walk = {0};
    uint64_t offset, length;
    for (delta->hashes = 0; next_line(image, &walk, &offset, &length); delta->hashes++)
        delta->hash[delta->hashes] = hash_line(image, offset, length);
    return true;
}

bool delta_finish(struct delta *delta)
{
    uint64_t bytes = delta->hashes * sizeof(uint32_t);
    if (!reserve(delta, align_up(bytes, 8)))
        return false;
    if (bytes)
        memcpy(delta->bytes + delta->size, delta->hash, bytes);
    memset(delta->bytes + delta->size + bytes, 0, align_up(bytes, 8) - bytes);
    delta->size += align_up(bytes, 8);
    struct delta_head *head = head_of(delta);
    head->hashes = delta->hashes;
    head->bytes = delta->size;
    head->checksum = delta_checksum(delta->bytes);
    return true;
}

static bool in_slice(struct snapshot_slice slice, uint64_t offset)
{
    return offset / ARENA_LINE - slice.first < slice.lines;
}

bool delta_build(struct delta *delta, const struct arena *image, const struct arena *previous,
                 struct snapshot_name name, bool check)
{
    if (!previous) {
        name.base_epoch = 0;
        name.slice = (struct snapshot_slice){0, snapshot_lines(image->size)};
    }
    if (!delta_begin(delta, name, image))
        return false;
    struct line_walk walk = {.piece = 1};
    uint64_t offset, length, since = 0;
    while (next_line(image, &walk, &offset, &length)) {
        if (++since % (SNAPSHOT_PIECE / ARENA_LINE) == 0)
            breathe();
        const uint8_t *now = (const uint8_t *)image + offset;
        bool take = !previous || in_slice(name.slice, offset) ||
                    memcmp(now, (const uint8_t *)previous + offset, length) != 0;
        if (take && !delta_add(delta, offset, now, length))
            return false;
    }
    return (!check || delta_hash(delta, image)) && delta_finish(delta);
}

/* ---- taking a delta ----------------------------------------------------------------------- */

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
    if (head.checksum != delta_checksum(bytes))
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
    if (head.hashes > (size - at) / sizeof(uint32_t))
        return "hashes are cut off";
    return at + align_up(head.hashes * sizeof(uint32_t), 8) == size ? NULL
                                                                    : "bytes after the last run";
}

bool delta_next(const uint8_t *bytes, struct delta_walk *walk, struct delta_run *run,
                const uint8_t **content)
{
    const struct delta_head *head = (const struct delta_head *)bytes;
    if (walk->runs == head->runs)
        return false;
    walk->at = walk->runs++ ? walk->at : sizeof(*head);
    memcpy(run, bytes + walk->at, sizeof(*run));
    *content = bytes + walk->at + sizeof(*run);
    walk->at += sizeof(*run) + align_up(run->length, 8);
    return true;
}

void delta_apply(const uint8_t *bytes, void *arena)
{
    struct delta_walk walk = {0};
    struct delta_run run;
    const uint8_t *content;
    uint64_t since = 0;
    while (delta_next(bytes, &walk, &run, &content)) {
        for (uint64_t done = 0, length; done < run.length; done += length) {
            length = u64_min(SNAPSHOT_PIECE, run.length - done);
            memcpy((uint8_t *)arena + run.offset + done, content + done, length);
            since += length;
            if (since >= SNAPSHOT_PIECE) {
                breathe();
                since = 0;
            }
        }
    }
}

uint64_t delta_compare(const uint8_t *bytes, const struct arena *image)
{
    const struct delta_head *head = (const struct delta_head *)bytes;
    const uint8_t *hash = bytes + head->bytes - align_up(head->hashes * sizeof(uint32_t), 8);
    struct line_walk walk = {0};
    uint64_t offset, length, count = 0;
    while (head->hashes && next_line(image, &walk, &offset, &length)) {
        uint32_t expected = 0;
        if (count % (SNAPSHOT_PIECE / ARENA_LINE) == 0)
            breathe();
        if (count < head->hashes)
            memcpy(&expected, hash + count * sizeof(expected), sizeof(expected));
        if (count++ >= head->hashes || expected != hash_line(image, offset, length))
            return offset;
    }
    return count == head->hashes ? UINT64_MAX : 0;
}

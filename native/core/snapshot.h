/* Snapshots: images of the arena at a cut, deltas between them, and their application.
 *
 * An image has the arena's layout: the header and the allocated part of each extent, at the same
 * offsets. A delta is what a backup needs to get from one committed image to the next; a full
 * delta needs none. Its layout: head, then runs of {offset, length, bytes padded to 8}. */
#ifndef FTMB_CORE_SNAPSHOT_H
#define FTMB_CORE_SNAPSHOT_H

#include "core/arena.h"

#define DELTA_MAGIC 0x4154414c45444d42ull
#define DELTA_VERSION 2u
#define SNAPSHOT_LINE 256u /* granularity of comparison, bytes */

/* One instant at which every worker stands between two packets; counts from the start. */
struct snapshot_cut {
    uint64_t next_input[FTMB_MAX_WORKERS];
    uint64_t pals[FTMB_MAX_WORKERS];
    uint64_t outputs[FTMB_MAX_WORKERS];
};

struct delta_head {
    uint64_t magic;
    uint32_t version;
    uint32_t view;
    uint64_t epoch;
    uint64_t base_epoch; /* the committed snapshot it builds on; 0: full */
    uint32_t base_view;
    uint32_t reserved;
    uint64_t bytes; /* whole delta, head included */
    uint64_t runs;
    uint64_t lines;    /* lines that differ */
    uint64_t checksum; /* of the whole delta, with 0 here */
    uint64_t digest;   /* of the whole image; 0: not computed */
    uint64_t config_digest;
    struct snapshot_cut cut;
};

struct delta_run {
    uint64_t offset;
    uint64_t length;
};

struct delta {
    uint8_t *bytes;
    uint64_t size;
    uint64_t capacity;
};

/* Where the arena stands (no worker may be inside a packet). */
void snapshot_cut_of(const struct arena *arena, struct snapshot_cut *cut);

/* Copy the header and the allocated parts into `image` (arena->size bytes). Returns bytes. */
uint64_t snapshot_copy(const struct arena *arena, void *image);

/* 64-bit digest of an image's header and allocated parts. */
uint64_t snapshot_digest(const struct arena *image);

/* Offset of the first line in which two images differ; UINT64_MAX if none. */
uint64_t snapshot_first_difference(const struct arena *a, const struct arena *b);

struct snapshot_name {
    uint32_t view;
    uint64_t epoch;
    uint32_t base_view;
    uint64_t base_epoch;
};

/* Build the delta from `previous` (NULL: full) to `image` in `delta`, whose buffer is kept and
 * grows. False: out of memory. */
bool delta_build(struct delta *delta, const struct arena *image, const struct arena *previous,
                 struct snapshot_name name, bool digest);

/* Is this a complete, sound delta for an arena of `arena_size` bytes with this configuration? Any
 * bytes are safe. NULL: yes; else what is wrong. */
const char *delta_check(const uint8_t *bytes, uint64_t size, uint64_t arena_size,
                        uint64_t config_digest);

/* Apply a delta that passed delta_check() to a mapping of arena_size bytes. */
void delta_apply(const uint8_t *bytes, void *arena);

#endif

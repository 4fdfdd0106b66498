/* Snapshots: images of the arena at a cut, deltas between them, and their application.
 *
 * An image has the arena's layout: the header and the allocated part of each extent, at the same
 * offsets. A delta is what a backup needs to get from one committed image to the next, plus a
 * *slice* of the image whether or not that changed: whoever has got deltas without a gap until
 * their slices have gone round the arena once holds the whole image. A slice of everything needs no
 * base. Layout of a delta: head, runs of {offset, length, bytes padded to 8}, hashes of lines. */
#ifndef FTMB_CORE_SNAPSHOT_H
#define FTMB_CORE_SNAPSHOT_H

#include "core/arena.h"

#define DELTA_MAGIC 0x4154414c45444d42ull
#define DELTA_VERSION 3u
#define SNAPSHOT_LINE ARENA_LINE /* granularity of comparison, bytes */
#define SNAPSHOT_PIECE 32768u    /* of long work between two breaths, some 5 microseconds */

/* One instant at which every worker stands between two packets; counts from the start. */
struct snapshot_cut {
    uint64_t next_input[FTMB_MAX_WORKERS];
    uint64_t pals[FTMB_MAX_WORKERS];
    uint64_t outputs[FTMB_MAX_WORKERS];
};

/* Lines of the arena, by number. Lines outside its allocated parts count, but carry nothing. */
struct snapshot_slice {
    uint64_t first;
    uint64_t lines; /* 0: none */
};

struct snapshot_name {
    uint32_t view;
    uint64_t epoch;
    uint32_t base_view; /* the committed snapshot that it builds on; epoch 0: none */
    uint64_t base_epoch;
    uint64_t previous_epoch; /* of the delta before it in this view, 0: no build goes on with it */
    struct snapshot_slice slice;
};

struct delta_head {
    uint64_t magic;
    uint32_t version;
    uint32_t view;
    uint64_t epoch;
    uint64_t base_epoch;
    uint32_t base_view;
    uint32_t reserved;
    uint64_t previous_epoch;
    struct snapshot_slice slice;
    uint64_t bytes; /* whole delta, head included */
    uint64_t runs;
    uint64_t lines;    /* carried */
    uint64_t hashes;   /* of the lines of the whole image, at the end; 0: not computed */
    uint64_t checksum; /* of the whole delta, with 0 here */
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
    bool fixed;        /* `bytes` is somebody else's memory and does not grow */
    uint64_t last_run; /* where the head of the last run is; 0: no run yet */
    uint32_t *hash;    /* of the image's lines, until the end */
    uint64_t hashes;
    uint64_t hash_capacity;
};

/* Lines of an arena of this size. */
static inline uint64_t snapshot_lines(uint64_t arena_size)
{
    return (arena_size + ARENA_LINE - 1) / ARENA_LINE;
}

/* Where the arena stands (no worker may be inside a packet). */
void snapshot_cut_of(const struct arena *arena, struct snapshot_cut *cut);

/* Copy the header and the allocated parts into `image` (arena->size bytes). Returns bytes. */
uint64_t snapshot_copy(const struct arena *arena, void *image);

/* 64-bit digest of an image's header and allocated parts. */
uint64_t snapshot_digest(const struct arena *image);

/* Offset of the first line in which two images differ; UINT64_MAX if none. */
uint64_t snapshot_first_difference(const struct arena *a, const struct arena *b);

/* Which part of the arena an offset lies in, as words: "header", "variables", "shared memory",
 * "memory of worker 2". `where` has 48 bytes. */
void snapshot_where(const struct arena *arena, uint64_t offset, char *where);

/* The part of a slice that is allocated, as ranges of bytes without the header: the one that begins
 * at or after *at (start with 0), which moves behind it. False: there is no more. */
bool snapshot_range(const struct arena *arena, struct snapshot_slice slice, uint64_t *at,
                    uint64_t *offset, uint64_t *length);

/* The slice of about `bytes` allocated bytes that begins at line `first`; it ends with the arena.
 */
struct snapshot_slice snapshot_slice_at(const struct arena *arena, uint64_t first, uint64_t bytes);

/* Begin a delta; its buffer is kept and grows. `header` is the arena's header at the cut, and goes
 * into the delta. False: out of memory. */
bool delta_begin(struct delta *delta, struct snapshot_name name, const struct arena *header);

/* Add bytes of the image; together with the run before, if they follow on that. */
bool delta_add(struct delta *delta, uint64_t offset, const void *content, uint64_t length);

/* Add the hash of every line of the image, which must be the one of the cut (no worker may be
 * inside a packet). */
bool delta_hash(struct delta *delta, const struct arena *image);
bool delta_finish(struct delta *delta);

/* Make a whole delta: the lines that differ between two images, and the slice. Without a previous
 * image: everything, whatever the name says of base and slice. */
bool delta_build(struct delta *delta, const struct arena *image, const struct arena *previous,
                 struct snapshot_name name, bool check);

/* Of a whole delta, whatever the checksum in it says. Its head must be true about its size. */
uint64_t delta_checksum(const uint8_t *bytes);

/* Is this a complete, sound delta for an arena of `arena_size` bytes with this configuration? Any
 * bytes are safe. NULL: yes; else what is wrong. */
const char *delta_check(const uint8_t *bytes, uint64_t size, uint64_t arena_size,
                        uint64_t config_digest);

/* Does it carry the whole image? */
static inline bool delta_is_whole(const struct delta_head *head, uint64_t arena_size)
{
    return head->slice.first == 0 && head->slice.lines >= snapshot_lines(arena_size);
}

/* Where delta_next() is; begin with zeroes. */
struct delta_walk {
    uint64_t runs;
    uint64_t at;
};

/* The next run of a delta that passed delta_check(), or of one's own that was begun, and its
 * content. False: there is no more. */
bool delta_next(const uint8_t *bytes, struct delta_walk *walk, struct delta_run *run,
                const uint8_t **content);

/* Apply a delta that passed delta_check() to a mapping of arena_size bytes. */
void delta_apply(const uint8_t *bytes, void *arena);

/* Compare a sound image with the hashes of a delta. Offset of the first line that differs;
 * UINT64_MAX: none, or no hashes. */
uint64_t delta_compare(const uint8_t *bytes, const struct arena *image);

#endif

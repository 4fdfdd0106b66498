/* Which lines of the arena changed in which epoch, and what they held before (engine `cow`).
 *
 * A snapshot is the arena at the instant at which an epoch ended, but the workers go on at once. So
 * each line has a stamp of one byte: CLEAN, the tag of the open epoch, the tag of the closing one,
 * or BUSY. Before a worker stores into a line it marks it (ftmb_mark() in core/shared.h): the first
 * one to touch a line in an epoch claims it.
 *
 *   CLEAN            -> tag of the open epoch: the line will be in the next delta
 *   the closing tag  -> BUSY, the line is saved in the worker's undo log, -> tag of the open epoch
 *   BUSY             another worker is saving it: wait for that
 *
 * Whoever makes the snapshot reads a line of the closing epoch and then sets its stamp from the
 * closing tag to CLEAN. Where that fails, a worker was first, and the line as it was is in that
 * worker's undo log. It never makes a line BUSY, so no worker ever waits for it. When it has been
 * round once, nothing bears the closing tag any more, and the next epoch may begin.
 *
 * A map of one byte for each 64 lines says where to look; it is why there are no lists of lines,
 * and so no bound on how many may be dirty. Bounded are the undo logs: when one is full, what
 * should have been saved is not, the snapshot under way is *lost*, and its lines go into the next
 * (marks_give_up()). No worker ever stops for it.
 *
 * The arena's header is not marked. Workers hand over their cursors as they join an epoch
 * (core/epoch.h). */
#ifndef FTMB_CORE_MARKS_H
#define FTMB_CORE_MARKS_H

#include "core/arena.h"

enum { MARK_CLEAN, MARK_EVEN, MARK_ODD, MARK_BUSY };

#define MARK_CHUNK 64u /* lines to a byte of the map: a cache line of stamps */

struct undo_entry {
    uint64_t offset;
    uint8_t content[ARENA_LINE];
};

/* One worker's; only it appends, and only while lines of the closing epoch are left. */
struct undo_log {
    CACHE_ALIGNED _Atomic uint64_t count;
    uint64_t capacity;
    struct undo_entry *entry;
};

struct marks {
    uintptr_t stamps_at; /* where the stamp of address 0 would be: arenas begin with a line */
    uint64_t lines;
    uint64_t chunks;
    struct arena *arena;
    _Atomic uint8_t *stamp;  /* per line */
    _Atomic uint8_t *map[2]; /* per chunk, by the parity of the epoch */
    struct undo_log undo[FTMB_MAX_WORKERS];
    _Atomic uint64_t epoch; /* the open one; for an assertion */
    _Atomic uint32_t lost;  /* an undo log was full: the closing epoch cannot be completed */
    uint64_t undo_last;     /* entries of all workers in the last epoch that was collected */
    uint64_t undo_peak;     /* most entries of a worker in an epoch */
};

static inline uint8_t mark_tag(uint64_t epoch)
{
    return epoch & 1 ? MARK_ODD : MARK_EVEN;
}

/* Bytes of memory for an arena of this size; `undo_entries` for each worker. */
uint64_t marks_bytes(uint64_t arena_size, uint32_t workers, uint64_t undo_entries);

/* All lines clean. `memory` is zeroed, of marks_bytes(), aligned to a page. */
void marks_create(struct marks *marks, struct arena *arena, void *memory, uint64_t undo_entries);

static inline _Atomic uint8_t *mark_stamp(const struct marks *marks, const void *address)
{
    return (_Atomic uint8_t *)(marks->stamps_at + (uintptr_t)address / ARENA_LINE);
}

/* The slow path of ftmb_mark(): the worker is about to store into the line of this stamp, which is
 * not its tag. */
struct ftmb_ctx;
void marks_claim(struct ftmb_ctx *ctx, _Atomic uint8_t *stamp);

/* ---- making a snapshot; one thread ---------------------------------------------------------- */

/* The epoch `opened` has begun: the one before it is closing. Call before the workers are told. */
void marks_open(struct marks *marks, uint64_t opened);

/* Where marks_collect() is. */
struct marks_scan {
    uint64_t chunk;
    uint32_t worker; /* whose undo log is read, once all chunks are done */
    uint64_t entry;
};

/* A line, or the part of one that is allocated, as it was when the epoch ended. */
typedef bool (*marks_sink)(void *self, uint64_t offset, const uint8_t *content, uint64_t length);

enum marks_progress {
    MARKS_MORE,    /* call again */
    MARKS_WAIT,    /* a worker is just saving a line: call again, later */
    MARKS_DONE,    /* everything has been handed over */
    MARKS_LOST,    /* this epoch cannot be had: marks_give_up() */
    MARKS_NO_ROOM, /* the sink took no more: marks_give_up() */
};

/* Hand over up to `budget` lines of the closing epoch. All workers have joined the open one. */
enum marks_progress marks_collect(struct marks *marks, struct marks_scan *scan, uint64_t budget,
                                  marks_sink sink, void *self);

/* The closing epoch will not be completed: what it has left goes into the open one, up to `budget`
 * chunks at a time. True: done. (What was handed over already is for marks_again().) */
bool marks_give_up(struct marks *marks, struct marks_scan *scan, uint64_t budget);

/* Nobody will need what has been marked in the open epoch so far (each line will be marked again,
 * with marks_again(), after this): up to `budget` chunks at a time. True: done. Not while lines of
 * a closing epoch are left. A worker that has just marked a line may store into it afterwards; it
 * does so before the cut that comes next. */
bool marks_forget(struct marks *marks, struct marks_scan *scan, uint64_t budget);

/* These lines belong into the next delta, whether or not anybody changes them: parts of a slice,
 * lines of a delta that will never be committed. Not while lines of a closing epoch are left. */
void marks_again(struct marks *marks, uint64_t offset, uint64_t length);

#endif

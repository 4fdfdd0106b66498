/* Claims of lines, and the lines of an epoch as they were at its end (see marks.h). */
#include "core/marks.h"

#include <string.h>

#include "core/shared.h"
#include "core/snapshot.h"

/* Reads that race on purpose. */
#ifdef FTMB_TSAN
#define NO_RACE_CHECK __attribute__((no_sanitize("thread")))
#else
#define NO_RACE_CHECK
#endif

static uint64_t chunks_of(uint64_t arena_size)
{
    return (snapshot_lines(arena_size) + MARK_CHUNK - 1) / MARK_CHUNK;
}

uint64_t marks_bytes(uint64_t arena_size, uint32_t workers, uint64_t undo_entries)
{
    return align_up(chunks_of(arena_size) * MARK_CHUNK, CACHE_LINE) +
           2 * align_up(chunks_of(arena_size), CACHE_LINE) +
           workers * undo_entries * sizeof(struct undo_entry);
}

void marks_create(struct marks *marks, struct arena *arena, void *memory, uint64_t undo_entries)
{
    memset(marks, 0, sizeof(*marks));
    FTMB_ASSERT((uintptr_t)arena % ARENA_LINE == 0);
    marks->arena = arena;
    marks->lines = snapshot_lines(arena->size);
    marks->chunks = chunks_of(arena->size);
    uint8_t *at = memory;
    marks->stamp = (_Atomic uint8_t *)at;
    marks->stamps_at = (uintptr_t)at - (uintptr_t)arena / ARENA_LINE;
    at += align_up(marks->chunks * MARK_CHUNK, CACHE_LINE);
    for (int parity = 0; parity < 2; parity++) {
        marks->map[parity] = (_Atomic uint8_t *)at;
        at += align_up(marks->chunks, CACHE_LINE);
    }
    for (uint32_t w = 0; w < arena->workers; w++) {
        marks->undo[w].entry = (struct undo_entry *)at;
        marks->undo[w].capacity = undo_entries;
        at += undo_entries * sizeof(struct undo_entry);
    }
}

/* ---- workers ------------------------------------------------------------------------------- */

/* The line is BUSY and ours: nobody stores into it before we stamp it. */
static void save(struct marks *marks, uint32_t worker, uint64_t line)
{
    struct undo_log *undo = &marks->undo[worker];
    uint64_t count = atomic_load_explicit(&undo->count, memory_order_relaxed);
    if (unlikely(count == undo->capacity)) {
        atomic_store_explicit(&marks->lost, !PLANTED(P_UNDO_FULL_IGNORED), memory_order_release);
        return;
    }
    struct undo_entry *entry = &undo->entry[count];
    entry->offset = line * ARENA_LINE;
    memcpy(entry->content, (const uint8_t *)marks->arena + entry->offset, ARENA_LINE);
    SIM_POINT();
    atomic_store_explicit(&undo->count, count + 1, memory_order_release);
}

/* Looks first: a store that changes nothing would still take the line from the other workers. */
static void enter_in_map(_Atomic uint8_t *chunk)
{
    if (!atomic_load_explicit(chunk, memory_order_relaxed))
        atomic_store_explicit(chunk, 1, memory_order_relaxed);
}

/* The line was seen with the closing epoch's tag: it is saved, unless somebody else is first, or
 * the snapshot is done with it by now. (Then the next epoch may be open already.) */
static bool claim_closing(struct ftmb_ctx *ctx, _Atomic uint8_t *stamp, uint8_t seen, uint64_t line)
{
    struct marks *marks = ctx->marks;
    SIM_POINT();
    bool stamp_first = PLANTED(P_LINE_STAMP_FIRST) || PLANTED(P_LINE_APPEND_FIRST);
    if (PLANTED(P_LINE_APPEND_FIRST))
        save(marks, ctx->worker, line);
    if (!atomic_compare_exchange_strong_explicit(stamp, &seen, stamp_first ? ctx->tag : MARK_BUSY,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return false;
    /* Else it is a line of an epoch that this worker has not joined: the gate was passed too early,
     * or shared memory was changed outside a section. */
    FTMB_ASSERT(ctx->tag == mark_tag(atomic_load(&marks->epoch)));
    SIM_POINT();
    if (!PLANTED(P_LINE_APPEND_FIRST))
        save(marks, ctx->worker, line);
    SIM_POINT();
    atomic_store_explicit(stamp, ctx->tag, memory_order_release);
    return true;
}

void marks_claim(struct ftmb_ctx *ctx, _Atomic uint8_t *stamp)
{
    struct marks *marks = ctx->marks;
    uint64_t line = (uint64_t)(stamp - marks->stamp);
    FTMB_ASSERT(line < marks->lines);
    for (uint64_t rounds = 0;; rounds++) {
        SIM_POINT();
        uint8_t seen = atomic_load_explicit(stamp, memory_order_acquire);
        if (seen == ctx->tag)
            return;
        if (seen == MARK_BUSY) {
            SIM_SEEN(SIM_SEEN_BUSY);
            ctx->env->relax(ctx->env->env, ctx->worker, rounds);
            continue;
        }
        if (seen == MARK_CLEAN) {
            /* A plain store, since whoever else finds it clean stores the same: all who may touch
             * this line are in one epoch. */
            SIM_POINT();
            atomic_store_explicit(stamp, ctx->tag, memory_order_release);
            break;
        }
        if (PLANTED(P_CHECK_UNCLAIMED)) {
            SIM_POINT();
            FTMB_ASSERT(ctx->tag == mark_tag(atomic_load(&marks->epoch)));
        }
        if (claim_closing(ctx, stamp, seen, line))
            break;
    }
    enter_in_map(&marks->map[ctx->tag == MARK_ODD][line / MARK_CHUNK]);
}

/* ---- the snapshot's thread ------------------------------------------------------------------ */

void marks_open(struct marks *marks, uint64_t opened)
{
    uint64_t open = atomic_load(&marks->epoch);
    FTMB_ASSERT(opened == open + 1);
    for (uint32_t w = 0; w < marks->arena->workers; w++)
        FTMB_ASSERT(atomic_load(&marks->undo[w].count) == 0);
    atomic_store(&marks->lost, 0);
    marks->undo_last = 0;
    atomic_store(&marks->epoch, opened);
}

/* Bytes of the arena from `offset` on that are allocated, at most a line; 0: none. The header has
 * its own way into a delta. A worker may be allocating: what it had at the cut is less, and more
 * does no harm. */
NO_RACE_CHECK
static uint64_t allocated_at(const struct arena *arena, uint64_t offset)
{
    for (uint32_t e = 0; e <= arena->workers; e++) {
        const struct arena_extent *x = &arena->extents[e];
        if (offset >= x->start && offset < x->start + x->limit)
            return offset < x->start + x->used ? u64_min(ARENA_LINE, x->start + x->used - offset)
                                               : 0;
    }
    return 0;
}

/* A worker may be storing into it: then what is read here is thrown away. Word by word. */
NO_RACE_CHECK
static void read_line(const uint8_t *line, uint64_t *copy)
{
    const volatile uint64_t *words = (const volatile uint64_t *)line;
    for (unsigned i = 0; i < ARENA_LINE / sizeof(uint64_t); i++) {
        SIM_POINT();
        copy[i] = words[i];
    }
}

/* From CLEAN or the closing tag to that of the open epoch. False: a worker is just saving the line,
 * and will stamp it. */
static bool mark_again(struct marks *marks, uint64_t line, uint64_t open)
{
    _Atomic uint8_t *stamp = &marks->stamp[line];
    uint8_t seen = atomic_load_explicit(stamp, memory_order_acquire);
    SIM_POINT();
    while (seen != mark_tag(open) && seen != MARK_BUSY &&
           !atomic_compare_exchange_weak_explicit(stamp, &seen, mark_tag(open),
                                                  memory_order_acq_rel, memory_order_acquire))
        SIM_POINT();
    enter_in_map(&marks->map[open & 1][line / MARK_CHUNK]);
    return seen != MARK_BUSY;
}

/* One line, if it is of the closing epoch. DONE: handed over, or not to be had here, because it is
 * clean, or a worker was first and has it in its undo log; WAIT: a worker is just saving it;
 * NO_ROOM: it belongs into the next delta. */
static enum marks_progress collect_line(struct marks *marks, uint64_t line, uint64_t open,
                                        uint64_t *spent, marks_sink sink, void *self)
{
    uint64_t copy[ARENA_LINE / sizeof(uint64_t)];
    uint64_t offset = line * ARENA_LINE;
    _Atomic uint8_t *stamp = &marks->stamp[line];
    uint8_t seen = atomic_load_explicit(stamp, memory_order_acquire);
    if (seen == mark_tag(open - 1)) {
        if (PLANTED(P_STAMP_BEFORE_READ))
            atomic_store(stamp, seen = MARK_CLEAN);
        read_line((const uint8_t *)marks->arena + offset, copy);
        /* Releases: whoever claims the line next stores into it after we have read it. */
        if (PLANTED(P_STAMP_BEFORE_READ) ||
            atomic_compare_exchange_strong_explicit(stamp, &seen, MARK_CLEAN, memory_order_acq_rel,
                                                    memory_order_acquire)) {
            uint64_t length = allocated_at(marks->arena, offset);
            ++*spent;
            if (!length || sink(self, offset, (const uint8_t *)copy, length))
                return MARKS_DONE;
            if (!PLANTED(P_NO_ROOM_FORGETS))
                mark_again(marks, line, open);
            return MARKS_NO_ROOM;
        }
        SIM_SEEN(SIM_SEEN_RACE);
    }
    return seen == MARK_BUSY && !PLANTED(P_LINE_NO_WAIT) ? MARKS_WAIT : MARKS_DONE;
}

/* The stamps of eight lines, of which the first is `line`. */
static uint64_t eight_stamps(const struct marks *marks, uint64_t line)
{
    const _Atomic uint64_t *word = (const _Atomic uint64_t *)&marks->stamp[line];
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Ask for the lines of a chunk that comes next: it is one here and one there, and none is cached.
 */
static void ask_for(const struct marks *marks, uint64_t chunk)
{
    const uint8_t *content = (const uint8_t *)marks->arena + chunk * MARK_CHUNK * ARENA_LINE;
    for (uint64_t i = 0; chunk < marks->chunks && i < MARK_CHUNK; i++) {
        if (i % 8 == 0 && !eight_stamps(marks, chunk * MARK_CHUNK + i)) {
            i += 7;
        } else if (atomic_load_explicit(&marks->stamp[chunk * MARK_CHUNK + i],
                                        memory_order_relaxed)) {
            __builtin_prefetch(content + i * ARENA_LINE);
            __builtin_prefetch(content + i * ARENA_LINE + CACHE_LINE);
        }
    }
}

/* Not DONE: begin the chunk again. */
static enum marks_progress collect_chunk(struct marks *marks, uint64_t chunk, uint64_t open,
                                         uint64_t *spent, marks_sink sink, void *self)
{
    uint64_t first = chunk * MARK_CHUNK;
    for (uint64_t line = first; line < u64_min(first + MARK_CHUNK, marks->lines); line++) {
        if (line % 8 == 0 && !eight_stamps(marks, line)) {
            line += 7;
            continue;
        }
        enum marks_progress progress = collect_line(marks, line, open, spent, sink, self);
        if (progress != MARKS_DONE)
            return progress;
    }
    *spent += 4; /* what it costs to look, in lines */
    return MARKS_DONE;
}

/* The next chunk from `chunk` on that the map names; marks->chunks: none. By words of the map,
 * which is aligned and has zeroes behind its end: most of it is empty. */
static uint64_t next_chunk(const struct marks *marks, const _Atomic uint8_t *map, uint64_t chunk)
{
    while (chunk < marks->chunks) {
        const _Atomic uint64_t *word = (const _Atomic uint64_t *)&map[chunk & ~7ull];
        if (!atomic_load_explicit(word, memory_order_relaxed))
            chunk = (chunk & ~7ull) + 8;
        else if (atomic_load_explicit(&map[chunk], memory_order_relaxed))
            return chunk;
        else
            chunk++;
    }
    return marks->chunks;
}

/* Entries of the undo logs, once no worker appends any more. */
static enum marks_progress collect_undo(struct marks *marks, struct marks_scan *scan,
                                        uint64_t budget, marks_sink sink, void *self)
{
    for (; scan->worker < marks->arena->workers; scan->worker++, scan->entry = 0) {
        struct undo_log *undo = &marks->undo[scan->worker];
        uint64_t count = atomic_load_explicit(&undo->count, memory_order_acquire);
        marks->undo_peak = u64_max(marks->undo_peak, count);
        for (; scan->entry < count; scan->entry++) {
            if (budget-- == 0)
                return MARKS_MORE;
            const struct undo_entry *entry = &undo->entry[scan->entry];
            uint64_t length = allocated_at(marks->arena, entry->offset);
            if (length && !sink(self, entry->offset, entry->content, length))
                return MARKS_NO_ROOM;
        }
        marks->undo_last += count;
        atomic_store_explicit(&undo->count, 0, memory_order_relaxed);
    }
    return MARKS_DONE;
}

enum marks_progress marks_collect(struct marks *marks, struct marks_scan *scan, uint64_t budget,
                                  marks_sink sink, void *self)
{
    uint64_t open = atomic_load(&marks->epoch), spent = 0;
    _Atomic uint8_t *map = marks->map[(open - 1) & 1];
    if (unlikely(atomic_load_explicit(&marks->lost, memory_order_acquire)))
        return MARKS_LOST;
    scan->chunk = next_chunk(marks, map, scan->chunk);
    uint64_t next = next_chunk(marks, map, scan->chunk + 1);
    while (scan->chunk < marks->chunks) {
        if (spent >= budget)
            return MARKS_MORE;
        uint64_t after = next_chunk(marks, map, next + 1);
        __builtin_prefetch((const uint8_t *)marks->stamp + after * MARK_CHUNK);
        ask_for(marks, next);
        enum marks_progress progress = collect_chunk(marks, scan->chunk, open, &spent, sink, self);
        if (progress != MARKS_DONE)
            return progress;
        atomic_store_explicit(&map[scan->chunk], 0, memory_order_relaxed);
        scan->chunk = next;
        next = after;
    }
    if (atomic_load_explicit(&marks->lost, memory_order_acquire))
        return MARKS_LOST;
    return collect_undo(marks, scan, budget, sink, self);
}

bool marks_give_up(struct marks *marks, struct marks_scan *scan, uint64_t budget)
{
    uint64_t open = atomic_load(&marks->epoch), closing = open - 1;
    _Atomic uint8_t *map = marks->map[closing & 1];
    while ((scan->chunk = next_chunk(marks, map, scan->chunk)) < marks->chunks) {
        if (budget-- == 0)
            return false;
        uint64_t first = scan->chunk * MARK_CHUNK;
        for (uint64_t line = first; line < u64_min(first + MARK_CHUNK, marks->lines); line++) {
            uint8_t seen = atomic_load_explicit(&marks->stamp[line], memory_order_acquire);
            if (seen != MARK_BUSY && seen != mark_tag(closing))
                continue;
            /* While it is BUSY its worker may still append to its undo log. */
            if (!mark_again(marks, line, open) && !PLANTED(P_GIVE_UP_RACES))
                return false;
        }
        atomic_store_explicit(&map[scan->chunk], 0, memory_order_relaxed);
    }
    for (uint32_t w = 0; w < marks->arena->workers; w++) {
        marks->undo_peak = u64_max(marks->undo_peak, atomic_load(&marks->undo[w].count));
        atomic_store_explicit(&marks->undo[w].count, 0, memory_order_relaxed);
    }
    return true;
}

/* The map stays: a worker that finds its chunk there leaves it as it is. */
bool marks_forget(struct marks *marks, struct marks_scan *scan, uint64_t budget)
{
    uint64_t open = atomic_load(&marks->epoch);
    const _Atomic uint8_t *map = marks->map[open & 1];
    while ((scan->chunk = next_chunk(marks, map, scan->chunk)) < marks->chunks) {
        if (budget-- == 0)
            return false;
        uint64_t first = scan->chunk++ * MARK_CHUNK;
        for (uint64_t line = first; line < u64_min(first + MARK_CHUNK, marks->lines); line++) {
            uint8_t seen = mark_tag(open);
            SIM_POINT();
            (void)atomic_compare_exchange_strong_explicit(
                &marks->stamp[line], &seen, MARK_CLEAN, memory_order_acq_rel, memory_order_relaxed);
        }
    }
    return true;
}

void marks_again(struct marks *marks, uint64_t offset, uint64_t length)
{
    uint64_t open = atomic_load(&marks->epoch);
    uint64_t last = (offset + length + ARENA_LINE - 1) / ARENA_LINE;
    for (uint64_t line = offset / ARENA_LINE; line < last; line++) {
        if (allocated_at(marks->arena, line * ARENA_LINE))
            mark_again(marks, line, open);
    }
}

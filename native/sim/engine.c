/* The engines (see engine.h): `cow` with marks, and two that compare while everybody stands. */
#include "sim/engine.h"

#include <string.h>

#include "sim/oracle.h"

void engine_flip(struct proc *proc, struct snapshot_name name, bool stop)
{
    proc->flipping = name;
    epoch_flip(&proc->epochs, stop);
    while (!epoch_complete(&proc->epochs, proc->arena, proc->header)) {
        cover(COVER_FLIP_WAITS);
        sim_wait();
    }
    oracle_complete(proc);
}

/* ---- stop-copy ---------------------------------------------------------------------------- */

static void stop_start(struct proc *proc, const struct arena *image, bool base)
{
    for (int i = 0; i < 2; i++)
        memset((void *)proc->image[i], 0, proc->arena->size);
    snapshot_copy(image, proc->image[0]);
    proc->committed_image = base ? 0 : -1;
}

static bool stop_make(struct proc *proc, struct snapshot_name name)
{
    int next = proc->committed_image == 0 ? 1 : 0;
    engine_flip(proc, name, true);
    snapshot_copy(proc->arena, proc->image[next]);
    SIM_POINT();
    epoch_release(&proc->epochs);
    proc->pending_image = next;
    const struct arena *previous =
        name.base_epoch && proc->committed_image >= 0 ? proc->image[proc->committed_image] : NULL;
    FTMB_ASSERT(previous || name.slice.lines);
    FTMB_ASSERT(delta_build(&proc->delta, proc->image[next], previous, name, sim.config.check));
    return true;
}

static void stop_settle(struct proc *proc, bool committed)
{
    if (committed || (PLANTED(P_DELTA_ON_UNCOMMITTED) && proc->committed_image >= 0))
        proc->committed_image = proc->pending_image;
}

/* ---- page: what changed since the last look is known by other means ----------------------- */

static void page_start(struct proc *proc, const struct arena *image, bool base)
{
    (void)base;
    memset((void *)proc->image[0], 0, proc->arena->size);
    snapshot_copy(image, proc->image[0]);
    memset(proc->again, 0, sizeof(proc->again));
}

/* What changes meanwhile is found at the cut. */
static void page_forget(struct proc *proc)
{
    struct snapshot_slice all = {0, snapshot_lines(proc->arena->size)};
    uint64_t at = 0, offset, length;
    while (snapshot_range(proc->arena, all, &at, &offset, &length)) {
        for (uint64_t end = offset + length; offset < end; offset += ARENA_LINE) {
            memcpy((uint8_t *)proc->image[0] + offset, (const uint8_t *)proc->arena + offset,
                   ARENA_LINE);
            SIM_POINT();
        }
    }
    memset(proc->again, 0, sizeof(proc->again));
}

static bool page_wants(const struct proc *proc, struct snapshot_slice slice, uint64_t offset)
{
    uint64_t line = offset / ARENA_LINE;
    return line - slice.first < slice.lines || proc->again[line] ||
           memcmp((const uint8_t *)proc->arena + offset, (const uint8_t *)proc->image[0] + offset,
                  ARENA_LINE) != 0;
}

static bool page_make(struct proc *proc, struct snapshot_name name)
{
    struct snapshot_slice all = {0, snapshot_lines(proc->arena->size)};
    uint64_t at = 0, offset, length;
    engine_flip(proc, name, true);
    FTMB_ASSERT(delta_begin(&proc->delta, name, proc->header));
    while (snapshot_range(proc->arena, all, &at, &offset, &length)) {
        for (uint64_t end = offset + length; offset < end; offset += ARENA_LINE) {
            if (!page_wants(proc, name.slice, offset))
                continue;
            const uint8_t *line = (const uint8_t *)proc->arena + offset;
            FTMB_ASSERT(delta_add(&proc->delta, offset, line, u64_min(ARENA_LINE, end - offset)));
            memcpy((uint8_t *)proc->image[0] + offset, line, ARENA_LINE);
            proc->again[offset / ARENA_LINE] = false;
        }
    }
    FTMB_ASSERT(!sim.config.check || delta_hash(&proc->delta, proc->arena));
    SIM_POINT();
    epoch_release(&proc->epochs);
    return delta_finish(&proc->delta);
}

/* For each run of the delta. */
static void each_run(const struct proc *proc,
                     void (*each)(struct proc *proc, uint64_t offset, uint64_t length),
                     struct proc *self)
{
    struct delta_walk walk = {0};
    struct delta_run run;
    const uint8_t *content;
    while (delta_next(proc->delta.bytes, &walk, &run, &content))
        each(self, run.offset, run.length);
}

static void page_again(struct proc *proc, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += ARENA_LINE)
        proc->again[at / ARENA_LINE] = true;
}

static void page_settle(struct proc *proc, bool committed)
{
    if (!committed && !PLANTED(P_DELTA_ON_UNCOMMITTED))
        each_run(proc, page_again, proc);
}

/* ---- cow ---------------------------------------------------------------------------------- */

static void cow_start(struct proc *proc, const struct arena *image, bool base)
{
    (void)image;
    (void)base;
    memset(proc->marks_memory, 0, marks_bytes(proc->arena->size, 0, 0));
    marks_create(&proc->marks, proc->arena, proc->marks_memory, sim.config.undo);
}

static void cow_forget(struct proc *proc)
{
    struct marks_scan scan = {0};
    while (!marks_forget(&proc->marks, &scan, 1))
        sim_wait();
}

static bool cow_sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    struct proc *proc = self;
    SIM_POINT();
    if (rng_permille(&sim.faults, sim.config.no_room))
        return false;
    return delta_add(&proc->delta, offset, content, length);
}

static void cow_again(struct proc *proc, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += 8 * (uint64_t)ARENA_LINE) {
        marks_again(&proc->marks, at, u64_min(8 * (uint64_t)ARENA_LINE, offset + length - at));
        SIM_POINT();
    }
}

static bool cow_lost(struct proc *proc, struct marks_scan *scan)
{
    if (PLANTED(P_FLIP_TOO_EARLY))
        return false;
    while (!marks_give_up(&proc->marks, scan, 1)) {
        cover(COVER_GIVE_UP_WAITS);
        sim_wait();
    }
    if (!PLANTED(P_LOST_FORGETS))
        each_run(proc, cow_again, proc);
    return false;
}

static bool cow_collect(struct proc *proc)
{
    struct marks_scan scan = {0};
    bool undo = false;
    for (;;) {
        for (uint32_t w = 0; w < sim.config.workers; w++)
            undo |= atomic_load(&proc->marks.undo[w].count) != 0;
        switch (marks_collect(&proc->marks, &scan, sim.config.budget, cow_sink, proc)) {
        case MARKS_MORE:
            sim_wait();
            break;
        case MARKS_WAIT:
            cover(COVER_COLLECT_WAITS);
            sim_wait();
            break;
        case MARKS_DONE:
            cover_if(undo, COVER_UNDO_USED);
            return delta_finish(&proc->delta);
        case MARKS_LOST:
            cover(COVER_UNDO_FULL);
            return cow_lost(proc, &scan);
        case MARKS_NO_ROOM:
            cover(COVER_NO_ROOM);
            return cow_lost(proc, &scan);
        }
    }
}

static bool cow_make(struct proc *proc, struct snapshot_name name)
{
    uint64_t at = 0, offset, length;
    while (!PLANTED(P_SLICE_NOT_MARKED) &&
           snapshot_range(proc->arena, name.slice, &at, &offset, &length))
        cow_again(proc, offset, length);
    marks_open(&proc->marks, epoch_open(&proc->epochs) + 1);
    SIM_POINT();
    engine_flip(proc, name, sim.config.check);
    FTMB_ASSERT(delta_begin(&proc->delta, name, proc->header));
    if (sim.config.check) {
        FTMB_ASSERT(delta_hash(&proc->delta, proc->arena));
        SIM_POINT();
        epoch_release(&proc->epochs);
    }
    return cow_collect(proc);
}

static void cow_settle(struct proc *proc, bool committed)
{
    if (!committed && !PLANTED(P_DELTA_ON_UNCOMMITTED))
        each_run(proc, cow_again, proc);
}

const struct sim_engine *sim_engine(void)
{
    static const struct sim_engine engines[SIM_ENGINES] = {
        [SIM_COW] = {false, cow_start, cow_forget, cow_make, cow_settle},
        [SIM_STOP_COPY] = {true, stop_start, NULL, stop_make, stop_settle},
        [SIM_PAGE] = {false, page_start, page_forget, page_make, page_settle},
    };
    return &engines[sim.config.engine];
}

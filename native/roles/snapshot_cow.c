/* Engine `cow`: nobody stops. Workers mark lines and save what the closing epoch still needs
 * (core/marks.h); this end flips the epoch and collects. With `check` everybody parks at the flip
 * while all lines are hashed: a check, not something to measure with. */
#include <errno.h>
#include <sys/mman.h>

#include "io/clock.h"
#include "roles/snapshotter.h"

/* Some 20 microseconds. Where workers share the core, each step delays the packets of its time:
 * many short ones delay more packets than few long ones, by what giving way costs each time; and
 * these are well below what the scheduler does to a packet in a hundred. */
#define LINES_A_STEP 256u
#define CHUNKS_A_STEP 8u

static int init(struct snapshotter *s)
{
    uint64_t entries = ((uint64_t)s->config->undo_mb << 20) / sizeof(struct undo_entry);
    uint64_t bytes = marks_bytes(s->arena->size, s->config->workers, entries);
    void *memory = snapshotter_map(bytes, "marks and undo logs");
    if (!memory)
        return -ENOMEM;
    /* A first touch must not cost a worker a page fault. */
    madvise(memory, bytes, MADV_POPULATE_WRITE);
    marks_create(&s->marks, s->arena, memory, entries);
    for (uint32_t w = 0; w < s->config->workers; w++)
        s->workers[w].ctx.marks = &s->marks;
    return 0;
}

static void mark_slice(struct snapshotter *s)
{
    uint64_t at = 0, offset, length;
    while (snapshot_range(s->arena, s->name.slice, &at, &offset, &length)) {
        for (uint64_t done = 0; done < length; done += SNAPSHOT_PIECE) {
            marks_again(&s->marks, offset + done, u64_min(SNAPSHOT_PIECE, length - done));
            breathe();
        }
    }
}

static void forget(struct snapshotter *s)
{
    struct marks_scan scan = {0};
    while (!marks_forget(&s->marks, &scan, CHUNKS_A_STEP))
        breathe();
}

static int begin(struct snapshotter *s)
{
    mark_slice(s);
    s->scan = (struct marks_scan){0};
    s->giving_up = false;
    marks_open(&s->marks, epoch_open(&s->group->epochs) + 1);
    if (s->check) {
        snapshotter_stop(s);
        bool hashed = delta_begin(&s->delta, s->name, s->header) && delta_hash(&s->delta, s->arena);
        snapshotter_go(s);
        return hashed ? 0 : -ENOMEM;
    }
    epoch_flip(&s->group->epochs, false);
    snapshotter_await(s);
    return delta_begin(&s->delta, s->name, s->header) ? 0 : -ENOMEM;
}

static bool sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    return delta_add(&((struct snapshotter *)self)->delta, offset, content, length);
}

/* The lines of a delta that will not be committed belong into the next one. */
static void mark_delta(struct snapshotter *s)
{
    struct delta_walk walk = {0};
    struct delta_run run;
    const uint8_t *content;
    uint64_t since = 0;
    while (delta_next(s->delta.bytes, &walk, &run, &content)) {
        for (uint64_t done = 0, piece; done < run.length; done += piece) {
            piece = u64_min(SNAPSHOT_PIECE, run.length - done);
            marks_again(&s->marks, run.offset + done, piece);
            since += piece;
            if (since < SNAPSHOT_PIECE)
                continue;
            breathe();
            since = 0;
        }
    }
}

static enum snapshot_step give_up(struct snapshotter *s)
{
    s->giving_up = true;
    if (!marks_give_up(&s->marks, &s->scan, CHUNKS_A_STEP))
        return STEP_MORE;
    mark_delta(s);
    return STEP_LOST;
}

static enum snapshot_step step(struct snapshotter *s)
{
    if (s->giving_up)
        return give_up(s);
    switch (marks_collect(&s->marks, &s->scan, LINES_A_STEP, sink, s)) {
    case MARKS_MORE:
        return STEP_MORE;
    case MARKS_WAIT:
        return STEP_WAIT;
    case MARKS_DONE:
        break;
    case MARKS_LOST:
    case MARKS_NO_ROOM:
        return give_up(s);
    }
    s->undo_used = s->marks.undo_last;
    if (!s->check)
        s->pause_ns = epoch_waited_ns(&s->group->epochs);
    return delta_finish(&s->delta) ? STEP_DONE : give_up(s);
}

static void settle(struct snapshotter *s, bool committed)
{
    if (!committed)
        mark_delta(s);
}

/* Workers have marked since they began, and nobody before. */
static bool start_from(struct snapshotter *s, const struct arena *base)
{
    (void)s;
    (void)base;
    return true;
}

const struct snapshot_engine snapshot_cow = {.name = "cow",
                                             .slice_bytes = 4u << 20,
                                             .init = init,
                                             .forget = forget,
                                             .begin = begin,
                                             .step = step,
                                             .settle = settle,
                                             .start_from = start_from};

/* Marks of lines, by one thread: each transition of a stamp, bounds, snapshots that are lost or
 * given up, and random schedules against a naive model. */
#include "tests/marks_world.h"

#include "tests/core_test.h"

#define WORKERS 3u

static unsigned relaxed; /* calls */
static _Atomic uint8_t *busy_stamp;
static uint8_t busy_becomes;

/* One thread never waits for another; but a test may play the other one. */
static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    CHECK(busy_stamp && rounds < 5);
    relaxed++;
    if (rounds == 4)
        atomic_store(busy_stamp, busy_becomes);
}

static struct marks_world *open_world(uint64_t undo_entries)
{
    struct marks_world *w = marks_world_open((struct marks_shape){.workers = WORKERS,
                                                                  .shared_bytes = 200 * ARENA_LINE,
                                                                  .worker_bytes = 150 * ARENA_LINE,
                                                                  .variables = 20,
                                                                  .undo_entries = undo_entries,
                                                                  .relax = relax});
    for (unsigned who = 0; who <= WORKERS; who++)
        CHECK(arena_alloc(w->arena, who, 100 * ARENA_LINE, ARENA_LINE));
    return w;
}

/* Line `line` of worker 0's memory, and where its stamp is. */
static uint8_t *own(struct marks_world *w, uint64_t line)
{
    return (uint8_t *)w->arena + w->arena->extents[1].start + line * ARENA_LINE;
}

static _Atomic uint8_t *stamp_at(struct marks_world *w, const uint8_t *address)
{
    return &w->marks.stamp[(address - (uint8_t *)w->arena) / ARENA_LINE];
}

static void store(struct marks_world *w, uint32_t worker, uint8_t *address, uint64_t bytes,
                  uint8_t value)
{
    ftmb_mark(&w->ctx[worker], address, bytes);
    memset(address, value, bytes);
}

static void flip_all(struct marks_world *w)
{
    marks_world_flip(w, false);
    for (uint32_t i = 0; i < w->workers; i++)
        marks_world_join(w, i);
}

/* What was handed over: first bytes of lines in the order of their arrival. */
struct taken {
    unsigned lines;
    unsigned most; /* no room for more */
    uint64_t offset[2000];
    uint64_t length[2000];
    uint8_t first[2000];
};

static bool take(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    struct taken *taken = self;
    CHECK(offset % ARENA_LINE == 0 && length > 0 && length <= ARENA_LINE);
    if (taken->lines == taken->most)
        return false;
    for (unsigned i = 0; i < taken->lines; i++)
        CHECK(taken->offset[i] != offset); /* once */
    taken->offset[taken->lines] = offset;
    taken->length[taken->lines] = length;
    taken->first[taken->lines++] = content[0];
    return true;
}

static struct taken collect_all(struct marks_world *w)
{
    struct taken taken = {.most = 2000};
    struct marks_scan scan = {0};
    CHECK(marks_collect(&w->marks, &scan, UINT64_MAX, take, &taken) == MARKS_DONE);
    return taken;
}

static uint64_t undo_count(const struct marks_world *w, uint32_t worker)
{
    return w->marks.undo[worker].count;
}

/* ---- transitions --------------------------------------------------------------------------- */

static void test_transitions(void)
{
    struct marks_world *w = open_world(10);
    uint8_t *line = own(w, 5);
    CHECK(*stamp_at(w, line) == MARK_CLEAN);
    store(w, 0, line, 1, 1);
    CHECK(*stamp_at(w, line) == MARK_EVEN);
    store(w, 0, line + 127, 1, 1);
    CHECK(undo_count(w, 0) == 0);
    for (int i = 4; i < 7; i++)
        CHECK((*stamp_at(w, own(w, i)) != MARK_CLEAN) == (i == 5));

    flip_all(w); /* touched in both epochs: as it was at the flip, from the undo log */
    store(w, 0, line, 1, 2);
    CHECK(*stamp_at(w, line) == MARK_ODD && undo_count(w, 0) == 1);
    store(w, 0, line, 1, 3);
    CHECK(undo_count(w, 0) == 1);
    struct taken taken = collect_all(w);
    CHECK(taken.lines == 1 && taken.first[0] == 1);
    CHECK(*stamp_at(w, line) == MARK_ODD && undo_count(w, 0) == 0);

    flip_all(w); /* touched before it only: from the arena, and then clean */
    taken = collect_all(w);
    CHECK(taken.lines == 1 && taken.first[0] == 3 && *stamp_at(w, line) == MARK_CLEAN);
    store(w, 0, line, 1, 4); /* after that: into the next delta, with nothing to save */
    CHECK(*stamp_at(w, line) == MARK_EVEN && undo_count(w, 0) == 0);

    flip_all(w);
    taken = collect_all(w);
    CHECK(taken.lines == 1 && taken.first[0] == 4);
    flip_all(w);
    CHECK(collect_all(w).lines == 0);
    marks_world_close(w);
}

/* All lines that a range touches, and no other. */
static void test_ranges(void)
{
    static const struct {
        uint64_t at, bytes, first, last;
    } ranges[] = {{0, 1, 0, 0},     {127, 1, 0, 0},   {127, 2, 0, 1},        {128, 128, 1, 1},
                  {128, 129, 1, 2}, {100, 300, 0, 3}, {64, 64 * 128, 0, 64}, {0, 64 * 128, 0, 63}};
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        struct marks_world *w = open_world(10);
        ftmb_mark(&w->ctx[0], own(w, 0) + ranges[i].at, ranges[i].bytes);
        for (uint64_t line = 0; line < 100; line++)
            CHECK((*stamp_at(w, own(w, line)) == MARK_EVEN) ==
                  (line >= ranges[i].first && line <= ranges[i].last));
        flip_all(w);
        CHECK(collect_all(w).lines == ranges[i].last - ranges[i].first + 1);
        marks_world_close(w);
    }
}

/* An engine without marks, and what no function may do. */
static void test_refused(void)
{
    struct marks_world *w = open_world(10);
    w->ctx[2].marks = NULL;
    store(w, 2, own(w, 0), 8, 1);
    CHECK(*stamp_at(w, own(w, 0)) == MARK_CLEAN);
    CHECK_PANICS(ftmb_mark(&w->ctx[0], (uint8_t *)w->arena + w->size, 1));
    CHECK_PANICS(marks_open(&w->marks, 2)); /* the open one is 0 */
    marks_world_flip(w, false);
    marks_world_join(w, 0);
    uint8_t *shared = (uint8_t *)w->arena + w->arena->extents[0].start;
    store(w, 0, shared, 8, 1);
    CHECK_PANICS(ftmb_mark(&w->ctx[1], shared, 1)); /* it is still in the epoch before */
    marks_world_join(w, 1);
    ftmb_mark(&w->ctx[1], shared, 1);
    marks_world_join(w, 2);
    flip_all(w);
    store(w, 0, shared, 8, 2);
    CHECK_PANICS(marks_open(&w->marks, 3)); /* undo entries that nobody has taken */
    marks_world_close(w);
}

/* A line that another worker is saving: wait for it; the snapshot's thread does something else. */
static void test_busy(void)
{
    struct marks_world *w = open_world(10);
    store(w, 0, own(w, 1), 8, 1);
    store(w, 0, own(w, 2), 8, 2);
    flip_all(w);
    busy_stamp = stamp_at(w, own(w, 1));
    busy_becomes = MARK_ODD;
    atomic_store(busy_stamp, MARK_BUSY);
    struct taken taken = {.most = 10};
    struct marks_scan scan = {0};
    for (int i = 0; i < 3; i++)
        CHECK(marks_collect(&w->marks, &scan, 1000, take, &taken) == MARKS_WAIT);
    CHECK(!marks_give_up(&w->marks, &(struct marks_scan){0}, 1000));
    relaxed = 0;
    ftmb_mark(&w->ctx[0], own(w, 1), 1);
    CHECK(relaxed == 5 && undo_count(w, 0) == 0);
    busy_stamp = NULL;
    CHECK(marks_collect(&w->marks, &scan, 1000, take, &taken) == MARKS_DONE);
    CHECK(taken.lines == 1 && taken.first[0] == 2);
    marks_world_close(w);
}

/* Only what is allocated, and never the header. */
static void test_allocated(void)
{
    struct marks_world *w = open_world(10);
    CHECK(arena_alloc(w->arena, 1, 72, 8)); /* the tail of worker 0's memory: line 100 */
    ftmb_mark(&w->ctx[0], own(w, 100), 200);
    ftmb_mark(&w->ctx[0], w->arena, sizeof(*w->arena));
    flip_all(w);
    struct taken taken = collect_all(w);
    CHECK(taken.lines == 1 && taken.length[0] == 72);
    CHECK(taken.offset[0] == (uint64_t)(own(w, 100) - (uint8_t *)w->arena));
    marks_again(&w->marks, taken.offset[0] + 70, 500);
    marks_again(&w->marks, 0, sizeof(*w->arena));
    store(w, 0, own(w, 100), 8, 7);
    flip_all(w);
    store(w, 0, own(w, 100), 8, 8); /* by way of the undo log */
    taken = collect_all(w);
    CHECK(taken.lines == 1 && taken.length[0] == 72 && taken.first[0] == 7);
    marks_world_close(w);
}

/* ---- pieces and bounds --------------------------------------------------------------------- */

/* In pieces: none is longer than a chunk or the budget, and all is there once. */
static void test_budget(void)
{
    struct marks_world *w = open_world(100);
    for (uint64_t line = 0; line < 100; line++)
        store(w, 0, own(w, line), 1, 1);
    flip_all(w);
    for (uint64_t line = 0; line < 50; line++)
        store(w, 0, own(w, line), 1, 2);
    struct taken taken = {.most = 2000};
    struct marks_scan scan = {0};
    enum marks_progress progress;
    unsigned calls = 0;
    do {
        unsigned before = taken.lines;
        progress = marks_collect(&w->marks, &scan, 7, take, &taken);
        CHECK(taken.lines - before <= MARK_CHUNK + 7);
        calls++;
    } while (progress == MARKS_MORE);
    CHECK(progress == MARKS_DONE && taken.lines == 100 && calls >= 50 / 7 + 2);
    CHECK(w->marks.undo_peak == 50);
    for (unsigned i = 0; i < 100; i++)
        CHECK(taken.first[i] == 1);
    flip_all(w);
    CHECK(collect_all(w).lines == 50);
    marks_world_close(w);
}

static void give_up(struct marks_world *w, struct marks_scan scan)
{
    unsigned calls = 1;
    while (!marks_give_up(&w->marks, &scan, 1))
        CHECK(++calls < 1000);
}

/* A full undo log: the snapshot is lost, nobody waits, and the next one has all of it. */
static void test_undo_full(void)
{
    struct marks_world *w = open_world(3);
    for (uint64_t line = 0; line < 80; line++)
        store(w, 0, own(w, line), 1, 1);
    flip_all(w);
    struct taken taken = {.most = 2000};
    struct marks_scan scan = {0};
    CHECK(marks_collect(&w->marks, &scan, 1, take, &taken) == MARKS_MORE && taken.lines > 0);
    CHECK(taken.lines < 70);
    unsigned before = taken.lines;
    for (uint64_t line = 70; line < 73; line++)
        store(w, 0, own(w, line), 1, 2);
    CHECK(!w->marks.lost && undo_count(w, 0) == 3); /* just full is not lost */
    store(w, 0, own(w, 73), 1, 2);
    CHECK(w->marks.lost && undo_count(w, 0) == 3 && *stamp_at(w, own(w, 73)) == MARK_ODD);
    CHECK(marks_collect(&w->marks, &scan, 1000, take, &taken) == MARKS_LOST);
    CHECK(taken.lines == before);
    store(w, 0, own(w, 74), 1, 2); /* work goes on */
    give_up(w, scan);
    store(w, 0, own(w, 75), 1, 2);
    CHECK(undo_count(w, 0) == 0 && w->marks.undo_peak == 3);
    for (unsigned i = 0; i < taken.lines; i++)
        marks_again(&w->marks, taken.offset[i], taken.length[i]);
    flip_all(w);
    CHECK(!w->marks.lost);
    taken = collect_all(w);
    CHECK(taken.lines == 80);
    for (unsigned i = 0; i < 80; i++) {
        uint64_t line = (taken.offset[i] - w->arena->extents[1].start) / ARENA_LINE;
        CHECK(taken.first[i] == (line >= 70 && line < 76 ? 2 : 1));
    }
    marks_world_close(w);
}

/* No room for a line, whichever: nothing is missing in the next delta, not even that line. */
static void test_no_room(void)
{
    for (unsigned most = 0; most < 100; most++) {
        struct marks_world *w = open_world(100);
        for (uint64_t line = 0; line < 100; line++)
            store(w, 0, own(w, line), 1, 1);
        flip_all(w);
        for (uint64_t line = 0; line < 20; line++)
            store(w, 0, own(w, line), 1, 1);
        struct taken taken = {.most = most};
        struct marks_scan scan = {0};
        CHECK(marks_collect(&w->marks, &scan, 1000, take, &taken) == MARKS_NO_ROOM);
        CHECK(taken.lines == most);
        give_up(w, scan);
        for (unsigned i = 0; i < taken.lines; i++)
            marks_again(&w->marks, taken.offset[i], taken.length[i]);
        flip_all(w);
        CHECK(collect_all(w).lines == 100);
        flip_all(w);
        CHECK(collect_all(w).lines == 0);
        marks_world_close(w);
    }
}

/* What is marked again is in the next delta, whatever it was: clean, marked, marked again. */
static void test_again(void)
{
    struct marks_world *w = open_world(10);
    uint64_t offset = (uint64_t)(own(w, 0) - (uint8_t *)w->arena);
    store(w, 0, own(w, 3), 1, 3);
    marks_again(&w->marks, offset + 2 * ARENA_LINE + 5, 2 * ARENA_LINE); /* 2, 3, 4 */
    marks_again(&w->marks, offset + 3 * ARENA_LINE, 1);
    marks_again(&w->marks, offset + 9 * ARENA_LINE, 0);
    CHECK(*stamp_at(w, own(w, 1)) == MARK_CLEAN && *stamp_at(w, own(w, 5)) == MARK_CLEAN);
    CHECK(*stamp_at(w, own(w, 4)) == MARK_EVEN);
    store(w, 0, own(w, 4), 1, 4);
    flip_all(w);
    struct taken taken = collect_all(w);
    CHECK(taken.lines == 3);
    for (unsigned i = 0; i < 3; i++)
        CHECK(taken.offset[i] == offset + (2 + i) * ARENA_LINE);
    CHECK(taken.first[0] == 0 && taken.first[1] == 3 && taken.first[2] == 4);
    marks_world_close(w);
}

/* The memory that marks need is what they use: whatever lies behind it stays as it is. */
static void test_memory(void)
{
    for (uint64_t lines = 33; lines < 300; lines += 13) {
        struct arena *arena = aligned_alloc(4096, align_up(lines * ARENA_LINE, 4096));
        memset(arena, 0, lines * ARENA_LINE);
        arena->size = lines * ARENA_LINE;
        arena->workers = 2;
        uint64_t bytes = marks_bytes(arena->size, 2, 5);
        struct marks marks;
        uint8_t *memory = aligned_alloc(4096, align_up(bytes, 4096));
        CHECK(memory);
        memset(memory, 0, bytes);
        marks_create(&marks, arena, memory, 5);
        CHECK((uint8_t *)&marks.undo[1].entry[5] <= memory + bytes);
        CHECK((uint8_t *)&marks.stamp[marks.chunks * MARK_CHUNK] <= (uint8_t *)marks.map[0]);
        CHECK((uint8_t *)marks.map[0] + align_up(marks.chunks, 8) <= (uint8_t *)marks.map[1]);
        CHECK((uint8_t *)marks.map[1] + align_up(marks.chunks, 8) <=
              (uint8_t *)marks.undo[0].entry);
        CHECK(marks.lines == lines && marks.chunks * MARK_CHUNK >= lines);
        free(memory);
        free(arena);
    }
}

/* What nobody needs any more: clean, until somebody marks it again, in as many steps as one likes.
 */
static void test_forget(void)
{
    struct marks_world *w = open_world(10);
    for (uint64_t line = 0; line < 100; line += 3)
        store(w, 0, own(w, line), 8, 1);
    unsigned steps = 1;
    for (struct marks_scan scan = {0}; !marks_forget(&w->marks, &scan, 1); steps++)
        CHECK(steps < 10);
    CHECK(steps >= 2);
    for (uint64_t line = 0; line < 100; line++)
        CHECK(*stamp_at(w, own(w, line)) == MARK_CLEAN);
    store(w, 0, own(w, 6), 8, 2);
    marks_again(&w->marks, (uint64_t)(own(w, 9) - (uint8_t *)w->arena), 1);
    flip_all(w);
    struct taken taken = collect_all(w);
    CHECK(taken.lines == 2 && taken.first[0] == 2 && taken.first[1] == 1);
    store(w, 0, own(w, 7), 8, 3);
    flip_all(w);
    CHECK(collect_all(w).lines == 1);
    marks_world_close(w);
}

int main(void)
{
    test_transitions();
    test_ranges();
    test_refused();
    test_busy();
    test_allocated();
    test_budget();
    test_undo_full();
    test_no_room();
    test_again();
    test_forget();
    test_memory();
    return 0;
}

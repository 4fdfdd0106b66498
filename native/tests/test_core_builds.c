/* A standby that builds the whole state from slices: whatever is missing, wrong or given up on the
 * way, its base stays a committed snapshot byte for byte, and what it prepares at the end is the
 * master's state at that cut. */
#include <string.h>

#include "core/standby.h"
#include "tests/core_test.h"

#define WORKERS 2u
#define CONFIG 0x77u
#define SHARED_BYTES 9000u
#define WORKER_BYTES 6000u

/* A master that others commit, and a standby that may hold something old, or nothing. */
struct world {
    uint64_t seed;
    uint64_t size;
    struct arena *master;
    struct arena *committed; /* at the last commit of all */
    struct arena *taken;
    struct arena *held; /* what the standby's base must be */
    struct base_name held_name;
    struct snapshot_name name; /* of the last delta, with its slice */
    struct base_name base;     /* the last commit of all */
    struct delta delta;
    struct standby standby;
    void *memory;
};

static void *zeroes(uint64_t bytes)
{
    void *memory = aligned_alloc(4096, align_up(bytes, 4096));
    CHECK(memory);
    memset(memory, 0, bytes);
    return memory;
}

static struct arena *fresh_arena(uint64_t size)
{
    struct arena *arena = zeroes(size);
    CHECK(arena_create(arena, size, SHARED_BYTES, WORKER_BYTES, WORKERS, 20, CONFIG));
    return arena;
}

static void open_standby(struct world *w)
{
    w->memory = zeroes(standby_bytes(w->size));
    standby_create(&w->standby, fresh_arena(w->size), w->memory);
}

static void close_standby(struct world *w)
{
    free(w->standby.working);
    free(w->memory);
}

static struct world open_world(uint64_t seed)
{
    struct world w = {.seed = seed, .name = {.view = 3, .epoch = 10}};
    w.size = arena_bytes(SHARED_BYTES, WORKER_BYTES, WORKERS, 20);
    w.master = fresh_arena(w.size);
    w.committed = fresh_arena(w.size);
    CHECK(arena_alloc(w.master, 2, 10 * ARENA_LINE, 8));
    w.taken = zeroes(w.size);
    w.held = fresh_arena(w.size);
    open_standby(&w);
    return w;
}

static void close_world(struct world *w)
{
    free(w->master);
    free(w->committed);
    free(w->taken);
    free(w->held);
    free(w->delta.bytes);
    free(w->delta.hash);
    close_standby(w);
}

static void change(struct world *w)
{
    for (unsigned i = (unsigned)seed_below(&w->seed, 40); i; i--) {
        unsigned who = (unsigned)seed_below(&w->seed, WORKERS + 1);
        if (seed_below(&w->seed, 3) == 0)
            arena_alloc(w->master, who, 1 + seed_below(&w->seed, 300), 8);
        const struct arena_extent *extent = &w->master->extents[who];
        if (extent->used)
            ((uint8_t *)w->master)[extent->start + seed_below(&w->seed, extent->used)]++;
    }
    w->master->cursors[0].next_input += 1 + seed_below(&w->seed, 9);
}

/* The next delta, with this slice: what changed since the last commit of all. */
static void take(struct world *w, struct snapshot_slice slice, bool check)
{
    change(w);
    memset(w->taken, 0, w->size);
    snapshot_copy(w->master, w->taken);
    w->name = (struct snapshot_name){.view = w->name.view,
                                     .epoch = w->name.epoch + 1,
                                     .base_view = w->base.view,
                                     .base_epoch = w->base.epoch,
                                     .previous_epoch = w->name.epoch,
                                     .slice = slice};
    CHECK(delta_build(&w->delta, w->taken, w->committed, w->name, check));
}

/* Others have it, and it is the base from now on. */
static void others_commit(struct world *w)
{
    memcpy(w->committed, w->taken, w->size);
    w->base = (struct base_name){w->name.view, w->name.epoch};
}

static const char *receive(struct world *w)
{
    memcpy(w->standby.delta, w->delta.bytes, w->delta.size);
    return standby_prepare(&w->standby, w->delta.size);
}

/* As it was before: nothing prepared, nothing built. */
static void check_untouched(const struct world *w)
{
    CHECK(base_same(standby_base(&w->standby), w->held_name));
    CHECK(standby_prepared(&w->standby).epoch == 0 && w->standby.build.epoch == 0);
    CHECK(memcmp(w->standby.image, w->held, w->size) == 0);
    CHECK(memcmp(w->standby.working, w->held, w->size) == 0);
}

static void check_refused(struct world *w, const char *why)
{
    const char *wrong = receive(w);
    CHECK(wrong && strcmp(wrong, why) == 0);
    check_untouched(w);
}

/* The build has come to its end: it can be committed, and is what the master was. */
static void check_built(struct world *w)
{
    struct base_name name = {w->name.view, w->name.epoch};
    CHECK(base_same(standby_prepared(&w->standby), name));
    CHECK(base_same(standby_base(&w->standby), w->held_name));
    CHECK(memcmp(w->standby.working, w->taken, w->size) == 0);
    CHECK(memcmp(w->standby.image, w->held, w->size) == 0);
    CHECK(standby_commit(&w->standby, name));
    others_commit(w);
    memcpy(w->held, w->taken, w->size);
    w->held_name = name;
    check_untouched(w);
}

static uint64_t all_lines(const struct world *w)
{
    return snapshot_lines(w->size);
}

/* The slice of `lines` lines, or to the end of the arena, that follows the one before. */
static struct snapshot_slice next_slice(const struct world *w, uint64_t lines)
{
    uint64_t first = (w->name.slice.first + w->name.slice.lines) % all_lines(w);
    return (struct snapshot_slice){first, u64_min(lines, all_lines(w) - first)};
}

/* Deltas with slices until something is prepared. */
static void build(struct world *w, bool check)
{
    unsigned deltas = 0;
    for (;;) {
        CHECK(++deltas < 100);
        uint64_t lines = seed_below(&w->seed, 5) ? 1 + seed_below(&w->seed, 60) : 0;
        struct snapshot_slice slice = next_slice(w, lines);
        if (!slice.lines)
            slice.first = seed_below(&w->seed, all_lines(w)); /* of no slice: nowhere */
        struct snapshot_slice before = w->name.slice;
        take(w, slice, check);
        if (!slice.lines)
            w->name.slice = before;
        bool begun = w->standby.build.epoch != 0;
        const char *wrong = receive(w);
        CHECK((wrong != NULL) == (!begun && !slice.lines));
        if (wrong)
            continue;
        if (standby_prepared(&w->standby).epoch)
            break;
        CHECK(w->standby.build.epoch == w->name.epoch);
        CHECK(!standby_commit(&w->standby, (struct base_name){w->name.view, w->name.epoch}));
        CHECK(memcmp(w->standby.image, w->held, w->size) == 0);
        if (seed_below(&w->seed, 4)) /* else it is abandoned: the next one has its lines too */
            others_commit(w);
    }
    check_built(w);
}

/* A delta that can be prepared on the base that is held. */
static void follow(struct world *w, bool check)
{
    take(w, (struct snapshot_slice){0}, check);
    w->name.slice = (struct snapshot_slice){seed_below(&w->seed, all_lines(w)), 0};
    CHECK(!receive(w));
    check_built(w);
}

/* From nothing, and once more from a base that others have left behind. */
static void test_round(uint64_t seed)
{
    for (unsigned i = 0; i < 40; i++) {
        struct world w = open_world(seed_next(&seed));
        w.name.slice.first = seed_below(&w.seed, all_lines(&w));
        change(&w);
        build(&w, i % 2);
        follow(&w, i % 3);
        for (unsigned missed = 0; missed < 3; missed++) {
            take(&w, (struct snapshot_slice){0}, false);
            others_commit(&w);
        }
        w.name.slice = (struct snapshot_slice){seed_below(&w.seed, all_lines(&w)), 0};
        build(&w, i % 2);
        follow(&w, i % 3);
        close_world(&w);
    }
}

/* In mid-build, with a base of before. */
static struct world open_building(uint64_t seed)
{
    struct world w = open_world(seed);
    build(&w, false);
    follow(&w, false);
    take(&w, (struct snapshot_slice){0}, false);
    others_commit(&w);
    w.name.slice = (struct snapshot_slice){0};
    for (unsigned i = 0; i < 3; i++) {
        take(&w, next_slice(&w, 20), false);
        CHECK(!receive(&w) && w.standby.build.lines == 20 * (i + 1));
        others_commit(&w);
    }
    return w;
}

static const char follows_not[] = "does not follow the one before";
static const char slice_follows_not[] = "its slice does not follow the one before";

/* What ends a build, each once; after it a new one comes through. */
static void test_gaps(uint64_t seed)
{
    for (unsigned i = 0; i < 9; i++) {
        struct world w = open_building(seed_next(&seed));
        struct snapshot_slice next = next_slice(&w, 20);
        const char *why = slice_follows_not;
        switch (i) {
        case 0: /* a delta did not arrive */
            take(&w, next, false);
            take(&w, next_slice(&w, 20), false);
            why = follows_not;
            break;
        case 1: /* the same one twice */
            CHECK(!(take(&w, next, false), receive(&w)));
            why = follows_not;
            break;
        case 2: /* another master */
            w.name.view++;
            take(&w, next, false);
            why = follows_not;
            break;
        case 3: /* it says that no build goes on with it, and has no slice */
            w.name.view++;
            w.name.epoch = 0;
            take(&w, (struct snapshot_slice){0}, false);
            why = follows_not;
            break;
        case 4:
            take(&w, (struct snapshot_slice){next.first + 1, 5}, false);
            break;
        case 5:
            take(&w, (struct snapshot_slice){next.first - 1, 5}, false);
            break;
        case 6:
            take(&w, (struct snapshot_slice){next.first, all_lines(&w)}, false);
            break;
        case 7:
            take(&w, (struct snapshot_slice){UINT64_MAX, 5}, false);
            break;
        default:
            take(&w, (struct snapshot_slice){next.first, UINT64_MAX}, false);
        }
        check_refused(&w, why);
        others_commit(&w);
        w.name.slice = (struct snapshot_slice){seed_below(&w.seed, all_lines(&w)), 0};
        build(&w, true);
        follow(&w, true);
        close_world(&w);
    }
}

/* A delta that says that no build goes on with it begins another one; nothing is left of the one
 * before, also not where its master had allocated memory that the new one has not. */
static void test_begun_anew(uint64_t seed)
{
    struct world w = open_building(seed);
    const struct arena_extent *own = &w.master->extents[1];
    uint64_t room = own->limit - own->used;
    memset(arena_alloc(w.master, 1, room, 1), 0x5a, room);
    take(&w, next_slice(&w, 20), false);
    CHECK(!receive(&w));
    memcpy(w.master, w.committed, w.size);
    w.name.view++;
    w.name.epoch = 0;
    w.name.slice.first += 7;
    take(&w, next_slice(&w, 20), false);
    CHECK(!receive(&w) && w.standby.build.lines == 20 && w.standby.build.first >= 7);
    others_commit(&w);
    build(&w, true);
    follow(&w, true);
    close_world(&w);
}

/* No slice, and no base for it either; or a slice of an older state than the one that is held. */
static void test_refused(uint64_t seed)
{
    struct world w = open_world(seed);
    take(&w, (struct snapshot_slice){0}, true);
    check_refused(&w, "does not follow the base held here");
    w.base = (struct base_name){3, 9};
    take(&w, (struct snapshot_slice){0}, true);
    check_refused(&w, "does not follow the base held here");
    build(&w, true);
    w.name.epoch = w.held_name.epoch - 1;
    take(&w, (struct snapshot_slice){0, 5}, true);
    check_refused(&w, "older than the base held here");
    close_world(&w);
}

static void test_roll_back(uint64_t seed)
{
    struct world w = open_building(seed);
    standby_roll_back(&w.standby);
    check_untouched(&w);
    standby_roll_back(&w.standby);
    check_untouched(&w);
    take(&w, next_slice(&w, 20), false);
    CHECK(!receive(&w) && w.standby.build.lines == 20); /* the first of a new one */
    others_commit(&w);
    standby_roll_back(&w.standby);
    check_untouched(&w);
    w.name.slice.lines = 0;
    build(&w, true);
    close_world(&w);
}

/* The process ends in mid-build: the next one has the base and no build; or, once it was prepared,
 * all of it. */
static void test_restart(uint64_t seed)
{
    for (unsigned whole = 0; whole < 2; whole++) {
        struct world w = open_building(seed_next(&seed));
        if (whole) {
            take(&w, next_slice(&w, all_lines(&w)), true);
            CHECK(!receive(&w) && standby_prepared(&w.standby).epoch);
        }
        struct world left = w;
        open_standby(&w);
        CHECK(standby_adopt(&w.standby, left.memory, standby_bytes(w.size)));
        close_standby(&left);
        if (whole) {
            check_built(&w);
        } else {
            check_untouched(&w);
            w.name.slice.lines = 0;
            build(&w, true);
        }
        follow(&w, true);
        close_world(&w);
    }
}

/* A line of the working copy that is not as the master's: with hashes it is named, the base stays,
 * and a delta that brings a slice is taken as the beginning of a build rather than upon the base.
 */
static void test_wrong_line(uint64_t seed, bool building)
{
    struct world w = open_building(seed);
    if (!building) {
        standby_roll_back(&w.standby);
        w.name.slice.lines = 0;
        build(&w, true);
    }
    uint64_t line = w.master->extents[2].start / ARENA_LINE + 3;
    if (building) {
        take(&w, next_slice(&w, all_lines(&w) - 70), true);
        CHECK(!receive(&w) && w.standby.build.lines == all_lines(&w) - 10);
        others_commit(&w);
    }
    /* As if stores had not been marked: in the image that was hashed, not in the delta. */
    memcpy(w.taken, w.committed, w.size);
    for (unsigned i = 0; i < 2; i++)
        ((uint8_t *)w.taken)[(line + 2 * i) * ARENA_LINE + 77] ^= 1;
    struct snapshot_name name = {.view = w.name.view,
                                 .epoch = w.name.epoch + 1,
                                 .base_view = w.name.view,
                                 .base_epoch = building ? w.base.epoch : w.held_name.epoch,
                                 .previous_epoch = w.name.epoch,
                                 .slice = {building ? all_lines(&w) - 10 : 0, building ? 10 : 0}};
    CHECK(delta_begin(&w.delta, name, w.taken));
    for (uint64_t at = 1; at < all_lines(&w); at++) { /* all but those two */
        uint8_t *content = (uint8_t *)w.taken + at * ARENA_LINE;
        if (at * ARENA_LINE >= w.taken->extents[0].start && at != line && at != line + 2)
            CHECK(delta_add(&w.delta, at * ARENA_LINE, content, ARENA_LINE));
    }
    CHECK(delta_hash(&w.delta, w.taken) && delta_finish(&w.delta));
    CHECK(receive(&w) == standby_wrong_line);
    CHECK(w.standby.differs_at == line * ARENA_LINE);
    check_untouched(&w);
    w.name = name;
    CHECK(w.standby.begin_anew);
    w.name.slice = (struct snapshot_slice){7, 0};
    take(&w, next_slice(&w, 20), true);
    CHECK(!receive(&w) && w.standby.build.lines == 20 && !standby_prepared(&w.standby).epoch);
    others_commit(&w);
    build(&w, true);
    follow(&w, true);
    close_world(&w);
}

/* Every line of a full arena, as runs of their own and with hashes, fits where deltas are received;
 * and so does what a build writes at its end. */
static void test_bound(uint64_t seed)
{
    struct world w = open_world(seed);
    for (unsigned who = 0; who <= WORKERS; who++) {
        const struct arena_extent *x = &w.master->extents[who];
        uint8_t *memory = arena_alloc(w.master, who, x->limit - x->used, 1);
        CHECK(memory);
        seed_fill(&w.seed, memory, (size_t)((uint8_t *)w.master + x->start + x->used - memory));
    }
    memcpy(w.taken, w.master, w.size);
    struct snapshot_name name = {.view = 3, .epoch = 11, .slice = {0, all_lines(&w)}};
    CHECK(delta_begin(&w.delta, name, w.taken));
    for (uint64_t odd = 0; odd < 2; odd++) {
        for (uint64_t line = 1; line < all_lines(&w); line++) {
            if (line % 2 == odd && line * ARENA_LINE >= w.taken->extents[0].start)
                CHECK(delta_add(&w.delta, line * ARENA_LINE, (uint8_t *)w.taken + line * ARENA_LINE,
                                ARENA_LINE));
        }
    }
    CHECK(delta_hash(&w.delta, w.taken) && delta_finish(&w.delta));
    CHECK(w.delta.size <= w.standby.delta_capacity);
    CHECK(!receive(&w));
    w.name = name;
    check_built(&w);
    w.name.slice = (struct snapshot_slice){0};
    w.held_name.epoch = 0; /* once more, in pieces */
    memset(w.held, 0, w.size);
    close_standby(&w);
    open_standby(&w);
    memcpy(w.held, w.standby.image, w.size);
    w.held_name = (struct base_name){0};
    build(&w, true);
    close_world(&w);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_round(seed_next(&seed));
    for (unsigned i = 0; i < 20; i++) {
        test_gaps(seed_next(&seed));
        test_begun_anew(seed_next(&seed));
        test_refused(seed_next(&seed));
        test_roll_back(seed_next(&seed));
        test_restart(seed_next(&seed));
        test_wrong_line(seed_next(&seed), false);
        test_wrong_line(seed_next(&seed), true);
        test_bound(seed_next(&seed));
    }
    return 0;
}

/* Slices of an image, parts of the arena by name, hashes of lines, deltas in memory of a fixed
 * size. */
#include "tests/snapshot_pair.h"

static bool allocated(const struct arena *arena, uint64_t offset)
{
    for (uint32_t e = 0; e <= arena->workers; e++) {
        if (offset >= arena->extents[e].start &&
            offset < arena->extents[e].start + arena->extents[e].used)
            return true;
    }
    return false;
}

/* The ranges of a slice against a look at each byte. */
static void check_ranges(const struct arena *arena, struct snapshot_slice slice)
{
    uint64_t at = 0, offset, length, byte = slice.first * SNAPSHOT_LINE;
    uint64_t end = u64_min(arena->size, (slice.first + slice.lines) * SNAPSHOT_LINE);
    while (snapshot_range(arena, slice, &at, &offset, &length)) {
        CHECK(length > 0 && offset + length <= end);
        for (; byte < offset; byte++)
            CHECK(!allocated(arena, byte));
        for (; byte < offset + length; byte++)
            CHECK(allocated(arena, byte));
    }
    for (; byte < end; byte++)
        CHECK(!allocated(arena, byte));
}

/* Slice after slice: each begins where the one before ended, has about the bytes asked for, and
 * they come round in as many steps as that takes. */
static void test_slices(uint64_t seed)
{
    struct pair p = open_pair(seed);
    for (unsigned i = 0; i < 40; i++) {
        change(&p, 10);
        uint64_t lines = snapshot_lines(p.size), first = 0, steps = 0;
        uint64_t bytes = 1 + seed_below(&p.seed, 20000);
        while (first < lines) {
            struct snapshot_slice slice = snapshot_slice_at(p.master, first, bytes);
            uint64_t at = 0, offset, length, sum = 0;
            CHECK(slice.first == first && slice.lines > 0 && slice.lines <= lines - first);
            check_ranges(p.master, slice);
            while (snapshot_range(p.master, slice, &at, &offset, &length))
                sum += length;
            CHECK(sum < bytes + SNAPSHOT_LINE);
            CHECK(sum >= bytes || first + slice.lines == lines);
            first += slice.lines;
            steps++;
        }
        CHECK(steps <= arena_allocated(p.master) / bytes + 2);
        CHECK(snapshot_slice_at(p.master, lines, bytes).lines == 0);
        check_ranges(p.master, (struct snapshot_slice){seed_below(&p.seed, lines + 5),
                                                       seed_below(&p.seed, lines + 5)});
    }
    close_pair(&p);
}

/* A slice is in the delta, changed or not, and says so in the head; what else is in it changed. */
static void test_slice_in_delta(uint64_t seed)
{
    struct pair p = open_pair(seed);
    CHECK(arena_alloc(p.master, 0, 40 * SNAPSHOT_LINE, SNAPSHOT_LINE));
    p.committed = take(&p, 1);
    uint64_t at = p.master->extents[0].start + 30 * SNAPSHOT_LINE;
    ((uint8_t *)p.master)[at] ^= 1;
    snapshot_copy(p.master, p.image[1]);
    struct snapshot_name name = {.view = 2,
                                 .epoch = 9,
                                 .base_view = 2,
                                 .base_epoch = 1,
                                 .previous_epoch = 8,
                                 .slice = {p.master->extents[0].start / SNAPSHOT_LINE + 3, 5}};
    CHECK(delta_build(&p.delta, p.image[1], p.image[0], name, false));
    CHECK(head_of(&p)->hashes == 0 && head_of(&p)->previous_epoch == 8);
    CHECK(head_of(&p)->slice.first == name.slice.first && head_of(&p)->slice.lines == 5);
    CHECK(head_of(&p)->lines == snapshot_lines(sizeof(struct arena)) + 5 + 1);
    CHECK(!delta_is_whole(head_of(&p), p.size));
    memset(p.backup, 0, p.size);
    delta_apply(p.delta.bytes, p.backup);
    CHECK(memcmp((uint8_t *)p.backup + name.slice.first * SNAPSHOT_LINE,
                 (uint8_t *)p.master + name.slice.first * SNAPSHOT_LINE, 5 * SNAPSHOT_LINE) == 0);
    CHECK(((uint8_t *)p.backup)[at] == ((uint8_t *)p.master)[at]);
    CHECK(delta_build(&p.delta, p.image[1], NULL, name, false));
    CHECK(delta_is_whole(head_of(&p), p.size) && head_of(&p)->base_epoch == 0);
    close_pair(&p);
}

static void check_where(const struct arena *arena, uint64_t offset, const char *part)
{
    char where[48];
    memset(where, 'x', sizeof(where));
    snapshot_where(arena, offset, where);
    CHECK(strcmp(where, part) == 0);
}

static void test_where(void)
{
    struct pair p = open_pair(1);
    const struct arena *a = p.master;
    check_where(a, 0, "header");
    check_where(a, sizeof(*a) - 1, "header");
    check_where(a, sizeof(*a), "no memory of the arena");
    check_where(a, a->seq_offset, "variables");
    check_where(a, a->seq_offset + 99 * 8, "variables");
    check_where(a, a->seq_offset + 100 * 8, "shared memory");
    check_where(a, a->extents[1].start - 1, "shared memory");
    for (unsigned w = 0; w < WORKERS; w++) {
        char part[] = "memory of worker 0";
        part[17] = (char)('0' + w);
        check_where(a, a->extents[1 + w].start, part);
        check_where(a, a->extents[1 + w].start + a->extents[1 + w].limit - 1, part);
    }
    check_where(a, a->extents[WORKERS].start + a->extents[WORKERS].limit, "no memory of the arena");
    check_where(a, UINT64_MAX, "no memory of the arena");
    close_pair(&p);
}

/* Hashes name the first line that differs, wherever it is. */
static void test_compare(uint64_t seed)
{
    struct pair p = open_pair(seed);
    for (unsigned who = 0; who <= WORKERS; who++)
        CHECK(arena_alloc(p.master, who, 2000 + 24 * who, 8));
    p.committed = take(&p, 1);
    delta_apply(p.delta.bytes, p.backup);
    CHECK(delta_compare(p.delta.bytes, p.backup) == UINT64_MAX);
    for (unsigned i = 0; i < 2000; i++) {
        unsigned who = (unsigned)seed_below(&seed, WORKERS + 1);
        const struct arena_extent *x = &p.backup->extents[who];
        uint64_t in = i % 10 ? seed_below(&seed, x->used) : x->used - 1;
        uint8_t *byte = (uint8_t *)p.backup + x->start + in;
        uint8_t right = *byte;
        *byte ^= (uint8_t)(1 + seed_below(&seed, 255));
        const struct arena_extent *last = &p.backup->extents[WORKERS];
        uint8_t *later = (uint8_t *)p.backup + last->start + last->used - 1;
        if (later != byte)
            *later ^= 1;
        CHECK(delta_compare(p.delta.bytes, p.backup) ==
              x->start + in / SNAPSHOT_LINE * SNAPSHOT_LINE);
        if (later != byte)
            *later ^= 1;
        *byte = right;
    }
    p.backup->cursors[1].random ^= 4;
    CHECK(delta_compare(p.delta.bytes, p.backup) < sizeof(struct arena));
    p.backup->cursors[1].random ^= 4;
    p.backup->extents[2].used -= 400; /* fewer lines than there are hashes, or more */
    CHECK(delta_compare(p.delta.bytes, p.backup) != UINT64_MAX);
    p.backup->extents[2].used += 4000;
    CHECK(delta_compare(p.delta.bytes, p.backup) != UINT64_MAX);
    close_pair(&p);
}

/* A buffer that is somebody else's memory: a delta fits, or is refused; nothing lies beyond. */
static void test_fixed(uint64_t seed)
{
    struct pair p = open_pair(seed);
    change(&p, 50);
    take(&p, 1);
    uint64_t size = p.delta.size;
    for (uint64_t capacity = 0; capacity < size + 3; capacity += capacity + 400 < size ? 397 : 1) {
        uint8_t *memory = malloc(size + 64);
        memset(memory, 0x5a, size + 64);
        struct delta delta = {.bytes = memory, .capacity = capacity, .fixed = true};
        bool fits =
            delta_build(&delta, p.image[0], NULL, (struct snapshot_name){2, 1, 0, 0, 0, {0}}, true);
        CHECK(fits == (capacity >= size));
        for (uint64_t i = capacity; i < size + 64; i++)
            CHECK(memory[i] == 0x5a);
        CHECK(!fits || !delta_check(memory, delta.size, p.size, CONFIG));
        free(delta.hash);
        free(memory);
    }
    close_pair(&p);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_slices(seed);
    test_slice_in_delta(seed);
    test_where();
    test_compare(seed);
    test_fixed(seed);
    return 0;
}

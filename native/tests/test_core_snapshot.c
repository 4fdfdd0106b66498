/* Snapshots: a backup that applies deltas equals the master, and refuses what is not sound. */
#include "core/hash.h"
#include "tests/snapshot_pair.h"

static void check_cut(const struct pair *p)
{
    struct snapshot_cut cut;
    snapshot_cut_of(p->master, &cut);
    CHECK(memcmp(&cut, &head_of(p)->cut, sizeof(cut)) == 0);
    for (uint32_t w = 0; w < WORKERS; w++) {
        CHECK(cut.next_input[w] == p->master->cursors[w].next_input);
        CHECK(cut.pals[w] == p->master->cursors[w].pals);
        CHECK(cut.outputs[w] == p->master->cursors[w].outputs);
    }
}

/* A chain of full and incremental snapshots, some of them abandoned on the way. */
static void test_chain(uint64_t seed)
{
    struct pair p = open_pair(seed);
    uint64_t epoch = 1;
    for (unsigned i = 0; i < 30; i++) {
        change(&p, (unsigned)seed_below(&p.seed, 60));
        int next = take(&p, epoch);
        check_cut(&p);
        CHECK(!delta_check(p.delta.bytes, p.delta.size, p.size, CONFIG));
        if (seed_below(&p.seed, 4) == 0)
            continue; /* never committed: the next one must contain it too */
        delta_apply(p.delta.bytes, p.backup);
        CHECK(equal(p.master, p.backup));
        CHECK(delta_compare(p.delta.bytes, p.backup) == UINT64_MAX && head_of(&p)->hashes);
        CHECK(snapshot_first_difference(p.master, p.backup) == UINT64_MAX);
        p.committed = next;
        epoch++;
        if (seed_below(&p.seed, 10) == 0) { /* a new backup, from nothing */
            memset(p.backup, 0, p.size);
            CHECK(arena_create(p.backup, p.size, 60000, 20000, WORKERS, 100, CONFIG));
            p.committed = -1;
        }
    }
    close_pair(&p);
}

/* A delta has the lines that changed and no others. */
static void test_lines(void)
{
    struct pair p = open_pair(1);
    uint8_t *data = arena_alloc(p.master, 0, 20 * SNAPSHOT_LINE, 8);
    uint64_t offset = (uint64_t)(data - (uint8_t *)p.master);
    uint64_t line0 = p.master->extents[0].start;
    offset = line0 + (offset - line0 + SNAPSHOT_LINE - 1) / SNAPSHOT_LINE * SNAPSHOT_LINE;
    data = (uint8_t *)p.master + offset;
    p.committed = take(&p, 1);
    CHECK(head_of(&p)->runs == 2); /* header and shared extent, each in one piece */
    CHECK(p.delta.size >= arena_allocated(p.master));
    take(&p, 2); /* the header always is */
    uint64_t header_lines = snapshot_lines(sizeof(struct arena));
    CHECK(head_of(&p)->runs == 1 && head_of(&p)->lines == header_lines);
    CHECK(p.delta.size == sizeof(struct delta_head) + sizeof(struct delta_run) +
                              align_up(sizeof(struct arena), 8) +
                              align_up(head_of(&p)->hashes * sizeof(uint32_t), 8));
    CHECK(!delta_check(p.delta.bytes, p.delta.size, p.size, CONFIG));
    data[0] = data[3 * SNAPSHOT_LINE - 1] = 1; /* lines 0 and 2 */
    data[3 * SNAPSHOT_LINE] = 1;               /* and 3 */
    take(&p, 2);
    CHECK(head_of(&p)->runs == 3 && head_of(&p)->lines == header_lines + 3);
    struct delta_run run;
    memcpy(&run,
           p.delta.bytes + sizeof(struct delta_head) + sizeof(run) +
               align_up(sizeof(struct arena), 8),
           sizeof(run));
    CHECK(run.offset == offset && run.length == SNAPSHOT_LINE);
    CHECK(snapshot_first_difference(p.image[0], p.image[1]) == offset);
    close_pair(&p);
}

/* Header, shared extent and each worker's: a change anywhere changes the digest, and is found. */
static void test_digest(uint64_t seed)
{
    struct pair p = open_pair(seed);
    for (unsigned who = 0; who <= WORKERS; who++)
        CHECK(arena_alloc(p.master, who, 3000, 8));
    snapshot_copy(p.master, p.image[0]);
    uint64_t digest = snapshot_digest(p.image[0]);
    for (unsigned i = 0; i < 2000; i++) {
        const struct arena_extent *extent = &p.master->extents[seed_below(&seed, WORKERS + 1)];
        uint64_t at =
            i % 8 ? extent->start + seed_below(&seed, extent->used)
                  : offsetof(struct arena, cursors) + seed_below(&seed, sizeof(p.master->cursors));
        uint8_t *byte = (uint8_t *)p.image[0] + at;
        *byte ^= (uint8_t)(1 + seed_below(&seed, 255));
        CHECK(snapshot_digest(p.image[0]) != digest);
        uint64_t found = snapshot_first_difference(p.master, p.image[0]);
        CHECK(found <= at && at - found < SNAPSHOT_LINE);
        *byte = ((uint8_t *)p.master)[at];
    }
    CHECK(snapshot_digest(p.image[0]) == digest);
    close_pair(&p);
}

/* Make the checksum right again: what is wrong must be found by looking at the runs. */
static void seal(uint8_t *bytes, uint64_t size)
{
    struct delta_head head;
    memcpy(&head, bytes, sizeof(head));
    head.bytes = size;
    memcpy(bytes, &head, sizeof(head));
    ((struct delta_head *)bytes)->checksum = delta_checksum(bytes);
}

static bool refused(const uint8_t *bytes, uint64_t size, uint64_t arena_size)
{
    uint8_t *copy = malloc(size ? size : 1); /* a block of exactly this size */
    memcpy(copy, bytes, size);
    const char *wrong = delta_check(copy, size, arena_size, CONFIG);
    free(copy);
    return wrong != NULL;
}

static void test_corrupted(uint64_t seed)
{
    struct pair p = open_pair(seed);
    arena_alloc(p.master, 1, 1000, 8);
    p.committed = take(&p, 1);
    change(&p, 20);
    take(&p, 2);
    uint8_t *bytes = p.delta.bytes;
    uint64_t size = p.delta.size;
    CHECK(!refused(bytes, size, p.size) && size < 20000);
    /* Every byte of the first runs, then here and there. */
    for (uint64_t at = sizeof(struct delta_head); at < size; at += at < 1000 ? 1 : 97) {
        uint8_t right = bytes[at];
        bytes[at] ^= (uint8_t)(1 + seed_below(&seed, 255));
        CHECK(refused(bytes, size, p.size));
        bytes[at] = right;
    }
    for (uint64_t shorter = 0; shorter < size; shorter += shorter < 600 ? 1 : 61)
        CHECK(refused(bytes, shorter, p.size));
    CHECK(delta_check(bytes, size, p.size, CONFIG + 1));
    CHECK(delta_check(bytes, size, 4096, CONFIG)); /* for a larger arena than this one */
    static const size_t fields[] = {
        offsetof(struct delta_head, magic),      offsetof(struct delta_head, version),
        offsetof(struct delta_head, bytes),      offsetof(struct delta_head, runs),
        offsetof(struct delta_head, checksum),   offsetof(struct delta_head, config_digest),
        offsetof(struct delta_head, view),       offsetof(struct delta_head, epoch),
        offsetof(struct delta_head, base_epoch), offsetof(struct delta_head, hashes),
        offsetof(struct delta_head, cut.pals),   offsetof(struct delta_head, cut.outputs)};
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        bytes[fields[i]] ^= 1;
        CHECK(refused(bytes, size, p.size));
        bytes[fields[i]] ^= 1;
    }
    CHECK(!refused(bytes, size, p.size));
    close_pair(&p);
}

/* Runs that reach out of the arena or of the delta, with a checksum that is right. */
static void test_bad_runs(void)
{
    const uint64_t arena_size = 1 << 20;
    static const struct {
        uint64_t offset, length;
        bool bad;
    } runs[] = {{0, 64, false},
                {(1 << 20) - 64, 64, false},
                {(1 << 20) - 63, 64, true},
                {1 << 20, 0, false},
                {(1 << 20) + 1, 0, true},
                {UINT64_MAX, 64, true},
                {UINT64_MAX - 63, 64, true},
                {0, UINT64_MAX, true},
                {0, UINT64_MAX - 7, true},
                {0, 72, true},
                {0, 65, true},
                {0, 57, false},
                {0, 56, true}}; /* bytes are left over */
    for (unsigned i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        uint64_t data = runs[i].offset == 1 << 20 ? 0 : 64;
        uint8_t bytes[sizeof(struct delta_head) + sizeof(struct delta_run) + 64] = {0};
        uint64_t size = sizeof(struct delta_head) + sizeof(struct delta_run) + data;
        struct delta_head head = {
            .magic = DELTA_MAGIC, .version = DELTA_VERSION, .runs = 1, .config_digest = CONFIG};
        struct delta_run run = {.offset = runs[i].offset, .length = runs[i].length};
        memcpy(bytes, &head, sizeof(head));
        memcpy(bytes + sizeof(head), &run, sizeof(run));
        seal(bytes, size);
        CHECK(refused(bytes, size, arena_size) == runs[i].bad);
        head.runs = UINT64_MAX;
        memcpy(bytes, &head, sizeof(head));
        seal(bytes, size);
        CHECK(refused(bytes, size, arena_size));
    }
}

/* Any bytes are safe; a delta that is accepted stays within the arena when it is applied. */
static void test_random_bytes(uint64_t seed)
{
    uint8_t arena[4096 + 64];
    unsigned accepted = 0;
    for (unsigned i = 0; i < 200000; i++) {
        uint8_t bytes[sizeof(struct delta_head) + 200];
        uint64_t size = seed_below(&seed, sizeof(bytes) + 1);
        seed_fill(&seed, bytes, size);
        struct delta_head head = {.magic = DELTA_MAGIC,
                                  .version = DELTA_VERSION,
                                  .runs = seed_below(&seed, 4),
                                  .config_digest = CONFIG};
        if (i % 4 && size >= sizeof(head)) {
            size -= size % 8; /* heads are a multiple of 8 */
            memcpy(bytes, &head, sizeof(head));
            for (uint64_t at = sizeof(head); at + sizeof(struct delta_run) <= size;) {
                struct delta_run run = {.offset = seed_below(&seed, 4200),
                                        .length = 8 * seed_below(&seed, 10)};
                memcpy(bytes + at, &run, sizeof(run));
                at += sizeof(run) + run.length;
            }
            seal(bytes, size);
        }
        if (refused(bytes, size, 4096))
            continue;
        accepted++;
        memset(arena, 0x5a, sizeof(arena));
        delta_apply(bytes, arena);
        for (unsigned k = 4096; k < sizeof(arena); k++)
            CHECK(arena[k] == 0x5a);
    }
    CHECK(accepted > 100);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    for (unsigned i = 0; i < 10; i++)
        test_chain(seed_next(&seed));
    test_lines();
    test_digest(seed);
    test_corrupted(seed);
    test_bad_runs();
    test_random_bytes(seed);
    return 0;
}

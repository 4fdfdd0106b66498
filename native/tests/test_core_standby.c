/* Base, working copy and prepared delta: whatever is refused, rolled back or killed on the way, the
 * base is a committed snapshot byte for byte, and the working copy follows it. */
#include "core/standby.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

#include "core/hash.h"
#include "tests/core_test.h"

#define WORKERS 2u
#define CONFIG 0x77u
#define SHARED_BYTES 3000u
#define WORKER_BYTES 2500u

/* A master, the image of its last commit, and a standby that receives its deltas. */
struct world {
    uint64_t seed;
    uint64_t size;
    struct arena *master;
    struct arena *committed; /* what base and working copy must be */
    struct arena *taken;     /* the snapshot under way */
    struct base_name name;   /* of `committed` */
    struct base_name next;   /* of `taken` */
    struct delta delta;
    void *memory;
    uint64_t memory_bytes;
    struct standby standby;
};

static void *zeroes(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static struct arena *fresh_arena(uint64_t size)
{
    struct arena *arena = zeroes(size);
    CHECK(arena_create(arena, size, SHARED_BYTES, WORKER_BYTES, WORKERS, 20, CONFIG));
    return arena;
}

static struct world open_world(uint64_t seed)
{
    struct world w = {.seed = seed};
    w.size = align_up(arena_bytes(SHARED_BYTES, WORKER_BYTES, WORKERS, 20), 4096);
    w.master = fresh_arena(w.size);
    w.committed = fresh_arena(w.size);
    w.taken = zeroes(w.size);
    w.memory_bytes = standby_bytes(w.size);
    w.memory = zeroes(w.memory_bytes);
    standby_create(&w.standby, fresh_arena(w.size), w.memory);
    CHECK(standby_base(&w.standby).epoch == 0);
    return w;
}

static void close_world(struct world *w)
{
    munmap(w->master, w->size);
    munmap(w->committed, w->size);
    munmap(w->taken, w->size);
    munmap(w->standby.working, w->size);
    munmap(w->memory, w->memory_bytes);
    free(w->delta.bytes);
}

static void change(struct world *w)
{
    for (unsigned i = (unsigned)seed_below(&w->seed, 30); i; i--) {
        unsigned who = (unsigned)seed_below(&w->seed, WORKERS + 1);
        if (seed_below(&w->seed, 3) == 0)
            arena_alloc(w->master, who, 1 + seed_below(&w->seed, 300), 8);
        const struct arena_extent *extent = &w->master->extents[who];
        if (extent->used)
            ((uint8_t *)w->master)[extent->start + seed_below(&w->seed, extent->used)] +=
                (uint8_t)(1 + seed_below(&w->seed, 255));
    }
    w->master->cursors[0].next_input += 1 + seed_below(&w->seed, 9);
}

/* Take the next snapshot; its delta, on the committed one or full, goes to where it is received. */
static void take(struct world *w, bool full)
{
    change(w);
    memset(w->taken, 0, w->size);
    snapshot_copy(w->master, w->taken);
    w->next = w->name;
    if (!w->next.view || seed_below(&w->seed, 6) == 0)
        w->next = (struct base_name){.view = w->name.view + 1};
    w->next.epoch += 1 + seed_below(&w->seed, 2);
    struct snapshot_name name = {.view = w->next.view,
                                 .epoch = w->next.epoch,
                                 .base_view = w->name.view,
                                 .base_epoch = w->name.epoch};
    CHECK(delta_build(&w->delta, w->taken, full || !w->name.epoch ? NULL : w->committed, name,
                      seed_below(&w->seed, 4) != 0));
    memcpy(w->standby.delta, w->delta.bytes, w->delta.size);
}

static void committed(struct world *w)
{
    memcpy(w->committed, w->taken, w->size);
    w->name = w->next;
}

/* Byte by byte. Bytes behind what is allocated belong to nobody, but are zero here. */
static void check_base(const struct world *w)
{
    CHECK(base_same(standby_base(&w->standby), w->name));
    CHECK(memcmp(w->standby.image, w->committed, w->size) == 0);
}

static void check_settled(const struct world *w)
{
    check_base(w);
    CHECK(standby_prepared(&w->standby).epoch == 0);
    CHECK(memcmp(w->standby.working, w->committed, w->size) == 0);
}

static void prepare(struct world *w)
{
    CHECK(!standby_prepare(&w->standby, w->delta.size));
    check_base(w); /* only the working copy has moved */
    CHECK(base_same(standby_prepared(&w->standby), w->next));
    CHECK(memcmp(w->standby.working, w->taken, w->size) == 0);
}

/* Another process takes over what this one leaves behind. */
static void restart(struct world *w)
{
    struct standby next;
    void *memory = zeroes(w->memory_bytes);
    struct arena *working = fresh_arena(w->size);
    standby_create(&next, working, memory);
    bool something = w->name.epoch || standby_prepared(&w->standby).epoch;
    CHECK(standby_adopt(&next, w->memory, w->memory_bytes) == something);
    munmap(w->memory, w->memory_bytes);
    munmap(w->standby.working, w->size);
    w->memory = memory;
    w->standby = next;
}

static void seal(struct world *w)
{
    struct delta_head *head = (struct delta_head *)w->standby.delta;
    head->checksum = delta_checksum(w->standby.delta);
}

/* A delta that must not be taken: nothing changes. */
static void refuse(struct world *w)
{
    struct delta_head *head = (struct delta_head *)w->standby.delta;
    uint64_t run_at = sizeof(*head) + sizeof(struct delta_run);
    switch (seed_below(&w->seed, 6)) {
    case 0: /* damaged on its way */
        w->standby.delta[seed_below(&w->seed, w->delta.size)] ^= 1;
        break;
    case 1: /* whole, but the state that it leads to is not the one that was hashed */
        if (!head->hashes || w->delta.size <= run_at + 8)
            return;
        w->standby.delta[run_at + 7] ^= 0x40;
        seal(w);
        break;
    case 2: /* built on another base */
        if (delta_is_whole(head, w->size))
            return;
        head->base_epoch = w->name.epoch + 1;
        head->base_view = w->name.view;
        seal(w);
        break;
    case 3: /* the same epoch of another view */
        head->base_epoch = w->name.epoch;
        head->base_view = w->name.view + 1;
        if (!head->base_epoch || delta_is_whole(head, w->size))
            return;
        seal(w);
        break;
    case 4: /* what is held already, or older */
        head->view = w->name.view;
        head->epoch = w->name.epoch;
        seal(w);
        break;
    default: /* nameless */
        head->epoch = 0;
        seal(w);
    }
    CHECK(standby_prepare(&w->standby, w->delta.size));
    check_settled(w);
}

static void test_random(uint64_t seed)
{
    struct world w = open_world(seed);
    check_settled(&w);
    for (unsigned i = 0; i < 60; i++) {
        take(&w, seed_below(&w.seed, 8) == 0);
        switch (seed_below(&w.seed, 6)) {
        case 0:
            refuse(&w);
            break;
        case 1:
            prepare(&w);
            standby_roll_back(&w.standby);
            check_settled(&w);
            standby_roll_back(&w.standby); /* nothing to do */
            check_settled(&w);
            break;
        case 2: /* the process ends with a prepared delta: the next one holds it too */
            prepare(&w);
            restart(&w);
            check_base(&w);
            CHECK(base_same(standby_prepared(&w.standby), w.next));
            if (seed_below(&w.seed, 2))
                standby_roll_back(&w.standby);
            else if (standby_commit(&w.standby, w.next))
                committed(&w);
            check_settled(&w);
            break;
        case 3:
            restart(&w);
            check_settled(&w);
            break;
        default:
            prepare(&w);
            CHECK(!standby_commit(&w.standby, (struct base_name){w.next.view, w.next.epoch + 1}));
            CHECK(!standby_commit(&w.standby, (struct base_name){w.next.view + 1, w.next.epoch}));
            CHECK(standby_commit(&w.standby, w.name) == (w.name.epoch != 0));
            check_base(&w);
            CHECK(standby_commit(&w.standby, w.next));
            committed(&w);
            check_settled(&w);
            CHECK(standby_commit(&w.standby, w.next)); /* told again */
            check_settled(&w);
        }
    }
    close_world(&w);
}

/* ---- killed at any instruction ------------------------------------------------------------ */

/* What the child does while it is stepped through; all of it before goes at full speed. */
enum stepped { PREPARE, ROLL_BACK, COMMIT };

static void child_main(struct world *w, enum stepped what)
{
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    if (what == PREPARE)
        raise(SIGSTOP);
    CHECK(!standby_prepare(&w->standby, w->delta.size));
    if (what != PREPARE)
        raise(SIGSTOP);
    if (what == COMMIT)
        CHECK(standby_commit(&w->standby, w->next));
    if (what == ROLL_BACK)
        standby_roll_back(&w->standby);
    _exit(0);
}

/* A child that is killed after `steps` instructions. False: it came to its end before. */
static bool killed_after(struct world *w, uint64_t steps, enum stepped what)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        child_main(w, what);
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    while (steps--) {
        CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
        CHECK(waitpid(child, &status, 0) == child);
        if (WIFEXITED(status)) {
            CHECK(WEXITSTATUS(status) == 0);
            return false;
        }
    }
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    return true;
}

/* Whatever step it was: the next process finds the old base or the new one, whole. */
static void check_after_kill(struct world *w, enum stepped what)
{
    struct base_name old = w->name;
    struct base_name left = standby_base(&w->standby);
    bool applying = w->standby.head->applications & 1;
    CHECK(base_same(left, old) || base_same(left, w->next) || applying);
    CHECK(what == COMMIT || (base_same(left, old) && !applying));
    if (applying || base_same(left, w->next))
        committed(w);
    restart(w);
    check_base(w);
    struct base_name prepared = standby_prepared(&w->standby);
    CHECK(prepared.epoch == 0 || base_same(prepared, w->next));
    CHECK(prepared.epoch == 0 || base_same(w->name, old));
    if (prepared.epoch)
        CHECK(memcmp(w->standby.working, w->taken, w->size) == 0);
    standby_roll_back(&w->standby);
    check_settled(w);
}

/* How often a kill hit each step's middle. */
struct hits {
    unsigned killed[3];
    unsigned applying;
};

/* The very first delta is prepared, the output logger commits it, and the process dies before it
 * hears of that: who comes next can still be given that base. */
static void test_first_delta_found_prepared(uint64_t seed)
{
    struct world w = open_world(seed);
    take(&w, true);
    prepare(&w);
    restart(&w);
    CHECK(standby_base(&w.standby).epoch == 0);
    CHECK(base_same(standby_prepared(&w.standby), w.next));
    CHECK(standby_commit(&w.standby, w.next));
    committed(&w);
    check_settled(&w);
    close_world(&w);
}

static void test_kills(uint64_t seed, struct hits *hits)
{
    static const unsigned most_steps[] = {[PREPARE] = 6000, [ROLL_BACK] = 700, [COMMIT] = 900};
    struct world w = open_world(seed);
    take(&w, true);
    prepare(&w);
    CHECK(standby_commit(&w.standby, w.next));
    committed(&w);
    for (unsigned i = 0; i < 20; i++) {
        take(&w, false);
        enum stepped what = i % 10 == 0 ? PREPARE : i % 10 < 3 ? ROLL_BACK : COMMIT;
        bool killed = killed_after(&w, seed_below(&w.seed, most_steps[what]), what);
        hits->killed[what] += killed;
        hits->applying += w.standby.head->applications & 1;
        if (!killed)
            CHECK(base_same(standby_base(&w.standby), what == COMMIT ? w.next : w.name));
        check_after_kill(&w, what);
    }
    close_world(&w);
}

/* Memory of anything else is not taken over, whatever it contains. */
static void test_strange_memory(uint64_t seed)
{
    struct world w = open_world(seed);
    take(&w, true);
    prepare(&w);
    CHECK(standby_commit(&w.standby, w.next));
    committed(&w);
    struct standby next;
    void *memory = zeroes(w.memory_bytes);
    struct arena *working = fresh_arena(w.size), *untouched = fresh_arena(w.size);
    standby_create(&next, working, memory);
    struct standby_head *head = w.standby.head;
    struct standby_head right;
    memcpy(&right, head, sizeof(right));
    CHECK(!standby_adopt(&next, w.memory, w.memory_bytes - 1));
    for (uint64_t at = 0; at < offsetof(struct standby_head, applications); at++) {
        if (at >= offsetof(struct standby_head, view) &&
            at < offsetof(struct standby_head, config_digest))
            continue; /* the name: any is as good as another */
        ((uint8_t *)head)[at] ^= 0x10;
        CHECK(!standby_adopt(&next, w.memory, w.memory_bytes));
        ((uint8_t *)head)[at] ^= 0x10;
    }
    head->prepared = w.standby.delta_capacity + 1;
    CHECK(!standby_adopt(&next, w.memory, w.memory_bytes));
    head->prepared = 0;
    head->applications |= 1; /* to be done again, but nothing is there */
    CHECK(!standby_adopt(&next, w.memory, w.memory_bytes));
    memcpy(head, &right, sizeof(right));
    w.standby.image->extents[1].used = UINT64_MAX; /* an image that describes no arena */
    CHECK(!standby_adopt(&next, w.memory, w.memory_bytes));
    CHECK(standby_base(&next).epoch == 0 && standby_prepared(&next).epoch == 0);
    CHECK(memcmp(working, untouched, w.size) == 0);
    w.standby.image->extents[1].used = w.committed->extents[1].used;
    CHECK(standby_adopt(&next, w.memory, w.memory_bytes));
    CHECK(memcmp(working, w.committed, w.size) == 0);
    munmap(working, w.size);
    munmap(untouched, w.size);
    munmap(memory, w.memory_bytes);
    close_world(&w);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    uint64_t until = 0;
    struct hits hits = {0};
    test_strange_memory(seed);
    test_first_delta_found_prepared(seed);
    for (unsigned i = 0; i < 20; i++)
        test_random(seed_next(&seed));
    for (unsigned i = 0; i < 4 || time_left(&until, 3); i++)
        test_kills(seed_next(&seed), &hits);
    printf("killed preparing %u times, rolling back %u, committing %u, of these applying %u\n",
           hits.killed[PREPARE], hits.killed[ROLL_BACK], hits.killed[COMMIT], hits.applying);
    CHECK(hits.killed[PREPARE] && hits.killed[ROLL_BACK] && hits.applying > 3);
    return 0;
}

/* The rules of a replay, one by one and in one thread: who waits for whom, what is a divergence,
 * when it is over. */
#include "core/replay.h"

#include <string.h>

#include "tests/core_test.h"

#define W 2u
#define VARIABLES 8u
#define CAPACITY 16u

enum { X = 1, Y = 3, Z = 5 };
enum { A, B };

static struct world {
    struct arena *arena;
    struct ctx_env env;
    struct ftmb_ctx ctx[W];
    struct published_count published[W];
    struct replay replay;
    uint64_t log[W][CAPACITY];
    uint64_t pals[W][CAPACITY];
    unsigned relaxed;
    void (*meanwhile)(void); /* what the other worker does while one waits */
} world;

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    CHECK(rounds < 10); /* else nobody will ever end this wait */
    world.relaxed++;
    void (*meanwhile)(void) = world.meanwhile;
    world.meanwhile = NULL;
    if (meanwhile)
        meanwhile();
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    (void)worker;
    (void)pal;
    (void)id;
    ftmb_panic(__FILE__, __LINE__, why);
}

/* The statement must be noticed as a divergence (or as a broken invariant). */
#define CHECK_DIVERGES(statement) CHECK_PANICS(statement)

static void open_world(void)
{
    uint64_t size = arena_bytes(4096, 4096, W, VARIABLES);
    free(world.arena);
    if (world.replay.slots)
        replay_free(&world.replay);
    memset(&world, 0, sizeof(world));
    void *memory = aligned_alloc(4096, size);
    memset(memory, 0, size);
    world.arena = arena_create(memory, size, 4096, 4096, W, VARIABLES, 0);
    world.env = (struct ctx_env){.relax = relax, .diverged = diverged};
    CHECK(replay_init(&world.replay, W, VARIABLES, 0) == REPLAY_OK);
    for (uint32_t w = 0; w < W; w++) {
        world.replay.log[w] = world.log[w];
        world.ctx[w] = (struct ftmb_ctx){.arena = world.arena,
                                         .cursor = &world.arena->cursors[w],
                                         .seq = arena_seq(world.arena),
                                         .worker = w,
                                         .workers = W,
                                         .variables = VARIABLES,
                                         .mode = ACCESS_LOG,
                                         .pals = world.pals[w],
                                         .pal_capacity = CAPACITY,
                                         .published = world.published,
                                         .replay = &world.replay,
                                         .env = &world.env};
    }
}

static void log_pal(uint32_t w, bool write, bool inside, uint32_t id, uint64_t version)
{
    world.log[w][world.replay.count[w]++] = pal_make(write, inside, id, version);
}

static void start(void)
{
    CHECK(replay_cut(&world.replay, arena_seq(world.arena)) == REPLAY_OK);
    CHECK(replay_prepare(&world.replay, arena_seq(world.arena)) == REPLAY_OK);
}

static void write_one(uint32_t w, uint32_t id)
{
    ftmb_write(&world.ctx[w], id);
    ftmb_section_end(&world.ctx[w]);
}

static void read_one(uint32_t w, uint32_t id)
{
    uint64_t token = ftmb_read_begin(&world.ctx[w], id);
    CHECK(ftmb_read_end(&world.ctx[w], id, token));
}

static void a_writes_x(void)
{
    write_one(A, X);
}

static void a_reads_x(void)
{
    read_one(A, X);
}

static void expect_waited(unsigned times)
{
    CHECK(world.relaxed == times && !world.meanwhile);
}

static void test_logged_accesses_wait(void)
{
    open_world(); /* a read waits for its version */
    log_pal(A, true, false, X, 0);
    log_pal(B, false, false, X, 1);
    start();
    world.meanwhile = a_writes_x;
    read_one(B, X);
    expect_waited(1);
    open_world(); /* a write too */
    log_pal(A, true, false, X, 0);
    log_pal(B, true, false, X, 1);
    start();
    world.meanwhile = a_writes_x;
    write_one(B, X);
    expect_waited(1);
    CHECK(world.ctx[A].seq[X] == 4);
    open_world(); /* and for the reads of the version that it ends */
    log_pal(A, false, false, X, 0);
    log_pal(B, true, false, X, 0);
    start();
    world.meanwhile = a_reads_x;
    write_one(B, X);
    expect_waited(1);
    CHECK(replay_done(&world.replay));
}

/* Past the end of its log a worker waits for all logged accesses to the variable, reads included,
 * and for those to other variables not at all. */
static void test_free_accesses_wait(void)
{
    for (unsigned writes = 0; writes < 4; writes++) {
        open_world();
        log_pal(A, writes & 1, false, X, 0);
        start();
        write_one(B, Z);
        expect_waited(0);
        world.meanwhile = writes & 1 ? a_writes_x : a_reads_x;
        writes & 2 ? write_one(B, X) : read_one(B, X);
        expect_waited(1);
        CHECK(world.ctx[B].pal_count == 2);
        CHECK(world.pals[B][1] == pal_make(writes & 2, false, X, writes & 1));
    }
}

/* What is replayed is not logged again; counts go on from the cut. */
static void test_counts(void)
{
    open_world();
    world.ctx[A].cursor->pals = 100;
    log_pal(A, true, false, X, 0);
    log_pal(A, false, true, Y, 0);
    log_pal(A, false, false, X, 1);
    start();
    ftmb_write(&world.ctx[A], X);
    read_one(A, X); /* held: not in the log either */
    read_one(A, Y);
    ftmb_section_end(&world.ctx[A]);
    CHECK(world.published[A].pals == 102);
    read_one(A, X);
    CHECK(world.ctx[A].pal_count == 0 && world.ctx[A].cursor->pals == 103);
    read_one(A, X);
    CHECK(world.ctx[A].pal_count == 1 && world.ctx[A].cursor->pals == 104);
}

static void test_done(void)
{
    open_world();
    start();
    CHECK(replay_done(&world.replay)); /* nothing is logged */
    open_world();
    log_pal(A, true, false, X, 0);
    log_pal(A, false, true, Y, 0);
    log_pal(B, false, false, Z, 0);
    start();
    ftmb_write(&world.ctx[A], X);
    read_one(A, Y);
    read_one(B, Z);
    CHECK(!replay_done(&world.replay)); /* the last section is open still */
    ftmb_section_end(&world.ctx[A]);
    CHECK(replay_done(&world.replay));
}

static void test_determinant(void)
{
    open_world();
    log_pal(A, false, false, PAL_ID_DETERMINANT, 0x89abcdef);
    log_pal(A, false, true, PAL_ID_DETERMINANT, 0x01234567);
    start();
    CHECK(ftmb_determinant(&world.ctx[A], 99) == 0x0123456789abcdef);
    CHECK(replay_done(&world.replay));
    CHECK(ftmb_determinant(&world.ctx[A], 99) == 99 && world.ctx[A].pal_count == 2);
}

static void section_of_two(uint32_t w, uint32_t first, uint32_t second, bool write)
{
    ftmb_write(&world.ctx[w], first);
    write ? ftmb_write(&world.ctx[w], second) : read_one(w, second);
    ftmb_section_end(&world.ctx[w]);
}

static void test_divergence(void)
{
    open_world();
    log_pal(A, true, false, X, 0);
    log_pal(A, true, false, Y, 0);
    log_pal(B, false, false, X, 0);
    start();
    CHECK_DIVERGES(write_one(A, Y)); /* another variable */
    CHECK_DIVERGES(read_one(A, X));  /* another kind of access */
    CHECK_DIVERGES(write_one(B, X));
    CHECK_DIVERGES(read_one(B, Z));
    CHECK_DIVERGES(ftmb_determinant(&world.ctx[A], 1)); /* not an access at all */
    read_one(B, X);
    CHECK_DIVERGES(section_of_two(A, X, Y, true)); /* two sections were logged, not one */
    write_one(A, X);
    write_one(A, Y);
    CHECK(replay_done(&world.replay));
}

static void test_section_divergence(void)
{
    open_world();
    log_pal(A, true, false, X, 0);
    log_pal(A, true, true, Y, 0);
    start();
    write_one(A, X);
    CHECK_DIVERGES(write_one(A, Y)); /* one section was logged, not two */
    open_world();
    log_pal(A, true, false, X, 0);
    start();
    CHECK_DIVERGES(section_of_two(A, X, Y, true)); /* longer than was logged */
    CHECK_DIVERGES(section_of_two(A, X, Y, false));
    open_world();
    log_pal(A, true, false, X, 0);
    start();
    world.ctx[A].seq[X] = 2; /* somebody wrote it without a log */
    CHECK_DIVERGES(write_one(A, X));
}

int main(void)
{
    test_logged_accesses_wait();
    test_free_accesses_wait();
    test_counts();
    test_done();
    test_determinant();
    test_divergence();
    test_section_divergence();
    replay_free(&world.replay);
    free(world.arena);
    return 0;
}

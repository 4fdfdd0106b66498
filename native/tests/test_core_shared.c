/* Shared variables: what is logged, in which order, and what an output may depend on. */
#include "core/shared.h"

#include <string.h>

#include "tests/core_test.h"

#define W 3u
#define VARIABLES 100u
#define CAPACITY 256u

enum { X = 10, Y = 20, Z = 30 };

static struct world {
    struct arena *arena;
    struct ctx_env env;
    struct ftmb_ctx ctx[W];
    struct published_count published[W];
    uint64_t vectors[VARIABLES * W];
    uint64_t pals[W][CAPACITY];
    unsigned relaxed;
} world;

/* Who waits here waits for worker 0's section: let it end. */
static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)worker;
    (void)rounds;
    CHECK(env == &world);
    if (++world.relaxed % 3 == 0)
        ftmb_section_end(&world.ctx[0]);
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    fprintf(stderr, "worker %u: %s (%016llx, %u)\n", worker, why, (unsigned long long)pal, id);
    exit(1);
}

static void reset(enum access_mode mode, bool reads_locked, bool exact)
{
    uint64_t size = arena_bytes(4096, 4096, W, VARIABLES);
    free(world.arena);
    memset(&world, 0, sizeof(world));
    void *memory = aligned_alloc(4096, size);
    memset(memory, 0, size);
    world.arena = arena_create(memory, size, 4096, 4096, W, VARIABLES, 0);
    world.env = (struct ctx_env){.relax = relax, .diverged = diverged, .env = &world};
    for (uint32_t w = 0; w < W; w++)
        world.ctx[w] = (struct ftmb_ctx){.arena = world.arena,
                                         .cursor = &world.arena->cursors[w],
                                         .seq = arena_seq(world.arena),
                                         .worker = w,
                                         .workers = W,
                                         .variables = VARIABLES,
                                         .mode = (uint8_t)mode,
                                         .reads_locked = reads_locked,
                                         .exact = exact,
                                         .pals = world.pals[w],
                                         .pal_capacity = CAPACITY,
                                         .published = world.published,
                                         .vectors = exact ? world.vectors : NULL,
                                         .env = &world.env};
}

static uint64_t version(uint32_t id)
{
    CHECK(!(world.ctx[0].seq[id] & 1));
    return world.ctx[0].seq[id] >> 1;
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

static void expect_pal(uint32_t w, uint32_t index, bool write, bool inside, uint32_t id, uint64_t v)
{
    CHECK(index < world.ctx[w].pal_count);
    CHECK(world.pals[w][index] == pal_make(write, inside, id, v));
}

static void test_pal_words(void)
{
    uint64_t pal = pal_make(true, false, 0xabcdef, 0x123456789a);
    CHECK(pal_id(pal) == 0xabcdef && (pal & PAL_WRITE) && !(pal & PAL_INSIDE));
    CHECK(pal == (PAL_WRITE | 0xabcdefull << 38 | 0x123456789a));
    pal = pal_make(false, true, PAL_ID_DETERMINANT, UINT64_MAX);
    CHECK(pal_id(pal) == PAL_ID_DETERMINANT && !(pal & PAL_WRITE) && (pal & PAL_INSIDE));
    CHECK(pal_version_since(pal_make(0, 0, 1, 5), 3) == 2);
    CHECK(pal_version_since(pal_make(0, 0, 1, 1ull << 38), (1ull << 38) - 1) == 1);
    CHECK(pal_version_since(pal_make(0, 0, 1, 3), 4) == PAL_VERSION_MASK);
}

/* Odd word while held; PAL with the version found; count, then even word with the next version. */
static void test_write(void)
{
    reset(ACCESS_LOG, false, false);
    struct ftmb_ctx *ctx = &world.ctx[1];
    ftmb_write(ctx, X);
    CHECK(ctx->seq[X] == 1 && ctx->held_count == 1 && ctx->cursor->pals == 1);
    CHECK(world.published[1].pals == 0);
    ftmb_section_end(ctx);
    CHECK(version(X) == 1 && ctx->held_count == 0 && world.published[1].pals == 1);
    write_one(2, X);
    write_one(1, X);
    CHECK(version(X) == 3 && version(Y) == 0);
    expect_pal(1, 0, true, false, X, 0);
    expect_pal(2, 0, true, false, X, 1);
    expect_pal(1, 1, true, false, X, 2);
    CHECK(world.relaxed == 0);
}

static void test_section(void)
{
    reset(ACCESS_LOG, false, false);
    struct ftmb_ctx *ctx = &world.ctx[1];
    write_one(0, Y);
    ftmb_write(ctx, X);
    read_one(1, X); /* what is held is not logged */
    read_one(1, Y);
    ftmb_write(ctx, Z);
    CHECK(ctx->seq[X] == 1 && ctx->seq[Z] == 1 && ctx->seq[Y] == 2);
    CHECK(world.published[1].pals == 0);
    ftmb_section_end(ctx);
    CHECK(version(X) == 1 && version(Y) == 1 && version(Z) == 1);
    CHECK(world.published[1].pals == 3 && ctx->pal_count == 3);
    expect_pal(1, 0, true, false, X, 0);
    expect_pal(1, 1, false, true, Y, 1);
    expect_pal(1, 2, true, true, Z, 0);
    write_one(1, Y); /* the next section begins anew */
    expect_pal(1, 3, true, false, Y, 1);
}

static void test_read(void)
{
    reset(ACCESS_LOG, false, false);
    struct ftmb_ctx *ctx = &world.ctx[2];
    write_one(0, X);
    uint64_t token = ftmb_read_begin(ctx, X);
    write_one(1, X); /* changed meanwhile: begin again, nothing is logged */
    CHECK(!ftmb_read_end(ctx, X, token) && ctx->pal_count == 0);
    token = ftmb_read_begin(ctx, X);
    ftmb_write(&world.ctx[1], X); /* being changed */
    CHECK(!ftmb_read_end(ctx, X, token) && ctx->pal_count == 0);
    ftmb_section_end(&world.ctx[1]);
    read_one(2, X);
    CHECK(ctx->pal_count == 1 && ctx->cursor->pals == 1);
    expect_pal(2, 0, false, false, X, 3);
    CHECK(ctx->seq[X] == 6); /* a reader leaves no trace */
}

/* A variable that is taken: both kinds of access wait, and let others run. */
static void test_waiting(void)
{
    reset(ACCESS_LOG, false, false);
    ftmb_write(&world.ctx[0], X);
    write_one(1, X);
    CHECK(world.relaxed == 3 && world.ctx[1].waits == 1);
    expect_pal(1, 0, true, false, X, 1);
    ftmb_write(&world.ctx[0], X);
    read_one(2, X);
    CHECK(world.relaxed == 6 && world.ctx[2].waits == 1);
    expect_pal(2, 0, false, false, X, 3);
}

/* The paper's reads: the lock, and a PAL like a write's. */
static void test_locked_reads(void)
{
    reset(ACCESS_LOG, true, false);
    struct ftmb_ctx *ctx = &world.ctx[1];
    uint64_t token = ftmb_read_begin(ctx, X);
    CHECK(ctx->seq[X] == 1);
    CHECK(ftmb_read_end(ctx, X, token) && version(X) == 1 && ctx->held_count == 0);
    expect_pal(1, 0, true, false, X, 0);
    ftmb_write(ctx, X);
    read_one(1, Y); /* joins the section: held until its end */
    CHECK(ctx->seq[Y] == 1 && ctx->held_count == 2);
    read_one(1, X);
    ftmb_section_end(ctx);
    CHECK(version(Y) == 1 && ctx->pal_count == 3);
    expect_pal(1, 2, true, true, Y, 0);
}

static void test_plain(void)
{
    reset(ACCESS_PLAIN, false, true);
    struct ftmb_ctx *ctx = &world.ctx[0];
    write_one(0, X);
    read_one(0, X);
    CHECK(ftmb_determinant(ctx, 99) == 99);
    CHECK(ctx->pal_count == 0 && ctx->cursor->pals == 0 && world.published[0].pals == 0);
    CHECK(version(X) == 1); /* but it is locked, and readers notice a change */
    uint64_t token = ftmb_read_begin(ctx, X);
    write_one(1, X);
    CHECK(!ftmb_read_end(ctx, X, token));
}

static void test_determinants(void)
{
    reset(ACCESS_LOG, false, false);
    struct ftmb_ctx *ctx = &world.ctx[0];
    CHECK(ftmb_determinant(ctx, 0x1122334455667788) == 0x1122334455667788);
    expect_pal(0, 0, false, false, PAL_ID_DETERMINANT, 0x55667788);
    expect_pal(0, 1, false, true, PAL_ID_DETERMINANT, 0x11223344);
    ftmb_write(ctx, X);
    ftmb_determinant(ctx, 5);
    ftmb_section_end(ctx);
    expect_pal(0, 3, false, true, PAL_ID_DETERMINANT, 5);
    expect_pal(0, 4, false, true, PAL_ID_DETERMINANT, 0);
    CHECK(ctx->cursor->pals == 5 && world.published[0].pals == 5);
}

static void hold_many(unsigned count)
{
    for (uint32_t i = 0; i < count; i++)
        ftmb_write(&world.ctx[0], i);
}

static void read_many(unsigned count)
{
    for (uint32_t i = 0; i < count; i++)
        read_one(0, 50);
}

/* What a function must not do ends loudly, before anything is logged wrongly. */
static void test_refused(void)
{
    reset(ACCESS_LOG, false, false);
    struct ftmb_ctx *ctx = &world.ctx[0];
    CHECK_PANICS(ftmb_write(ctx, VARIABLES));
    CHECK_PANICS(ftmb_read_begin(ctx, VARIABLES));
    CHECK_PANICS(ftmb_section_end(ctx));
    ftmb_write(ctx, Y);
    CHECK_PANICS(ftmb_write(ctx, X)); /* not in the order of ids */
    CHECK_PANICS(ftmb_write(ctx, Y));
    CHECK_PANICS(ftmb_read_begin(ctx, X));
    ftmb_section_end(ctx);
    hold_many(FTMB_MAX_HELD);
    CHECK_PANICS(ftmb_write(ctx, 60));
    read_many(FTMB_MAX_SECTION_PALS - FTMB_MAX_HELD);
    CHECK_PANICS(read_one(0, 51));
    CHECK_PANICS(ftmb_determinant(ctx, 1));
    ftmb_section_end(ctx);
    CHECK(ctx->section_pals == 0 && ctx->pal_count == 1 + FTMB_MAX_SECTION_PALS);
    ftmb_write(ctx, 0);
    read_many(FTMB_MAX_SECTION_PALS - 1);
    CHECK_PANICS(ftmb_write(ctx, 60));
    ftmb_section_end(ctx);
    CHECK_PANICS(read_many(CAPACITY)); /* more PALs than the function declared */
}

static void expect_vector(uint32_t w, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t vector[W];
    shared_vector(&world.ctx[w], vector);
    CHECK(vector[0] == a && vector[1] == b && vector[2] == c);
}

/* `max`: all that anyone has published, and all of one's own. */
static void test_max_vectors(void)
{
    reset(ACCESS_LOG, false, false);
    write_one(0, X);
    write_one(0, X);
    write_one(1, Y);
    expect_vector(2, 2, 1, 0);
    read_one(2, X);
    read_one(2, Z);
    expect_vector(2, 2, 1, 2);
    expect_vector(0, 2, 1, 0); /* an unpublished read changes nobody's state */
    write_one(2, Z);
    expect_vector(0, 2, 1, 3);
}

/* `exact`: what flowed through variables, and nothing else. */
static void test_exact_vectors(void)
{
    reset(ACCESS_LOG, false, true);
    write_one(0, X);
    write_one(1, Y);
    expect_vector(2, 0, 0, 0); /* has seen nobody */
    read_one(2, X);
    expect_vector(2, 1, 0, 1);
    write_one(0, X); /* does not depend on who read it */
    expect_vector(0, 2, 0, 0);
    write_one(2, Y); /* joins 1's past, and passes on what came over X */
    expect_vector(2, 1, 1, 2);
    read_one(0, Y);
    expect_vector(0, 3, 1, 2);
    write_one(1, Z); /* has not looked at Y since */
    expect_vector(1, 0, 2, 0);
    ftmb_determinant(&world.ctx[1], 1);
    expect_vector(1, 0, 4, 0);
}

/* What a section leaves behind depends on all of its accesses, the later ones too. */
static void test_exact_section(void)
{
    reset(ACCESS_LOG, false, true);
    write_one(1, Y);
    ftmb_write(&world.ctx[0], X);
    read_one(0, Y); /* after X was taken */
    ftmb_section_end(&world.ctx[0]);
    read_one(2, X);
    expect_vector(2, 2, 1, 1);
    reset(ACCESS_LOG, true, true); /* locked reads carry vectors both ways */
    write_one(1, Y);
    read_one(0, Y);
    expect_vector(0, 1, 1, 0);
    read_one(2, Y);
    expect_vector(2, 1, 1, 1);
}

/* A read that failed has seen nothing. */
static void test_exact_failed_read(void)
{
    reset(ACCESS_LOG, false, true);
    uint64_t token = ftmb_read_begin(&world.ctx[2], X);
    write_one(0, X);
    CHECK(!ftmb_read_end(&world.ctx[2], X, token));
    expect_vector(2, 0, 0, 0);
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    test_pal_words();
    test_write();
    test_section();
    test_read();
    test_waiting();
    test_locked_reads();
    test_plain();
    test_determinants();
    test_refused();
    test_max_vectors();
    test_exact_vectors();
    test_exact_section();
    test_exact_failed_read();
    free(world.arena);
    return 0;
}

/* Shared variables under three real threads: exclusion, whole reads, the order of publication, and
 * logs that name each version once. */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "core/shared.h"
#include "tests/core_test.h"

#define W 3u
#define VARIABLES 4u
#define ROUNDS 150000u
#define CAPACITY (ROUNDS * 8u)

/* Content of a variable: written in two pieces, so that a torn read shows. */
struct content {
    _Atomic uint64_t version;
    _Atomic uint64_t check; /* of version, writer and count */
    _Atomic uint64_t writer;
    _Atomic uint64_t count; /* PALs of the writer up to this write */
};

struct seen {
    uint32_t id;
    uint64_t version;
};

static struct world {
    struct arena *arena;
    struct ctx_env env;
    struct ftmb_ctx ctx[W];
    struct published_count published[W];
    uint64_t vectors[VARIABLES * W];
    uint64_t *pals[W];
    struct content content[VARIABLES];
    uint64_t plain[VARIABLES]; /* only the lock protects these */
    uint64_t seed[W];
    pthread_barrier_t start;
} world;

static uint64_t load(_Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

static void store(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_relaxed);
}

static uint64_t check_of(uint64_t version, uint64_t writer, uint64_t count)
{
    return (version * 31 + writer) * 1000003 + count;
}

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    rounds < 100 ? cpu_relax() : (void)sched_yield();
}

/* Under the lock: the next version of the variable, and who made it. */
static void change(struct ftmb_ctx *ctx, uint32_t id)
{
    struct content *c = &world.content[id];
    uint64_t version = load(&c->version) + 1, count = ctx->cursor->pals;
    store(&c->version, version);
    store(&c->writer, ctx->worker);
    world.plain[id]++;
    store(&c->count, count);
    store(&c->check, check_of(version, ctx->worker, count));
}

/* A whole read: content and logged version belong together, the writer's PALs up to it are
 * published, and with exact vectors they are in the reader's past. */
static void look(struct ftmb_ctx *ctx, uint32_t id)
{
    struct content *c = &world.content[id];
    uint64_t token, version, writer, count, check;
    do {
        token = ftmb_read_begin(ctx, id);
        version = load(&c->version);
        check = load(&c->check);
        writer = load(&c->writer);
        count = load(&c->count);
    } while (!ftmb_read_end(ctx, id, token));
    if (version == 0)
        return;
    CHECK(check == check_of(version, writer, count));
    if (!ctx->reads_locked)
        CHECK(token >> 1 == version);
    CHECK(atomic_load_explicit(&world.published[writer].pals, memory_order_relaxed) >= count ||
          writer == ctx->worker);
    uint64_t vector[FTMB_MAX_WORKERS];
    shared_vector(ctx, vector);
    CHECK(vector[writer] >= count);
}

/* Variables 2 and 3 change together only: nobody may ever see one without the other. */
static void change_both(struct ftmb_ctx *ctx)
{
    ftmb_write(ctx, 2);
    change(ctx, 2);
    ftmb_write(ctx, 3);
    change(ctx, 3);
    ftmb_section_end(ctx);
}

static void look_at_both(struct ftmb_ctx *ctx)
{
    ftmb_write(ctx, 2);
    look(ctx, 3);
    CHECK(world.plain[2] == world.plain[3]);
    /* This section is a write of 2, whose version must go on in step with its content. */
    change(ctx, 2);
    if (!shared_holds(ctx, 3))
        ftmb_write(ctx, 3);
    change(ctx, 3);
    ftmb_section_end(ctx);
}

static void *work(void *self)
{
    struct ftmb_ctx *ctx = self;
    uint64_t seed = world.seed[ctx->worker];
    pthread_barrier_wait(&world.start);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t r = seed_next(&seed);
        uint32_t id = r / 64 % 2;
        switch (r % 8) {
        case 0:
        case 1:
            ftmb_write(ctx, id);
            change(ctx, id);
            ftmb_section_end(ctx);
            break;
        case 2:
            change_both(ctx);
            break;
        case 3:
            look_at_both(ctx);
            break;
        default:
            look(ctx, ctx->reads_locked ? id : r / 256 % VARIABLES);
        }
        if (r / 1024 % 512 == 0)
            sched_yield();
    }
    return NULL;
}

/* Every version of every variable was written once, in the logs as in fact; each worker saw the
 * versions of a variable in growing order. */
static void check_logs(bool locked)
{
    for (uint32_t id = 0; id < VARIABLES; id++) {
        uint64_t versions = world.ctx[0].seq[id] >> 1;
        uint8_t *written = calloc(versions + 1, 1);
        CHECK(!(world.ctx[0].seq[id] & 1));
        CHECK(locked || world.plain[id] == versions);
        for (uint32_t w = 0; w < W; w++) {
            uint64_t latest = 0;
            for (uint32_t i = 0; i < world.ctx[w].pal_count; i++) {
                uint64_t pal = world.pals[w][i], version = pal & PAL_VERSION_MASK;
                if (pal_id(pal) != id)
                    continue;
                CHECK(version >= latest && version <= versions);
                latest = version + !!(pal & PAL_WRITE);
                CHECK(!(pal & PAL_WRITE) || (version < versions && !written[version]++));
            }
        }
        for (uint64_t v = 0; v < versions; v++)
            CHECK(written[v]);
        free(written);
    }
}

static void run(uint64_t seed, bool locked, bool exact)
{
    uint64_t size = arena_bytes(4096, 4096, W, VARIABLES);
    memset(&world, 0, sizeof(world));
    void *memory = aligned_alloc(4096, size);
    memset(memory, 0, size);
    world.arena = arena_create(memory, size, 4096, 4096, W, VARIABLES, 0);
    world.env = (struct ctx_env){.relax = relax};
    pthread_barrier_init(&world.start, NULL, W);
    pthread_t thread[W];
    for (uint32_t w = 0; w < W; w++) {
        world.seed[w] = seed_next(&seed);
        world.pals[w] = malloc(CAPACITY * sizeof(uint64_t));
        world.ctx[w] = (struct ftmb_ctx){.arena = world.arena,
                                         .cursor = &world.arena->cursors[w],
                                         .seq = arena_seq(world.arena),
                                         .worker = w,
                                         .workers = W,
                                         .variables = VARIABLES,
                                         .mode = ACCESS_LOG,
                                         .reads_locked = locked,
                                         .exact = exact,
                                         .pals = world.pals[w],
                                         .pal_capacity = CAPACITY,
                                         .published = world.published,
                                         .vectors = world.vectors,
                                         .env = &world.env};
        CHECK(pthread_create(&thread[w], NULL, work, &world.ctx[w]) == 0);
    }
    for (uint32_t w = 0; w < W; w++) {
        pthread_join(thread[w], NULL);
        CHECK(world.ctx[w].cursor->pals == world.ctx[w].pal_count);
    }
    check_logs(locked);
    for (uint32_t w = 0; w < W; w++)
        free(world.pals[w]);
    pthread_barrier_destroy(&world.start);
    free(world.arena);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    alarm(60); /* a deadlock is a failure, not a wait */
    for (unsigned i = 0; i < 8; i++)
        run(seed_next(&seed), i % 4 == 3, i % 2);
    return 0;
}

/* Random programs over shared variables (see replay_world.h). */
#include "tests/replay_world.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "core/hash.h"
#include "tests/core_test.h"

/* In the arena: two words a variable, so that half a write shows, and one a worker. */
struct state {
    _Atomic uint64_t value[WORLD_MAX_VARIABLES][2];
    uint64_t own[FTMB_MAX_WORKERS];
};

static struct state *state_of(const struct world *world)
{
    return arena_root(world->arena);
}

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    rounds < 20 ? cpu_relax() : (void)sched_yield();
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    fprintf(stderr, "worker %u, variable %u: %s (logged %016llx)\n", worker, id, why,
            (unsigned long long)pal);
    exit(1);
}

static void maybe_yield(struct world_worker *worker)
{
    if (seed_below(&worker->timing, 12) == 0)
        sched_yield();
}

static uint64_t get(struct world_worker *worker, uint32_t x, unsigned half)
{
    return atomic_load_explicit(&state_of(worker->world)->value[x][half], memory_order_relaxed);
}

static void put(struct world_worker *worker, uint32_t x, uint64_t value)
{
    struct state *state = state_of(worker->world);
    atomic_store_explicit(&state->value[x][0], value, memory_order_relaxed);
    maybe_yield(worker);
    atomic_store_explicit(&state->value[x][1], ~value, memory_order_relaxed);
}

static uint64_t *own(struct world_worker *worker)
{
    return &state_of(worker->world)->own[worker->ctx.worker];
}

/* Mix something seen into the worker's private state, on which all that follows depends. */
static void learn(struct world_worker *worker, uint64_t seen)
{
    *own(worker) = hash_mix(*own(worker), seen);
}

static void change(struct world_worker *worker, uint32_t x)
{
    uint64_t value = get(worker, x, 0);
    CHECK(get(worker, x, 1) == ~value || value == 0);
    learn(worker, value);
    put(worker, x, hash_mix(value, *own(worker)) | 1);
}

static void read_one(struct world_worker *worker, uint32_t x)
{
    uint64_t token, value, other;
    do {
        token = ftmb_read_begin(&worker->ctx, x);
        value = get(worker, x, 0);
        maybe_yield(worker);
        other = get(worker, x, 1);
    } while (!ftmb_read_end(&worker->ctx, x, token));
    CHECK(other == ~value || (value == 0 && other == 0));
    learn(worker, value);
}

static void determinant(struct world_worker *worker)
{
    learn(worker, ftmb_determinant(&worker->ctx, seed_next(&worker->noise)));
}

/* Several variables, in the order of their ids; what comes next depends on what was seen. */
static void section(struct world_worker *worker, uint32_t x)
{
    ftmb_write(&worker->ctx, x);
    change(worker, x);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t r = *own(worker);
        uint32_t y = x + 1 + (uint32_t)(r / 16 % 3);
        maybe_yield(worker);
        if (y >= worker->world->shape.variables || r % 16 < 3)
            break;
        if (r % 16 < 5) {
            determinant(worker);
        } else if (r % 16 < 7) {
            change(worker, x); /* again, without another PAL */
            read_one(worker, x);
        } else if (r % 16 < 11) {
            read_one(worker, y);
            if (worker->ctx.reads_locked) /* it is held now */
                x = y;
        } else {
            ftmb_write(&worker->ctx, y);
            change(worker, y);
            x = y;
        }
    }
    ftmb_section_end(&worker->ctx);
}

static void run_packet(struct world_worker *worker, uint32_t packet)
{
    const struct world_shape *shape = &worker->world->shape;
    struct ftmb_ctx *ctx = &worker->ctx;
    learn(worker, shape->seed + packet);
    for (unsigned i = 0; i < shape->steps; i++) {
        uint64_t r = hash_mix(*own(worker), i);
        uint32_t x = (uint32_t)(r / 8 % shape->variables);
        if (r % 8 < 2) {
            ftmb_write(ctx, x);
            change(worker, x);
            ftmb_section_end(ctx);
        } else if (r % 8 < 5) {
            read_one(worker, x);
        } else if (r % 8 < 6) {
            section(worker, x / 2);
        } else if (r / 64 % 8 == 0) {
            determinant(worker);
        } else {
            break;
        }
        maybe_yield(worker);
    }
    struct world_output *out = &worker->output[packet];
    out->content = *own(worker);
    out->pals = ctx->cursor->pals;
    shared_vector(ctx, out->vector);
    ctx->cursor->next_input++;
}

struct thread {
    struct world_worker *worker;
    pthread_barrier_t *start;
    pthread_t thread;
};

static void *work(void *self)
{
    struct thread *thread = self;
    struct world_worker *worker = thread->worker;
    struct ftmb_ctx *ctx = &worker->ctx;
    pthread_barrier_wait(thread->start);
    while (ctx->cursor->next_input <= worker->world->until) {
        run_packet(worker, (uint32_t)ctx->cursor->next_input - 1);
        if (ctx->replay && replay_done(ctx->replay))
            ctx->replay = NULL;
    }
    return NULL;
}

void world_run(struct world *world, uint32_t packets, struct replay *replay, uint64_t timing)
{
    struct thread thread[FTMB_MAX_WORKERS];
    pthread_barrier_t start;
    CHECK(packets <= WORLD_MAX_PACKETS);
    world->until = packets;
    pthread_barrier_init(&start, NULL, world->shape.workers);
    for (uint32_t w = 0; w < world->shape.workers; w++) {
        struct world_worker *worker = &world->worker[w];
        worker->timing = seed_next(&timing);
        worker->noise = seed_next(&timing);
        worker->ctx.replay = replay;
        thread[w] = (struct thread){.worker = worker, .start = &start};
        CHECK(pthread_create(&thread[w].thread, NULL, work, &thread[w]) == 0);
    }
    for (uint32_t w = 0; w < world->shape.workers; w++)
        pthread_join(thread[w].thread, NULL);
    pthread_barrier_destroy(&start);
}

struct world *world_open(struct world_shape shape)
{
    struct world *world = aligned_alloc(CACHE_LINE, align_up(sizeof(*world), CACHE_LINE));
    memset(world, 0, sizeof(*world));
    CHECK(shape.workers <= FTMB_MAX_WORKERS && shape.variables <= WORLD_MAX_VARIABLES);
    world->shape = shape;
    world->env = (struct ctx_env){.relax = relax, .diverged = diverged};
    uint64_t bytes = align_up(sizeof(struct state), 8);
    world->size = arena_bytes(bytes, 64, shape.workers, shape.variables);
    void *memory = aligned_alloc(4096, world->size);
    memset(memory, 0, world->size);
    world->arena = arena_create(memory, world->size, bytes, 64, shape.workers, shape.variables, 0);
    void *root = arena_alloc(world->arena, 0, bytes, 8);
    CHECK(root);
    world->arena->root_offset = (uint64_t)((uint8_t *)root - (uint8_t *)memory);
    /* Versions begin anywhere, also just before the 38 bits of a PAL wrap. */
    uint64_t seed = shape.seed;
    for (uint32_t x = 0; x < shape.variables; x++)
        arena_seq(world->arena)[x] =
            2 * (seed_below(&seed, 2) ? PAL_VERSION_MASK - seed_below(&seed, 20)
                                      : seed_below(&seed, 3));
    for (uint32_t w = 0; w < shape.workers; w++) {
        struct world_worker *worker = &world->worker[w];
        worker->world = world;
        worker->ctx = (struct ftmb_ctx){.arena = world->arena,
                                        .cursor = &world->arena->cursors[w],
                                        .seq = arena_seq(world->arena),
                                        .worker = w,
                                        .workers = shape.workers,
                                        .variables = shape.variables,
                                        .mode = ACCESS_LOG,
                                        .reads_locked = shape.reads_locked,
                                        .exact = shape.exact,
                                        .pals = worker->pals,
                                        .pal_capacity = WORLD_MAX_PALS,
                                        .published = world->published,
                                        .vectors = world->vectors,
                                        .env = &world->env};
    }
    return world;
}

void world_close(struct world *world)
{
    free(world->arena);
    free(world);
}

void world_restore(struct world *world, const void *arena)
{
    memcpy(world->arena, arena, world->size);
    memset(world->vectors, 0, sizeof(world->vectors));
    for (uint32_t w = 0; w < world->shape.workers; w++) {
        struct ftmb_ctx *ctx = &world->worker[w].ctx;
        ctx->pal_count = 0;
        memset(ctx->deps, 0, sizeof(ctx->deps));
        atomic_store(&world->published[w].pals, ctx->cursor->pals);
    }
}

uint64_t world_digest(const struct world *world)
{
    uint64_t bytes = sizeof(_Atomic uint64_t) * world->shape.variables;
    return hash_bytes(hash_bytes(0, state_of(world), sizeof(struct state)), arena_seq(world->arena),
                      bytes);
}

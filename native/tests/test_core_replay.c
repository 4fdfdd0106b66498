/* Failovers in one process: random programs are recorded by real threads, the logs are cut off at
 * random, and a second replica replays what is left and goes on freely; then it fails too.
 *
 * What must hold: an output that could have been released before the failure (all of its past is
 * stored) lies within the cut and comes out again, byte for byte; so does everything else within
 * the cut; nothing hangs or diverges; and the logs of both together are again whole. */
#include "tests/replay_world.h"

#include <signal.h>
#include <string.h>

#include "tests/core_test.h"

struct logs {
    uint64_t *pal[FTMB_MAX_WORKERS];
    uint64_t count[FTMB_MAX_WORKERS];
};

/* What a failure leaves: the base, and what is stored of the logs since. */
struct failure {
    void *base;
    uint64_t base_pals[FTMB_MAX_WORKERS];
    struct logs stored;
    struct logs cut; /* shares the PALs of `stored` */
};

static struct world_shape random_shape(uint64_t *seed)
{
    return (struct world_shape){.seed = seed_next(seed),
                                .workers = 2 + (uint32_t)seed_below(seed, 3),
                                .variables = 1 + (uint32_t)seed_below(seed, 8),
                                .packets = 4 + (uint32_t)seed_below(seed, 60),
                                .steps = 1 + (uint32_t)seed_below(seed, 6),
                                .reads_locked = seed_below(seed, 5) == 0,
                                .exact = seed_below(seed, 2)};
}

static void *copy_arena(const struct world *world)
{
    void *copy = malloc(world->size);
    memcpy(copy, world->arena, world->size);
    return copy;
}

/* The log since the base: what the replay had of it, then what this run appended. */
static struct logs whole_logs(const struct world *world, const struct logs *before)
{
    struct logs logs = {0};
    for (uint32_t w = 0; w < world->shape.workers; w++) {
        uint64_t old = before ? before->count[w] : 0, fresh = world->worker[w].ctx.pal_count;
        logs.pal[w] = malloc((old + fresh + 1) * sizeof(uint64_t));
        if (old)
            memcpy(logs.pal[w], before->pal[w], old * sizeof(uint64_t));
        memcpy(logs.pal[w] + old, world->worker[w].pals, fresh * sizeof(uint64_t));
        logs.count[w] = old + fresh;
    }
    return logs;
}

static void free_logs(const struct world *world, struct logs *logs)
{
    for (uint32_t w = 0; w < world->shape.workers; w++)
        free(logs->pal[w]);
}

/* Frames are whole sections: a log is stored up to some section's end. */
static uint64_t random_prefix(const struct logs *logs, uint32_t w, uint64_t *seed)
{
    uint64_t count = logs->count[w], at = seed_below(seed, count + 1);
    if (seed_below(seed, 4) == 0)
        at = count; /* nothing of this worker is lost */
    else if (seed_below(seed, 2))
        at = count - seed_below(seed, u64_min(count, 20) + 1); /* a little, as in reality */
    while (at < count && (logs->pal[w][at] & PAL_INSIDE))
        at++;
    return at;
}

/* Store a part of the logs and cut it; `replay` is prepared for what is left. */
static void cut(const struct world *world, struct failure *failure, struct replay *replay)
{
    const struct arena *base = failure->base;
    const _Atomic uint64_t *seq =
        (const _Atomic uint64_t *)((const uint8_t *)base + base->seq_offset);
    for (uint32_t w = 0; w < world->shape.workers; w++) {
        failure->base_pals[w] = base->cursors[w].pals;
        replay->log[w] = failure->stored.pal[w];
        replay->count[w] = failure->stored.count[w];
    }
    CHECK(replay_cut(replay, seq) == REPLAY_OK);
    failure->cut = failure->stored;
    memcpy(failure->cut.count, replay->count, sizeof(failure->cut.count));
    CHECK(replay_prepare(replay, seq) == REPLAY_OK);
}

/* I1 and I3 for every output of the failed master since the base. */
static void check_outputs(const struct world *master, const struct world *next,
                          const struct failure *failure)
{
    uint32_t workers = master->shape.workers;
    const struct arena *base = failure->base;
    for (uint32_t w = 0; w < workers; w++) {
        for (uint64_t p = base->cursors[w].next_input - 1; p < master->until; p++) {
            const struct world_output *out = &master->worker[w].output[p];
            bool released = true, within = true;
            for (uint32_t j = 0; j < workers; j++) {
                uint64_t depends = u64_max(out->vector[j], failure->base_pals[j]);
                released &= depends <= failure->base_pals[j] + failure->stored.count[j];
                within &= depends <= failure->base_pals[j] + failure->cut.count[j];
            }
            /* Else the cut would exclude the past of a released output. */
            CHECK(!released || within);
            CHECK(!released || out->pals <= failure->base_pals[w] + failure->cut.count[w]);
            if (out->pals > failure->base_pals[w] + failure->cut.count[w])
                continue; /* some of it is lost: it may come out differently */
            CHECK(out->content == next->worker[w].output[p].content);
            CHECK(out->pals == next->worker[w].output[p].pals);
        }
    }
}

/* The replica goes on from the failure up to the same packets, and then some. */
static void fail_over(const struct world *master, struct world *next, struct failure *failure,
                      uint32_t packets, uint64_t *seed)
{
    struct replay replay;
    CHECK(replay_init(&replay, master->shape.workers, master->shape.variables, 16) == REPLAY_OK);
    cut(master, failure, &replay);
    world_restore(next, failure->base);
    alarm(30); /* a deadlock is a failure, not a wait */
    world_run(next, packets, &replay, seed_next(seed));
    CHECK(replay_done(&replay));
    for (uint32_t w = 0; w < master->shape.workers; w++) {
        const struct ftmb_ctx *ctx = &next->worker[w].ctx;
        CHECK(replay.cursor[w].position == replay.count[w]);
        CHECK(ctx->cursor->pals == failure->base_pals[w] + failure->cut.count[w] + ctx->pal_count);
        CHECK(atomic_load(&next->published[w].pals) <= ctx->cursor->pals);
    }
    replay_free(&replay);
    check_outputs(master, next, failure);
}

/* With the whole logs, everything comes out again: values, versions, outputs, and no new PAL. */
static void check_whole(const struct world *master, struct world *next, const struct logs *logs,
                        void *base, uint64_t *seed)
{
    struct failure failure = {.base = base, .stored = *logs};
    fail_over(master, next, &failure, master->until, seed);
    for (uint32_t w = 0; w < master->shape.workers; w++) {
        CHECK(failure.cut.count[w] == logs->count[w]);
        CHECK(next->worker[w].ctx.pal_count == 0);
    }
    CHECK(world_digest(master) == world_digest(next));
}

static uint64_t cut_off;

static void round_of_failures(uint64_t seed)
{
    struct world_shape shape = random_shape(&seed);
    struct world *world[3];
    for (unsigned i = 0; i < 3; i++)
        world[i] = world_open(shape);
    uint32_t before = (uint32_t)seed_below(&seed, shape.packets);
    world_run(world[0], before, NULL, seed_next(&seed)); /* covered by the base */
    void *base = copy_arena(world[0]);
    for (uint32_t w = 0; w < shape.workers; w++)
        world[0]->worker[w].ctx.pal_count = 0;
    world_run(world[0], shape.packets, NULL, seed_next(&seed));
    struct logs logs = whole_logs(world[0], NULL);
    check_whole(world[0], world[1], &logs, base, &seed);

    /* Twice: what the second master logs on top of the cut must be as good as a log. */
    unsigned from = 0;
    for (unsigned crash = 0; crash < 2; crash++) {
        struct failure failure = {.base = base, .stored = logs};
        for (uint32_t w = 0; w < shape.workers; w++)
            failure.stored.count[w] = random_prefix(&logs, w, &seed);
        struct world *next = world[1 + crash];
        uint32_t more = shape.packets + (uint32_t)seed_below(&seed, 10);
        fail_over(world[from], next, &failure, u64_max(more, world[from]->until), &seed);
        for (uint32_t w = 0; w < shape.workers; w++)
            cut_off += failure.stored.count[w] - failure.cut.count[w];
        struct logs both = whole_logs(next, &failure.cut);
        free_logs(world[0], &logs);
        logs = both;
        from = 1 + crash;
        check_whole(next, world[crash == 0 ? 2 : 1], &logs, base, &seed);
    }
    free_logs(world[0], &logs);
    free(base);
    for (unsigned i = 0; i < 3; i++)
        world_close(world[i]);
}

static void on_alarm(int signal)
{
    (void)signal;
    static const char message[] = "deadlock: the replay does not come to its end\n";
    (void)!write(2, message, sizeof(message) - 1);
    _exit(1);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv), until = 0, rounds = 0;
    signal(SIGALRM, on_alarm);
    for (; time_left(&until, 2.5); rounds++)
        round_of_failures(seed_next(&seed));
    printf("%llu rounds, %llu stored PALs cut off\n", (unsigned long long)rounds,
           (unsigned long long)cut_off);
    CHECK(rounds > 0);
    return 0;
}

/* The stores of the loggers survive the death of their process at any instruction.
 *
 * A child works on shared memory up to some operation; from there its parent lets it make so many
 * single steps and kills it. The next child attaches to what is there and goes on from what its
 * senders were told, until all is done. Which instruction it dies at follows from the seed. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

#include "core/input_log.h"
#include "core/release.h"
#include "core/stream.h"
#include "tests/core_test.h"

#define W 2u
#define PALS 64u
#define OUTPUTS 32u
#define HELD 8u
#define FRAMES 60u
#define INPUTS 60u
#define LOG_BYTES 1024u
#define LOG_RECORDS 16u
#define SKIP 77

/* A frame of a worker's stream: some PALs, or (count 0) an output. */
struct frame {
    uint32_t count;
    uint64_t first; /* of the PALs; or number of the output */
    uint64_t pals[4];
    uint64_t vector[W];
};

struct world {
    struct release release;
    _Alignas(64) uint8_t
        release_memory[W * (PALS + OUTPUTS) * 8 + W * HELD * sizeof(struct held_output)];
    struct frame frame[W][FRAMES + 1];         /* what the worker keeps: by number, from 1 */
    _Atomic uint32_t delivered[W][FRAMES + 1]; /* how often each output was handed on */
    uint64_t told[W];                          /* acknowledged to the worker */
    struct input_log log;
    _Alignas(64) uint8_t log_memory[LOG_BYTES + LOG_RECORDS * 8];
    uint64_t logged; /* told to the world as accepted, after the commit */
    uint64_t checked;
    uint64_t life; /* operations before the steps */
    bool done;
};

static bool can_step;

static void stop_at_end_of_life(struct world *world)
{
    if (world->life-- == 0)
        raise(SIGSTOP);
}

/* ---- the output logger -------------------------------------------------------------------- */

static uint64_t frame_hash(const struct frame *frame)
{
    return frame->first * 1000003 + frame->vector[0] * 31 + frame->vector[1];
}

static void make_frames(struct world *world, uint64_t *seed)
{
    uint64_t pals[W] = {0}, outputs[W] = {0};
    for (uint32_t i = 1; i <= FRAMES; i++) {
        for (uint32_t w = 0; w < W; w++) {
            struct frame *f = &world->frame[w][i];
            f->count = seed_below(seed, 2) ? 1 + (uint32_t)seed_below(seed, 4) : 0;
            f->first = f->count ? pals[w] + 1 : ++outputs[w];
            for (uint32_t k = 0; k < f->count; k++)
                f->pals[k] = seed_next(seed);
            pals[w] += f->count;
            /* Never of more than its own worker has published when it is read. */
            for (uint32_t j = 0; j < W; j++)
                f->vector[j] = pals[j] - seed_below(seed, u64_min(pals[j], 3) + 1);
        }
    }
}

static void take(struct world *world, uint32_t w, uint64_t seq)
{
    struct frame *f = &world->frame[w][seq];
    enum release_verdict verdict =
        f->count ? release_pals(&world->release, w, f->first, f->pals, f->count)
                 : release_output(&world->release, w, f->first, f->vector, f, frame_hash(f), seq);
    CHECK(verdict == RELEASE_OK || verdict == RELEASE_DUPLICATE);
}

static void hand_on(struct world *world, uint32_t w)
{
    const struct frame *f = release_next(&world->release, w);
    if (!f)
        return;
    atomic_fetch_add(&world->delivered[w][f->first], 1);
    release_handed(&world->release, 1);
}

/* What a base may cover: everything that has arrived and left. */
static void commit(struct world *world)
{
    uint64_t pals[FTMB_MAX_WORKERS] = {0}, outputs[FTMB_MAX_WORKERS] = {0};
    for (uint32_t w = 0; w < W; w++) {
        struct release_worker *x = &world->release.worker[w];
        pals[w] = x->stored;
        outputs[w] = u64_min(x->released, x->arrived);
    }
    release_commit(&world->release, pals, outputs);
}

static void tell(struct world *world, struct stream_rx *rx, uint32_t w)
{
    uint64_t settled = release_settled(&world->release.worker[w], stream_rx_taken(rx));
    release_settle(&world->release.worker[w], settled);
    world->told[w] = settled;
}

static void run_release(struct world *world, uint64_t seed)
{
    struct stream_rx rx[W] = {0};
    for (uint32_t w = 0; w < W; w++) {
        CHECK(world->told[w] <= world->release.worker[w].settled);
        stream_rx_resume(&rx[w], world->release.worker[w].settled + 1);
    }
    for (bool left = true; left;) {
        stop_at_end_of_life(world);
        uint32_t w = (uint32_t)seed_below(&seed, W);
        uint64_t act = seed_below(&seed, 16);
        struct release_worker *x = &world->release.worker[w];
        if (act < 8 && rx[w].expected <= FRAMES && release_has_room(x) &&
            release_pal_room(x) >= 4 && release_output_room(x)) {
            take(world, w, rx[w].expected);
            rx[w].expected++;
        } else if (act < 13) {
            hand_on(world, w);
        } else if (act < 15) {
            tell(world, &rx[w], w);
        } else {
            commit(world);
        }
        left = false;
        for (w = 0; w < W; w++)
            left |= world->told[w] < FRAMES;
    }
}

/* Whatever instruction it died at: what is stored is right, and what is released too. */
static void check_release(struct world *world)
{
    CHECK(release_attach(&world->release, W, world->release_memory, PALS, OUTPUTS, HELD));
    for (uint32_t w = 0; w < W; w++) {
        struct release_worker *x = &world->release.worker[w];
        CHECK(world->told[w] <= x->settled);
        for (uint32_t i = 1; i <= FRAMES; i++) {
            const struct frame *f = &world->frame[w][i];
            for (uint32_t k = 0; k < f->count; k++)
                CHECK(f->first + k <= x->pal_base || f->first + k > x->stored ||
                      x->pals[(f->first + k) & x->pal_mask] == f->pals[k]);
            if (f->count || f->first > x->released)
                continue;
            CHECK(f->first <= x->out_base || x->hashes[f->first & x->hash_mask] == frame_hash(f));
            for (uint32_t j = 0; j < W; j++)
                CHECK(world->release.joined[j] >= f->vector[j] &&
                      world->release.worker[j].stored >= f->vector[j]);
        }
    }
}

static void check_release_end(const struct world *world)
{
    uint64_t lost = 0;
    for (uint32_t w = 0; w < W; w++) {
        const struct frame *last = NULL;
        for (uint32_t i = 1; i <= FRAMES; i++) {
            if (world->frame[w][i].count)
                continue;
            last = &world->frame[w][i];
            CHECK(world->delivered[w][last->first] <= 1); /* never twice */
            lost += world->delivered[w][last->first] == 0;
        }
        CHECK(world->release.worker[w].released == (last ? last->first : 0));
    }
    CHECK(lost <= world->release.lost_in_hand); /* and what is lost is known */
}

/* ---- the input logger --------------------------------------------------------------------- */

static uint32_t input_length(uint64_t number)
{
    return (uint32_t)(number * 37 % 90);
}

static void run_log(struct world *world, uint64_t seed)
{
    while (world->log.next <= INPUTS || world->log.first <= INPUTS) {
        stop_at_end_of_life(world);
        if (seed_below(&seed, 3) == 0) {
            uint64_t kept = world->log.next - world->log.first;
            input_log_trim(&world->log, world->log.first + seed_below(&seed, kept + 1));
            continue;
        }
        uint64_t number = world->log.next;
        uint32_t length = input_length(number);
        struct input_record *record =
            number <= INPUTS ? input_log_append(&world->log, length) : NULL;
        if (!record)
            continue;
        record->stamp_ns = number;
        record->length = length;
        memset(record->data, (int)number, length);
        input_log_commit(&world->log);
        world->logged = number;
    }
}

static void check_log(struct world *world)
{
    CHECK(input_log_attach(&world->log, world->log_memory, LOG_BYTES, LOG_RECORDS));
    CHECK(world->log.next > world->logged); /* what was accepted is there */
    for (uint64_t n = world->log.first; n < world->log.next; n++) {
        const struct input_record *record = input_log_get(&world->log, n);
        CHECK(record->stamp_ns == n && record->length == input_length(n));
        for (uint32_t i = 0; i < record->length; i++)
            CHECK(record->data[i] == (uint8_t)n);
    }
}

/* ---- deaths ------------------------------------------------------------------------------- */

/* Run `work` in a child and kill it after `steps` instructions; false: it came to its end. */
static bool killed_after(struct world *world, void (*work)(struct world *, uint64_t), uint64_t seed,
                         uint64_t steps)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(SKIP);
        work(world, seed);
        world->done = true;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    can_step = !WIFEXITED(status) || WEXITSTATUS(status) != SKIP;
    for (uint64_t i = 0; i < steps && WIFSTOPPED(status); i++) {
        CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
        CHECK(waitpid(child, &status, 0) == child);
    }
    if (WIFSTOPPED(status)) {
        CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        return true;
    }
    CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !can_step));
    return false;
}

static void many_deaths(struct world *world, void (*work)(struct world *, uint64_t),
                        void (*check)(struct world *), uint64_t *seed, unsigned *deaths)
{
    /* Short lives at first, so that it dies at every kind of place; long ones come to an end. */
    for (uint64_t life = 8;; life += 1) {
        world->life = seed_below(seed, life);
        bool killed = killed_after(world, work, seed_next(seed), 40 + seed_below(seed, 200));
        check(world);
        if (!killed)
            return;
        (*deaths)++;
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv), until = 0;
    unsigned deaths = 0;
    struct world *world =
        mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(world != MAP_FAILED);
    CHECK(release_bytes(W, PALS, OUTPUTS, HELD) == sizeof(world->release_memory));
    while (time_left(&until, 2.0) || deaths <= 100) { /* a slow machine takes longer */
        memset(world, 0, sizeof(*world));
        release_init(&world->release, W, world->release_memory, PALS, OUTPUTS, HELD);
        world->release.exact = true;
        make_frames(world, &seed);
        many_deaths(world, run_release, check_release, &seed, &deaths);
        if (!can_step) {
            printf("processes may not be traced here: nothing was tested\n");
            return SKIP;
        }
        check_release_end(world);
        world->done = false;
        input_log_init(&world->log, world->log_memory, LOG_BYTES, LOG_RECORDS);
        many_deaths(world, run_log, check_log, &seed, &deaths);
        CHECK(world->log.next == INPUTS + 1);
    }
    printf("%u deaths\n", deaths);
    CHECK(deaths > 100);
    munmap(world, sizeof(*world));
    return 0;
}

/* Marks and epochs under real threads: workers that store privately and in sections, while one
 * thread takes one snapshot after the other.
 *
 * What a packet does follows from its worker and number alone, and what a section stores from its
 * variable's version. So the whole state at a cut follows from how many packets each worker had
 * done by then, which its cursor says; nothing of the truth comes from marks. A read is logged in
 * the reader's memory: no cut may hold a version that it does not hold itself. */
#include <pthread.h>
#include <sched.h>

#include "tests/core_test.h"
#include "tests/marks_world.h"

#define MAX_WORKERS 4u
#define VARIABLES 24u
#define CELLS 11u /* words of a variable: lines are shared by several */
#define WORDS 3000u
#define TAILS 400u
#define SLOTS 300u /* most stores of a packet to its worker's memory */

/* A worker's memory; what it allocates later lies behind it. */
struct own {
    uint64_t word[WORDS];
    uint64_t version_read[VARIABLES];
};

struct shared {
    _Atomic uint64_t cell[VARIABLES][CELLS]; /* readers look while a writer stores */
};

static struct run {
    struct marks_world *w;
    uint64_t seed;
    uint32_t workers;
    atomic_bool end;
    pthread_barrier_t start;
} run_;

#ifdef FTMB_SIM
/* Built once more with the simulator's hooks: a thread may lose its core wherever another one may
 * do something in between, not only where a test would think of it. */
static _Thread_local uint64_t points;

void sim_point(void)
{
    if (seed_below(&points, 150) == 0)
        sched_yield();
}

void sim_seen(enum sim_seen what)
{
    (void)what;
}

void sim_wrote(struct ftmb_ctx *ctx, uint32_t id)
{
    (void)ctx;
    (void)id;
}

void sim_read(struct ftmb_ctx *ctx, uint32_t id)
{
    (void)ctx;
    (void)id;
}

void sim_flipped(struct epoch_group *group)
{
    (void)group;
}

void sim_section_ends(struct ftmb_ctx *ctx)
{
    (void)ctx;
}

void sim_pal(struct ftmb_ctx *ctx, uint64_t pal)
{
    (void)ctx;
    (void)pal;
}
#endif

/* What a packet does. */
struct deed {
    uint32_t stores;
    bool allocates;
    enum { NOTHING, WRITE, WRITE_TWO, READ } access;
    uint32_t variable;
    uint64_t yields; /* bits: where it gives up its core */
};

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t state = run_.seed ^ a * 0x9e3779b97f4a7c15ull ^ b * 0xc2b2ae3d27d4eb4full ^ c << 40;
    return seed_next(&state);
}

static struct deed deed_of(uint32_t worker, uint64_t packet)
{
    uint64_t r = mix(worker, packet, 1);
    struct deed deed = {.stores = (uint32_t)(1 + r % 4),
                        .allocates = r >> 8 & 1,
                        .access = (r >> 16) % 4,
                        .variable = (uint32_t)((r >> 24) % (VARIABLES - 1)),
                        .yields = r >> 32 & r >> 37 & r >> 42 & r >> 47};
    if (r >> 60 == 0)
        deed.stores = SLOTS;
    return deed;
}

static uint32_t word_of(uint32_t worker, uint64_t packet, uint32_t store)
{
    return (uint32_t)(mix(worker, packet, 2 + store) % WORDS);
}

static uint32_t cell_of(uint32_t variable, uint64_t version)
{
    return (uint32_t)(mix(variable, version, 99) % CELLS);
}

static uint64_t value_of(uint32_t variable, uint64_t version)
{
    return (uint64_t)variable << 48 | (version + 1);
}

static struct shared *shared_of(struct arena *arena)
{
    return (struct shared *)((uint8_t *)arena + arena->root_offset);
}

static struct own *own_of(struct arena *arena, uint32_t worker)
{
    return (struct own *)((uint8_t *)arena + arena->extents[1 + worker].start);
}

/* ---- workers ------------------------------------------------------------------------------- */

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    rounds < 50 ? cpu_relax() : (void)sched_yield();
}

static void maybe_yield(const struct deed *deed, unsigned place)
{
    if (deed->yields >> place & 1)
        sched_yield();
}

static void change(struct ftmb_ctx *ctx, uint32_t variable)
{
    uint64_t version = ctx->seq[variable] >> 1;
    _Atomic uint64_t *cell = &shared_of(ctx->arena)->cell[variable][cell_of(variable, version)];
    ftmb_mark(ctx, (const void *)cell, sizeof(*cell));
    atomic_store_explicit(cell, value_of(variable, version), memory_order_relaxed);
}

static void look(struct ftmb_ctx *ctx, uint32_t variable)
{
    uint64_t token;
    do {
        token = ftmb_read_begin(ctx, variable);
        atomic_load_explicit(&shared_of(ctx->arena)->cell[variable][0], memory_order_relaxed);
    } while (!ftmb_read_end(ctx, variable, token));
    uint64_t *seen = &own_of(ctx->arena, ctx->worker)->version_read[variable];
    ftmb_mark(ctx, seen, sizeof(*seen));
    *seen = token >> 1;
}

static void do_packet(struct ftmb_ctx *ctx)
{
    uint64_t packet = ctx->cursor->next_input;
    struct deed deed = deed_of(ctx->worker, packet);
    struct own *own = own_of(ctx->arena, ctx->worker);
    ctx->pal_count = 0;
    for (uint32_t i = 0; i < deed.stores; i++) {
        uint64_t *word = &own->word[word_of(ctx->worker, packet, i)];
        ftmb_mark(ctx, word, sizeof(*word));
        maybe_yield(&deed, i % 4);
        *word = packet;
    }
    maybe_yield(&deed, 4);
    if (deed.access == READ) {
        look(ctx, deed.variable);
    } else if (deed.access != NOTHING) {
        ftmb_write(ctx, deed.variable);
        maybe_yield(&deed, 5);
        if (deed.access == WRITE_TWO)
            ftmb_write(ctx, deed.variable + 1);
        change(ctx, deed.variable);
        maybe_yield(&deed, 6);
        if (deed.access == WRITE_TWO)
            change(ctx, deed.variable + 1);
        ftmb_section_end(ctx);
    }
    uint64_t *tail =
        deed.allocates ? arena_alloc(ctx->arena, 1 + ctx->worker, sizeof(*tail), 8) : NULL;
    if (tail) {
        ftmb_mark(ctx, tail, sizeof(*tail));
        *tail = packet;
    }
    maybe_yield(&deed, 7);
    ctx->cursor->next_input++;
}

static void *work(void *self)
{
    struct ftmb_ctx *ctx = self;
    pthread_barrier_wait(&run_.start);
    while (!atomic_load(&run_.end)) {
        while (!epoch_enter(ctx) && !epoch_turn(ctx))
            sched_yield();
        uint64_t burst = 1 + mix(ctx->worker, ctx->cursor->next_input, 0) % 40;
        while (burst--) {
            do_packet(ctx);
            if (!epoch_same(ctx)) {
                while (!epoch_turn(ctx))
                    sched_yield();
            }
        }
        epoch_leave(ctx);
        if (ctx->cursor->next_input % 3 == 0)
            sched_yield();
    }
    return NULL;
}

/* ---- the truth ----------------------------------------------------------------------------- */

struct truth {
    uint64_t packets[MAX_WORKERS];
    uint64_t tails[MAX_WORKERS];
    uint64_t tail[MAX_WORKERS][TAILS];
    uint64_t version[VARIABLES];
    uint64_t read_in[MAX_WORKERS][VARIABLES]; /* number of the packet that last read it */
    uint64_t packets_before[MAX_WORKERS];     /* at the cut before */
    uint64_t version_before[VARIABLES];
    struct own own[MAX_WORKERS];
    uint64_t cell[VARIABLES][CELLS];
};

static void advance_variable(struct truth *t, uint32_t variable)
{
    uint64_t version = t->version[variable]++;
    t->cell[variable][cell_of(variable, version)] = value_of(variable, version);
}

static void advance(struct truth *t, uint32_t worker, uint64_t until)
{
    CHECK(until >= t->packets[worker]);
    while (t->packets[worker] < until) {
        uint64_t packet = ++t->packets[worker];
        struct deed deed = deed_of(worker, packet);
        for (uint32_t i = 0; i < deed.stores; i++)
            t->own[worker].word[word_of(worker, packet, i)] = packet;
        if (deed.access == READ)
            t->read_in[worker][deed.variable] = packet;
        if (deed.access == WRITE || deed.access == WRITE_TWO)
            advance_variable(t, deed.variable);
        if (deed.access == WRITE_TWO)
            advance_variable(t, deed.variable + 1);
        if (deed.allocates && t->tails[worker] < TAILS)
            t->tail[worker][t->tails[worker]++] = packet;
    }
}

static void check_worker(struct truth *t, struct arena *image, uint32_t worker)
{
    const struct own *own = own_of(image, worker);
    CHECK(image->extents[1 + worker].used ==
          sizeof(struct own) + t->tails[worker] * sizeof(uint64_t));
    CHECK(memcmp(own->word, t->own[worker].word, sizeof(own->word)) == 0);
    CHECK(memcmp(own + 1, t->tail[worker], t->tails[worker] * sizeof(uint64_t)) == 0);
    for (uint32_t v = 0; v < VARIABLES; v++) {
        CHECK(own->version_read[v] >= t->own[worker].version_read[v]);
        CHECK(own->version_read[v] <= t->version[v]);          /* no effect without its cause */
        if (t->read_in[worker][v] > t->packets_before[worker]) /* nor a cause without its effect */
            CHECK(own->version_read[v] >= t->version_before[v]);
        t->own[worker].version_read[v] = own->version_read[v];
    }
}

static void check_image(struct truth *t, struct arena *image)
{
    for (uint32_t i = 0; i < run_.workers; i++)
        advance(t, i, image->cursors[i].next_input - 1);
    for (uint32_t i = 0; i < run_.workers; i++)
        check_worker(t, image, i);
    for (uint32_t v = 0; v < VARIABLES; v++) {
        CHECK(arena_seq(image)[v] == 2 * t->version[v]);
        for (uint32_t c = 0; c < CELLS; c++)
            CHECK(shared_of(image)->cell[v][c] == t->cell[v][c]);
    }
    memcpy(t->packets_before, t->packets, sizeof(t->packets));
    memcpy(t->version_before, t->version, sizeof(t->version));
}

/* ---- snapshots ----------------------------------------------------------------------------- */

struct snapshots {
    struct marks_world *w;
    uint64_t seed;
    struct arena *image;   /* at the last cut that was complete */
    struct arena *stopped; /* copied while all stood */
    uint8_t *content;      /* handed over: the lines of this epoch */
    uint64_t *offset;
    uint64_t *length;
    uint64_t lines, room;
    struct truth *truth;
    unsigned complete, lost, no_room, parked;
};

static bool sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    struct snapshots *s = self;
    if (s->lines == s->room)
        return false;
    memcpy(s->content + s->lines * ARENA_LINE, content, length);
    s->offset[s->lines] = offset;
    s->length[s->lines++] = length;
    return true;
}

static enum marks_progress collect(struct snapshots *s)
{
    struct marks_scan scan = {0};
    enum marks_progress progress;
    s->lines = 0;
    s->room = seed_below(&s->seed, 8) ? UINT64_MAX : seed_below(&s->seed, 200);
    do {
        progress = marks_collect(&s->w->marks, &scan, 1 + seed_below(&s->seed, 200), sink, s);
        if (progress == MARKS_WAIT || seed_below(&s->seed, 3) == 0)
            sched_yield();
    } while (progress == MARKS_MORE || progress == MARKS_WAIT);
    if (progress == MARKS_DONE)
        return progress;
    while (!marks_give_up(&s->w->marks, &scan, 1 + seed_below(&s->seed, 5)))
        sched_yield();
    for (uint64_t i = 0; i < s->lines; i++)
        marks_again(&s->w->marks, s->offset[i], s->length[i]);
    return progress;
}

static void snapshot(struct snapshots *s)
{
    bool stop = seed_below(&s->seed, 6) == 0;
    struct arena header;
    marks_world_flip(s->w, stop);
    while (!epoch_complete(&s->w->group, s->w->arena, &header))
        sched_yield();
    if (stop) {
        snapshot_copy(s->w->arena, s->stopped);
        CHECK(memcmp(&header, s->stopped, sizeof(header)) == 0);
        epoch_release(&s->w->group);
        s->parked++;
    }
    enum marks_progress progress = collect(s);
    s->lost += progress == MARKS_LOST;
    s->no_room += progress == MARKS_NO_ROOM;
    if (progress != MARKS_DONE)
        return;
    memcpy(s->image, &header, sizeof(header));
    for (uint64_t i = 0; i < s->lines; i++)
        memcpy((uint8_t *)s->image + s->offset[i], s->content + i * ARENA_LINE, s->length[i]);
    if (stop)
        CHECK(snapshot_first_difference(s->stopped, s->image) == UINT64_MAX);
    check_image(s->truth, s->image);
    s->complete++;
}

static void *zeroes(uint64_t bytes)
{
    void *memory = aligned_alloc(4096, align_up(bytes, 4096));
    CHECK(memory);
    memset(memory, 0, bytes);
    return memory;
}

static struct snapshots open_snapshots(struct marks_world *w, uint64_t seed)
{
    struct snapshots s = {.w = w, .seed = seed};
    uint64_t lines = snapshot_lines(w->size);
    s.image = zeroes(w->size);
    s.stopped = zeroes(w->size);
    s.content = zeroes(lines * ARENA_LINE);
    s.offset = zeroes(lines * sizeof(uint64_t));
    s.length = zeroes(lines * sizeof(uint64_t));
    s.truth = zeroes(sizeof(*s.truth));
    snapshot_copy(w->arena, s.image);
    return s;
}

static void close_snapshots(struct snapshots *s)
{
    free(s->image);
    free(s->stopped);
    free(s->content);
    free(s->offset);
    free(s->length);
    free(s->truth);
}

static struct marks_world *open_world(uint32_t workers, uint64_t undo_entries)
{
    struct marks_world *w = marks_world_open(
        (struct marks_shape){.workers = workers,
                             .shared_bytes = sizeof(struct shared) + 64,
                             .worker_bytes = sizeof(struct own) + TAILS * sizeof(uint64_t),
                             .variables = VARIABLES,
                             .undo_entries = undo_entries,
                             .relax = relax});
    uint8_t *shared = arena_alloc(w->arena, 0, sizeof(struct shared), 8);
    CHECK(shared);
    w->arena->root_offset = (uint64_t)(shared - (uint8_t *)w->arena);
    for (uint32_t i = 0; i < workers; i++) {
        CHECK(arena_alloc(w->arena, 1 + i, sizeof(struct own), 8) == own_of(w->arena, i));
        w->arena->extents[1 + i].limit = sizeof(struct own) + TAILS * sizeof(uint64_t);
        epoch_sit(&w->ctx[i]);
    }
    return w;
}

static void run(uint64_t seed, double seconds, struct snapshots *total)
{
    pthread_t thread[MAX_WORKERS];
    uint32_t workers = 2 + (uint32_t)seed_below(&seed, MAX_WORKERS - 1);
    struct marks_world *w =
        open_world(workers, seed_below(&seed, 3) ? 1000 : seed_below(&seed, 40));
    run_.w = w;
    run_.seed = seed_next(&seed);
    run_.workers = workers;
    atomic_store(&run_.end, false);
    pthread_barrier_init(&run_.start, NULL, workers + 1);
    struct snapshots s = open_snapshots(w, seed);
    for (uint32_t i = 0; i < workers; i++)
        CHECK(pthread_create(&thread[i], NULL, work, &w->ctx[i]) == 0);
    pthread_barrier_wait(&run_.start);
    for (uint64_t until = 0; time_left(&until, seconds);)
        snapshot(&s);
    atomic_store(&run_.end, true);
    for (uint32_t i = 0; i < workers; i++)
        pthread_join(thread[i], NULL);
    total->complete += s.complete;
    total->lost += s.lost;
    total->no_room += s.no_room;
    total->parked += s.parked;
    pthread_barrier_destroy(&run_.start);
    close_snapshots(&s);
    marks_world_close(w);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    struct snapshots total = {0};
    alarm(110); /* a deadlock is a failure, not a wait */
    for (unsigned i = 0; i < 10; i++)
        run(seed_next(&seed), 0.3, &total);
    printf("%u snapshots complete, %u of all with everybody parked; %u lost, %u without room\n",
           total.complete, total.parked, total.lost, total.no_room);
    CHECK(total.complete > 50 && total.parked > 10 && total.lost + total.no_room > 5);
    return 0;
}

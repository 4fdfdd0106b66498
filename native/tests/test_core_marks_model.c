/* Marks of lines against a naive model: random stores, allocations, joins, flips, snapshots that
 * are collected in pieces, lost, given up, not committed. The model copies the whole arena at each
 * cut. A backup that applies what was handed over must equal the last cut that was committed, and
 * nothing may be handed over that was not stored into since then. */
#include "tests/marks_world.h"

#include "tests/core_test.h"

#define WORKERS 3u
#define EXTENTS (WORKERS + 1)

struct model {
    struct marks_world *w;
    uint64_t seed;
    uint8_t *cut;        /* the arena at the end of the closing epoch */
    uint8_t *backup;     /* at the last commit */
    uint8_t *delta;      /* content of the lines handed over */
    uint8_t *handed;     /* per line: handed over in this epoch */
    uint8_t *wanted;     /* per line: stored into, or wanted again, since the last commit */
    uint8_t *in_closing; /* `wanted` as it was at the cut */
    bool joined[WORKERS];
    unsigned waiting; /* workers that have not joined yet */
    bool closing;     /* an epoch is being collected */
    struct marks_scan scan;
    bool giving_up;
    unsigned room; /* lines for which there is room */
    unsigned committed, abandoned, lost, no_room;
};

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    (void)rounds;
    CHECK(!"one thread waits for nobody");
}

static struct model open_model(uint64_t seed)
{
    struct model m = {.seed = seed};
    m.w = marks_world_open((struct marks_shape){
        .workers = WORKERS,
        .shared_bytes = 1000 + seed_below(&m.seed, 30000),
        .worker_bytes = 1000 + seed_below(&m.seed, 30000),
        .variables = (uint32_t)seed_below(&m.seed, 50),
        .undo_entries = seed_below(&m.seed, 3) ? 4 + seed_below(&m.seed, 200) : 2,
        .relax = relax});
    uint64_t lines = m.w->marks.chunks * MARK_CHUNK;
    m.cut = calloc(1, m.w->size);
    m.backup = calloc(1, m.w->size);
    m.delta = calloc(1, m.w->size);
    m.handed = calloc(1, lines);
    m.wanted = calloc(1, lines);
    m.in_closing = calloc(1, lines);
    CHECK(m.cut && m.backup && m.delta && m.handed && m.wanted && m.in_closing);
    memcpy(m.backup, m.w->arena, m.w->size);
    return m;
}

static void close_model(struct model *m)
{
    free(m->cut);
    free(m->backup);
    free(m->delta);
    free(m->handed);
    free(m->wanted);
    free(m->in_closing);
    marks_world_close(m->w);
}

/* The lines of a range that have anything allocated. */
static void want(const struct model *m, uint8_t *lines, uint64_t offset, uint64_t length)
{
    for (uint64_t line = offset / ARENA_LINE; line * ARENA_LINE < offset + length; line++) {
        for (unsigned e = 0; e < EXTENTS; e++) {
            const struct arena_extent *x = &m->w->arena->extents[e];
            if (line * ARENA_LINE >= x->start && line * ARENA_LINE < x->start + x->used)
                lines[line] = 1;
        }
    }
}

/* Worker `who - 1`, or any that may (who == 0), stores into an extent. While not all have joined,
 * those that have are held at the gate and touch only what is theirs. */
static void store(struct model *m)
{
    uint32_t worker = (uint32_t)seed_below(&m->seed, WORKERS);
    bool gated = m->waiting && m->joined[worker];
    unsigned who = seed_below(&m->seed, 2) && !gated ? 0 : 1 + worker;
    const struct arena_extent *x = &m->w->arena->extents[who];
    if (!x->used)
        return;
    uint64_t at = seed_below(&m->seed, x->used);
    uint64_t most = seed_below(&m->seed, 8) ? 40 : 2000;
    uint64_t bytes = 1 + seed_below(&m->seed, u64_min(most, x->used - at));
    uint8_t *address = (uint8_t *)m->w->arena + x->start + at;
    ftmb_mark(&m->w->ctx[worker], address, bytes);
    seed_fill(&m->seed, address, bytes);
    /* One that has not joined yet stores into the closing epoch. */
    want(m, m->waiting && !m->joined[worker] ? m->in_closing : m->wanted, x->start + at, bytes);
}

static void allocate(struct model *m)
{
    unsigned who = 1 + (unsigned)seed_below(&m->seed, WORKERS);
    arena_alloc(m->w->arena, who, 1 + seed_below(&m->seed, 700), 8);
}

static void copy_extent(struct model *m, unsigned who)
{
    const struct arena_extent *x = &m->w->arena->extents[who];
    memcpy(m->cut + x->start, (const uint8_t *)m->w->arena + x->start, x->limit);
    ((struct arena *)m->cut)->extents[who] = *x;
}

static void join(struct model *m)
{
    uint32_t worker = (uint32_t)seed_below(&m->seed, WORKERS);
    if (!m->waiting || m->joined[worker])
        return;
    marks_world_join(m->w, worker);
    m->joined[worker] = true;
    copy_extent(m, 1 + worker);
    if (--m->waiting == 0)
        copy_extent(m, 0);
}

static void flip(struct model *m)
{
    uint64_t lines = m->w->marks.chunks * MARK_CHUNK;
    memcpy(m->in_closing, m->wanted, lines);
    memset(m->wanted, 0, lines);
    memset(m->handed, 0, lines);
    memset(m->joined, 0, sizeof(m->joined));
    marks_world_flip(m->w, false);
    m->waiting = WORKERS;
    m->closing = true;
    m->giving_up = false;
    m->scan = (struct marks_scan){0};
    m->room = seed_below(&m->seed, 5) ? UINT32_MAX : (unsigned)seed_below(&m->seed, 100);
}

static bool sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    struct model *m = self;
    CHECK(offset % ARENA_LINE == 0 && !m->handed[offset / ARENA_LINE]);
    CHECK(m->in_closing[offset / ARENA_LINE]);
    if (m->room == 0)
        return false;
    m->room--;
    m->handed[offset / ARENA_LINE] = 1;
    memcpy(m->delta + offset, content, length);
    return true;
}

/* The allocated parts of the cut, byte by byte, and every line that was stored into. */
static void check_commit(struct model *m)
{
    const struct arena *cut = (const struct arena *)m->cut;
    for (uint64_t line = 0; line < m->w->marks.lines; line++) {
        uint64_t offset = line * ARENA_LINE;
        CHECK(m->handed[line] == m->in_closing[line]);
        if (m->handed[line])
            memcpy(m->backup + offset, m->delta + offset, u64_min(ARENA_LINE, m->w->size - offset));
    }
    for (unsigned e = 0; e < EXTENTS; e++) {
        const struct arena_extent *x = &cut->extents[e];
        CHECK(memcmp(m->backup + x->start, m->cut + x->start, x->used) == 0);
    }
}

/* Its lines, all of them, into the next one. */
static void abandon(struct model *m)
{
    for (uint64_t line = 0; line < m->w->marks.lines; line++) {
        if (m->handed[line])
            marks_again(&m->w->marks, line * ARENA_LINE, ARENA_LINE);
        m->wanted[line] |= m->in_closing[line];
    }
    m->abandoned++;
    m->closing = false;
}

static void collect(struct model *m)
{
    if (!m->closing || m->waiting)
        return;
    uint64_t budget = 1 + seed_below(&m->seed, 300);
    if (m->giving_up) {
        if (marks_give_up(&m->w->marks, &m->scan, budget))
            abandon(m);
        return;
    }
    enum marks_progress progress = marks_collect(&m->w->marks, &m->scan, budget, sink, m);
    CHECK(progress != MARKS_WAIT);
    m->giving_up = progress == MARKS_LOST || progress == MARKS_NO_ROOM;
    m->lost += progress == MARKS_LOST;
    m->no_room += progress == MARKS_NO_ROOM;
    if (m->giving_up && seed_below(&m->seed, 2))
        m->scan = (struct marks_scan){0}; /* from the beginning is as good */
    if (progress != MARKS_DONE)
        return;
    if (seed_below(&m->seed, 5) == 0) {
        abandon(m); /* nobody has it */
    } else {
        check_commit(m);
        m->committed++;
        m->closing = false;
    }
}

/* A slice, or just some bytes. */
static void again(struct model *m)
{
    uint64_t offset = seed_below(&m->seed, m->w->size);
    uint64_t length = seed_below(&m->seed, u64_min(m->w->size - offset, 3000));
    if (m->closing)
        return;
    marks_again(&m->w->marks, offset, length);
    want(m, m->wanted, offset, length);
}

static void run(struct model *m, unsigned steps)
{
    for (unsigned i = 0; i < WORKERS; i++)
        arena_alloc(m->w->arena, 1 + i, 800, 8);
    arena_alloc(m->w->arena, 0, 900, 8);
    memcpy(m->backup, m->w->arena, m->w->size);
    unsigned busy = 1 + (unsigned)seed_below(&m->seed, 20); /* stores to each other step */
    for (unsigned i = 0; i < steps; i++) {
        uint64_t what = seed_below(&m->seed, 6 + busy);
        if (what == 0)
            allocate(m);
        else if (what == 1 && !m->closing)
            flip(m);
        else if (what == 2 || what == 3)
            collect(m);
        else if (what == 4 && seed_below(&m->seed, 3) == 0)
            again(m);
        else if (what == 5)
            join(m);
        else
            store(m);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv), until = 0;
    unsigned committed = 0, abandoned = 0, lost = 0, no_room = 0;
    for (unsigned i = 0; i < 30 || time_left(&until, 2); i++) {
        struct model m = open_model(seed_next(&seed));
        run(&m, 3000);
        committed += m.committed;
        abandoned += m.abandoned;
        lost += m.lost;
        no_room += m.no_room;
        close_model(&m);
    }
    printf("%u committed, %u abandoned; undo log full %u times, no room %u times\n", committed,
           abandoned, lost, no_room);
    CHECK(committed > 100 && abandoned > 20 && lost > 10 && no_room > 10);
    return 0;
}

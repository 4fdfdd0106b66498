/* Epochs, by one thread that plays workers and flipper in turn: who counts as joined, where the cut
 * is, who waits at the gate and for how long, parking. */
#include "tests/marks_world.h"

#include "tests/core_test.h"

#define WORKERS 3u

/* What the world does while a worker waits at the gate. */
static struct {
    unsigned rounds;                    /* of waiting, in all */
    void (*then)(struct marks_world *); /* after some of them */
    unsigned after;
    uint64_t now;
} gate;

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)worker;
    (void)rounds;
    gate.rounds++;
    gate.now += 10;
    CHECK(gate.then && gate.rounds <= gate.after); /* else it would wait for ever */
    if (gate.rounds == gate.after)
        gate.then(env);
}

static uint64_t clock_of(void *env)
{
    (void)env;
    return gate.now += 1;
}

static void expect_waits(unsigned rounds, void (*then)(struct marks_world *))
{
    gate.rounds = 0;
    gate.after = rounds;
    gate.then = then;
}

static struct marks_world *open_world(void)
{
    struct marks_world *w = marks_world_open((struct marks_shape){.workers = WORKERS,
                                                                  .shared_bytes = 4096,
                                                                  .worker_bytes = 4096,
                                                                  .variables = 8,
                                                                  .undo_entries = 100,
                                                                  .relax = relax});
    w->env.clock = clock_of;
    expect_waits(0, NULL);
    return w;
}

static bool throw_away(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    (void)self;
    (void)offset;
    (void)content;
    (void)length;
    return true;
}

/* The next epoch is wanted, the one before has been collected. */
static void want(struct marks_world *w, bool stop)
{
    struct marks_scan scan = {0};
    CHECK(marks_collect(&w->marks, &scan, UINT64_MAX, throw_away, NULL) == MARKS_DONE);
    marks_world_flip(w, stop);
}

/* And it begins, wherever the workers are just then. */
static void flip(struct marks_world *w, bool stop)
{
    want(w, stop);
    if (w->group.word & EPOCH_WANTED)
        w->group.word = (epoch_open(&w->group) + 1) << 1;
}

static void packet(struct marks_world *w, uint32_t worker)
{
    struct worker_cursor *cursor = &w->arena->cursors[worker];
    cursor->next_input++;
    cursor->outputs += 2;
    cursor->random += 77;
    arena_alloc(w->arena, 1 + worker, 8, 8);
}

static bool complete(struct marks_world *w)
{
    return epoch_complete(&w->group, w->arena, NULL);
}

/* The header at the cut must be `expected`, in every byte. */
static void check_header(struct marks_world *w, const struct arena *expected)
{
    struct arena header;
    memset(&header, 0x5a, sizeof(header));
    CHECK(epoch_complete(&w->group, w->arena, &header));
    CHECK(memcmp(&header, expected, sizeof(header)) == 0);
}

/* A worker begins a burst; whether that took a turn. */
static bool begin(struct marks_world *w, uint32_t worker)
{
    if (epoch_enter(&w->ctx[worker]))
        return false;
    CHECK(epoch_turn(&w->ctx[worker]));
    return true;
}

/* ---- joining ------------------------------------------------------------------------------- */

static void test_join(void)
{
    struct marks_world *w = open_world();
    CHECK(epoch_open(&w->group) == 0 && complete(w));
    for (uint32_t i = 0; i < WORKERS; i++) {
        CHECK(!begin(w, i) && epoch_same(&w->ctx[i]) && w->ctx[i].tag == MARK_EVEN);
        packet(w, i);
    }
    flip(w, false);
    CHECK(epoch_open(&w->group) == 1);
    struct arena cut;
    for (uint32_t i = 0; i < WORKERS; i++) { /* in mid-burst: one after the other */
        CHECK(!complete(w));
        packet(w, i);
        CHECK(!epoch_same(&w->ctx[i]) && w->ctx[i].tag == MARK_EVEN && !w->ctx[i].gate);
        memcpy(&cut.cursors[i], &w->arena->cursors[i], sizeof(cut.cursors[i]));
        cut.extents[1 + i] = w->arena->extents[1 + i];
        CHECK(epoch_turn(&w->ctx[i]) && epoch_same(&w->ctx[i]));
        CHECK(w->ctx[i].tag == MARK_ODD && w->ctx[i].gate);
        packet(w, i); /* and goes on: no part of the cut */
        packet(w, i);
        epoch_leave(&w->ctx[i]);
    }
    CHECK(complete(w));
    struct arena expected;
    memcpy(&expected, w->arena, sizeof(expected));
    memcpy(expected.cursors, cut.cursors, WORKERS * sizeof(cut.cursors[0]));
    memcpy(&expected.extents[1], &cut.extents[1], WORKERS * sizeof(cut.extents[0]));
    check_header(w, &expected);
    for (uint32_t i = 0; i < WORKERS; i++) { /* bursts later it is still the same cut */
        CHECK(!begin(w, i));
        packet(w, i);
        epoch_leave(&w->ctx[i]);
    }
    check_header(w, &expected);
    marks_world_close(w);
}

/* Idle workers count as joined, where they stand; and later they are found there. */
static void test_idle(void)
{
    struct marks_world *w = open_world();
    struct arena expected;
    for (unsigned flips = 1; flips < 8; flips++) {
        for (uint32_t i = 0; i < WORKERS && flips % 3; i++) {
            begin(w, i);
            packet(w, i);
            epoch_leave(&w->ctx[i]);
        }
        memcpy(&expected, w->arena, sizeof(expected));
        flip(w, false);
        check_header(w, &expected);
        if (flips == 4) { /* one wakes up, joins, goes on: the cut stays where it was */
            CHECK(begin(w, 1) && w->ctx[1].tag == mark_tag(flips));
            packet(w, 1);
            check_header(w, &expected);
            packet(w, 1);
            epoch_leave(&w->ctx[1]);
            check_header(w, &expected);
        }
    }
    /* Asleep for an odd and for an even number of epochs: always the tag of the open one. */
    begin(w, 0);
    epoch_leave(&w->ctx[0]);
    for (unsigned flips = 0; flips < 3; flips++)
        flip(w, false);
    CHECK(begin(w, 0) && w->ctx[0].tag == mark_tag(epoch_open(&w->group)));
    CHECK(begin(w, 1) && w->ctx[1].tag == mark_tag(epoch_open(&w->group)));
    marks_world_close(w);
}

/* One that has stored BUSY, but not yet joined, is in the way. */
static void test_waking(void)
{
    struct marks_world *w = open_world();
    flip(w, false);
    CHECK(complete(w));
    CHECK(!epoch_enter(&w->ctx[2]));
    CHECK(!complete(w));
    CHECK(epoch_turn(&w->ctx[2]));
    CHECK(complete(w));
    marks_world_close(w);
}

/* A seat that is taken later is in the open epoch from the beginning. */
static void test_sit(void)
{
    struct marks_world *w = open_world();
    struct arena expected;
    flip(w, false);
    packet(w, 1);
    w->ctx[1].gate = true;
    epoch_sit(&w->ctx[1]);
    CHECK(w->ctx[1].tag == MARK_ODD && !w->ctx[1].gate);
    memcpy(&expected, w->arena, sizeof(expected));
    check_header(w, &expected);
    CHECK(!begin(w, 1));
    marks_world_close(w);
}

/* ---- wanted -------------------------------------------------------------------------------- */

/* It begins when the last worker has come to a boundary, and not before; the others have gone on in
 * the old epoch meanwhile. */
static void test_wanted(void)
{
    struct marks_world *w = open_world();
    begin(w, 0);
    begin(w, 1);
    want(w, false); /* worker 2 is idle */
    CHECK(epoch_open(&w->group) == 0 && !complete(w));
    CHECK(!epoch_same(&w->ctx[0]) && epoch_turn(&w->ctx[0]));
    CHECK(epoch_same(&w->ctx[0]) && w->ctx[0].tag == MARK_EVEN && !w->ctx[0].gate);
    CHECK(epoch_open(&w->group) == 0 && !complete(w));
    packet(w, 0);
    epoch_leave(&w->ctx[0]);
    CHECK(!begin(w, 0)); /* a burst later: it has said so already */
    CHECK(epoch_turn(&w->ctx[1]));
    CHECK(epoch_open(&w->group) == 1 && w->ctx[1].tag == MARK_ODD && w->ctx[1].gate);
    CHECK(!complete(w) && !epoch_same(&w->ctx[0]));
    CHECK(epoch_turn(&w->ctx[0]) && complete(w));
    want(w, false); /* what they said then does not count for the next one */
    CHECK(epoch_turn(&w->ctx[0]) && epoch_open(&w->group) == 1);
    epoch_leave(&w->ctx[1]);
    CHECK(complete(w) == false && epoch_open(&w->group) == 2); /* idle: whoever looks begins it */
    CHECK(epoch_turn(&w->ctx[0]) && complete(w));
    marks_world_close(w);
}

/* All idle: at once. One that wakes up while it is wanted and others are busy says so like them. */
static void test_wanted_and_idle(void)
{
    struct marks_world *w = open_world();
    want(w, false);
    CHECK(epoch_open(&w->group) == 1 && complete(w));
    begin(w, 0);
    want(w, false);
    CHECK(epoch_open(&w->group) == 1);
    CHECK(begin(w, 1) && w->ctx[1].tag == mark_tag(1) && !epoch_enter(&w->ctx[2]));
    CHECK(epoch_turn(&w->ctx[2]) && epoch_open(&w->group) == 1);
    CHECK(epoch_turn(&w->ctx[0]) && epoch_open(&w->group) == 2 && w->ctx[0].tag == mark_tag(2));
    marks_world_close(w);
}

/* A stop does not wait for that, also if it comes in between. */
static void test_wanted_and_stop(void)
{
    struct marks_world *w = open_world();
    begin(w, 0);
    begin(w, 1);
    want(w, false);
    CHECK(epoch_turn(&w->ctx[0]));
    epoch_flip(&w->group, true);
    CHECK(epoch_open(&w->group) == 1 && !complete(w));
    CHECK(!epoch_turn(&w->ctx[0]) && !epoch_turn(&w->ctx[1]) && complete(w));
    marks_world_close(w);
}

/* ---- the gate ------------------------------------------------------------------------------ */

static void others_join(struct marks_world *w)
{
    for (uint32_t i = 1; i < WORKERS; i++) {
        if (!epoch_same(&w->ctx[i]))
            CHECK(epoch_turn(&w->ctx[i]));
    }
}

static void access_variable(struct ftmb_ctx *ctx, bool read)
{
    if (read) {
        CHECK(ftmb_read_end(ctx, 3, ftmb_read_begin(ctx, 3)));
    } else {
        ftmb_write(ctx, 3);
        ftmb_section_end(ctx);
    }
}

/* The first access of a joined worker, read or write, waits until all have joined; that wait is
 * timed, and the next access is free. */
static void test_gate(bool read, bool reads_locked)
{
    struct marks_world *w = open_world();
    w->ctx[0].reads_locked = reads_locked;
    for (uint32_t i = 0; i < WORKERS; i++)
        begin(w, i);
    access_variable(&w->ctx[0], read); /* no flip, no gate */
    flip(w, false);
    access_variable(&w->ctx[1], read); /* not joined: goes on in the old epoch */
    CHECK(epoch_turn(&w->ctx[0]));
    expect_waits(4, others_join);
    access_variable(&w->ctx[0], read);
    CHECK(gate.rounds == 4 && !w->ctx[0].gate && complete(w));
    CHECK(epoch_waited_ns(&w->group) == 41); /* four rounds and one look at the clock */
    expect_waits(0, NULL);
    access_variable(&w->ctx[0], read);
    access_variable(&w->ctx[1], read); /* all have joined */
    CHECK(epoch_waited_ns(&w->group) == 41 && !w->ctx[1].gate && w->ctx[2].gate);

    flip(w, false);
    CHECK(epoch_waited_ns(&w->group) == 0); /* of this epoch */
    others_join(w);
    CHECK(epoch_turn(&w->ctx[0]));
    uint64_t now = gate.now;
    access_variable(&w->ctx[0], read);
    CHECK(epoch_waited_ns(&w->group) == 0 && gate.now == now); /* no wait: no look at the clock */
    marks_world_close(w);
}

static void others_idle(struct marks_world *w)
{
    epoch_leave(&w->ctx[1]);
    epoch_leave(&w->ctx[2]);
}

/* Those that end their burst in the old epoch are no reason to wait; nor need there be a clock. */
static void test_gate_and_idle(void)
{
    struct marks_world *w = open_world();
    w->env.clock = NULL;
    for (uint32_t i = 0; i < WORKERS; i++)
        begin(w, i);
    flip(w, false);
    CHECK(epoch_turn(&w->ctx[0]));
    expect_waits(2, others_idle);
    access_variable(&w->ctx[0], false);
    CHECK(gate.rounds == 2 && epoch_waited_ns(&w->group) == 0);
    marks_world_close(w);
}

static void first_joins(struct marks_world *w)
{
    CHECK(epoch_turn(&w->ctx[0]));
}

/* Worker 0 is still on its way to the gate of one epoch when all have joined that, the next one
 * begins, and worker 1 joins it: worker 0 may pass. (Else it waits for 1, and 1 for it.) */
static void test_gate_of_the_epoch_before(void)
{
    struct marks_world *w = open_world();
    begin(w, 0);
    begin(w, 1);
    flip(w, false);
    CHECK(epoch_turn(&w->ctx[0]) && epoch_turn(&w->ctx[1]) && complete(w));
    flip(w, false);
    CHECK(epoch_turn(&w->ctx[1]));
    access_variable(&w->ctx[0], false);
    CHECK(!complete(w));
    expect_waits(3, first_joins);
    access_variable(&w->ctx[1], false);
    CHECK(gate.rounds == 3 && complete(w));
    marks_world_close(w);
}

/* ---- parking ------------------------------------------------------------------------------- */

static void test_park(void)
{
    struct marks_world *w = open_world();
    begin(w, 0);
    begin(w, 1);
    packet(w, 0);
    flip(w, true);
    CHECK(!complete(w));
    CHECK(!epoch_turn(&w->ctx[0]));
    CHECK(!complete(w));
    packet(w, 1);
    epoch_leave(&w->ctx[1]); /* idle is as good as parked */
    CHECK(complete(w));
    CHECK(!epoch_enter(&w->ctx[1]) && !complete(w)); /* about to look */
    CHECK(!epoch_turn(&w->ctx[1]) && complete(w));
    CHECK(!epoch_turn(&w->ctx[1]) && !epoch_turn(&w->ctx[0]));  /* as often as it likes */
    CHECK(!epoch_enter(&w->ctx[0]) && !epoch_same(&w->ctx[0])); /* and no other way in */
    CHECK(!epoch_turn(&w->ctx[0]) && complete(w));
    check_header(w, w->arena);
    epoch_release(&w->group);
    CHECK(epoch_open(&w->group) == 1);
    CHECK(epoch_turn(&w->ctx[0]) && w->ctx[0].gate && w->ctx[0].tag == MARK_ODD);
    begin(w, 1);
    CHECK(begin(w, 2));
    struct arena expected;
    memcpy(&expected, w->arena, sizeof(expected));
    packet(w, 0);
    check_header(w, &expected);
    marks_world_close(w);
}

/* A cut without a stop is not enough where a stop was asked for. */
static void test_joined_is_not_parked(void)
{
    struct marks_world *w = open_world();
    begin(w, 0);
    flip(w, false);
    CHECK(epoch_turn(&w->ctx[0]) && complete(w));
    flip(w, true);
    CHECK(!complete(w) && !epoch_same(&w->ctx[0]));
    CHECK(!epoch_turn(&w->ctx[0]) && complete(w));
    /* Released and flipped at once: one turn takes both. */
    epoch_release(&w->group);
    flip(w, false);
    CHECK(!complete(w) || w->ctx[0].epoch_seen >> 1 != 3);
    CHECK(epoch_turn(&w->ctx[0]) && w->ctx[0].tag == mark_tag(3) && complete(w));
    marks_world_close(w);
}

/* Released, and the next epoch begins before a worker has woken up: it is still where it parked,
 * not where it was idle before. */
static void test_flip_while_parked(void)
{
    struct marks_world *w = open_world();
    begin(w, 0);
    epoch_leave(&w->ctx[0]);
    begin(w, 0);
    packet(w, 0);
    flip(w, true);
    CHECK(!epoch_turn(&w->ctx[0]) && complete(w));
    epoch_release(&w->group);
    flip(w, false);
    check_header(w, w->arena);
    struct arena expected;
    memcpy(&expected, w->arena, sizeof(expected));
    CHECK(epoch_turn(&w->ctx[0]));
    packet(w, 0);
    check_header(w, &expected);
    marks_world_close(w);
}

int main(void)
{
    alarm(60); /* a deadlock is a failure, not a wait */
    test_join();
    test_idle();
    test_waking();
    test_sit();
    test_wanted();
    test_wanted_and_idle();
    test_wanted_and_stop();
    test_gate(false, false);
    test_gate(true, false);
    test_gate(true, true);
    test_gate_and_idle();
    test_gate_of_the_epoch_before();
    test_park();
    test_joined_is_not_parked();
    test_flip_while_parked();
    return 0;
}

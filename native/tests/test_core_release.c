/* The output logger's store and the parallel-release rule, also against a naive model. */
#include "core/release.h"

#include <string.h>

#include "tests/core_test.h"

#define W 3u
#define PALS 64u
#define OUTPUTS 32u
#define HELD 16u

static struct release *open_release(void)
{
    struct release *release = aligned_alloc(CACHE_LINE, sizeof(*release));
    uint64_t bytes = release_bytes(W, PALS, OUTPUTS, HELD);
    release_init(release, W, calloc(1, bytes), PALS, OUTPUTS, HELD);
    return release;
}

static void close_release(struct release *release)
{
    free(release->worker[0].pals); /* the start of the memory given */
    free(release);
}

static void store(struct release *release, uint32_t w, uint64_t first, uint32_t count)
{
    uint64_t pals[PALS];
    for (uint32_t i = 0; i < count; i++)
        pals[i] = 1000 * w + first + i;
    CHECK(release_pals(release, w, first, pals, count) == RELEASE_OK);
}

static int frames[16]; /* their addresses stand for frames */

static void test_pals_without_gap(void)
{
    struct release *release = open_release();
    uint64_t pals[PALS + 1] = {0};
    struct release_worker *x = &release->worker[1];
    store(release, 1, 1, 5);
    CHECK(release_pals(release, 1, 7, pals, 3) == RELEASE_BAD); /* 6 is missing */
    CHECK(release_pals(release, 1, 5, pals, 3) == RELEASE_DIVERGED && x->stored == 5);
    CHECK(release_pals(release, 1, 0, pals, 1) == RELEASE_BAD && x->stored == 5);
    CHECK(release_pals(release, 1, 6, pals, 0) == RELEASE_OK && x->stored == 5); /* progress */
    CHECK(release_pals(release, 1, 6, pals, PALS - 4) == RELEASE_BAD && x->stored == 5);
    /* A frame that comes again is skipped, one that is known in part adds the rest. */
    uint64_t again[] = {1004, 1005, 1006};
    CHECK(release_pals(release, 1, 4, again, 2) == RELEASE_DUPLICATE && x->stored == 5);
    CHECK(release_pals(release, 1, 4, again, 3) == RELEASE_OK && x->stored == 6);
    CHECK(release->repeated == 4);
    store(release, 1, 7, PALS - 6);
    CHECK(x->stored == PALS && release_pal_room(x) == 0 && x->pal_peak == PALS);
    CHECK(release_pals(release, 1, PALS + 1, pals, 1) == RELEASE_BAD);
    /* What a commit covers makes room, and the ring goes on. */
    uint64_t cut[FTMB_MAX_WORKERS] = {0, 10, 0}, none[FTMB_MAX_WORKERS] = {0};
    release_commit(release, cut, none);
    CHECK(release_pal_room(x) == 10);
    store(release, 1, PALS + 1, 10);
    for (uint64_t n = 11; n <= PALS + 10; n++)
        CHECK(x->pals[n & x->pal_mask] == 1000 + n);
    CHECK(release->worker[0].stored == 0 && release->worker[2].stored == 0);
    close_release(release);
}

/* An output leaves when every PAL that it may depend on is stored, and not before. */
static void test_vectors(void)
{
    struct release *release = open_release();
    uint64_t first[W] = {2, 0, 3}, second[W] = {1, 1, 1}, other[W] = {0, 0, 0};
    CHECK(release_output(release, 0, 1, first, &frames[1], 11, 1) == RELEASE_OK);
    CHECK(release_output(release, 0, 2, second, &frames[2], 12, 2) == RELEASE_OK);
    CHECK(release_output(release, 2, 1, other, &frames[3], 13, 1) == RELEASE_OK);
    CHECK(release_next(release, 2) == &frames[3]); /* workers do not wait for each other */
    store(release, 0, 1, 2);
    CHECK(!release_next(release, 0));
    store(release, 2, 1, 2);
    CHECK(!release_next(release, 0));
    store(release, 2, 3, 1);
    CHECK(release_next(release, 0) == &frames[1]);
    CHECK(!release_next(release, 0)); /* the second waits for worker 1 */
    store(release, 1, 1, 4);
    CHECK(release_next(release, 0) == &frames[2] && !release_next(release, 0));
    CHECK(release->worker[0].released == 2 && release->worker[2].released == 1);
    /* Counts that were read one after the other say for sure only what the worker itself did. */
    CHECK(release->joined[0] == 2 && release->joined[1] == 0 && release->joined[2] == 0);
    close_release(release);
}

/* Worker 0's output read worker 1's count, and then, later, worker 2's, whose PALs from the third
 * on depend on PALs of worker 1 beyond that. Those are lost: the cut drops both, and hurts nobody.
 */
static void test_counts_read_apart(void)
{
    uint64_t vector[W] = {1, 1, 4}, cut[FTMB_MAX_WORKERS] = {1, 1, 2};
    for (int exact = 0; exact <= 1; exact++) {
        struct release *release = open_release();
        release->exact = exact;
        store(release, 0, 1, 1);
        store(release, 1, 1, 1);
        store(release, 2, 1, 4);
        CHECK(release_output(release, 0, 1, vector, &frames[0], 7, 1) == RELEASE_OK);
        CHECK(release_next(release, 0) == &frames[0]);
        CHECK(release_truncate(release, cut) == !exact);
        close_release(release);
    }
}

/* A later output never overtakes one that waits. */
static void test_order(void)
{
    struct release *release = open_release();
    uint64_t blocked[W] = {0, 1, 0}, free_now[W] = {0};
    CHECK(release_output(release, 0, 1, blocked, &frames[0], 0, 1) == RELEASE_OK);
    CHECK(release_output(release, 0, 2, free_now, &frames[1], 0, 2) == RELEASE_OK);
    CHECK(!release_next(release, 0));
    store(release, 1, 1, 1);
    CHECK(release_next(release, 0) == &frames[0] && release_next(release, 0) == &frames[1]);
    CHECK(release_output(release, 0, 4, free_now, &frames[2], 0, 4) == RELEASE_BAD);
    CHECK(release_output(release, 0, 2, free_now, &frames[2], 0, 2) == RELEASE_DUPLICATE);
    for (uint64_t n = 3; n < 3 + HELD; n++)
        CHECK(release_output(release, 0, n, blocked, &frames[2], 0, n) == RELEASE_OK);
    CHECK(!release_has_room(&release->worker[0]) && release->worker[0].held_peak == HELD);
    CHECK(release_output(release, 0, 3 + HELD, blocked, &frames[2], 0, 3 + HELD) == RELEASE_BAD);
    close_release(release);
}

/* Hashes since the base have a bound of their own. */
static void test_output_room(void)
{
    struct release *release = open_release();
    uint64_t vector[W] = {0}, pals[W] = {0}, outputs[W] = {1, 0, 0};
    for (uint64_t n = 1; n <= OUTPUTS; n++) {
        CHECK(release_output(release, 0, n, vector, &frames[0], n, n) == RELEASE_OK);
        CHECK(release_next(release, 0) == &frames[0]);
    }
    CHECK(release_output_room(&release->worker[0]) == 0);
    CHECK(release_output(release, 0, OUTPUTS + 1, vector, &frames[0], 1, OUTPUTS + 1) ==
          RELEASE_BAD);
    release_commit(release, pals, outputs);
    CHECK(release_output(release, 0, OUTPUTS + 1, vector, &frames[0], 1, OUTPUTS + 1) ==
          RELEASE_OK);
    close_release(release);
}

/* What comes again after a restart finds its place in logs that are full. */
static void test_full_logs_and_repeats(void)
{
    struct release *release = open_release();
    struct release_worker *x = &release->worker[0];
    uint64_t vector[W] = {0};
    store(release, 0, 1, PALS);
    for (uint64_t n = 1; n <= OUTPUTS; n++) {
        CHECK(release_output_fits(x, n));
        CHECK(release_output(release, 0, n, vector, &frames[0], n, n) == RELEASE_OK);
        CHECK(release_next(release, 0) == &frames[0]);
    }
    release_handed(release, OUTPUTS);
    CHECK(release_attach(release, W, x->pals, PALS, OUTPUTS, HELD));
    CHECK(release_pal_room(x) == 0 && release_output_room(x) == 0);
    CHECK(release_pals_fit(x, PALS - 3, 4) && release_pals_fit(x, 1, PALS));
    CHECK(!release_pals_fit(x, PALS - 3, 5) && !release_pals_fit(x, PALS + 1, 1));
    CHECK(release_pals_fit(x, PALS + 1, 0)); /* a report of progress */
    CHECK(release_output_fits(x, OUTPUTS) && !release_output_fits(x, OUTPUTS + 1));
    CHECK(release_output(release, 0, OUTPUTS, vector, &frames[0], OUTPUTS, 1) == RELEASE_DUPLICATE);
    close_release(release);
}

static unsigned discarded;

static void discard(void *self, void *frame)
{
    CHECK(self == &frames[15] && frame == &frames[8 + discarded]);
    discarded++;
}

/* A failover: held outputs go, released ones are recognised by number and compared by hash. */
static void test_fence_and_duplicates(void)
{
    struct release *release = open_release();
    uint64_t now[W] = {1, 0, 0}, later[W] = {1, 9, 0};
    store(release, 0, 1, 8);
    store(release, 1, 1, 3);
    CHECK(release_output(release, 0, 1, now, &frames[0], 101, 1) == RELEASE_OK);
    CHECK(release_output(release, 0, 2, now, &frames[1], 102, 2) == RELEASE_OK);
    CHECK(release_output(release, 0, 3, later, &frames[8], 103, 3) == RELEASE_OK);
    CHECK(release_output(release, 1, 1, later, &frames[9], 201, 1) == RELEASE_OK);
    CHECK(release_next(release, 0) && release_next(release, 0) && !release_next(release, 0));
    uint64_t cut[FTMB_MAX_WORKERS] = {7, 2, 0};
    CHECK_PANICS(release_truncate(release, cut)); /* held outputs would come out twice */
    release_fence(release, discard, &frames[15]);
    CHECK(discarded == 2 && !release_next(release, 0) && !release_next(release, 1));
    CHECK(release_truncate(release, cut));
    CHECK(release->worker[0].stored == 7 && release->worker[1].stored == 2);
    CHECK(release->worker[0].released == 2 && release->worker[0].arrived == 0);
    uint64_t pal = 5;
    CHECK(release_pals(release, 1, 4, &pal, 1) == RELEASE_BAD); /* 3 is of the ended view */
    CHECK(release_pals(release, 1, 3, &pal, 1) == RELEASE_OK);
    CHECK(release_output(release, 0, 2, now, &frames[1], 102, 2) == RELEASE_BAD);
    CHECK(release_output(release, 0, 1, now, &frames[0], 101, 1) == RELEASE_DUPLICATE);
    CHECK(release_output(release, 0, 1, now, &frames[0], 101, 1) == RELEASE_DUPLICATE);
    CHECK(release_output(release, 0, 2, now, &frames[1], 999, 2) == RELEASE_DIVERGED);
    CHECK(release_output(release, 0, 3, now, &frames[2], 555, 3) ==
          RELEASE_OK); /* never released */
    CHECK(release_next(release, 0) == &frames[2] && release->worker[0].released == 3);
    CHECK(release->duplicates == 2 && release->repeated == 1 && release->hash_mismatches == 1);
    close_release(release);
}

/* A cut that lacks the past of a released output, or was never stored, is refused whole. */
static void test_truncate_refuses(void)
{
    struct release *release = open_release();
    release->exact = true;
    uint64_t vector[W] = {4, 2, 0}, none[FTMB_MAX_WORKERS] = {0};
    uint64_t base[FTMB_MAX_WORKERS] = {1, 1, 1};
    for (uint32_t w = 0; w < W; w++)
        store(release, w, 1, 6);
    release_commit(release, base, none);
    CHECK(release_output(release, 2, 1, vector, &frames[0], 0, 1) == RELEASE_OK);
    CHECK(release_next(release, 2));
    static const uint64_t bad[][FTMB_MAX_WORKERS] = {
        {3, 6, 6}, {6, 1, 6}, {6, 6, 0}, {7, 6, 6}, {6, 6, 7}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK(!release_truncate(release, bad[i]));
        for (uint32_t w = 0; w < W; w++)
            CHECK(release->worker[w].stored == 6);
        CHECK(release->worker[2].arrived == 1);
    }
    static const uint64_t least[FTMB_MAX_WORKERS] = {4, 2, 1};
    CHECK(release_truncate(release, least));
    close_release(release);
}

/* A snapshot is committed only when each PAL and output before its cut is here and gone. */
static void test_commit(void)
{
    struct release *release = open_release();
    uint64_t pals[FTMB_MAX_WORKERS] = {3, 0, 0}, outputs[FTMB_MAX_WORKERS] = {1, 0, 0};
    uint64_t vector[W] = {2, 0, 0}, one_less[FTMB_MAX_WORKERS] = {2, 0, 0};
    CHECK(!release_covers(release, pals, outputs));
    CHECK_PANICS(release_commit(release, pals, outputs));
    CHECK(release_output(release, 0, 1, vector, &frames[0], 7, 1) == RELEASE_OK);
    store(release, 0, 1, 2);
    CHECK(!release_covers(release, one_less, outputs)); /* arrived, but has not left */
    CHECK(release_next(release, 0) == &frames[0]);
    CHECK(!release_covers(release, pals, outputs) && release_covers(release, one_less, outputs));
    store(release, 0, 3, 1);
    CHECK(release_covers(release, pals, outputs));
    release_commit(release, pals, outputs);
    CHECK(release->worker[0].pal_base == 3 && release->worker[0].out_base == 1);
    CHECK_PANICS(release_commit(release, one_less, outputs)); /* bases never go back */
    /* The next view's outputs are numbered from the base on. */
    release_fence(release, discard, NULL);
    CHECK(release_truncate(release, pals));
    CHECK(release_output(release, 0, 3, vector, &frames[0], 7, 3) == RELEASE_BAD);
    CHECK(release_output(release, 0, 1, vector, &frames[0], 8, 1) ==
          RELEASE_DUPLICATE); /* covered */
    CHECK(release_output(release, 0, 2, vector, &frames[0], 7, 2) == RELEASE_OK);
    close_release(release);
}

/* A snapshot from before the logs were forgotten can no longer be the base: without a base nothing
 * had to be kept. (It may still be prepared, by a backup that was away meanwhile.) */
static void test_commit_of_forgotten(void)
{
    struct release *release = open_release();
    uint64_t pals[FTMB_MAX_WORKERS] = {2}, outputs[FTMB_MAX_WORKERS] = {0};
    uint64_t upto[FTMB_MAX_WORKERS], gone[FTMB_MAX_WORKERS];
    store(release, 0, 1, 3);
    CHECK(release_covers(release, pals, outputs));
    release_forget(release, upto, gone);
    CHECK(upto[0] == 3 && !release_covers(release, pals, outputs));
    CHECK(release_covers(release, upto, gone));
    close_release(release);
}

/* In a replay what was released before has not arrived again yet: nothing may be committed that
 * relies on it. */
static void test_commit_during_replay(void)
{
    struct release *release = open_release();
    uint64_t pals[FTMB_MAX_WORKERS] = {0}, outputs[FTMB_MAX_WORKERS] = {1};
    uint64_t vector[W] = {0};
    CHECK(release_output(release, 0, 1, vector, &frames[0], 7, 1) == RELEASE_OK);
    CHECK(release_next(release, 0));
    CHECK(release_truncate(release, pals));
    CHECK(!release_covers(release, pals, outputs));
    CHECK(release_output(release, 0, 1, vector, &frames[0], 7, 1) == RELEASE_DUPLICATE);
    CHECK(release_covers(release, pals, outputs));
    close_release(release);
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    test_pals_without_gap();
    test_vectors();
    test_counts_read_apart();
    test_order();
    test_output_room();
    test_full_logs_and_repeats();
    test_fence_and_duplicates();
    test_truncate_refuses();
    test_commit();
    test_commit_of_forgotten();
    test_commit_during_replay();
    return 0;
}

/* The largest consistent cut: known traps, and random logs against brute force. */
#include <string.h>

#include "core/replay.h"
#include "tests/core_test.h"

#define VARIABLES 8u
#define MAX_LOG 64u

/* Logs are written as PALs of workers A, B, C; `I` marks one inside a section. */
#define R(x, v) pal_make(false, false, x, v)
#define WR(x, v) pal_make(true, false, x, v)
#define RI(x, v) pal_make(false, true, x, v)
#define WI(x, v) pal_make(true, true, x, v)

enum { X, Y, Z };

struct logs {
    uint64_t pal[FTMB_MAX_WORKERS][MAX_LOG];
    uint64_t count[FTMB_MAX_WORKERS];
    uint64_t base[VARIABLES];
    uint32_t workers;
};

static void add(struct logs *logs, uint32_t w, uint64_t pal)
{
    CHECK(logs->count[w] < MAX_LOG);
    logs->pal[w][logs->count[w]++] = pal;
}

/* replay_cut() on these logs; the cut is in `count`. */
static int cut_of(const struct logs *logs, uint64_t *count)
{
    struct replay replay;
    _Atomic uint64_t seq[VARIABLES];
    for (uint32_t x = 0; x < VARIABLES; x++)
        seq[x] = 2 * logs->base[x];
    CHECK(replay_init(&replay, logs->workers, VARIABLES, 4) == REPLAY_OK);
    for (uint32_t w = 0; w < logs->workers; w++) {
        replay.log[w] = logs->pal[w];
        replay.count[w] = logs->count[w];
    }
    int error = replay_cut(&replay, seq);
    memcpy(count, replay.count, logs->workers * sizeof(*count));
    if (!error) { /* pure: again, on what is left of it, changes nothing; and it can be prepared */
        CHECK(replay_cut(&replay, seq) == REPLAY_OK);
        CHECK(memcmp(count, replay.count, logs->workers * sizeof(*count)) == 0);
        CHECK(replay_prepare(&replay, seq) == REPLAY_OK);
    }
    replay_free(&replay);
    return error;
}

static void expect(const struct logs *logs, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t count[FTMB_MAX_WORKERS];
    CHECK(cut_of(logs, count) == REPLAY_OK);
    CHECK(count[0] == a && count[1] == b && count[2] == c);
}

/* A read presupposes the writes before its version, not the write that ends it. */
static void test_reads(void)
{
    struct logs logs = {.workers = 3};
    add(&logs, 0, R(X, 1)); /* W(X,1) is lost: that does not matter */
    add(&logs, 1, WR(X, 0));
    expect(&logs, 1, 1, 0);
    logs.count[1] = 0;
    expect(&logs, 0, 0, 0);
    add(&logs, 2, R(X, 0)); /* needs nothing */
    expect(&logs, 0, 0, 1);
}

/* One lost write takes along, step by step, all that was built on it. */
static void test_chain(void)
{
    struct logs logs = {.workers = 3};
    add(&logs, 0, WR(Y, 0));
    add(&logs, 0, WR(X, 1)); /* W(X,0) is lost */
    add(&logs, 0, WR(Z, 0));
    add(&logs, 1, R(X, 0));
    add(&logs, 1, WR(Z, 1));
    add(&logs, 1, WR(Y, 1));
    add(&logs, 2, R(Y, 1));
    add(&logs, 2, R(Y, 2));
    expect(&logs, 1, 1, 1);
}

/* Review C2, first counter-example: a frame that ended inside a section. What is stored of the
 * section of A is W(X,0) only; that is a section by itself, and all of it stays. With the whole
 * section stored, all stays too. */
static void test_section_stored_whole(void)
{
    struct logs logs = {.workers = 3};
    add(&logs, 0, WR(X, 0));
    add(&logs, 0, RI(Y, 0));
    add(&logs, 1, R(X, 1));
    add(&logs, 1, WR(Y, 0));
    expect(&logs, 2, 2, 0);
}

/* Review C2, second counter-example: A's nested read lacks its writer, so A's section goes whole,
 * and with it what others saw of it. */
static void test_section_cut_whole(void)
{
    struct logs logs = {.workers = 3};
    add(&logs, 0, WR(X, 0));
    add(&logs, 0, RI(Y, 1)); /* W(Y,0), of C, is lost */
    add(&logs, 1, R(X, 1));
    add(&logs, 1, WR(Z, 0));
    expect(&logs, 0, 0, 0);
    logs.count[0] = logs.count[1] = 0;
    add(&logs, 0, WR(Z, 0)); /* an earlier section stays, and only it */
    add(&logs, 0, WR(X, 0));
    add(&logs, 0, WI(X + 3, 0));
    add(&logs, 0, RI(Y, 1));
    add(&logs, 1, R(X, 0));
    add(&logs, 1, R(X, 1));
    expect(&logs, 1, 1, 0);
}

/* Review H1: after a trim only the base's versions tell what was covered from what was lost. */
static void test_base_versions(void)
{
    struct logs logs = {.workers = 3, .base = {7, 0, 3}};
    add(&logs, 0, WR(X, 7));
    add(&logs, 1, R(X, 8));
    expect(&logs, 1, 1, 0);
    logs.base[X] = 6; /* now W(X,6) is lost, not covered */
    expect(&logs, 0, 0, 0);
    logs.base[X] = 8; /* a write that the base has already: no log of this base */
    logs.count[1] = 0;
    add(&logs, 2, R(Z, 3));
    expect(&logs, 0, 0, 1);
}

/* Versions are 38 bits and wrap; they are compared as a distance from the base. */
static void test_wrap(void)
{
    const uint64_t wrap = 1ull << PAL_VERSION_BITS;
    struct logs logs = {.workers = 3, .base = {wrap - 2, 5 * wrap - 1, 0}};
    for (uint64_t v = wrap - 2; v < wrap + 2; v++)
        add(&logs, 0, WR(X, v));
    add(&logs, 1, R(X, wrap + 2));
    add(&logs, 1, WR(Y, 5 * wrap - 1));
    add(&logs, 1, WR(Y, 5 * wrap));
    add(&logs, 2, R(Y, 5 * wrap + 1));
    add(&logs, 2, R(X, wrap + 3)); /* never written */
    expect(&logs, 4, 3, 1);
    logs.count[0] = 2; /* W(X,wrap) is lost */
    expect(&logs, 2, 0, 0);
}

static void test_bad_logs(void)
{
    uint64_t count[FTMB_MAX_WORKERS];
    struct logs logs = {.workers = 3};
    add(&logs, 0, WR(X, 0));
    add(&logs, 1, R(X, 1));
    add(&logs, 1, WR(X, 0)); /* one version written twice */
    CHECK(cut_of(&logs, count) == REPLAY_BAD_LOG);
    logs.count[1] = 1;
    expect(&logs, 1, 1, 0);
    add(&logs, 2, R(VARIABLES, 0)); /* no such variable */
    CHECK(cut_of(&logs, count) == REPLAY_BAD_LOG);
    logs.count[2] = 0;
    add(&logs, 2, WR(PAL_ID_DETERMINANT - 1, 0));
    CHECK(cut_of(&logs, count) == REPLAY_BAD_LOG);
    logs.pal[2][0] = WR(PAL_ID_DETERMINANT, 0); /* nobody writes a determinant */
    CHECK(cut_of(&logs, count) == REPLAY_BAD_LOG);
}

/* Both halves of a determinant stay or go together; they presuppose nothing by themselves. */
static void test_determinants(void)
{
    struct logs logs = {.workers = 3};
    add(&logs, 0, R(PAL_ID_DETERMINANT, 0xffffffff));
    add(&logs, 0, RI(PAL_ID_DETERMINANT, 0x12345678));
    expect(&logs, 2, 0, 0);
    add(&logs, 0, WR(X, 0));
    add(&logs, 0, RI(PAL_ID_DETERMINANT, 1));
    add(&logs, 0, RI(PAL_ID_DETERMINANT, 2));
    add(&logs, 0, RI(Y, 1));
    expect(&logs, 2, 0, 0);
    add(&logs, 1, WR(Y, 0));
    expect(&logs, 6, 1, 0);
}

/* One object serves several cuts: nothing of the last one stays. */
static void test_reuse(void)
{
    struct replay replay;
    _Atomic uint64_t seq[VARIABLES] = {0};
    uint64_t first[3] = {WR(X, 0), WR(X, 1), WR(Y, 1)}, second[2] = {WR(X, 0), R(Y, 0)};
    CHECK(replay_init(&replay, 1, VARIABLES, 0) == REPLAY_OK);
    replay.log[0] = first;
    replay.count[0] = 3;
    CHECK(replay_cut(&replay, seq) == REPLAY_OK && replay.count[0] == 2);
    CHECK(replay_prepare(&replay, seq) == REPLAY_OK && !replay_done(&replay));
    replay.log[0] = second;
    replay.count[0] = 2;
    CHECK(replay_cut(&replay, seq) == REPLAY_OK && replay.count[0] == 2);
    replay.count[0] = 0;
    CHECK(replay_prepare(&replay, seq) == REPLAY_OK && replay_done(&replay));
    replay_free(&replay);
}

/* ---- random logs against brute force ------------------------------------------------------ */

struct choice {
    uint64_t count[3];
};

static bool written(const struct logs *logs, const struct choice *choice, uint32_t x, uint64_t v)
{
    for (uint32_t w = 0; w < 3; w++) {
        for (uint64_t i = 0; i < choice->count[w]; i++) {
            uint64_t pal = logs->pal[w][i];
            if ((pal & PAL_WRITE) && pal_id(pal) == x && pal_version_since(pal, v) == 0)
                return true;
        }
    }
    return false;
}

/* The rule, word by word. */
static bool consistent(const struct logs *logs, const struct choice *choice)
{
    for (uint32_t w = 0; w < 3; w++) {
        for (uint64_t i = 0; i < choice->count[w]; i++) {
            uint32_t x = pal_id(logs->pal[w][i]);
            if (x == PAL_ID_DETERMINANT)
                continue;
            uint64_t distance = pal_version_since(logs->pal[w][i], logs->base[x]);
            for (uint64_t k = 0; k < distance; k++) {
                if (k > MAX_LOG || !written(logs, choice, x, logs->base[x] + k))
                    return false;
            }
        }
    }
    return true;
}

static bool boundary(const struct logs *logs, uint32_t w, uint64_t at)
{
    return at == logs->count[w] || !(logs->pal[w][at] & PAL_INSIDE);
}

/* Every triple of section-aligned prefixes; the largest consistent one, which is unique. */
static struct choice brute_force(const struct logs *logs)
{
    struct choice best = {{0}}, c;
    for (c.count[0] = 0; c.count[0] <= logs->count[0]; c.count[0]++) {
        for (c.count[1] = 0; c.count[1] <= logs->count[1]; c.count[1]++) {
            for (c.count[2] = 0; c.count[2] <= logs->count[2]; c.count[2]++) {
                bool aligned = true;
                for (uint32_t w = 0; w < 3; w++)
                    aligned &= boundary(logs, w, c.count[w]);
                if (!aligned || !consistent(logs, &c))
                    continue;
                for (uint32_t w = 0; w < 3; w++)
                    best.count[w] = u64_max(best.count[w], c.count[w]);
            }
        }
    }
    CHECK(consistent(logs, &best)); /* the union of consistent prefixes is one */
    return best;
}

/* A section of an execution in some sequential order; what each worker would log. */
static void random_section(struct logs *logs, uint64_t *version, uint64_t *seed)
{
    uint32_t w = (uint32_t)seed_below(seed, 3);
    unsigned length = 1 + (unsigned)seed_below(seed, seed_below(seed, 2) ? 1 : 4);
    uint64_t bumped[4], bumps = 0;
    uint32_t x = (uint32_t)seed_below(seed, 3);
    for (unsigned i = 0; i < length && x < 5 && logs->count[w] < 6; i++) {
        bool write = seed_below(seed, 2);
        if (seed_below(seed, 12) == 0)
            add(logs, w, pal_make(false, bumps > 0, PAL_ID_DETERMINANT, seed_below(seed, 99)));
        else
            add(logs, w, pal_make(write, bumps > 0, x, version[x]));
        if (pal_id(logs->pal[w][logs->count[w] - 1]) == PAL_ID_DETERMINANT)
            write = false;
        if (write)
            bumped[bumps++] = x;
        if (!write && bumps == 0)
            break; /* a lone read is over at once */
        x += 1 + (uint32_t)seed_below(seed, 2);
    }
    while (bumps)
        version[bumped[--bumps]]++;
}

/* Some of an execution, with lost tails; now and then with single PALs changed at random. */
static struct logs random_logs(uint64_t *seed)
{
    struct logs logs = {.workers = 3};
    uint64_t version[VARIABLES];
    for (uint32_t x = 0; x < VARIABLES; x++)
        version[x] = logs.base[x] = seed_below(seed, 3)
                                        ? seed_below(seed, 4)
                                        : (1ull << PAL_VERSION_BITS) - 1 - seed_below(seed, 4);
    unsigned sections = 1 + (unsigned)seed_below(seed, 14);
    for (unsigned i = 0; i < sections; i++)
        random_section(&logs, version, seed);
    for (uint32_t w = 0; w < 3; w++) {
        uint64_t keep = seed_below(seed, 3) ? logs.count[w] : seed_below(seed, logs.count[w] + 1);
        while (!boundary(&logs, w, keep))
            keep++;
        logs.count[w] = keep;
        for (uint64_t i = 0; i < logs.count[w]; i++) {
            if (seed_below(seed, 40) == 0 && pal_id(logs.pal[w][i]) != PAL_ID_DETERMINANT)
                logs.pal[w][i] =
                    R(seed_below(seed, 5), seed_below(seed, 9)) | (logs.pal[w][i] & PAL_INSIDE);
        }
    }
    return logs;
}

static void test_random(uint64_t seed)
{
    uint64_t until = 0, truncated = 0, rounds = 0;
    while (time_left(&until, 1.5)) {
        struct logs logs = random_logs(&seed);
        struct choice best = brute_force(&logs);
        uint64_t count[FTMB_MAX_WORKERS];
        CHECK(cut_of(&logs, count) == REPLAY_OK);
        for (uint32_t w = 0; w < 3; w++) {
            CHECK(count[w] == best.count[w]);
            truncated += count[w] < logs.count[w];
        }
        rounds++;
    }
    CHECK(rounds > 100 && truncated > rounds / 4);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_reads();
    test_chain();
    test_section_stored_whole();
    test_section_cut_whole();
    test_base_versions();
    test_wrap();
    test_bad_logs();
    test_determinants();
    test_reuse();
    test_random(seed);
    return 0;
}

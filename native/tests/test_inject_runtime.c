/* What a plain program may do comes out as without FTMB, and ordered as documented; what it may not
 * do ends the process, by name. */
#include "inject/inject.h"
#include "tests/nf_harness.h"
#include "tests/odd_nf.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The same program, compiled as any other (tests/meson.build). */
int native_open(unsigned long heap);
uint64_t native_do(unsigned thread, unsigned deed, void (*wait)(unsigned thread));
const struct odd_state *native_read(void);
const struct odd_atomics *native_read_atomics(void);
uint64_t native_sum(void);

static void open_odd(struct harness *h)
{
    harness_open_nf(h, &nf_odd, 2, NULL);
}

static void deed(struct harness *h, uint32_t worker, enum deed deed)
{
    uint8_t frame[2] = {ODD_MARK, (uint8_t)deed};
    CHECK(harness_packet(h, worker, NF_INSIDE, frame, 2));
}

/* A deed, and what it came by. */
static uint64_t result_of(struct harness *h, uint32_t worker, enum deed deed)
{
    inject_enter(&h->ctx[worker]);
    h->ctx[worker].pal_count = 0;
    h->ctx[worker].now_ns = h->now;
    uint64_t result = odd_do(worker, deed, NULL);
    inject_leave();
    return result;
}

static void check_same(const struct odd_state *ours, const struct odd_state *native)
{
    CHECK(memcmp(&ours->point, &native->point, sizeof(ours->point)) == 0);
    CHECK(memcmp(ours->copies, native->copies, sizeof(ours->copies)) == 0);
    CHECK(ours->low == native->low && ours->high == native->high);
    CHECK(memcmp(ours->bytes, native->bytes, sizeof(ours->bytes)) == 0);
    CHECK(memcmp(ours->halves, native->halves, sizeof(ours->halves)) == 0);
    CHECK(memcmp(ours->words, native->words, sizeof(ours->words)) == 0);
    CHECK(memcmp(ours->longs, native->longs, sizeof(ours->longs)) == 0);
    CHECK(ours->share == native->share && strcmp(ours->text, native->text) == 0);
    CHECK(ours->statics == native->statics && ours->call(21) == native->call(21));
    if (native->pointer)
        CHECK(ours->pointer - ours->copies == native->pointer - native->copies);
}

/* Every kind of store and every atomic operation, step by step, beside a program without FTMB. */
static void test_as_without(void)
{
    struct harness h;
    open_odd(&h);
    CHECK(native_open(64) == 0);
    check_same(odd_read(), native_read());
    for (unsigned i = 0; i < 2000; i++) {
        deed(&h, i & 1, ODD_STORES);
        CHECK(h.pal_count == 1 && harness_writes(&h) == 1);
        native_do(i & 1, ODD_STORES, NULL);
        check_same(odd_read(), native_read());
        CHECK(result_of(&h, i & 1, ODD_ATOMICS) == native_do(i & 1, ODD_ATOMICS, NULL));
        CHECK(memcmp(odd_read_atomics(), native_read_atomics(), sizeof(struct odd_atomics)) == 0);
        deed(&h, i & 1, ODD_NESTED);
        native_do(i & 1, ODD_NESTED, NULL);
        deed(&h, i & 1, ODD_FALSE_SHARING);
        native_do(i & 1, ODD_FALSE_SHARING, NULL);
        CHECK(odd_sum() == native_sum());
    }
    harness_checks(&h);
    harness_close(&h);
}

/* One section from the first lock to the last unlock; what was let go inside is still held. */
static void test_sections(void)
{
    static const bool writes[] = {true, true, true, true, false, true};
    static const bool inside[] = {false, true, true, true, true, false};
    struct harness h;
    open_odd(&h);
    deed(&h, 1, ODD_NESTED);
    CHECK(h.pal_count == 6);
    for (unsigned i = 0; i < 6; i++) {
        CHECK(!!(h.pals[i] & PAL_WRITE) == writes[i]);
        CHECK(!!(h.pals[i] & PAL_INSIDE) == inside[i]);
        for (unsigned j = 0; j < i && i < 5; j++)
            CHECK(pal_id(h.pals[i]) != pal_id(h.pals[j]));
    }
    CHECK(pal_id(h.pals[5]) == pal_id(h.pals[2])); /* the read-write lock again */
    CHECK(pal_id(h.pals[1]) < pal_id(h.pals[0]));  /* in descending order of ids */
    harness_close(&h);
}

/* Stamps of two workers are not in step; time under a lock never goes back all the same. */
static void test_clock(void)
{
    struct harness h;
    open_odd(&h);
    h.now = 5 * SECOND + 17;
    CHECK(result_of(&h, 0, ODD_CLOCK) == h.now);
    h.now = 4 * SECOND;
    CHECK(result_of(&h, 1, ODD_CLOCK) == 5 * SECOND + 17);
    h.now = 5 * SECOND + 16;
    CHECK(result_of(&h, 1, ODD_CLOCK) == 5 * SECOND + 17);
    h.now = 6 * SECOND;
    CHECK(result_of(&h, 1, ODD_CLOCK) == h.now);
    harness_close(&h);
}

/* Random numbers differ, and are the same again from the same state. */
static void test_random_numbers(void)
{
    struct harness h;
    uint64_t first[2][50];
    for (unsigned run = 0; run < 2; run++) {
        open_odd(&h);
        for (unsigned i = 0; i < 50; i++) {
            first[run][i] = result_of(&h, i & 1, ODD_RANDOM);
            CHECK(i < 2 || first[run][i] != first[run][i - 2]);
            CHECK((first[run][i] >> 32) <= INT32_MAX && (uint32_t)first[run][i] <= INT32_MAX);
        }
        harness_close(&h);
    }
    CHECK(memcmp(first[0], first[1], sizeof(first[0])) == 0);
}

/* ---- what ends the process ------------------------------------------------------------------ */

static int message_to;

static void tell(const char *file, int line, const char *what)
{
    (void)file;
    (void)line;
    if (write(message_to, what, strlen(what)) < 0)
        _exit(1);
    _exit(42);
}

/* What `body` ends the process with; empty: nothing. */
static void last_words(void (*body)(struct harness *h, enum deed deed), enum deed deed, char *words,
                       size_t room)
{
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct harness h;
        open_odd(&h);
        message_to = ends[1];
        ftmb_panic = tell;
        body(&h, deed);
        _exit(0);
    }
    close(ends[1]);
    memset(words, 0, room);
    size_t length = 0;
    ssize_t got;
    while (length < room - 1 && (got = read(ends[0], words + length, room - 1 - length)) > 0)
        length += (size_t)got;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (length ? 42 : 0));
}

static void alone(struct harness *h, enum deed what)
{
    deed(h, 0, what);
}

static void test_refused(void)
{
    static const struct {
        enum deed deed;
        const char *words;
    } cases[] = {
        {ODD_STORES, ""},
        {ODD_TWICE, "takes a lock that it holds"},
        {ODD_NOT_HELD, "lets a lock go that it does not hold"},
        {ODD_KEEPS, "a packet ends while a lock is held"},
        {ODD_ALLOCATES, "malloc() after the first packet"},
        {ODD_FREES, "free() after the first packet"},
        {ODD_LOCK_ON_STACK, "not in the state"},
        {ODD_ABORTS, "abort()"},
        {ODD_ASSERTS, "deed != ODD_ASSERTS"},
    };
    char words[200];
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        last_words(alone, cases[i].deed, words, sizeof(words));
        CHECK(*cases[i].words ? strstr(words, cases[i].words) != NULL : !*words);
    }
}

static pthread_barrier_t both;

static void wait_for_both(unsigned thread)
{
    (void)thread;
    pthread_barrier_wait(&both);
}

static void give_way(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    (void)rounds;
    sched_yield();
}

static const struct ctx_env two_threads = {.relax = give_way};

static void *meet(void *ctx)
{
    inject_enter(ctx);
    odd_do(((struct ftmb_ctx *)ctx)->worker, ODD_MEET, wait_for_both);
    inject_leave();
    return NULL;
}

/* Two threads that each hold what the other one wants. */
static void together(struct harness *h, enum deed deed)
{
    pthread_t thread[2];
    uint64_t pals[2][8];
    (void)deed;
    pthread_barrier_init(&both, NULL, 2);
    for (unsigned w = 0; w < 2; w++) {
        h->ctx[w].env = &two_threads;
        h->ctx[w].pals = pals[w];
        CHECK(!pthread_create(&thread[w], NULL, meet, &h->ctx[w]));
    }
    for (unsigned w = 0; w < 2; w++)
        pthread_join(thread[w], NULL);
}

static void test_cycle(void)
{
    char words[400];
    last_words(together, ODD_MEET, words, sizeof(words));
    CHECK(strstr(words, "has a cycle"));
}

/* More than its heap: the function is told, as by any malloc(), and is not opened. */
static void test_no_room(void)
{
    char words[200];
    struct nf_needs needs;
    const uint64_t heap = 1000;
    CHECK(nf_odd.needs(&heap, 2, &needs, words));
    struct harness h;
    open_odd(&h);
    memset(h.arena, 0, h.arena_size);
    CHECK(arena_create(h.arena, h.arena_size, needs.shared_bytes, needs.worker_bytes, 2,
                       needs.variables, 0));
    CHECK(!nf_odd.init(h.arena, &heap));
    harness_close(&h);
}

int main(void)
{
    test_as_without();
    test_sections();
    test_clock();
    test_random_numbers();
    test_refused();
    test_cycle();
    test_no_room();
    return 0;
}

/* What the tests of core/ share: a seed, random numbers, and a check that an assertion fires.
 *
 * A random test takes its seed from the clock, says which one it is and how to run it again. */
#ifndef FTMB_TESTS_CORE_TEST_H
#define FTMB_TESTS_CORE_TEST_H

#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "tests/check.h"

static inline uint64_t seed_begin(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    printf("seed %llu: replay with %s %llu\n", (unsigned long long)seed, argv[0],
           (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* splitmix64 */
static inline uint64_t seed_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline uint64_t seed_below(uint64_t *state, uint64_t bound)
{
    return seed_next(state) % bound;
}

static inline void seed_fill(uint64_t *state, void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)seed_next(state);
}

/* Random rounds until `seconds` have passed since the first call with *until == 0. */
static inline bool time_left(uint64_t *until, double seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (*until == 0)
        *until = ns + (uint64_t)(seconds * 1e9);
    return ns < *until;
}

#define PANICKED 42

static inline void exit_on_panic(const char *file, int line, const char *what)
{
    (void)file;
    (void)line;
    (void)what;
    _exit(PANICKED);
}

/* The statement must break an invariant (FTMB_ASSERT). It runs in a child, so nothing of it stays.
 */
#define CHECK_PANICS(statement)                                                                    \
    do {                                                                                           \
        fflush(NULL);                                                                              \
        pid_t child_ = fork();                                                                     \
        CHECK(child_ >= 0);                                                                        \
        if (child_ == 0) {                                                                         \
            ftmb_panic = exit_on_panic;                                                            \
            statement;                                                                             \
            _exit(0);                                                                              \
        }                                                                                          \
        int status_;                                                                               \
        CHECK(waitpid(child_, &status_, 0) == child_);                                             \
        CHECK(WIFEXITED(status_) && WEXITSTATUS(status_) == PANICKED);                             \
    } while (0)

#endif

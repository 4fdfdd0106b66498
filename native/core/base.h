/* Limits, assertions and small helpers that every core module uses.
 *
 * The core depends on nothing but the C library's memory and string functions, so that one and
 * the same code runs in the data plane, in a simulator, under a fuzzer and under a sanitizer. */
#ifndef FTMB_CORE_BASE_H
#define FTMB_CORE_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef FTMB_MAX_WORKERS
#define FTMB_MAX_WORKERS 8
#endif

/* Variables are named by 24 bits in a PAL; the last id is taken by determinants. */
#define FTMB_MAX_VARIABLES ((1u << 24) - 1)

/* A section must fit one PAL frame, since a frame never ends inside a section. */
#define FTMB_MAX_SECTION_PALS 64
#define FTMB_MAX_HELD 32

/* Inputs a worker handles between two looks at its links. PALs of one burst share a frame. */
#define FTMB_BURST 32

#define CACHE_LINE 64
#define CACHE_ALIGNED _Alignas(CACHE_LINE)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Called when an invariant is broken; must not return. The process that embeds the core sets it
 * (default: trap). State that broke an invariant can never be trusted again. */
extern void (*ftmb_panic)(const char *file, int line, const char *what);

/* Stays on in release builds: a broken invariant is loud (docs/ARCHITECTURE.md, I6). */
#define FTMB_ASSERT(cond)                                                                          \
    do {                                                                                           \
        if (unlikely(!(cond))) {                                                                   \
            ftmb_panic(__FILE__, __LINE__, #cond);                                                 \
            __builtin_trap();                                                                      \
        }                                                                                          \
    } while (0)

/* Called between pieces of long work off the packet path, every few microseconds; NULL: nobody
 * needs the core meanwhile. Where pollers share the cores it gives way to them. */
extern void (*ftmb_breathe)(void);

static inline void breathe(void)
{
    if (ftmb_breathe)
        ftmb_breathe();
}

static inline uint64_t u64_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t u64_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t align_up(uint64_t value, uint64_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

static inline bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

#endif

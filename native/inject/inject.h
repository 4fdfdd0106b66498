/* Runs a network function that was written as ordinary multi-threaded C (docs/INJECT.md).
 *
 * The function's object file was made by inject.py: its data has addresses in the arena, its stores
 * are announced, and its locks, atomics, clock, random numbers and allocations are calls of ours.
 * What remains to be written by hand is a `struct nf` (monitor_pthread.c) whose methods stand
 * between these calls. One such function runs in a process.
 *
 * State of the function, from INJECT_BASE on: its initialised data, its zeroed data, its heap. The
 * variable of a lock or an atomic object follows from its address, INJECT_GRANULE bytes to a
 * variable, so that master and backup agree on it without a word. */
#ifndef FTMB_INJECT_INJECT_H
#define FTMB_INJECT_INJECT_H

#include "nf/nf.h"

/* No lock is smaller than this; two atomics may be, and may have one variable then. */
#define INJECT_GRANULE 16u

/* What the build left of a function's data. */
struct inject_image {
    const uint8_t *data;
    const uint8_t *data_end;
    const uint8_t *bss; /* never touched: it only tells the size */
    const uint8_t *bss_end;
};

#ifdef INJECT_NOTHING /* the program as it was written (native/check) */
#define INJECT_IMAGE(name) static const struct inject_image image = {NULL, NULL, NULL, NULL}
#else
/* `static const struct inject_image image = ...` of the function that was built as `--name name`.
 */
#define INJECT_IMAGE(name)                                                                         \
    extern const uint8_t __start_inject_data_##name[], __stop_inject_data_##name[];                \
    extern const uint8_t __start_inject_bss_##name[], __stop_inject_bss_##name[];                  \
    static const struct inject_image image = {                                                     \
        __start_inject_data_##name,                                                                \
        __stop_inject_data_##name,                                                                 \
        __start_inject_bss_##name,                                                                 \
        __stop_inject_bss_##name,                                                                  \
    }
#endif

/* What it needs with `heap` bytes to allocate from, and `max_pals` accesses in a packet. */
bool inject_needs(const struct inject_image *image, uint64_t heap, uint32_t max_pals,
                  struct nf_needs *out, char *why);

/* Puts the data in its place; from here to inject_opened() the function may allocate. False: no
 * room. */
bool inject_open(struct arena *arena, const struct inject_image *image, uint64_t heap);
/* The root object; NULL: the function asked for more than its heap. */
void *inject_opened(void);

/* Around each call of the function for a packet or a tick: all that it does is this worker's. */
void inject_enter(struct ftmb_ctx *ctx);
void inject_leave(void);

#endif

/* What test_inject_runtime.c does with a plain program: each deed is one packet. */
#ifndef PLAIN_ODD_H
#define PLAIN_ODD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum deed {
    ODD_STORES,        /* of every kind that C has */
    ODD_ATOMICS,       /* of every size and operation */
    ODD_NESTED,        /* locks let go in another order than they were taken, and taken again */
    ODD_CLOCK,         /* under a lock */
    ODD_RANDOM,        /* two numbers */
    ODD_MEET,          /* takes one lock, waits for `odd_wait`, takes the other */
    ODD_FALSE_SHARING, /* a byte of its own on a line that all have */
    /* From here on what a program may not do. */
    ODD_ASSEMBLY, /* a store that the compiler does not know */
    ODD_TWICE,
    ODD_NOT_HELD,
    ODD_KEEPS,
    ODD_ALLOCATES,
    ODD_FREES,
    ODD_LOCK_ON_STACK,
    ODD_ABORTS,
    ODD_ASSERTS,
};

struct odd_point {
    int x;
    int y;
};

struct odd_state {
    struct odd_point point, copies[9];
    unsigned low : 3, high : 13;
    uint8_t bytes[600];
    uint16_t halves[9];
    uint32_t words[9];
    uint64_t longs[9];
    double share;
    const char *text;
    struct odd_point *pointer;
    int (*call)(int);
    uint64_t statics; /* calls that a static local counted */
};

struct odd_atomics {
    _Atomic uint8_t a8;
    _Atomic uint16_t a16;
    _Atomic uint32_t a32;
    _Atomic uint64_t a64;
    atomic_flag flag;
};

/* -1: out of memory. */
int odd_open(unsigned long heap);
/* The time, the random number, or whatever else the deed came by. */
uint64_t odd_do(unsigned thread, unsigned deed, void (*wait)(unsigned thread));
const struct odd_state *odd_read(void);
const struct odd_atomics *odd_read_atomics(void);
uint64_t odd_sum(void);

#endif

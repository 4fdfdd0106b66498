/* The one clock of the project: CLOCK_MONOTONIC, which every process of a machine shares. */
#ifndef FTMB_IO_CLOCK_H
#define FTMB_IO_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds since an arbitrary fixed point (boot). Comparable between processes of one machine;
 * served by the vDSO, so it costs no system call. */
static inline uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif

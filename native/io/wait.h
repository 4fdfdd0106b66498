/* Waiting for a thread that polls on a core, maybe this one. */
#ifndef FTMB_IO_WAIT_H
#define FTMB_IO_WAIT_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "core/base.h"

/* One look was in vain, the `rounds`-th from 0 on. First stay, then give the core away, and after
 * some milliseconds sleep: on a crowded machine a thread that gives the core away over and over
 * was seen to be chosen again and again for seconds, while the one that it waited for stood ready
 * (Linux 6.18, each session a group of its own). */
static inline void wait_round(uint64_t rounds)
{
    const struct timespec nap = {.tv_nsec = 50000};
    if (rounds < 64)
        cpu_relax();
    else if (rounds < 1024)
        (void)sched_yield();
    else
        (void)nanosleep(&nap, NULL);
}

#endif

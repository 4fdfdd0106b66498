/* Short turns for threads that share a core. */
#ifndef FTMB_IO_SLICES_H
#define FTMB_IO_SLICES_H

#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Threads that share a core take turns, polling ones by sched_yield(). Linux lets a thread finish
 * the slice it was given (EEVDF's protection), milliseconds by default: too long for one that waits
 * behind a thread that tears down a dead peer's memory, say. So all threads of this process, which
 * inherit it, ask for the shortest slice there is. Kernels before 6.12 ignore the wish. It sets the
 * niceness too, to 0: pollers on shared CPUs are not to keep the kernel's own workers from them. */
static inline void ask_for_short_slices(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wish = {.size = sizeof(wish), .policy = SCHED_OTHER, .runtime = 100000};
    (void)syscall(SYS_sched_setattr, 0, &wish, 0);
}

#endif

/* What a process had in hand when it died of its own fault.
 *
 * A thread that works on an input says so in crash_hand. If the process then dies by SIGSEGV,
 * SIGBUS, SIGILL, SIGFPE or SIGABRT, or an invariant breaks, that thread writes it down in the
 * crash record, which lies in a shared file beside the death mutex (io/deathwatch.h) and outlives
 * the process. SIGKILL leaves none: what came from outside is nobody's input's fault. */
#ifndef FTMB_IO_CRASH_H
#define FTMB_IO_CRASH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct crash_hand {
    uint64_t input;
    uint32_t worker;
    uint32_t view;
};

struct crash_record {
    _Atomic uint32_t state; /* CRASH_* */
    int32_t signal;         /* 0: a broken invariant */
    struct crash_hand hand;
};

enum { CRASH_NONE, CRASH_WRITING, CRASH_WRITTEN };

/* Of this thread: the input that it works on; NULL: none. */
extern _Thread_local const struct crash_hand *crash_hand;

/* From now on crashes of this process are written to `record`. Then the process dies as it would
 * have, but leaves no core file: writing one would keep its death from being seen. */
void crash_arm(struct crash_record *record);

/* Let a crash of this thread be written down even if its stack is what ran out: the handler gets
 * one of its own, for the life of the process. */
void crash_own_stack(void);

/* This thread is about to end the process because of `signal` (0: a broken invariant). */
void crash_note(int signal);

#endif

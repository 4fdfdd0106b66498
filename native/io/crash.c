/* Crash records and the signal handler that writes them (see crash.h). */
#include "io/crash.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

_Thread_local const struct crash_hand *crash_hand;

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
#define FATAL_SIGNALS (sizeof(fatal_signals) / sizeof(fatal_signals[0]))
/* Several times what the largest register file takes. */
#define STACK_BYTES 65536u

static struct crash_record *_Atomic armed;
static struct sigaction before[FATAL_SIGNALS];

/* The first thread to come here is the one at fault; nobody waits for it. */
void crash_note(int signal)
{
    struct crash_record *record = atomic_load(&armed);
    const struct crash_hand *hand = crash_hand;
    uint32_t none = CRASH_NONE;
    if (!record || !hand || !atomic_compare_exchange_strong(&record->state, &none, CRASH_WRITING))
        return;
    record->signal = signal;
    record->hand = *hand;
    atomic_store_explicit(&record->state, CRASH_WRITTEN, memory_order_release);
}

/* Whoever handled the signal before (nobody, or a sanitizer) gets it again. */
static void on_fatal(int signal)
{
    crash_note(signal);
    (void)prctl(PR_SET_DUMPABLE, 0);
    for (unsigned i = 0; i < FATAL_SIGNALS; i++) {
        if (fatal_signals[i] == signal)
            (void)sigaction(signal, &before[i], NULL);
    }
    (void)raise(signal); /* blocked until this returns; a fault would also repeat by itself */
}

void crash_arm(struct crash_record *record)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_fatal;
    action.sa_flags = SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    atomic_store(&armed, record);
    for (unsigned i = 0; i < FATAL_SIGNALS; i++)
        (void)sigaction(fatal_signals[i], &action, &before[i]);
}

void crash_own_stack(void)
{
    stack_t present, own = {.ss_size = STACK_BYTES};
    if (sigaltstack(NULL, &present) != 0 || !(present.ss_flags & SS_DISABLE))
        return; /* there is one, a sanitizer's */
    own.ss_sp = malloc(STACK_BYTES);
    if (own.ss_sp)
        (void)sigaltstack(&own, NULL);
}

/* Coroutines: every thread of the simulated system is one. They switch where they say so, and only
 * the scheduler resumes them; one that was killed is simply never resumed again. */
#ifndef FTMB_SIM_CORO_H
#define FTMB_SIM_CORO_H

#include "core/base.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CORO_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CORO_SANITIZED 1
#endif
#endif

#if defined(__x86_64__) && !defined(CORO_SANITIZED)
#define CORO_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

#define CORO_STACK_BYTES (64u * 1024)

struct coro {
    uint8_t *stack; /* kept when the coroutine is begun again */
#ifdef CORO_ASSEMBLY
    void *top; /* stack pointer while it does not run */
#else
    ucontext_t context;
#endif
    void (*entry)(void *arg);
    void *arg;
};

/* Begin (again) at `entry`, which must not return. */
void coro_begin(struct coro *coro, void (*entry)(void *arg), void *arg);

/* Run it until it yields. Only outside of coroutines. */
void coro_resume(struct coro *coro);

/* Back to whoever resumed this coroutine. */
void coro_yield(void);

/* Is a coroutine running? */
bool coro_inside(void);

#endif

/* Switching stacks: by hand on x86-64, elsewhere and under sanitizers with ucontext. */
#include "sim/coro.h"

#include <stdlib.h>

static struct coro *running;

bool coro_inside(void)
{
    return running != NULL;
}

static void coro_main(void)
{
    running->entry(running->arg);
    FTMB_ASSERT(!"a coroutine returned");
}

static uint8_t *stack_of(struct coro *coro)
{
    if (!coro->stack)
        coro->stack = aligned_alloc(64, CORO_STACK_BYTES);
    FTMB_ASSERT(coro->stack);
    return coro->stack;
}

#ifdef CORO_ASSEMBLY

static void *scheduler_top;

/* Save the callee-saved registers and the stack pointer here, take those there. */
void coro_switch(void **save, void *load);
__asm__(".text\n"
        ".globl coro_switch\n"
        ".type coro_switch, @function\n"
        "coro_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    retq\n"
        ".size coro_switch, . - coro_switch\n");

void coro_begin(struct coro *coro, void (*entry)(void *arg), void *arg)
{
    coro->entry = entry;
    coro->arg = arg;
    uint64_t *top = (uint64_t *)(stack_of(coro) + CORO_STACK_BYTES);
    *--top = 0; /* a return address for coro_main, which never returns; keeps the alignment */
    *--top = (uint64_t)(uintptr_t)coro_main;
    for (unsigned i = 0; i < 6; i++)
        *--top = 0;
    coro->top = top;
}

void coro_resume(struct coro *coro)
{
    running = coro;
    coro_switch(&scheduler_top, coro->top);
    running = NULL;
}

void coro_yield(void)
{
    coro_switch(&running->top, scheduler_top);
}

#else

#ifdef CORO_SANITIZED
/* Declared by hand: gcc and clang keep them in headers of different names. */
void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *save, const void **bottom, size_t *size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);
#endif
#if !defined(__SANITIZE_ADDRESS__)
#define __sanitizer_start_switch_fiber(save, bottom, size) ((void)(save), (void)(size))
#define __sanitizer_finish_switch_fiber(save, bottom, size) ((void)(bottom), (void)(size))
#define __asan_unpoison_memory_region(address, size) ((void)(size))
#endif

static ucontext_t scheduler;
static const void *scheduler_bottom;
static size_t scheduler_size;

static void coro_first(void)
{
    __sanitizer_finish_switch_fiber(NULL, &scheduler_bottom, &scheduler_size);
    coro_main();
}

void coro_begin(struct coro *coro, void (*entry)(void *arg), void *arg)
{
    coro->entry = entry;
    coro->arg = arg;
    getcontext(&coro->context);
    coro->context.uc_stack.ss_sp = stack_of(coro);
    coro->context.uc_stack.ss_size = CORO_STACK_BYTES;
    coro->context.uc_link = NULL;
    __asan_unpoison_memory_region(coro->stack, CORO_STACK_BYTES);
    makecontext(&coro->context, coro_first, 0);
}

void coro_resume(struct coro *coro)
{
    void *fake = NULL;
    running = coro;
    __sanitizer_start_switch_fiber(&fake, coro->stack, CORO_STACK_BYTES);
    swapcontext(&scheduler, &coro->context);
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
    running = NULL;
}

void coro_yield(void)
{
    void *fake = NULL;
    struct coro *self = running;
    __sanitizer_start_switch_fiber(&fake, scheduler_bottom, scheduler_size);
    swapcontext(&self->context, &scheduler);
    __sanitizer_finish_switch_fiber(fake, &scheduler_bottom, &scheduler_size);
}

#endif

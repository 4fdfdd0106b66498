/* C11 atomics of an injected function: each object has a variable. Loads are optimistic reads, all
 * else is a write access. Memory orders need no thought: accesses are in one order for all. */
#include "inject/state.h"

#include "inject/served.h"

#define LOAD(object) __atomic_load_n((object), __ATOMIC_RELAXED)
#define STORE(object, value) __atomic_store_n((object), (value), __ATOMIC_RELAXED)

#define INJECT_LOAD(bits)                                                                          \
    uint##bits##_t inject_atomic##bits##_load(const volatile uint##bits##_t *object, int order)    \
    {                                                                                              \
        struct inject_worker *self = inject_self;                                                  \
        uint32_t id;                                                                               \
        uint64_t token;                                                                            \
        uint##bits##_t value;                                                                      \
        (void)order;                                                                               \
        if (!self)                                                                                 \
            return LOAD(object);                                                                   \
        do {                                                                                       \
            token = inject_atomic_read_begin(self, &id, object);                                   \
            value = LOAD(object);                                                                  \
        } while (!ftmb_read_end(self->ctx, id, token));                                            \
        return value;                                                                              \
    }

/* `next` is made of `was`, which is returned, and of `value`. */
#define INJECT_CHANGE(bits, name, next)                                                            \
    uint##bits##_t inject_atomic##bits##_##name(volatile uint##bits##_t *object,                   \
                                                uint##bits##_t value, int order)                   \
    {                                                                                              \
        struct inject_worker *self = inject_atomic_begin(object, sizeof(uint##bits##_t));          \
        uint##bits##_t was = LOAD(object);                                                         \
        (void)order;                                                                               \
        STORE(object, (uint##bits##_t)(next));                                                     \
        inject_atomic_end(self);                                                                   \
        return was;                                                                                \
    }

#define INJECT_STORE(bits)                                                                         \
    void inject_atomic##bits##_store(volatile uint##bits##_t *object, uint##bits##_t value,        \
                                     int order)                                                    \
    {                                                                                              \
        (void)inject_atomic##bits##_exchange(object, value, order);                                \
    }

#define INJECT_COMPARE(bits)                                                                       \
    uint##bits##_t inject_atomic##bits##_compare_exchange_val(                                     \
        volatile uint##bits##_t *object, uint##bits##_t expected, uint##bits##_t value, int order, \
        int failed)                                                                                \
    {                                                                                              \
        struct inject_worker *self = inject_atomic_begin(object, sizeof(uint##bits##_t));          \
        uint##bits##_t was = LOAD(object);                                                         \
        (void)order;                                                                               \
        (void)failed;                                                                              \
        if (was == expected)                                                                       \
            STORE(object, value);                                                                  \
        inject_atomic_end(self);                                                                   \
        return was;                                                                                \
    }                                                                                              \
    int inject_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t *object,             \
                                                      uint##bits##_t *expected,                    \
                                                      uint##bits##_t value, int order, int failed) \
    {                                                                                              \
        uint##bits##_t was =                                                                       \
            inject_atomic##bits##_compare_exchange_val(object, *expected, value, order, failed);   \
        if (was == *expected)                                                                      \
            return 1;                                                                              \
        inject_mark(expected, sizeof(uint##bits##_t));                                             \
        *expected = was;                                                                           \
        return 0;                                                                                  \
    }                                                                                              \
    int inject_atomic##bits##_compare_exchange_weak(volatile uint##bits##_t *object,               \
                                                    uint##bits##_t *expected,                      \
                                                    uint##bits##_t value, int order, int failed)   \
    {                                                                                              \
        return inject_atomic##bits##_compare_exchange_strong(object, expected, value, order,       \
                                                             failed);                              \
    }

#define INJECT_ATOMICS(bits)                                                                       \
    INJECT_LOAD(bits)                                                                              \
    INJECT_CHANGE(bits, exchange, value)                                                           \
    INJECT_CHANGE(bits, fetch_add, was + value)                                                    \
    INJECT_CHANGE(bits, fetch_sub, was - value)                                                    \
    INJECT_CHANGE(bits, fetch_and, was &(value))                                                   \
    INJECT_CHANGE(bits, fetch_or, was | value)                                                     \
    INJECT_CHANGE(bits, fetch_xor, was ^ value)                                                    \
    INJECT_CHANGE(bits, fetch_nand, ~(was & (value)))                                              \
    INJECT_STORE(bits)                                                                             \
    INJECT_COMPARE(bits)

INJECT_ATOMICS(8)
INJECT_ATOMICS(16)
INJECT_ATOMICS(32)
INJECT_ATOMICS(64)

void inject_atomic_thread_fence(int order)
{
    (void)order; /* what it would order is logged */
}

void inject_atomic_signal_fence(int order)
{
    (void)order;
}

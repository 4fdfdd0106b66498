/* What the code of an injected function calls, under the names that inject.py gives it. */
#ifndef FTMB_INJECT_SERVED_H
#define FTMB_INJECT_SERVED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

void inject_init(void);

#define INJECT_STORES(n)                                                                           \
    void inject_write##n(void *address);                                                           \
    void inject_unaligned_write##n(void *address);                                                 \
    void inject_read##n(const void *address);                                                      \
    void inject_unaligned_read##n(const void *address);
INJECT_STORES(1)
INJECT_STORES(2)
INJECT_STORES(4)
INJECT_STORES(8)
INJECT_STORES(16)
#undef INJECT_STORES
void inject_write_range(void *address, size_t bytes);
void inject_read_range(const void *address, size_t bytes);

#define INJECT_ATOMICS(bits)                                                                       \
    uint##bits##_t inject_atomic##bits##_load(const volatile uint##bits##_t *object, int order);   \
    void inject_atomic##bits##_store(volatile uint##bits##_t *object, uint##bits##_t value,        \
                                     int order);                                                   \
    uint##bits##_t inject_atomic##bits##_exchange(volatile uint##bits##_t *object,                 \
                                                  uint##bits##_t value, int order);                \
    uint##bits##_t inject_atomic##bits##_fetch_add(volatile uint##bits##_t *object,                \
                                                   uint##bits##_t value, int order);               \
    uint##bits##_t inject_atomic##bits##_fetch_sub(volatile uint##bits##_t *object,                \
                                                   uint##bits##_t value, int order);               \
    uint##bits##_t inject_atomic##bits##_fetch_and(volatile uint##bits##_t *object,                \
                                                   uint##bits##_t value, int order);               \
    uint##bits##_t inject_atomic##bits##_fetch_or(volatile uint##bits##_t *object,                 \
                                                  uint##bits##_t value, int order);                \
    uint##bits##_t inject_atomic##bits##_fetch_xor(volatile uint##bits##_t *object,                \
                                                   uint##bits##_t value, int order);               \
    uint##bits##_t inject_atomic##bits##_fetch_nand(volatile uint##bits##_t *object,               \
                                                    uint##bits##_t value, int order);              \
    uint##bits##_t inject_atomic##bits##_compare_exchange_val(                                     \
        volatile uint##bits##_t *object, uint##bits##_t expected, uint##bits##_t value, int order, \
        int failed);                                                                               \
    int inject_atomic##bits##_compare_exchange_strong(                                             \
        volatile uint##bits##_t *object, uint##bits##_t *expected, uint##bits##_t value,           \
        int order, int failed);                                                                    \
    int inject_atomic##bits##_compare_exchange_weak(volatile uint##bits##_t *object,               \
                                                    uint##bits##_t *expected,                      \
                                                    uint##bits##_t value, int order, int failed);
INJECT_ATOMICS(8)
INJECT_ATOMICS(16)
INJECT_ATOMICS(32)
INJECT_ATOMICS(64)
#undef INJECT_ATOMICS
void inject_atomic_thread_fence(int order);
void inject_atomic_signal_fence(int order);

int inject_mutex_init(void *lock, const void *attributes);
int inject_mutex_destroy(void *lock);
int inject_mutex_lock(void *lock);
int inject_mutex_unlock(void *lock);
int inject_rwlock_init(void *lock, const void *attributes);
int inject_rwlock_destroy(void *lock);
int inject_rwlock_rdlock(void *lock);
int inject_rwlock_wrlock(void *lock);
int inject_rwlock_unlock(void *lock);

void *inject_malloc(size_t bytes);
void *inject_calloc(size_t count, size_t bytes);
void inject_free(void *memory);
void *inject_memcpy(void *to, const void *from, size_t bytes);
void *inject_memmove(void *to, const void *from, size_t bytes);
void *inject_memset(void *to, int byte, size_t bytes);

int inject_clock_gettime(clockid_t clock, struct timespec *now);
int inject_gettimeofday(struct timeval *now, void *zone);
time_t inject_time(time_t *now);
int inject_rand(void);
long inject_random(void);
void inject_srand(unsigned seed);
void inject_srandom(unsigned seed);

_Noreturn void inject_abort(void);
_Noreturn void inject_assert_fail(const char *what, const char *file, unsigned line,
                                  const char *function);

#endif

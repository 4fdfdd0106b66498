/* Forced into every file of nf/ (compiler option -include): names that would let a network
 * function see something other than its inputs do not compile there.
 *
 * A replay repeats inputs and the order of accesses, nothing else. A clock, a random source, an
 * address from malloc, a lock's luck or a file differ the second time, and the outputs with them.
 * The headers that a function may use come first, because a poisoned name may not even be
 * declared; so including <stdlib.h>, <stdio.h> or <time.h> in nf/ is an error as well. */
#ifndef FTMB_NF_POISON_H
#define FTMB_NF_POISON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "nf/nf.h"

/* Clocks: ftmb_now(), ftmb_elapsed(). */
#pragma GCC poison time clock clock_gettime gettimeofday times timespec_get ftime getrusage
#pragma GCC poison nanosleep clock_nanosleep usleep sleep
#pragma GCC poison rte_rdtsc rte_get_tsc_cycles rte_get_timer_cycles __rdtsc __rdtscp
#pragma GCC poison __builtin_ia32_rdtsc __builtin_ia32_rdtscp clock_ns
/* Randomness: ftmb_random(). */
#pragma GCC poison rand rand_r srand random srandom drand48 lrand48 mrand48 getrandom getentropy
#pragma GCC poison arc4random rte_rand __builtin_ia32_rdrand64_step __builtin_ia32_rdseed_di_step
/* Memory: arena_alloc(). Addresses must not depend on the process. */
#pragma GCC poison malloc calloc realloc free posix_memalign aligned_alloc mmap alloca sbrk
#pragma GCC poison rte_malloc rte_zmalloc rte_calloc rte_free
/* Locks and one's own atomics: ftmb_write(), ftmb_read_begin(). */
#pragma GCC poison pthread_mutex_lock pthread_mutex_trylock pthread_spin_lock pthread_rwlock_rdlock
#pragma GCC poison pthread_rwlock_wrlock pthread_self pthread_create mtx_lock thrd_create
#pragma GCC poison rte_spinlock_lock rte_spinlock_trylock thread_local _Thread_local __thread
/* Macros must go before their names can be poisoned. */
#undef atomic_flag_test_and_set
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#undef atomic_exchange
#undef atomic_fetch_add
#undef atomic_fetch_sub
#pragma GCC poison atomic_flag_test_and_set atomic_exchange atomic_fetch_add atomic_fetch_sub
#pragma GCC poison atomic_compare_exchange_strong atomic_compare_exchange_weak
/* The process, the machine and the outside. */
#pragma GCC poison getpid gettid getppid getuid getenv sched_getcpu sysconf syscall gethostname
#pragma GCC poison open read write close send recv ioctl printf fprintf sprintf snprintf puts
#pragma GCC poison perror fopen exit abort
#pragma GCC poison asm __asm __asm__

#endif

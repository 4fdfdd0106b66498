/* The C library as an injected function sees it: stores that are announced, the packet's time,
 * random numbers from the arena. */
#include "inject/state.h"

#include <string.h>

#include "inject/served.h"

#define NS 1000000000ull

void inject_init(void)
{
}

/* What takes part in a line is stored after this call, so the line is saved as it was. Loads are
 * of no interest; their calls are taken out of the code where that is possible (placed.py). */
#define INJECT_STORES(n)                                                                           \
    void inject_write##n(void *address)                                                            \
    {                                                                                              \
        inject_mark(address, n);                                                                   \
    }                                                                                              \
    void inject_unaligned_write##n(void *address)                                                  \
    {                                                                                              \
        inject_mark(address, n);                                                                   \
    }                                                                                              \
    void inject_read##n(const void *address)                                                       \
    {                                                                                              \
        (void)address;                                                                             \
    }                                                                                              \
    void inject_unaligned_read##n(const void *address)                                             \
    {                                                                                              \
        (void)address;                                                                             \
    }
INJECT_STORES(1)
INJECT_STORES(2)
INJECT_STORES(4)
INJECT_STORES(8)
INJECT_STORES(16)

void inject_write_range(void *address, size_t bytes)
{
    inject_mark(address, bytes);
}

void inject_read_range(const void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
}

void *inject_memcpy(void *to, const void *from, size_t bytes)
{
    inject_mark(to, bytes);
    return memcpy(to, from, bytes);
}

void *inject_memmove(void *to, const void *from, size_t bytes)
{
    inject_mark(to, bytes);
    return memmove(to, from, bytes);
}

void *inject_memset(void *to, int byte, size_t bytes)
{
    inject_mark(to, bytes);
    return memset(to, byte, bytes);
}

/* ---- time ----------------------------------------------------------------------------------- */

/* The packet's stamp, but never before what this worker met in a lock. 0 before the first packet:
 * master and backup begin alike. */
static uint64_t now_ns(void)
{
    struct inject_worker *self = inject_self;
    if (!self)
        return 0;
    uint64_t now = u64_max(ftmb_now(self->ctx), inject_state.root->clock[self->ctx->worker].floor);
    self->time = u64_max(self->time, now);
    return self->time;
}

int inject_clock_gettime(clockid_t clock, struct timespec *now)
{
    uint64_t ns = now_ns();
    (void)clock; /* there is one time, whatever it is called */
    inject_mark(now, sizeof(*now));
    now->tv_sec = (time_t)(ns / NS);
    now->tv_nsec = (long)(ns % NS);
    return 0;
}

int inject_gettimeofday(struct timeval *now, void *zone)
{
    uint64_t ns = now_ns();
    (void)zone;
    inject_mark(now, sizeof(*now));
    now->tv_sec = (time_t)(ns / NS);
    now->tv_usec = (suseconds_t)(ns % NS / 1000);
    return 0;
}

time_t inject_time(time_t *now)
{
    time_t seconds = (time_t)(now_ns() / NS);
    if (now) {
        inject_mark(now, sizeof(*now));
        *now = seconds;
    }
    return seconds;
}

/* ---- random numbers ------------------------------------------------------------------------- */

/* 31 bits, as the C library's. Before the first packet: the same in every process. */
int inject_rand(void)
{
    if (inject_self)
        return (int)(ftmb_random(inject_self->ctx) >> 33);
    inject_state.seed = inject_state.seed * 6364136223846793005ull + 1442695040888963407ull;
    return (int)(inject_state.seed >> 33);
}

long inject_random(void)
{
    return inject_rand();
}

/* Each worker has its sequence, seeded in the arena. */
void inject_srand(unsigned seed)
{
    (void)seed;
}

void inject_srandom(unsigned seed)
{
    (void)seed;
}

/* ---- ends ----------------------------------------------------------------------------------- */

void inject_abort(void)
{
    inject_die("abort() of an injected function");
}

void inject_assert_fail(const char *what, const char *file, unsigned line, const char *function)
{
    (void)function;
    ftmb_panic(file, (int)line, what);
    __builtin_trap();
}

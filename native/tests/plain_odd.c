/* A plain program with everything that C has, and some of what a program may not do (plain_odd.h).
 */
#include "tests/plain_odd.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static int twice(int x)
{
    return 2 * x;
}

static int thrice(int x)
{
    return 3 * x;
}

static int (*const calls[])(int) = {twice, thrice};
static const char *const texts[] = {"even", "odd"};

static struct odd_state state = {.share = 0.5, .text = "begin", .call = twice};
static struct odd_state *where = &state; /* a pointer to data, in data */
static _Alignas(16) struct odd_atomics atomics = {.a32 = 7};
static uint64_t *on_heap;
static _Alignas(16) atomic_int elsewhere;
static uint8_t of_thread[8];
static _Alignas(128) uint64_t unseen[16]; /* a line of its own */

static pthread_mutex_t locks[3] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                   PTHREAD_MUTEX_INITIALIZER};
static pthread_rwlock_t read_write = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t under_lock;

int odd_open(unsigned long heap)
{
    pthread_mutex_init(&locks[2], NULL);
    free(malloc(1));
    on_heap = calloc(heap, 1);
    srand((unsigned)time(NULL));
    return on_heap ? 0 : -1;
}

static uint64_t count_calls(void)
{
    static uint64_t count = 40;
    return ++count;
}

static void stores(unsigned thread)
{
    uint64_t n = count_calls();
    struct odd_point here = {.x = (int)n, .y = (int)thread};
    struct odd_state *s = where;
    s->statics = n;
    s->point = here;
    s->copies[n % 9] = s->point;
    s->low = n & 7;
    s->high = n & 0x1fff;
    memset(s->bytes + n % 300, (int)n, 250);
    memmove(s->bytes + 1, s->bytes, n % 500);
    memcpy(&s->bytes[n % 17], texts[n & 1], 3);
    s->halves[n % 9] = (uint16_t)n;
    s->words[n % 9] += (uint32_t)n;
    s->longs[n % 9] ^= n << 40;
    s->share = s->share * 0.75 + (double)n;
    s->text = texts[n & 1];
    s->pointer = &s->copies[n % 9];
    s->pointer->y = s->call((int)n);
    s->call = calls[n & 1];
    on_heap[n % 8] = n;
    switch (n % 7) { /* a jump table */
    case 0:
        s->words[0] = 1;
        break;
    case 1:
        s->words[1] *= 3;
        break;
    case 2:
        s->words[2]--;
        break;
    case 3:
        s->words[3] = ~s->words[2];
        break;
    case 4:
        s->words[4] <<= 1;
        break;
    case 5:
        s->words[5] |= 8;
        break;
    default:
        s->words[6] = s->words[5];
    }
}

#define EACH(operation)                                                                            \
    sum += operation(&atomics.a8, 3) + operation(&atomics.a16, 300) +                              \
           operation(&atomics.a32, 70000) + operation(&atomics.a64, 1ull << 40)
#define COMPARE(object, kind)                                                                      \
    do {                                                                                           \
        expected = 1; /* not what is there: it is told, and the next try succeeds */               \
        while (!atomic_compare_exchange_##kind(object, &expected, expected + 5))                   \
            sum++;                                                                                 \
    } while (0)

static uint64_t use_atomics(void)
{
    uint64_t sum = 0;
    EACH(atomic_fetch_add);
    EACH(atomic_fetch_sub);
    EACH(atomic_fetch_or);
    EACH(atomic_fetch_xor);
    EACH(atomic_exchange);
    EACH(atomic_fetch_and);
    atomic_store(&atomics.a8, 200);
    atomic_store(&atomics.a64, atomic_load(&atomics.a32) + 11);
    {
        uint16_t expected;
        COMPARE(&atomics.a16, strong);
    }
    {
        uint64_t expected;
        COMPARE(&atomics.a64, weak);
    }
    sum += atomic_flag_test_and_set(&atomics.flag);
    sum += atomic_flag_test_and_set(&atomics.flag);
    atomic_flag_clear(&atomics.flag);
    atomic_thread_fence(memory_order_seq_cst);
    return sum + atomic_load(&atomics.a8) + atomic_load(&atomics.a16);
}

static void nested(void)
{
    pthread_mutex_lock(&locks[2]);
    pthread_mutex_lock(&locks[0]); /* descending */
    pthread_mutex_unlock(&locks[2]);
    pthread_rwlock_rdlock(&read_write);
    pthread_rwlock_rdlock(&read_write);
    pthread_mutex_lock(&locks[2]); /* had been let go, as far as this program knows */
    atomic_fetch_add(&atomics.a32, 1);
    (void)atomic_load(&atomics.a32); /* held: not an access of its own */
    (void)atomic_load(&elsewhere);   /* a read in the section */
    under_lock++;
    pthread_rwlock_unlock(&read_write);
    pthread_mutex_unlock(&locks[0]);
    pthread_rwlock_unlock(&read_write);
    pthread_mutex_unlock(&locks[2]);
    pthread_rwlock_wrlock(&read_write);
    pthread_rwlock_unlock(&read_write);
}

static uint64_t read_clocks(void)
{
    struct timespec now;
    struct timeval day;
    pthread_mutex_lock(&locks[0]);
    clock_gettime(CLOCK_MONOTONIC, &now);
    gettimeofday(&day, NULL);
    assert(day.tv_sec == now.tv_sec && day.tv_usec == now.tv_nsec / 1000);
    assert(time(NULL) == now.tv_sec);
    pthread_mutex_unlock(&locks[0]);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void meet(unsigned thread, void (*wait)(unsigned))
{
    pthread_mutex_lock(&locks[thread]);
    wait(thread);
    pthread_mutex_lock(&locks[1 - thread]);
    pthread_mutex_unlock(&locks[1 - thread]);
    pthread_mutex_unlock(&locks[thread]);
}

static void misbehave(unsigned deed)
{
    pthread_mutex_t mine = PTHREAD_MUTEX_INITIALIZER;
    if (deed == ODD_ASSEMBLY)
        __asm__("movq %1, %0" : "=m"(unseen[1]) : "r"(unseen[1] + 1));
    if (deed == ODD_TWICE || deed == ODD_KEEPS)
        pthread_mutex_lock(&locks[1]);
    if (deed == ODD_TWICE)
        pthread_mutex_lock(&locks[1]);
    if (deed == ODD_NOT_HELD)
        pthread_mutex_unlock(&locks[1]);
    if (deed == ODD_ALLOCATES)
        on_heap = malloc(8);
    if (deed == ODD_FREES)
        free(on_heap);
    if (deed == ODD_LOCK_ON_STACK)
        pthread_mutex_lock(&mine);
    if (deed == ODD_ABORTS)
        abort();
    assert(deed != ODD_ASSERTS);
}

uint64_t odd_do(unsigned thread, unsigned deed, void (*wait)(unsigned))
{
    switch (deed) {
    case ODD_STORES:
        pthread_mutex_lock(&locks[1]);
        stores(thread);
        pthread_mutex_unlock(&locks[1]);
        return 0;
    case ODD_ATOMICS:
        return use_atomics();
    case ODD_NESTED:
        nested();
        return 0;
    case ODD_CLOCK:
        return read_clocks();
    case ODD_RANDOM:
        return (uint64_t)rand() << 32 | (uint64_t)random();
    case ODD_MEET:
        meet(thread, wait);
        return 0;
    case ODD_FALSE_SHARING:
        of_thread[thread]++;
        return 0;
    default:
        misbehave(deed);
        return 0;
    }
}

const struct odd_state *odd_read(void)
{
    return &state;
}

const struct odd_atomics *odd_read_atomics(void)
{
    return &atomics;
}

uint64_t odd_sum(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < sizeof(of_thread); i++)
        sum += of_thread[i];
    return sum + under_lock;
}

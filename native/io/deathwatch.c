/* The robust mutex that tells of a death (see deathwatch.h). */
#include "io/deathwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_WATCHES 16
/* How long a watch thread waits before it looks for deathwatch_stop(). */
#define SLICE_NS 50000000

/* The file: the mutex, and what its holder may leave behind. */
struct life {
    pthread_mutex_t mutex;
    struct crash_record crash;
};

struct watch {
    bool used;
    atomic_bool stop;
    pthread_t thread;
    struct life *life;
    void (*on_death)(void *arg);
    void *arg;
};

struct holder {
    pthread_mutex_t *mutex;
    sem_t locked;
    int error;
};

static pthread_mutex_t watches_lock = PTHREAD_MUTEX_INITIALIZER;
static struct watch watches[MAX_WATCHES];

/* The threads here sleep all their life and must run at once when it matters, while pollers keep
 * every cpu busy: so real-time if the user may, otherwise as is. */
static void prefer(void)
{
    const struct sched_param parameters = {.sched_priority = 2};

    (void)pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters);
}

/* Start a thread with all signals blocked: they belong to the main thread. */
static int start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_setname_np(*thread, "deathwatch");
    return -rc;
}

static void *hold(void *arg)
{
    struct holder *holder = arg;

    prefer();
    holder->error = pthread_mutex_lock(holder->mutex);
    sem_post(&holder->locked);
    /* `holder` is gone from here on; the lock ends with the process. */
    for (;;)
        pause();
    return NULL;
}

static int map_life(const char *path, int flags, struct life **life)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    int error = 0;

    if (fd < 0)
        return -errno;
    if ((flags & O_CREAT) != 0 && ftruncate(fd, sizeof(**life)) != 0)
        error = errno;
    if (error == 0) {
        void *at = mmap(NULL, sizeof(**life), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        error = at == MAP_FAILED ? errno : 0;
        *life = at;
    }
    close(fd);
    return -error;
}

static int init_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    int rc;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    rc = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return -rc;
}

int deathwatch_hold(const char *path)
{
    struct holder holder;
    struct life *life;
    char fresh[PATH_MAX];
    pthread_t thread;
    int rc = snprintf(fresh, sizeof(fresh), "%s.%ld", path, (long)getpid());

    if (rc < 0 || (size_t)rc >= sizeof(fresh))
        return -ENAMETOOLONG;
    rc = map_life(fresh, O_CREAT | O_EXCL, &life);
    if (rc == 0) /* then `life` is set: NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
        rc = init_mutex(&life->mutex);
    if (rc == 0) {
        holder.mutex = &life->mutex;
        sem_init(&holder.locked, 0, 0);
        rc = start_thread(&thread, hold, &holder);
    }
    if (rc == 0) {
        while (sem_wait(&holder.locked) != 0)
            continue;
        rc = -holder.error;
    }
    /* Only now under its name: a watcher never sees a mutex that is not held yet. */
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    if (rc == 0)
        crash_arm(&life->crash);
    else
        unlink(fresh);
    return rc;
}

static void *watch_run(void *arg)
{
    struct watch *watch = arg;
    int rc = ETIMEDOUT;

    prefer();
    while (rc == ETIMEDOUT && !atomic_load(&watch->stop)) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += SLICE_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        rc = pthread_mutex_clocklock(&watch->life->mutex, CLOCK_MONOTONIC, &until);
    }
    /* Unlocked without being repaired, the mutex tells every other watcher ENOTRECOVERABLE, now
     * or later: death is a lasting state. */
    if (rc == EOWNERDEAD)
        pthread_mutex_unlock(&watch->life->mutex);
    if (rc != ETIMEDOUT && !atomic_load(&watch->stop))
        watch->on_death(watch->arg);
    return NULL;
}

int deathwatch_start(const char *path, void (*on_death)(void *), void *arg)
{
    struct watch *watch;
    int number = 0, rc;

    pthread_mutex_lock(&watches_lock);
    while (number < MAX_WATCHES && watches[number].used)
        number++;
    rc = number < MAX_WATCHES ? number : -EMFILE;
    if (rc >= 0) {
        watch = &watches[number];
        watch->on_death = on_death;
        watch->arg = arg;
        atomic_store(&watch->stop, false);
        rc = map_life(path, 0, &watch->life);
        if (rc == 0) {
            rc = start_thread(&watch->thread, watch_run, watch);
            if (rc != 0)
                munmap(watch->life, sizeof(*watch->life));
        }
        watch->used = rc == 0;
    }
    pthread_mutex_unlock(&watches_lock);
    return rc == 0 ? number : rc;
}

bool deathwatch_crash(int number, struct crash_record *record)
{
    const struct crash_record *left = &watches[number].life->crash;

    if (atomic_load_explicit(&left->state, memory_order_acquire) != CRASH_WRITTEN)
        return false;
    record->signal = left->signal;
    record->hand = left->hand;
    atomic_store(&record->state, CRASH_WRITTEN);
    return true;
}

void deathwatch_stop(int number)
{
    struct watch *watch = &watches[number];

    atomic_store(&watch->stop, true);
    pthread_join(watch->thread, NULL);
    pthread_mutex_lock(&watches_lock);
    munmap(watch->life, sizeof(*watch->life));
    watch->used = false;
    pthread_mutex_unlock(&watches_lock);
}

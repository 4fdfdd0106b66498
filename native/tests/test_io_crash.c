/* Crash records: a process that dies of its own fault leaves what it had in hand, still dies by the
 * signal it would have died by, and its watcher can read it when it hears of the death. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "io/clock.h"
#include "io/deathwatch.h"

static char path[64];

enum way {
    FAULT,
    ABORT,
    TRAP,
    DIVISION,
    ASSERTION,
    FROM_OUTSIDE,
    KILLED,
    EMPTY_HANDED,
    STACK_OVERFLOW,
    OTHER_THREAD
};

static const struct {
    int signal;
    bool record;
} expected[] = {
    [FAULT] = {SIGSEGV, true},
    [ABORT] = {SIGABRT, true},
    [TRAP] = {SIGILL, true},
    [DIVISION] = {SIGFPE, true},
    [ASSERTION] = {0, true},
    [FROM_OUTSIDE] = {SIGBUS, true},
    [KILLED] = {SIGKILL, false},
    [EMPTY_HANDED] = {SIGSEGV, false},
    [STACK_OVERFLOW] = {SIGSEGV, true},
    [OTHER_THREAD] = {SIGSEGV, false},
};

static void *fault(void *nothing)
{
    *(volatile int *)nothing = 1; /* cppcheck-suppress nullPointer */
    return NULL;
}

static int deeper(volatile int *depth)
{
    volatile char room[4096];
    room[0] = (char)++*depth;
    return *depth < INT_MAX ? deeper(depth) + room[0] : 0;
}

static void die_by(enum way way)
{
    static const struct crash_hand hand = {.input = 123456789012, .worker = 3, .view = 7};
    volatile int zero = 0;
    pthread_t other;

    if (way != EMPTY_HANDED)
        crash_hand = &hand;
    switch (way) {
    case ABORT:
        abort();
    case TRAP:
        __builtin_trap();
    case DIVISION:
        zero = 100000 / zero;
        break;
    case ASSERTION:
        crash_note(0);
        _exit(4);
    case FROM_OUTSIDE:
        kill(getpid(), SIGBUS);
        break;
    case KILLED:
        kill(getpid(), SIGKILL);
        break;
    case STACK_OVERFLOW:
        crash_own_stack();
        zero = deeper(&zero);
        break;
    case OTHER_THREAD: /* that one has nothing in hand */
        CHECK(pthread_create(&other, NULL, fault, NULL) == 0);
        break;
    default:
        fault(NULL);
    }
    for (;;)
        pause();
}

/* A child that holds `path`; it dies when a byte comes. */
static pid_t start(enum way way, int *trigger)
{
    int ready[2], go[2];
    char byte;

    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(deathwatch_hold(path) == 0);
        CHECK(write(ready[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1);
        die_by(way);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    close(go[0]);
    *trigger = go[1];
    return pid;
}

static void heard(void *arg)
{
    atomic_store((_Atomic uint64_t *)arg, clock_ns());
}

static void test(enum way way)
{
    _Atomic uint64_t heard_ns = 0;
    struct crash_record record = {0};
    int trigger, status;
    pid_t pid = start(way, &trigger);
    int watch = deathwatch_start(path, heard, &heard_ns);

    CHECK(watch >= 0 && !deathwatch_crash(watch, &record));
    uint64_t start_ns = clock_ns();
    CHECK(write(trigger, "x", 1) == 1);
    while (!atomic_load(&heard_ns) && clock_ns() - start_ns < 5000000000u)
        usleep(100);
    /* A core file would take longer than this to write. */
    CHECK(atomic_load(&heard_ns) && heard_ns - start_ns < 1000000000u);
    CHECK(deathwatch_crash(watch, &record) == expected[way].record);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (way == ASSERTION)
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 4);
    else
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == expected[way].signal);
    CHECK(!WIFSIGNALED(status) || !WCOREDUMP(status));
    if (expected[way].record) {
        CHECK(record.signal == expected[way].signal);
        CHECK(record.hand.input == 123456789012 && record.hand.worker == 3);
        CHECK(record.hand.view == 7);
    }
    deathwatch_stop(watch);
    close(trigger);
}

int main(void)
{
    char dir[] = "/tmp/ftmb-test-XXXXXX";

    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/alive", dir);
    for (enum way way = FAULT; way <= OTHER_THREAD; way++)
        test(way);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
    return 0;
}

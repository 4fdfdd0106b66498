/* The death watch: reports a SIGKILL once to every watcher, also to late ones; nothing else. */
#include <errno.h>
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

static void count(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

/* A child that holds `path`, returned when it does. */
static pid_t start_holder(void)
{
    int ready[2];
    char byte;
    pid_t pid;

    CHECK(pipe(ready) == 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(deathwatch_hold(path) == 0);
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return pid;
}

static void kill_holder(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitpid(pid, NULL, 0) == pid);
}

static void wait_for(atomic_int *deaths, int expected)
{
    uint64_t deadline = clock_ns() + 5000000000u;

    while (atomic_load(deaths) < expected && clock_ns() < deadline)
        usleep(1000);
    CHECK(atomic_load(deaths) == expected);
}

int main(void)
{
    char dir[] = "/tmp/ftmb-test-XXXXXX";
    atomic_int first = 0, second = 0, late = 0, none = 0;
    int watches[3];
    pid_t holder;

    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/alive", dir);
    CHECK(deathwatch_start(path, count, &none) == -ENOENT);

    holder = start_holder();
    watches[0] = deathwatch_start(path, count, &first);
    watches[1] = deathwatch_start(path, count, &second);
    watches[2] = deathwatch_start(path, count, &none);
    for (int i = 0; i < 3; i++)
        CHECK(watches[i] >= 0);
    usleep(150000); /* several slices of the watch threads */
    CHECK(atomic_load(&first) == 0 && atomic_load(&second) == 0);
    deathwatch_stop(watches[2]);
    kill_holder(holder);
    wait_for(&first, 1);
    wait_for(&second, 1);
    watches[2] = deathwatch_start(path, count, &late);
    wait_for(&late, 1);
    for (int i = 0; i < 3; i++)
        deathwatch_stop(watches[i]);

    /* A successor under the same path is a life of its own. */
    holder = start_holder();
    watches[0] = deathwatch_start(path, count, &first);
    CHECK(watches[0] >= 0);
    usleep(150000);
    CHECK(atomic_load(&first) == 1);
    kill_holder(holder);
    wait_for(&first, 2);
    deathwatch_stop(watches[0]);
    CHECK(atomic_load(&first) == 2 && atomic_load(&second) == 1 && atomic_load(&late) == 1);
    CHECK(atomic_load(&none) == 0);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
    return 0;
}

/* Files that outlive their process: found again when whole, refused when another's, one owner. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/twin.h"
#include "io/statefile.h"

#define BYTES (1u << 20)

static const struct statefile_name wanted = {
    .magic = 0x1122334455667788, .version = 3, .config_digest = 99, .bytes = BYTES};
static char path[80];

static uint8_t *open_it(bool expected)
{
    void *memory;
    bool found;

    CHECK(statefile_open(path, &wanted, 2000, &memory, &found) == 0 && found == expected);
    return memory;
}

/* A child that runs `work`, then says so and waits to be killed. */
static pid_t start_child(void (*work)(void))
{
    int ready[2];
    char byte;
    pid_t pid;

    CHECK(pipe(ready) == 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        work();
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return pid;
}

static void end_child(pid_t pid)
{
    int status;

    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
}

static void dies_before_it_is_whole(void)
{
    memset(open_it(false), 0xaa, BYTES);
}

static void fills_it(void)
{
    uint8_t *memory = open_it(false);

    for (unsigned i = 0; i < BYTES; i++)
        CHECK(memory[i] == 0);
    memset(memory, 0x55, BYTES);
    statefile_complete(memory);
    memory[17] = 1; /* stored before the kill: it is there afterwards */
}

static void takes_it_up(void)
{
    const uint8_t *memory = open_it(true);

    for (unsigned i = 0; i < BYTES; i++)
        CHECK(memory[i] == (i == 17 ? 1 : 0x55));
}

static void test_refusals(void)
{
    struct statefile_name other[] = {wanted, wanted, wanted, wanted};
    void *memory;
    bool found;

    other[0].magic++;
    other[1].version++;
    other[2].config_digest++;
    other[3].bytes *= 2;
    for (unsigned i = 0; i < 4; i++)
        CHECK(statefile_open(path, &other[i], 0, &memory, &found) == -EINVAL);
    CHECK(truncate(path, 4096 + BYTES / 2) == 0);
    CHECK(statefile_open(path, &wanted, 0, &memory, &found) == -EINVAL);
    CHECK(truncate(path, 10) == 0);
    CHECK(statefile_open(path, &wanted, 0, &memory, &found) == -EINVAL);
}

/* A process may die within twin_store(): the copy that counts is whole. */
static void test_twin(void)
{
    uint64_t memory[32], value[4] = {1, 1, 1, 1};
    struct twin *twin = (struct twin *)memory;

    CHECK(twin_bytes(sizeof(value)) <= sizeof(memory));
    twin_init(twin, sizeof(value));
    for (uint64_t n = 1; n < 10; n++) {
        const uint64_t *before = twin_load(twin);
        uint64_t old = before[0];
        for (unsigned i = 0; i < 4; i++)
            value[i] = n;
        twin_store(twin, value, sizeof(value));
        CHECK(before[0] == old && before[3] == old); /* the store went to the other copy */
        CHECK(memcmp(twin_load(twin), value, sizeof(value)) == 0);
    }
}

int main(void)
{
    char dir[] = "/tmp/ftmb-test-XXXXXX";
    struct stat st;
    void *memory;
    bool found;

    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/x.state", dir);
    end_child(start_child(dies_before_it_is_whole));
    pid_t owner = start_child(fills_it);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    CHECK(statefile_open(path, &wanted, 20, &memory, &found) == -EBUSY);
    end_child(owner);
    end_child(start_child(takes_it_up));
    test_refusals();
    test_twin();
    unlink(path);
    rmdir(dir);
    return 0;
}

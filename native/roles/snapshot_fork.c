/* Engine `fork`: as Redis does it. Everyone stands for a fork(); the child has the state as it was,
 * by copy-on-write, compares it with the image of the last committed snapshot, and writes the delta
 * into shared memory. The pause is the fork's, which grows with the page tables; what workers pay
 * afterwards is a copied page for each page they write to. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/standby.h"
#include "io/clock.h"
#include "roles/snapshotter.h"

#define CHILD_NO_ROOM 1

/* Shared: fork() copies no page tables of it. */
static void *map_shared(uint64_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0);
}

static int init(struct snapshotter *s)
{
    uint64_t bytes = standby_delta_bytes(s->arena->size);
    void *shared = map_shared(bytes), *image = map_shared(s->arena->size);
    if (shared == MAP_FAILED || image == MAP_FAILED) {
        fprintf(stderr, "ftmb-node: no memory for the image and the delta of a forked child\n");
        return -ENOMEM;
    }
    signal(SIGCHLD, SIG_DFL); /* whoever started this process may have had it ignored */
    s->image[0] = image;
    s->delta = (struct delta){.bytes = shared, .capacity = bytes, .fixed = true};
    return 0;
}

/* In the child: nothing of the parent's but its memory. Its sockets above all must not outlive it,
 * and neither must this process. */
static _Noreturn void child_main(struct snapshotter *s, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(CHILD_NO_ROOM);
    close_range(3, ~0u, 0);
    (void)setpriority(PRIO_PROCESS, 0, s->own_niceness);
    const struct arena *before = s->committed < 0 ? NULL : s->image[0];
    _exit(delta_build(&s->delta, s->arena, before, s->name, s->check) ? 0 : CHILD_NO_ROOM);
}

static int begin(struct snapshotter *s)
{
    pid_t parent = getpid();
    snapshotter_stop(s);
    uint64_t begun = clock_ns();
    s->child = fork();
    if (s->child == 0)
        child_main(s, parent);
    s->fork_ns = clock_ns() - begun;
    snapshotter_go(s);
    return 0;
}

static enum snapshot_step step(struct snapshotter *s)
{
    int status;
    if (s->child < 0) /* there was no room for another process, now */
        return STEP_LOST;
    pid_t ended = waitpid(s->child, &status, WNOHANG);
    if (ended == 0)
        return STEP_WAIT;
    s->child = 0;
    if (ended < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return STEP_LOST;
    s->delta.size = ((const struct delta_head *)s->delta.bytes)->bytes;
    return STEP_DONE;
}

static void settle(struct snapshotter *s, bool committed)
{
    if (!committed)
        return;
    delta_apply(s->delta.bytes, s->image[0]);
    s->committed = 0;
}

const struct snapshot_engine snapshot_fork = {.name = "fork",
                                              .whole = true,
                                              .init = init,
                                              .begin = begin,
                                              .step = step,
                                              .settle = settle,
                                              .start_from = snapshotter_from_image};

/* Images, deltas and their bookkeeping (see snapshotter.h), and the engine `stop-copy`. */
#include "roles/snapshotter.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "io/clock.h"

const struct snapshot_engine *snapshot_engine_of(enum snapshot_engine_kind kind, const char **why)
{
    *why = NULL;
    switch (kind) {
    case ENGINE_NONE: /* its one base is taken before there is any traffic */
    case ENGINE_STOP_COPY:
        return &snapshot_stop_copy;
    case ENGINE_FORK:
    case ENGINE_COW:
    case ENGINE_PAGE:
        break;
    }
    *why = "this build has no such snapshot engine";
    return NULL;
}

static void *map_image(const struct arena *arena)
{
    void *image =
        mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (image == MAP_FAILED)
        return NULL;
    madvise(image, arena->size, MADV_HUGEPAGE);
    /* Touch what the first copy will write: its pause is not to pay for page faults. */
    snapshot_copy(arena, image);
    return image;
}

int snapshotter_init(struct snapshotter *snapshotter, const struct snapshot_engine *engine,
                     struct arena *arena, struct worker_group *group, struct worker *workers,
                     uint32_t worker_count)
{
    memset(snapshotter, 0, sizeof(*snapshotter));
    snapshotter->engine = engine;
    snapshotter->arena = arena;
    snapshotter->group = group;
    snapshotter->workers = workers;
    snapshotter->worker_count = worker_count;
    snapshotter->committed = -1;
    snapshotter->pending = -1;
    for (int i = 0; i < 2; i++) {
        snapshotter->image[i] = map_image(arena);
        if (!snapshotter->image[i])
            return -ENOMEM;
    }
    return 0;
}

static int build(struct snapshotter *snapshotter, struct delta *delta, const struct arena *image,
                 const struct arena *previous, struct snapshot_name name, bool digest)
{
    if (!delta_build(delta, image, previous, name, digest))
        return -ENOMEM;
    const struct delta_head *head = (const struct delta_head *)delta->bytes;
    snapshotter->bytes += head->bytes;
    snapshotter->lines += head->lines;
    return 0;
}

int snapshotter_take(struct snapshotter *snapshotter, struct snapshot_name name, bool full,
                     bool lines, bool digest)
{
    FTMB_ASSERT(snapshotter->pending < 0 && (!lines || snapshotter->committed >= 0));
    int next = snapshotter->committed == 0 ? 1 : 0;
    struct arena *image = snapshotter->image[next];
    int error = snapshotter->engine->take(snapshotter, image);
    if (!error && full)
        error = build(snapshotter, &snapshotter->full, image, NULL, name, digest);
    if (!error && lines)
        error = build(snapshotter, &snapshotter->delta, image,
                      snapshotter->image[snapshotter->committed], name, digest);
    if (error)
        return error;
    snapshotter->pauses[snapshotter->taken % SNAPSHOT_PAUSES] = snapshotter->pause_ns;
    snapshotter->taken++;
    snapshotter->pending = next;
    return 0;
}

void snapshotter_committed(struct snapshotter *snapshotter)
{
    FTMB_ASSERT(snapshotter->pending >= 0);
    snapshotter->committed = snapshotter->pending;
    snapshotter->pending = -1;
}

void snapshotter_abandon(struct snapshotter *snapshotter)
{
    snapshotter->pending = -1;
}

void snapshotter_start_from(struct snapshotter *snapshotter, const struct arena *image)
{
    FTMB_ASSERT(snapshotter->committed < 0 && snapshotter->pending < 0);
    snapshot_copy(image, snapshotter->image[0]);
    snapshotter->committed = 0;
}

/* Stop every worker between two packets. One that is idle, and will look at the flag before it
 * begins a packet, counts as stopped. */
static void stop_workers(struct snapshotter *snapshotter)
{
    atomic_store(&snapshotter->group->stop, 1);
    for (uint32_t w = 0; w < snapshotter->worker_count; w++) {
        _Atomic uint32_t *state = &snapshotter->workers[w].state;
        for (uint64_t rounds = 0; !barrier_stands(state); rounds++)
            rounds < 64 ? cpu_relax() : (void)sched_yield();
    }
}

/* What suspending a virtual machine does: everyone stands while everything is copied. */
static int stop_copy_take(struct snapshotter *snapshotter, struct arena *image)
{
    uint64_t start = clock_ns();
    stop_workers(snapshotter);
    uint64_t stopped = clock_ns();
    snapshot_copy(snapshotter->arena, image);
    uint64_t copied = clock_ns();
    atomic_store(&snapshotter->group->stop, 0);
    snapshotter->pause_ns = copied - start;
    snapshotter->copy_ns = copied - stopped;
    return 0;
}

const struct snapshot_engine snapshot_stop_copy = {.name = "stop-copy", .take = stop_copy_take};

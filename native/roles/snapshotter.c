/* What all snapshot engines share (see snapshotter.h). */
#include "roles/snapshotter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "io/clock.h"
#include "io/wait.h"

const struct snapshot_engine *snapshot_engine_of(enum snapshot_engine_kind kind, const char **why)
{
    *why = NULL;
    switch (kind) {
    case ENGINE_NONE: /* its one base is taken before there is any traffic */
    case ENGINE_STOP_COPY:
        return &snapshot_stop_copy;
    case ENGINE_FORK:
        return &snapshot_fork;
    case ENGINE_COW:
        return &snapshot_cow;
    case ENGINE_PAGE:
        *why = snapshot_page_missing();
        return *why ? NULL : &snapshot_page;
    }
    *why = "there is no such snapshot engine";
    return NULL;
}

void *snapshotter_map(uint64_t bytes, const char *what)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "ftmb-node: no memory for %s (%llu bytes): %s\n", what,
                (unsigned long long)bytes, strerror(errno));
        return NULL;
    }
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

/* As snapshot_copy(), in pieces. */
static void copy(const struct arena *from, struct arena *image)
{
    struct snapshot_slice all = {0, snapshot_lines(from->size)};
    uint64_t at = 0, offset, length;
    memcpy(image, from, sizeof(*from));
    while (snapshot_range(from, all, &at, &offset, &length)) {
        for (uint64_t done = 0; done < length; done += SNAPSHOT_PIECE) {
            memcpy((uint8_t *)image + offset + done, (const uint8_t *)from + offset + done,
                   u64_min(SNAPSHOT_PIECE, length - done));
            breathe();
        }
    }
}

bool snapshotter_from_image(struct snapshotter *snapshotter, const struct arena *base)
{
    copy(base, snapshotter->image[0]);
    snapshotter->committed = 0;
    return true;
}

int snapshotter_init(struct snapshotter *snapshotter, const struct snapshot_engine *engine,
                     const struct node_config *config, struct arena *arena,
                     struct worker_group *group, struct worker *workers)
{
    memset(snapshotter, 0, sizeof(*snapshotter));
    snapshotter->engine = engine;
    snapshotter->config = config;
    snapshotter->check = config->check;
    snapshotter->arena = arena;
    snapshotter->group = group;
    snapshotter->workers = workers;
    snapshotter->committed = -1;
    snapshotter->niceness = getpriority(PRIO_PROCESS, 0);
    snapshotter->page_fd = snapshotter->pagemap_fd = -1;
    snapshotter->header = aligned_alloc(CACHE_LINE, align_up(sizeof(struct arena), CACHE_LINE));
    return snapshotter->header ? engine->init(snapshotter) : -ENOMEM;
}

int snapshotter_begin(struct snapshotter *snapshotter, struct snapshot_name name)
{
    FTMB_ASSERT(!snapshotter->making);
    snapshotter->name = name;
    snapshotter->cursor = 0;
    snapshotter->making = true;
    snapshotter->begun_ns = clock_ns();
    return snapshotter->engine->begin(snapshotter);
}

enum snapshot_step snapshotter_step(struct snapshotter *snapshotter)
{
    FTMB_ASSERT(snapshotter->making);
    enum snapshot_step step = snapshotter->engine->step(snapshotter);
    if (step == STEP_MORE || step == STEP_WAIT)
        return step;
    snapshotter->making = false;
    snapshotter->make_ns = clock_ns() - snapshotter->begun_ns;
    snapshotter->staging_peak = u64_max(snapshotter->staging_peak, snapshotter->delta.capacity);
    if (step == STEP_LOST) {
        snapshotter->abandoned++;
        return step;
    }
    const struct delta_head *head = (const struct delta_head *)snapshotter->delta.bytes;
    snapshotter->bytes += head->bytes;
    snapshotter->lines += head->lines;
    snapshotter->pauses[snapshotter->taken++ % SNAPSHOT_PAUSES] = snapshotter->pause_ns;
    return step;
}

struct snapshot_slice snapshotter_slice(const struct snapshotter *snapshotter, uint64_t first,
                                        uint64_t bytes)
{
    const struct snapshot_engine *engine = snapshotter->engine;
    if (engine->whole)
        return (struct snapshot_slice){0, snapshot_lines(snapshotter->arena->size)};
    return snapshot_slice_at(snapshotter->arena, first, u64_min(bytes, engine->slice_bytes));
}

/* Sleeping at once, not spinning: the workers may need this core to come to their boundary. */
void snapshotter_await(struct snapshotter *snapshotter)
{
    static const struct timespec shortly = {.tv_nsec = 30000};
    while (!epoch_complete(&snapshotter->group->epochs, snapshotter->arena, snapshotter->header))
        nanosleep(&shortly, NULL);
}

/* The pause counts from the wish to stop. While others stand nobody sleeps longer than need be, nor
 * does this thread step back behind anybody (where it may come forward again). */
void snapshotter_stop(struct snapshotter *snapshotter)
{
    snapshotter->own_niceness = getpriority(PRIO_PROCESS, 0);
    (void)setpriority(PRIO_PROCESS, 0, snapshotter->niceness);
    snapshotter->pause_ns = clock_ns();
    epoch_flip(&snapshotter->group->epochs, true);
    for (uint64_t rounds = 0;
         !epoch_complete(&snapshotter->group->epochs, snapshotter->arena, snapshotter->header);
         rounds++)
        wait_round(rounds);
}

void snapshotter_go(struct snapshotter *snapshotter)
{
    epoch_release(&snapshotter->group->epochs);
    snapshotter->pause_ns = clock_ns() - snapshotter->pause_ns;
    (void)setpriority(PRIO_PROCESS, 0, snapshotter->own_niceness);
}

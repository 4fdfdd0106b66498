/* Taking snapshots of a running replica: one interface, several engines.
 *
 * An engine delivers an image of the arena at a cut. What differs between engines is what the
 * workers feel of it. The rest (delta to the last committed image, digest, streaming) is common
 * and runs off the packet path. */
#ifndef FTMB_ROLES_SNAPSHOTTER_H
#define FTMB_ROLES_SNAPSHOTTER_H

#include "core/snapshot.h"
#include "roles/worker.h"

struct snapshotter;

struct snapshot_engine {
    const char *name;
    /* Fill `image` (arena->size bytes) with the arena at a cut. 0 or a negative errno. */
    int (*take)(struct snapshotter *snapshotter, struct arena *image);
};

extern const struct snapshot_engine snapshot_stop_copy;

/* The engine that delivers what is configured; NULL, and in *why a reason for people, where this
 * build or this machine has it not. */
const struct snapshot_engine *snapshot_engine_of(enum snapshot_engine_kind kind, const char **why);

#define SNAPSHOT_PAUSES 4096u /* pauses kept one by one for the record */

struct snapshotter {
    const struct snapshot_engine *engine;
    struct arena *arena;
    struct worker_group *group;
    struct worker *workers;
    uint32_t worker_count;
    struct arena *image[2];
    int committed;      /* index of the image of the last commit, -1: none */
    int pending;        /* index of the image under way, -1: none */
    struct delta delta; /* from the committed image to the pending one */
    struct delta full;  /* the pending image */

    uint64_t pause_ns; /* of the latest */
    uint64_t copy_ns;
    uint64_t taken;
    uint64_t skipped;
    uint64_t bytes;
    uint64_t lines;
    uint64_t pauses[SNAPSHOT_PAUSES];
};

int snapshotter_init(struct snapshotter *snapshotter, const struct snapshot_engine *engine,
                     struct arena *arena, struct worker_group *group, struct worker *workers,
                     uint32_t worker_count);

/* Take one and build what is asked for: everything in snapshotter->full, the lines that changed
 * since the committed image in ->delta. 0 or a negative errno. */
int snapshotter_take(struct snapshotter *snapshotter, struct snapshot_name name, bool full,
                     bool lines, bool digest);

/* The one under way was committed / will never be. */
void snapshotter_committed(struct snapshotter *snapshotter);
void snapshotter_abandon(struct snapshotter *snapshotter);

/* Take `image` for the committed one. */
void snapshotter_start_from(struct snapshotter *snapshotter, const struct arena *image);

#endif

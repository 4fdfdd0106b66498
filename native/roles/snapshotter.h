/* Taking snapshots of a running replica: one interface, several engines.
 *
 * An engine makes a cut and delivers, as one delta, what changed since the last committed snapshot
 * and a slice of the rest. What differs between engines is what the workers feel of it, and how it
 * is known what changed. Everything but the cut is done in steps of a few microseconds, off the
 * packet path. */
#ifndef FTMB_ROLES_SNAPSHOTTER_H
#define FTMB_ROLES_SNAPSHOTTER_H

#include <sys/types.h>

#include "core/marks.h"
#include "core/snapshot.h"
#include "roles/worker.h"

struct snapshotter;

enum snapshot_step {
    STEP_MORE, /* call again */
    STEP_WAIT, /* call again, a little later */
    STEP_DONE, /* the delta is complete */
    STEP_LOST, /* it cannot be completed; its lines go into the next one */
};

struct snapshot_engine {
    const char *name;
    /* A slice is everything: a whole image is there anyway. */
    bool whole;
    uint64_t slice_bytes; /* else: of the largest slice */
    /* Set up, once the arena is built. 0 or a negative errno after one line on stderr. */
    int (*init)(struct snapshotter *snapshotter);
    /* Nobody needs what has changed so far: slices will bring all of it. NULL: nothing to do. */
    void (*forget)(struct snapshotter *snapshotter);
    /* Make the cut, and begin the delta that snapshotter->name names. 0 or a negative errno. */
    int (*begin)(struct snapshotter *snapshotter);
    enum snapshot_step (*step)(struct snapshotter *snapshotter);
    /* What became of the delta: committed, or never will be (then its lines are wanted again). */
    void (*settle)(struct snapshotter *snapshotter, bool committed);
    /* This process's base is what the arena held before its workers began. False: the engine does
     * not know what has changed since. */
    bool (*start_from)(struct snapshotter *snapshotter, const struct arena *base);
};

extern const struct snapshot_engine snapshot_stop_copy; /* snapshot_stop.c */
extern const struct snapshot_engine snapshot_cow;       /* snapshot_cow.c */
extern const struct snapshot_engine snapshot_fork;      /* snapshot_fork.c */
extern const struct snapshot_engine snapshot_page;      /* snapshot_page.c */

/* The engine that a node spec names; NULL where this build or machine has it not, with the cause.
 */
const struct snapshot_engine *snapshot_engine_of(enum snapshot_engine_kind kind, const char **why);
const char *snapshot_page_missing(void); /* NULL: the kernel has what engine `page` needs */

#define SNAPSHOT_PAUSES 65536u /* pauses kept one by one for the record */

struct snapshotter {
    const struct snapshot_engine *engine;
    const struct node_config *config;
    struct arena *arena;
    struct worker_group *group;
    struct worker *workers;
    bool check;

    struct snapshot_name name; /* of the delta */
    struct delta delta;        /* being made, or made last */
    struct arena *header;      /* at the cut; sizeof(struct arena) bytes */
    bool making;
    uint64_t begun_ns;

    /* Of one engine each. */
    struct marks marks;
    struct marks_scan scan;
    bool giving_up;
    struct arena *image[2]; /* stop-copy: the committed one and the new one; fork: the committed */
    int committed;          /* index, -1: none */
    int taken_in;
    uint64_t cursor; /* line that the next step begins at */
    pid_t child;
    int page_fd, pagemap_fd;
    uint8_t *again; /* page: a byte per page that is wanted whether or not it was written to */

    int niceness;      /* of the workers, which stand while this thread has it too */
    int own_niceness;  /* of this thread otherwise */
    uint64_t pause_ns; /* of the latest: the longest that a worker stood still */
    uint64_t make_ns;  /* from the cut until the delta was complete */
    uint64_t fork_ns;
    uint64_t undo_used; /* entries, of the latest */
    uint64_t taken;
    uint64_t skipped;
    uint64_t abandoned;
    uint64_t bytes;
    uint64_t lines;
    uint64_t staging_peak;
    uint64_t pauses[SNAPSHOT_PAUSES];
};

/* 0 or a negative errno after one line on stderr. */
int snapshotter_init(struct snapshotter *snapshotter, const struct snapshot_engine *engine,
                     const struct node_config *config, struct arena *arena,
                     struct worker_group *group, struct worker *workers);

/* Begin one. 0 or a negative errno. */
int snapshotter_begin(struct snapshotter *snapshotter, struct snapshot_name name);

/* Go on with the one that was begun. */
enum snapshot_step snapshotter_step(struct snapshotter *snapshotter);

/* What the next slice is, from line `first` on: at most `bytes` of the arena. */
struct snapshot_slice snapshotter_slice(const struct snapshotter *snapshotter, uint64_t first,
                                        uint64_t bytes);

/* For engines: sleep until the workers stand, or have joined; then the header is that of the cut.
 */
void snapshotter_await(struct snapshotter *snapshotter);
/* Stop everybody between two packets; let everybody go on, and note the pause. */
void snapshotter_stop(struct snapshotter *snapshotter);
void snapshotter_go(struct snapshotter *snapshotter);
/* Begin from a base, for those that compare with an image of the committed snapshot. */
bool snapshotter_from_image(struct snapshotter *snapshotter, const struct arena *base);
void *snapshotter_map(uint64_t bytes, const char *what);

#endif

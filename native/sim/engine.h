/* How the master's state at a cut becomes a delta: the snapshot engines, as far as they are not the
 * kernel's. What roles/snapshot_*.c do. */
#ifndef FTMB_SIM_ENGINE_H
#define FTMB_SIM_ENGINE_H

#include "sim/sim.h"

struct sim_engine {
    bool whole; /* a slice is everything: the whole image is there anyway */
    /* The workers are about to begin; the arena is as the image, `base`: a committed one. */
    void (*start)(struct proc *proc, const struct arena *image, bool base);
    /* Nobody needs what has changed so far: slices will bring all of it. NULL: nothing to do. */
    void (*forget)(struct proc *proc);
    /* Make the cut, and the delta in proc->delta. False: it cannot be had, its lines go into the
     * next one. Runs for a while; the process may end meanwhile. */
    bool (*make)(struct proc *proc, struct snapshot_name name);
    /* What became of the delta: committed, or never will be (then its lines are wanted again). */
    void (*settle)(struct proc *proc, bool committed);
};

const struct sim_engine *sim_engine(void);

/* A flip, until all have joined; proc->header is the header at the cut. */
void engine_flip(struct proc *proc, struct snapshot_name name, bool stop);

#endif

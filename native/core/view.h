/* Who is master, who may take over, what the base is: the output logger's decisions.
 *
 * The OL is the commit point of outputs and of snapshots, so it is the fencing authority too: it
 * admits replicas (and gives each process an incarnation), commits snapshots, ends views, and names
 * the base of a failover. A view ends on silence only if an eligible backup exists, one that holds
 * the committed base; otherwise only a master known to be dead ends anything, and then loudly. */
#ifndef FTMB_CORE_VIEW_H
#define FTMB_CORE_VIEW_H

#include "core/snapshot.h"

#define VIEW_SLOTS 4

struct view_member {
    bool present;
    bool eligible; /* holds the committed base */
    uint32_t incarnation;
};

struct view_pending {
    bool valid;
    uint32_t slot;
    uint32_t view;
    uint64_t epoch;
    struct snapshot_cut cut;
};

struct view_state {
    uint32_t view; /* 0: nothing has begun */
    int master;    /* slot, -1: none */
    uint32_t incarnations;
    uint32_t base_view;
    uint64_t base_epoch; /* 0: no snapshot committed yet */
    struct view_member member[VIEW_SLOTS];
    struct view_pending pending;
};

void view_init(struct view_state *view);

/* A process in `slot` says hello. Returns its incarnation (> 0) and whether it is to be active: the
 * first one is the first master. 0: no such slot, or its old process is not known to be gone. */
uint32_t view_admit(struct view_state *view, uint32_t slot, bool *active);

/* The backup in `slot` holds a whole, sound delta. False: of an old view, an old process, the
 * master itself, or not newer than the base: to be ignored. */
bool view_prepared(struct view_state *view, uint32_t slot, uint32_t incarnation, uint32_t of_view,
                   uint64_t epoch, const struct snapshot_cut *cut);

/* The pending snapshot's cut has arrived: it is the base from here on. */
void view_commit(struct view_state *view);

/* The slot of a backup that may take over, or -1. */
int view_eligible(const struct view_state *view);

/* A process is gone (or, `master`, suspected). Members other than the master just leave. */
void view_leave(struct view_state *view, uint32_t slot);

/* End the view: the eligible backup becomes master of the next. Returns its slot, or -1: nobody can
 * take over, nothing was changed. */
int view_failover(struct view_state *view);

#endif

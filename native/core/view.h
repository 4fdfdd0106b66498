/* Who is master, who may take over, what the base is: the output logger's decisions.
 *
 * The OL is the commit point of outputs and of snapshots, so it is the fencing authority too: it
 * admits replicas (and gives each process an incarnation), commits snapshots, ends views, and names
 * the base of a failover. A view ends on silence only if an eligible backup exists, one that holds
 * the committed base; otherwise only a master known to be dead ends anything. Then the base may
 * still lie in the file of a slot: everything is kept and waits for a process that holds it, an
 * heir. Where no such file can be, the state is lost, loudly.
 *
 * The struct is plain memory: the output logger keeps a copy that outlives its process. */
#ifndef FTMB_CORE_VIEW_H
#define FTMB_CORE_VIEW_H

#include "core/snapshot.h"

#define VIEW_SLOTS 4

struct view_member {
    bool present;
    bool eligible; /* it holds the committed base */
    bool holder;   /* the slot's file holds the committed base, whoever is there */
    bool refused;  /* the last delta that it was sent: the snapshot goes on without it */
    uint32_t incarnation;
    uint32_t prepared_view; /* the newest snapshot that it holds whole */
    uint64_t prepared_epoch;
};

struct view_pending {
    bool valid;
    uint32_t view;
    uint64_t epoch;
    struct snapshot_cut cut;
};

struct view_state {
    uint32_t view;  /* 0: nothing has begun */
    int master;     /* slot, -1: none */
    bool promoting; /* the view has a master, but has not begun: its cut is awaited */
    bool heir;      /* the master is dead and nobody here holds the base: waiting for who does */
    uint32_t incarnations;
    uint32_t base_view;
    uint64_t base_epoch; /* 0: no snapshot committed yet, or the base was given up */
    struct view_member member[VIEW_SLOTS];
    struct view_pending pending;
    struct snapshot_cut kept_from; /* what lies before was forgotten: no base can begin there */
};

void view_init(struct view_state *view);

/* A process in `slot` says hello. Returns its incarnation (> 0) and whether it is to be active: the
 * first one is the first master. 0: no such slot, or its old process is not known to be gone. */
uint32_t view_admit(struct view_state *view, uint32_t slot, bool *active);

/* The process in `slot` says which base it holds (epoch 0: none). True: the committed one, so it
 * may take over. */
bool view_holds(struct view_state *view, uint32_t slot, uint32_t base_view, uint64_t base_epoch);

enum view_prepare {
    VIEW_STALE,   /* of an old view, an old process, the master itself, or not new: to be ignored */
    VIEW_PENDING, /* noted: see view_ready() */
    VIEW_LATE,    /* that snapshot is the base already; the backup is eligible from here on */
};

/* The backup in `slot` holds a whole, sound delta. */
enum view_prepare view_prepared(struct view_state *view, uint32_t slot, uint32_t incarnation,
                                uint32_t of_view, uint64_t epoch, const struct snapshot_cut *cut);

/* Has the backup in `slot` prepared what will never be committed, since another has prepared a
 * later one? It has to hear that: it takes nothing else before. */
bool view_superseded(const struct view_state *view, uint32_t slot);

/* The backup in `slot` could not use a delta. */
void view_refused(struct view_state *view, uint32_t slot);

/* May the pending snapshot become the base, once its cut has arrived? At least one backup holds it,
 * and so does every one that may take over now: nobody loses its right by a commit, but who refused
 * it. */
bool view_ready(const struct view_state *view);

/* The pending snapshot is the base from here on. */
void view_commit(struct view_state *view);

/* The slot of a backup that may take over, or -1; how many there are. */
int view_eligible(const struct view_state *view);
unsigned view_protectors(const struct view_state *view);

/* A process is gone. Members other than the master just leave. */
void view_leave(struct view_state *view, uint32_t slot);

enum view_outcome {
    VIEW_GOES_ON,  /* silence, and nobody could take over: nothing has changed */
    VIEW_PROMOTED, /* the next view, with the eligible backup as its master */
    VIEW_HEIRLESS, /* no view, until a process comes that holds the base (view_inherit()) */
    VIEW_LOST,     /* nobody holds a base, and no file can */
};

/* The master is dead, or silent. */
enum view_outcome view_master_failed(struct view_state *view, bool dead);

/* While `heir`: the next view begins if somebody here may take over by now. */
bool view_inherit(struct view_state *view);

/* The new view's cut has arrived. */
void view_begun(struct view_state *view);

/* The base is given up: its logs are needed no more, and nobody may take over with it. */
void view_forget(struct view_state *view);

/* So far were the logs forgotten then: PALs and inputs. To be kept before the IL is told. */
void view_forgot(struct view_state *view, const uint64_t *pals, const uint64_t *next_input);

#endif

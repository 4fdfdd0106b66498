/* A replica: master and backup in one program, in two conditions.
 *
 * Threads: workers (roles/worker.h); a control thread that talks to the output logger; one that
 * only sends heart-beats, so that neither a worker nor the computing of a cut makes it silent; a
 * state thread that takes and sends snapshots (master) or receives them (backup). */
#ifndef FTMB_ROLES_REPLICA_H
#define FTMB_ROLES_REPLICA_H

#include "core/standby.h"
#include "roles/ol_link.h"
#include "roles/role.h"
#include "roles/state_receiver.h"
#include "roles/state_sender.h"

struct replica {
    const struct node_config *config;
    struct arena *arena;
    struct worker_group group;
    struct worker workers[FTMB_MAX_WORKERS];
    struct ctx_env env;

    pthread_t control_thread;
    pthread_t beat_thread;
    pthread_t state_thread;
    struct ol_link ol;
    _Atomic uint32_t view; /* written by the control thread */
    uint32_t incarnation;  /* 0: not admitted yet */
    _Atomic bool quit;
    _Atomic bool active; /* the master; written by the control thread */

    /* Promotion; the control thread's. */
    uint32_t promised_view; /* a cut was sent for it, 0: none */
    struct msg_cut cut;
    _Atomic(uint64_t *) logs; /* of the replay; freed by the state thread when it is done */

    _Atomic int state_thread_id;
    int state_wake; /* eventfd: the state thread has something to look at */
    pthread_mutex_t state_lock;
    struct standby standby; /* guarded by it, as is the next */
    bool promoting;         /* nothing may be prepared any more */
    atomic_bool hurry;      /* from a promotion until the workers run: nobody gives way */
    bool refused_last;      /* the delta received last */
    uint64_t refused;       /* deltas */

    struct state_sender sender;     /* master */
    struct state_receiver receiver; /* backup */
};

/* Map and build the arena, connect to the OL, start the threads. 0 or a negative errno after one
 * line on stderr. input/output: the lanes of each worker. */
int replica_create(struct replica *replica, const struct node_config *config,
                   const struct io_lane *input, const struct io_lane *output,
                   struct rte_mempool *const *pools);

/* The role of worker `index`. */
struct role replica_worker_role(struct replica *replica, uint32_t index);

/* End: wake sleeping workers, say goodbye to the OL. */
void replica_stop(struct replica *replica);
json_t *replica_stats(struct replica *replica);

/* replica_base.c: what a standby holds. Open the base's file, and load what the slot's last process
 * left there. */
int replica_base_open(struct replica *replica);
void replica_committed(struct replica *replica, const struct msg_snapshot *message);
void replica_void(struct replica *replica, const struct msg_snapshot *message);
void replica_new_view(struct replica *replica, uint32_t view);
/* What the OL is to be told of a delta; type 0: nothing. */
struct staged {
    uint16_t type;
    struct msg_snapshot message;
};
/* A whole delta was received. */
struct staged replica_stage(struct replica *replica, uint64_t bytes);
/* Is that snapshot its base, or prepared here? */
bool replica_holds(struct replica *replica, struct base_name name);
/* After a rejoin: what became of the last delta, again. */
void replica_tell_staged(struct replica *replica);

/* replica_state.c */
int replica_state_init(struct replica *replica);
void *replica_state_main(void *self);
void replica_state_wake(struct replica *replica);
void replica_state_path(const struct replica *replica, uint32_t slot, char *path, size_t size);
void replica_state_hurry(const struct replica *replica);

/* Copying, comparing and digesting must not take half a core from a poller that has it to itself.
 * Where cores are shared they give way every few microseconds instead (breathe()): with a step back
 * on top they would hardly ever run, since each yield costs a thread its slice. */
#define REPLICA_BULK_NICENESS 9
/* Of the calling thread; positive: step back by so much. */
void replica_change_niceness(int by);

/* replica_failover.c */
void replica_promote(struct replica *replica, const struct control_msg *message);
void replica_go(struct replica *replica, uint32_t view);
_Noreturn void replica_fenced(struct replica *replica, uint32_t view, int by);

void replica_send(struct replica *replica, enum message_type type, const void *body, size_t length);

#endif

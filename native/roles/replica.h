/* A replica: master and backup in one program, in two conditions.
 *
 * Threads: workers (roles/worker.h); a control thread that talks to the output logger; one that
 * only sends heart-beats, so that neither a worker nor the computing of a cut makes it silent; a
 * state thread that takes and sends snapshots (master) or receives them (backup). */
#ifndef FTMB_ROLES_REPLICA_H
#define FTMB_ROLES_REPLICA_H

#include "io/control.h"
#include "roles/messages.h"
#include "roles/role.h"
#include "roles/snapshotter.h"

struct replica {
    const struct node_config *config;
    struct arena *arena;
    struct worker_group group;
    struct worker workers[FTMB_MAX_WORKERS];
    struct ctx_env env;

    pthread_t control_thread;
    pthread_t beat_thread;
    pthread_t state_thread;
    int ol_fd;
    pthread_mutex_t ol_lock; /* two threads send on ol_fd */
    struct control_buf ol_buffer;
    uint32_t view;
    uint32_t incarnation;
    _Atomic bool orderly_end; /* the OL said goodbye */
    _Atomic bool quit;

    pthread_mutex_t state_lock; /* guards everything below */
    pthread_cond_t state_changed;
    bool active;
    int state_listen_fd;

    /* Master. */
    struct snapshotter snapshotter;
    bool backup_present;
    uint32_t backup_slot;
    uint32_t backup_changes; /* backups that came or went */
    bool snapshot_wanted;
    uint64_t epoch;         /* of the latest snapshot of this view */
    uint64_t pending_epoch; /* under way, 0: none */
    uint64_t full_after_ns; /* earliest time of the next full snapshot */

    /* Backup. */
    struct delta receiving;
    struct delta staged; /* whole and sound, waits for the OL's commit */
    uint64_t base_epoch; /* what the arena holds, 0: nothing */
    uint32_t base_view;
    uint64_t digests_matched;
    uint64_t digests_mismatched;
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

/* replica_state.c */
void *replica_state_main(void *self);
int replica_state_init(struct replica *replica);
void replica_apply_committed(struct replica *replica, uint32_t view,
                             const struct msg_snapshot *message);

/* replica_failover.c */
void replica_promote(struct replica *replica, const struct control_msg *message);
void replica_go(struct replica *replica, uint32_t view);

void replica_send(struct replica *replica, enum message_type type, const void *body, size_t length);

#endif

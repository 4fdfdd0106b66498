/* A worker of a replica: polls its own input queue, runs the network function to completion on one
 * packet at a time, and streams PALs and outputs to the output logger. */
#ifndef FTMB_ROLES_WORKER_H
#define FTMB_ROLES_WORKER_H

#include <pthread.h>

#include "core/epoch.h"
#include "core/replay.h"
#include "core/stream.h"
#include "core/wire.h"
#include "io/crash.h"
#include "io/port.h"
#include "roles/config.h"

/* Frames kept for a resend. Also the number of outputs that may be under way to the OL. */
#define WORKER_WINDOW 2048u

/* What the workers of one replica share. */
struct worker_group {
    struct epoch_group epochs;
    CACHE_ALIGNED _Atomic uint32_t active;
    _Atomic uint32_t quit;
    _Atomic uint32_t replaying; /* workers that have not left the replay */
    _Atomic uint64_t packets_replayed;
    pthread_mutex_t lock; /* standby workers sleep on it */
    pthread_cond_t wake;
    uint32_t view;
    uint32_t incarnation;
    struct replay replay;
    struct published_count published[FTMB_MAX_WORKERS];
};

struct worker {
    struct ftmb_ctx ctx;
    struct worker_group *group;
    const struct node_config *config;
    struct io_lane input;  /* IL's side: inputs in, acknowledgements out */
    struct io_lane output; /* OL's side: the stream out, acknowledgements in */
    struct rte_mempool *pool;
    uint32_t view;
    uint32_t incarnation;
    uint16_t burst;         /* most inputs taken at once */
    uint32_t room_needed;   /* stream frames that one burst may need */
    uint32_t room_for_one;  /* that one input may need */
    struct crash_hand hand; /* the input in hand, for the crash record */

    struct stream_rx in;
    struct stream_tx out;
    struct rte_mbuf *kept[WORKER_WINDOW]; /* unacknowledged frames by number */
    uint64_t progress_sent;               /* next_input that the OL has been told */

    struct rte_mbuf *outputs[FTMB_BURST]; /* of this burst, or not yet taken (modes without logs) */
    uint32_t output_count;

    uint64_t bad;
    uint64_t old_view;
    uint64_t polls;
    uint64_t packets_at_promotion;

    /* Every 64th burst is timed: what a packet costs, for the schedule `adaptive`. */
    _Atomic uint64_t timed_ns;
    _Atomic uint64_t timed_packets;
};

/* Set up worker `index` over a mapped arena; 0 or a negative errno after one line on stderr. */
int worker_init(struct worker *worker, uint32_t index, const struct node_config *config,
                struct worker_group *group, struct arena *arena, const struct ctx_env *env,
                struct io_lane input, struct io_lane output, struct rte_mempool *pool);

/* Take up work in the group's view, from where the arena stands. The group is not active yet. */
void worker_begin(struct worker *worker, struct replay *replay);

unsigned worker_poll(void *self);

#endif

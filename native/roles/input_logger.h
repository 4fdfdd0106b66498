/* The input logger: gives every input its worker, number and time stamp, stores a copy, and only
 * then forwards it. After a failover it sends what it stored to the new master.
 *
 * An input is refused, before it has a number, when its log or the output logger's credit is
 * exhausted (I5), or it waits at the door (back-pressure): with `wait_when_full`, and from the
 * command "wait" to the command "refuse". A worker without input for a millisecond gets a tick, so
 * that its timers advance.
 *
 * All that must not be forgotten lies in a mapped file, `il.state`: a process that finds it goes on
 * with the numbers, stamps and inputs of the one that was killed. */
#ifndef FTMB_ROLES_INPUT_LOGGER_H
#define FTMB_ROLES_INPUT_LOGGER_H

#include <pthread.h>

#include "core/input_log.h"
#include "core/stream.h"
#include "core/view.h"
#include "core/wire.h"
#include "io/port.h"
#include "roles/config.h"
#include "roles/messages.h"
#include "roles/ol_link.h"
#include "roles/role.h"

#define IL_PORTS 2
/* With back-pressure: inputs that may wait in a worker's log for its link. No more than a burst, so
 * that inputs leave in the buffers they came in and are not copied from the log. */
#define IL_BACKLOG FTMB_BURST

/* In the file, buffers and all; those are void for the next process. */
struct il_worker {
    struct input_log log;
    struct stream_tx out;
    uint64_t limit;                     /* highest number that credit allows */
    uint64_t latest_ns;                 /* stamp of the latest input; never goes back */
    struct rte_mbuf *burst[FTMB_BURST]; /* inputs just logged, for the fast path */
    uint32_t burst_count;
    uint32_t link_full; /* polls to skip */
    uint64_t accepted;  /* inputs; with the ticks they make up the numbers */
    uint64_t ticks;
};

/* What the file begins with; the logs follow. */
struct il_kept {
    uint32_t view; /* 0: no master yet */
    uint32_t slot;
    uint32_t incarnation;
    bool accepting; /* a first snapshot is committed */
    uint64_t received;
    uint64_t refused;
    uint64_t malformed; /* frames from outside that no function could take */
    uint64_t log_bytes;
    struct il_worker worker[FTMB_MAX_WORKERS];
};

/* What the control thread tells the lcore; taken whole, between two polls. */
struct il_orders {
    _Atomic bool pending;
    bool new_view;
    struct msg_view view;
    uint32_t view_number;
    bool commit;
    struct snapshot_cut cut;
    bool credit;
    struct msg_credit limits;
};

struct input_logger {
    const struct node_config *config;
    struct io_lane in[IL_PORTS];
    struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS];
    struct rte_mempool *pool; /* for frames from the log */
    struct il_kept *kept;
    struct il_worker *worker;          /* in `kept` */
    bool recovered;                    /* this process found the file */
    struct rte_mbuf *door[FTMB_BURST]; /* inputs that wait to be accepted (back-pressure) */
    uint32_t door_count;
    uint8_t door_port;
    uint8_t next_port;

    uint64_t ticked_ns;
    uint64_t bad; /* frames of replicas */
    uint64_t old_view;
    bool full;          /* input is being refused */
    _Atomic bool waits; /* instead of being refused, input waits */
    struct il_orders orders;

    pthread_t control_thread;
    _Atomic bool quit;
    _Atomic uint32_t pressed; /* LOG_...: the state of the fullest log */
    struct ol_link ol;
    uint64_t snapshot_requests;
};

int input_logger_create(struct input_logger *il, const struct node_config *config,
                        const struct io_lane *in,
                        struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS],
                        struct rte_mempool *pool);
struct role input_logger_role(struct input_logger *il);
void input_logger_stop(struct input_logger *il);

int il_keep_open(struct input_logger *il);     /* il_keep.c */
int il_control_start(struct input_logger *il); /* il_control.c */

#endif

/* The output logger: stores PALs, holds outputs, releases them, ends views.
 *
 * Two threads: the role's poll on its lcore moves frames; a control thread (ol_control.c) is the
 * hub of all control messages and decides on commits and failovers. All of `release` belongs to the
 * lcore; the control thread hands it small jobs and waits for them. */
#ifndef FTMB_ROLES_OUTPUT_LOGGER_H
#define FTMB_ROLES_OUTPUT_LOGGER_H

#include <pthread.h>

#include "core/release.h"
#include "core/stream.h"
#include "core/view.h"
#include "core/wire.h"
#include "io/control.h"
#include "io/port.h"
#include "roles/config.h"
#include "roles/messages.h"
#include "roles/role.h"

/* Held outputs per worker; beyond it the OL lets the worker wait. */
#define OL_HELD 4096u
#define OL_PORTS 2

enum ol_job_kind { OL_JOB_NONE, OL_JOB_BEGIN, OL_JOB_COMMIT, OL_JOB_FENCE, OL_JOB_FORGET };

/* What the control thread asks of the lcore. */
struct ol_job {
    _Atomic uint32_t kind; /* OL_JOB_NONE: done */
    bool ok;
    uint32_t slot; /* BEGIN: take frames of this replica, view and incarnation */
    uint32_t view;
    uint32_t incarnation;
    uint64_t pals[FTMB_MAX_WORKERS];       /* BEGIN: the cut; COMMIT: what is covered */
    uint64_t outputs[FTMB_MAX_WORKERS];    /* COMMIT */
    uint64_t next_input[FTMB_MAX_WORKERS]; /* BEGIN: where the view's inputs start */
};

/* What the death watch says. */
struct ol_death {
    uint32_t slot;
    uint32_t incarnation;
};

struct ol_connection {
    int fd; /* -1: free */
    bool is_il;
    bool orderly;
    int slot; /* -1: has not said hello */
    uint32_t incarnation;
    uint64_t heard_ns;
    struct control_buf buffer;
};

#define OL_CONNECTIONS (VIEW_SLOTS + 2)

struct output_logger {
    const struct node_config *config;
    struct release release;
    struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS];
    struct io_lane out[OL_PORTS];
    struct rte_mempool *pool; /* for acknowledgements */
    struct rte_mbuf *leaving[OL_PORTS][FTMB_BURST];
    uint32_t leaving_count[OL_PORTS];

    /* The view that frames must belong to; only the lcore reads and writes these. */
    bool flowing;
    uint32_t slot;
    uint32_t view;
    uint32_t incarnation;
    struct stream_rx in[FTMB_MAX_WORKERS];
    bool resumed; /* a new output of this view has left */
    uint64_t polls;
    _Atomic uint64_t progress[FTMB_MAX_WORKERS]; /* next_input that the master told */

    uint64_t frames;
    uint64_t pals;
    uint64_t outputs;
    uint64_t old_view;
    uint64_t bad;
    uint64_t no_room; /* frames that came before there was room, and came again */
    struct ol_job job;

    /* Control thread. */
    pthread_t control_thread;
    _Atomic bool quit;
    int listen_fd;
    int death_pipe[2];
    int watch[VIEW_SLOTS]; /* death watch numbers, -1: none */
    struct ol_connection connection[OL_CONNECTIONS];
    struct view_state state;
    bool promoting;    /* waiting for the new master's cut */
    bool is_protected; /* a backup holds the base */
    uint64_t ticked_ns;
    uint64_t forgot_ns;
    uint64_t asked_ns;             /* when a snapshot was last asked for because a log fills */
    struct msg_snapshot committed; /* the base */
    uint64_t commits;
    uint64_t snapshot_requests;
    struct msg_credit credit; /* as last sent */
};

/* replica: lanes to each replica's workers; out: where frames leave, by side. `pool` gives
 * acknowledgement frames. 0 or a negative errno after one line on stderr. */
int output_logger_create(struct output_logger *ol, const struct node_config *config,
                         struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS],
                         const struct io_lane *out, struct rte_mempool *pool);
struct role output_logger_role(struct output_logger *ol);
void output_logger_stop(struct output_logger *ol);

int ol_control_start(struct output_logger *ol); /* ol_control.c */

#endif

/* The output logger: stores PALs, holds outputs, releases them, ends views.
 *
 * Two threads: the role's poll on its lcore moves frames; a control thread is the hub of all
 * control messages and decides on commits and failovers. All of `release` belongs to the lcore; the
 * control thread hands it small jobs and waits for them.
 *
 * What it must not forget lies in a mapped file, `ol.state` (ol_keep.c): logs and counts as the
 * lcore stores them, decisions as they are made, before they are acted on. A process that finds the
 * file takes up where the one before it was killed. */
#ifndef FTMB_ROLES_OUTPUT_LOGGER_H
#define FTMB_ROLES_OUTPUT_LOGGER_H

#include <pthread.h>

#include "core/handover.h"
#include "core/release.h"
#include "core/stream.h"
#include "core/twin.h"
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

enum ol_job_kind {
    OL_JOB_NONE,
    OL_JOB_BEGIN,  /* a view: truncate the logs to the cut, take its frames */
    OL_JOB_RESUME, /* go on with a view after a restart */
    OL_JOB_COVERS, /* has everything before a cut arrived and left? */
    OL_JOB_TRIM,   /* the base covers it: forget it */
    OL_JOB_FENCE,
    OL_JOB_FORGET,
};

/* What the control thread asks of the lcore. */
struct ol_job {
    _Atomic uint32_t kind; /* OL_JOB_NONE: done */
    bool ok;
    uint32_t slot; /* BEGIN: take frames of this replica, view and incarnation */
    uint32_t view;
    uint32_t incarnation;
    uint64_t pals[FTMB_MAX_WORKERS];    /* BEGIN: the cut; COVERS, TRIM: what is covered */
    uint64_t outputs[FTMB_MAX_WORKERS]; /* COVERS, TRIM */
    uint64_t
        next_input[FTMB_MAX_WORKERS]; /* BEGIN: where the view's inputs start; FORGET: result */
};

/* What the death watch says. */
struct ol_death {
    uint32_t slot;
    uint32_t incarnation;
};

struct ol_connection {
    int fd; /* -1: free */
    bool is_il;
    bool orderly; /* its end is no news */
    bool broken;  /* it took no more, or sent what cannot be: to be closed */
    int slot;     /* -1: has not said hello, or counts no more */
    uint32_t incarnation;
    struct control_buf buffer;
};

/* Of every replica and the IL, and as many that have not said hello, or were fenced. */
#define OL_CONNECTIONS (2 * (VIEW_SLOTS + 1))

/* The input that a process died of, when it was the process's own fault. */
struct ol_crash {
    bool known;
    uint32_t worker;
    uint64_t input;
};

/* What the control thread has decided; kept whole, a new copy with every decision. */
struct ol_decisions {
    struct view_state view;
    struct msg_snapshot committed;         /* the base */
    uint64_t next_input[FTMB_MAX_WORKERS]; /* where the view's inputs began */
    uint32_t pid[VIEW_SLOTS];
    uint64_t process[VIEW_SLOTS]; /* ol_link_process() of each */
    uint64_t il_process;          /* 0: there was none yet */
    bool il_missed;               /* `unprotected: il` was told, and its end was not */
    bool forgotten;               /* the base was given up, and none committed since */
    struct ol_crash crash;
    uint64_t commits;
};

/* What the lcore stores as it goes; the decisions and the logs' memory follow in the file. */
struct ol_kept {
    struct release release;
    _Atomic uint64_t progress[FTMB_MAX_WORKERS]; /* next_input that the master told */
    uint64_t frames;
    uint64_t pals;
    uint64_t outputs;
    uint64_t old_view;
    uint64_t bad;
    uint32_t resumed_view; /* the last view of which a new output has left */
    uint64_t no_room;      /* frames that came before there was room, and came again */
};

struct output_logger {
    const struct node_config *config;
    struct ol_kept *kept;
    struct release *release; /* in `kept` */
    struct twin *decisions;  /* likewise */
    bool recovered;          /* this process found the file */
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
    uint64_t polls;
    struct ol_job job;

    /* Control thread. */
    pthread_t control_thread;
    _Atomic bool quit;
    int listen_fd;
    int death_pipe[2];
    int watch[VIEW_SLOTS]; /* death watch numbers, -1: none */
    struct ol_connection connection[OL_CONNECTIONS];
    struct ol_decisions state; /* ol_decided() keeps it */
    unsigned protectors;       /* backups that hold the base, as last told */
    uint64_t heard_ns[VIEW_SLOTS];
    bool doubted[VIEW_SLOTS]; /* silent, and nobody can take over: told once */
    uint64_t ticked_ns;
    uint64_t grace_ns;   /* nobody is silent before: they have to find us again */
    uint64_t waiting_ns; /* since when an heir, or a promoted backup's answer, is awaited */
    uint64_t il_lost_ns; /* 0: it is there, or never was */
    bool rejoining;      /* after a restart, until all are there again */
    uint32_t il_pressed; /* LOG_..., as the IL said since we last looked */
    uint64_t forgot_ns;
    uint64_t committed_ns;        /* when a snapshot last was; 0: not by this process */
    _Atomic bool handover_wanted; /* by the command */
    struct handover handover;
    uint64_t asked_ns; /* when a snapshot was last asked for because a log fills */
    uint64_t bad_messages;
    uint64_t connections_dropped;
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

int ol_keep_open(struct output_logger *ol);     /* ol_keep.c */
int ol_control_start(struct output_logger *ol); /* ol_control.c */

#endif

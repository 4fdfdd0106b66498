/* What a process is to be: the node spec, parsed and checked (app/spec.c). */
#ifndef FTMB_ROLES_CONFIG_H
#define FTMB_ROLES_CONFIG_H

#include <jansson.h>

#include "nf/nf.h"

enum node_mode {
    MODE_DIRECT, /* generator and sink take the loggers' places; nothing is logged */
    MODE_NONE,   /* the same hops as FTMB, nothing is logged, held or copied */
    MODE_FTMB,
    MODE_FLOOR, /* generator straight to sink: the floor of every measurement */
};

/* How state is copied. None: one full base, then nothing. */
enum snapshot_engine_kind {
    ENGINE_NONE,
    ENGINE_STOP_COPY,
    ENGINE_FORK,
    ENGINE_COW,
    ENGINE_PAGE,
};

/* When a snapshot is taken, beside those that the OL asks for because a log fills. */
enum snapshot_schedule {
    SCHEDULE_PERIOD,   /* every period_us */
    SCHEDULE_LOG,      /* when the input log since the base exceeds log_mb */
    SCHEDULE_DEMAND,   /* at the command `snapshot` */
    SCHEDULE_ADAPTIVE, /* so that the predicted replay stays below replay_target_us */
};

#define NODE_NAME_BYTES 24
#define NODE_PATH_BYTES 80      /* of `dir`, so that socket paths below it fit sockaddr_un */
#define NODE_INTERFACE_BYTES 16 /* IFNAMSIZ */
#define NODE_MAX_LCORES 16
#define NODE_MAX_ROLES 8

struct node_lcore {
    uint32_t cpu;
    uint32_t roles;
    char role[NODE_MAX_ROLES][NODE_NAME_BYTES];
};

struct node_config {
    char process[NODE_NAME_BYTES];
    char dir[NODE_PATH_BYTES];
    enum node_mode mode;
    uint32_t workers;
    uint32_t replicas;
    bool yield; /* an idle poll gives the core away: there are fewer cores than polling threads */
    uint32_t memory_mb;

    const struct nf *nf;
    uint64_t params[NF_MAX_PARAMS];
    struct nf_needs needs;
    uint64_t config_digest;

    bool exact;
    bool reads_locked;
    bool pal_batch;
    bool check;
    enum snapshot_engine_kind engine;
    enum snapshot_schedule schedule;
    uint64_t period_us;
    uint32_t log_mb;
    uint64_t replay_target_us;
    uint32_t undo_mb;       /* undo log of each worker (engine cow) */
    uint32_t full_mb_per_s; /* bandwidth limit of a full snapshot */
    uint32_t detect_ms;
    uint32_t heir_ms; /* the OL waits so long for a process that holds the base */
    uint32_t peer_ms; /* a role waits so long for a logger to come back */

    uint64_t input_bytes; /* per worker, power of two */
    uint64_t pals;        /* per worker, power of two */
    uint64_t outputs;     /* per worker, power of two */
    bool wait_when_full;

    uint32_t lcores;
    struct node_lcore lcore[NODE_MAX_LCORES];
    uint32_t noise_cpus;
    uint32_t noise_cpu[NODE_MAX_LCORES];
    uint32_t slot;
    char group_traffic[NODE_NAME_BYTES]; /* the process that holds the role */
    char group_il[NODE_NAME_BYTES];
    char group_ol[NODE_NAME_BYTES];
    const json_t *traffic; /* NULL where the role is elsewhere */
    /* Network interfaces of the middlebox, by side; empty: a generator takes their place. */
    char interface[2][NODE_INTERFACE_BYTES];
};

#endif

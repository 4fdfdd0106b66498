/* What a process is to be: the node spec, parsed and checked (app/spec.c). */
#ifndef FTMB_ROLES_CONFIG_H
#define FTMB_ROLES_CONFIG_H

#include <jansson.h>
#include <stdio.h>

#include "core/stream.h"
#include "io/trunk_frame.h"
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
#define NODE_CONTROL_BYTES 32   /* tcp:ADDRESS:PORT */
#define NODE_REPLICAS 4
#define NODE_MAX_LCORES 16
#define NODE_MAX_ROLES 8

struct node_lcore {
    uint32_t cpu;
    uint32_t roles;
    char role[NODE_MAX_ROLES][NODE_NAME_BYTES];
};

/* An interface and the links that it carries; the address at each link's other end. */
struct node_trunk {
    char interface[NODE_INTERFACE_BYTES];
    enum trunk_driver driver;
    uint32_t links;
    struct {
        char name[NODE_NAME_BYTES];
        uint8_t peer[TRUNK_MAC_BYTES];
    } link[TRUNK_LINKS];
};

/* Where the other roles are, if they are not all on this machine. */
struct node_hosts {
    char token[NODE_PATH_BYTES + 32];
    uint8_t trial[TRUNK_TRIAL_BYTES];
    char ol[NODE_CONTROL_BYTES];
    char state[NODE_REPLICAS][NODE_CONTROL_BYTES];
    uint32_t trunks;
    struct node_trunk trunk[TRUNK_MAX];
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
    uint64_t params[NF_MAX_VALUES];
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
    bool apart; /* roles stand on several hosts: no file, pid or lock is common to all */
    struct node_hosts hosts;
};

/* The window of a stream to or from a replica: between hosts nothing else bounds what is under way,
 * and what a receiver cannot keep would have to be sent again. */
static inline uint64_t node_window(const struct node_config *config)
{
    return config->apart ? STREAM_EARLY : 0;
}

/* Where the OL listens. */
static inline void node_ol_path(const struct node_config *config, char *path, size_t size)
{
    if (config->apart)
        snprintf(path, size, "%s", config->hosts.ol);
    else
        snprintf(path, size, "%s/ol.ctl", config->dir);
}

#endif

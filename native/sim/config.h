/* What a schedule is drawn from: all of it from the seed, unless it is given. */
#ifndef FTMB_SIM_CONFIG_H
#define FTMB_SIM_CONFIG_H

#include "sim/random.h"

#define SIM_MAX_FAULTS 6u

enum program_kind {
    PROGRAM_RANDOM,
    PROGRAM_NAT,
    PROGRAM_MONITOR,
    PROGRAM_RATELIMIT,
    PROGRAM_FIREWALL,
    PROGRAM_LB,
    PROGRAM_CHAIN,
    PROGRAM_WANOPT,
    PROGRAM_IDS,
    PROGRAMS,
    PROGRAM_ALL = PROGRAMS
};

enum engine_kind { SIM_COW, SIM_STOP_COPY, SIM_PAGE, SIM_ENGINES, SIM_ENGINE_ALL = SIM_ENGINES };

enum fault_kind {
    FAULT_KILL_MASTER,
    FAULT_KILL_AGAIN, /* the new master, before there is a new backup */
    FAULT_STOP_MASTER,
    FAULT_STALL_MASTER, /* only its heart-beats are late */
    FAULT_STALL_ALONE,  /* likewise, while nobody could take over */
    FAULT_KILL_BACKUP,
    FAULT_KILL_NEWCOMER, /* a backup while it receives its first snapshot */
    FAULT_KILL_HOLDER,   /* a backup with the base, while another builds */
    FAULT_STOP_BACKUP,
    FAULT_STOP_NEWCOMER, /* a backup that builds, not for long */
    FAULT_KILL_OL,
    FAULT_KILL_OL_PROMOTING, /* during a failover */
    FAULT_KILL_IL,
    FAULT_STOP_OL,
    FAULT_CUT_IL,
    FAULT_CUT_OL,
    FAULT_CUT_CONTROL,
    FAULT_SWITCHOVER, /* none, but a planned change of master */
    FAULT_KINDS
};

struct link_faults {
    uint32_t drop, repeat, reorder, delay; /* per thousand */
};

struct fault {
    enum fault_kind kind;
    uint32_t after;   /* packets accepted before */
    uint32_t then_ns; /* and time after that */
};

struct sim_config {
    uint64_t seed;
    uint64_t order; /* draws the order of steps anew, everything else being equal */
    enum program_kind program;
    uint32_t workers;
    uint32_t variables;
    uint32_t packets;
    uint32_t backups;
    bool exact;
    bool reads_locked;
    bool batch;
    uint32_t burst;
    uint32_t window;       /* frames of a worker under way, above what one burst may need */
    uint32_t frame_pals;   /* capacity of a PAL frame, above the longest section */
    uint32_t log_pals;     /* per worker, power of two */
    uint32_t log_outputs;  /* likewise */
    uint32_t log_bytes;    /* of input, likewise */
    uint32_t switch_every; /* SIM_POINTs between two switches, on the average; 0: never */
    uint64_t max_switches; /* after these only at waits and between packets */
    uint32_t gap_ns;       /* between packets, on the average */
    uint32_t period_us;    /* of snapshots */
    enum engine_kind engine;
    bool check;       /* hashes of all lines; everybody stands meanwhile */
    uint32_t undo;    /* entries of a worker's undo log */
    uint32_t slice;   /* bytes of a slice */
    uint32_t budget;  /* lines collected at a time */
    uint32_t no_room; /* per thousand lines: there is no room for a line */
    struct link_faults links;
    uint32_t faults;
    struct fault fault[SIM_MAX_FAULTS];
};

/* What a user may fix; a negative number or PROGRAM_ALL: as the seed says. */
struct sim_options {
    int64_t packets;
    int64_t backups;
    int64_t workers;
    int64_t fault_mask; /* bit i: keep fault i */
    int64_t clean_links;
    int64_t max_switches;
    int64_t order;
    enum program_kind program;
    enum engine_kind engine;
};

extern const char *const config_engine_names[SIM_ENGINES];
extern const char *const config_program_names[PROGRAMS];

struct sim_config config_draw(uint64_t seed, const struct sim_options *options);

#endif

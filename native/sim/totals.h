/* Running many schedules, and what they add up to. */
#ifndef FTMB_SIM_TOTALS_H
#define FTMB_SIM_TOTALS_H

#include <stdio.h>

#include "sim/run.h"

#define TOTALS_VIOLATIONS 16u

struct violation {
    uint64_t seed;
    char invariant[8];
    char what[256];
};

struct totals {
    _Atomic uint64_t schedules;
    uint64_t packets;
    uint64_t crashes; /* processes killed */
    uint64_t steps;
    uint64_t programs[PROGRAMS];
    uint64_t engines[SIM_ENGINES];
    uint64_t exact;
    uint64_t hash; /* of all traces */
    _Atomic uint32_t violations;
    struct violation violation[TOTALS_VIOLATIONS];
    uint64_t coverage[COVERAGE_COUNT];
};

struct plan {
    uint64_t base;
    uint64_t seeds;
    uint32_t jobs;
    bool twice;          /* each schedule again: the same must happen */
    bool progress;       /* a line on the terminal */
    bool quick;          /* planted bugs: leave out the rare ones */
    uint32_t stop_after; /* violations; 0: go on to the end */
    struct sim_options options;
};

/* Run seeds base .. base + seeds - 1 in `jobs` processes. */
void totals_run(const struct plan *plan, struct totals *totals);

void totals_print(const struct plan *plan, const struct totals *totals, double seconds);
/* 0 or an errno. */
int totals_json(const char *path, const struct plan *plan, const struct totals *totals,
                double seconds);
void json_string(FILE *out, const char *text);

double wall_seconds(void);

#endif

/* Making a failing schedule smaller: fewer packets, faults, workers, switches, clean links. After
 * every step the invariant must still be broken; since a smaller schedule takes another course,
 * each step is tried with several orders. Bounded by a number of runs. */
#include "sim/shrink.h"

#include <stdio.h>
#include <string.h>

#define MAX_RUNS 4000u
#define ORDERS 40u

struct search {
    uint64_t seed;
    char invariant[8];
    struct sim_options best;
    uint32_t runs;
};

/* Does it fail in the same way like this, in any of some orders? Then it is the best. */
static bool try_options(struct search *search, struct sim_options options)
{
    for (uint32_t i = 0; i < ORDERS && search->runs < MAX_RUNS; i++) {
        struct sim_options candidate = options;
        if (i > 0)
            candidate.order = i;
        struct sim_config config = config_draw(search->seed, &candidate);
        search->runs++;
        if (sim_run(&config, false) || strcmp(sim.invariant, search->invariant) != 0)
            continue;
        search->best = candidate;
        return true;
    }
    return false;
}

static void drop_faults(struct search *search)
{
    struct sim_options all = search->best;
    all.fault_mask = -1;
    struct sim_config config = config_draw(search->seed, &all);
    int64_t mask =
        search->best.fault_mask >= 0 ? search->best.fault_mask : (1ll << config.faults) - 1;
    for (uint32_t i = config.faults; i-- > 0;) {
        if (!(mask & (1ll << i)))
            continue;
        struct sim_options less = search->best;
        less.fault_mask = mask & ~(1ll << i);
        if (try_options(search, less))
            mask = less.fault_mask;
    }
}

/* Halve a number as long as it still fails, then come closer from below. */
static void lower(struct search *search, int64_t *(*field)(struct sim_options *), int64_t from)
{
    int64_t high = from, low = 0;
    while (low + 1 < high && search->runs < MAX_RUNS) {
        struct sim_options less = search->best;
        int64_t middle = low + (high - low) / 2;
        *field(&less) = middle;
        if (try_options(search, less))
            high = middle;
        else
            low = middle;
    }
}

static int64_t *packets_of(struct sim_options *options)
{
    return &options->packets;
}

static int64_t *switches_of(struct sim_options *options)
{
    return &options->max_switches;
}

uint32_t shrink(uint64_t seed, struct sim_options *options)
{
    struct search search = {.seed = seed, .best = *options};
    struct sim_config config = config_draw(seed, options);
    if (sim_run(&config, false))
        return 0;
    snprintf(search.invariant, sizeof(search.invariant), "%s", sim.invariant);
    struct sim_options less = search.best;
    less.clean_links = 1;
    try_options(&search, less);
    drop_faults(&search);
    less = search.best;
    less.backups = 1;
    try_options(&search, less);
    lower(&search, packets_of, config.packets);
    for (int64_t workers = 2; workers < (int64_t)config.workers; workers++) {
        less = search.best;
        less.workers = workers;
        if (try_options(&search, less))
            break;
    }
    drop_faults(&search);
    config = config_draw(seed, &search.best);
    sim_run(&config, false);
    lower(&search, switches_of, (int64_t)sim.switches);
    *options = search.best;
    return search.runs;
}

void shrink_command(char *out, size_t size, uint64_t seed, const struct sim_options *options)
{
    size_t at = (size_t)snprintf(out, size, "ftmb-sim --seed %llu", (unsigned long long)seed);
    const struct {
        const char *name;
        int64_t value;
    } number[] = {{"packets", options->packets}, {"backups", options->backups},
                  {"workers", options->workers}, {"fault-mask", options->fault_mask},
                  {"order", options->order},     {"switches", options->max_switches}};
    for (size_t i = 0; i < sizeof(number) / sizeof(number[0]); i++) {
        if (number[i].value >= 0 && at < size)
            at += (size_t)snprintf(out + at, size - at, " --%s %lld", number[i].name,
                                   (long long)number[i].value);
    }
    if (options->program != PROGRAM_ALL && at < size)
        at += (size_t)snprintf(out + at, size - at, " --program %s",
                               config_program_names[options->program]);
    if (options->engine != SIM_ENGINE_ALL && at < size)
        at += (size_t)snprintf(out + at, size - at, " --engine %s",
                               config_engine_names[options->engine]);
    if (options->clean_links > 0 && at < size)
        snprintf(out + at, size - at, " --clean-links");
}

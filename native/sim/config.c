/* Drawing a schedule's shape from its seed. */
#include "sim/config.h"

const char *const config_engine_names[SIM_ENGINES] = {
    [SIM_COW] = "cow", [SIM_STOP_COPY] = "stop-copy", [SIM_PAGE] = "page"};
const char *const config_program_names[PROGRAMS] = {
    [PROGRAM_RANDOM] = "random",     [PROGRAM_NAT] = "nat",
    [PROGRAM_MONITOR] = "monitor",   [PROGRAM_RATELIMIT] = "ratelimit",
    [PROGRAM_FIREWALL] = "firewall", [PROGRAM_LB] = "lb",
    [PROGRAM_WANOPT] = "wanopt",     [PROGRAM_IDS] = "ids",
    [PROGRAM_CHAIN] = "chain"};

static enum fault_kind draw_fault(struct rng *rng)
{
    static const uint8_t weight[FAULT_KINDS] = {
        [FAULT_KILL_MASTER] = 8,   [FAULT_KILL_AGAIN] = 4,
        [FAULT_STOP_MASTER] = 2,   [FAULT_STALL_MASTER] = 2,
        [FAULT_STALL_ALONE] = 1,   [FAULT_KILL_BACKUP] = 2,
        [FAULT_KILL_NEWCOMER] = 2, [FAULT_KILL_HOLDER] = 2,
        [FAULT_STOP_NEWCOMER] = 3, [FAULT_STOP_BACKUP] = 1,
        [FAULT_KILL_OL] = 4,       [FAULT_KILL_IL] = 3,
        [FAULT_STOP_OL] = 1,       [FAULT_KILL_OL_PROMOTING] = 2,
        [FAULT_CUT_IL] = 1,        [FAULT_CUT_OL] = 1,
        [FAULT_CUT_CONTROL] = 1,   [FAULT_SWITCHOVER] = 0, /* see draw_switchovers() */
    };
    uint32_t total = 0;
    for (uint32_t i = 0; i < FAULT_KINDS; i++)
        total += weight[i];
    uint32_t at = rng_below(rng, total);
    for (uint32_t i = 0; i < FAULT_KINDS; i++) {
        if (at < weight[i])
            return (enum fault_kind)i;
        at -= weight[i];
    }
    return FAULT_KILL_MASTER;
}

static void draw_engine(struct sim_config *config, struct rng *rng)
{
    static const uint8_t kind[8] = {SIM_COW, SIM_COW,       SIM_COW,  SIM_COW,
                                    SIM_COW, SIM_STOP_COPY, SIM_PAGE, SIM_PAGE};
    static const uint16_t undo[8] = {1, 3, 6, 12, 24, 48, 1536, 1536};
    config->engine = (enum engine_kind)kind[rng_below(rng, 8)];
    config->check = rng_below(rng, config->engine == SIM_COW ? 6 : 2) == 0;
    config->undo = undo[rng_below(rng, 8)];
    config->slice = 512u << rng_below(rng, 8);
    config->budget = rng_below(rng, 3) ? 1 : 1000;
    config->no_room = rng_below(rng, 8) ? 0 : rng_below(rng, 20);
}

/* Faults in the order in which they strike. A second crash follows its first at once. */
static void draw_faults(struct sim_config *config, struct rng *rng)
{
    config->faults = rng_below(rng, SIM_MAX_FAULTS + 1);
    for (uint32_t i = 0; i < config->faults; i++) {
        struct fault *fault = &config->fault[i];
        fault->kind = draw_fault(rng);
        fault->after = rng_below(rng, config->packets);
        fault->then_ns = rng_below(rng, rng_below(rng, 3) ? 20000 : 400000);
        if (fault->kind == FAULT_KILL_AGAIN || fault->kind == FAULT_KILL_OL_PROMOTING)
            fault->then_ns /= rng_below(rng, 2) ? 10 : 1;
    }
    for (uint32_t i = 1; i < config->faults; i++) {
        for (uint32_t j = i; j > 0 && config->fault[j].after < config->fault[j - 1].after; j--) {
            struct fault swap = config->fault[j];
            config->fault[j] = config->fault[j - 1];
            config->fault[j - 1] = swap;
        }
    }
}

/* From a stream of its own: what else is drawn stays as it was. Where there are faults already one
 * takes the place of one of them, so it comes close to another at times. */
static void draw_switchovers(struct sim_config *config, uint64_t seed)
{
    struct rng rng = rng_stream(seed, 100);
    for (uint32_t i = 0; i < config->faults; i++) {
        if (rng_below(&rng, 10) == 0)
            config->fault[i].kind = FAULT_SWITCHOVER;
    }
}

static void draw_links(struct link_faults *links, struct rng *rng)
{
    static const uint16_t permille[6] = {0, 0, 2, 10, 40, 150};
    links->drop = permille[rng_below(rng, 6)];
    links->repeat = permille[rng_below(rng, 6)];
    links->reorder = permille[rng_below(rng, 6)];
    links->delay = permille[rng_below(rng, 6)];
}

static void keep_faults(struct sim_config *config, uint64_t mask)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < config->faults; i++) {
        if (mask & (1u << i))
            config->fault[kept++] = config->fault[i];
    }
    config->faults = kept;
}

struct sim_config config_draw(uint64_t seed, const struct sim_options *options)
{
    static const uint16_t every[6] = {2, 4, 8, 20, 60, 300};
    struct rng rng = rng_stream(seed, 0);
    struct sim_config config = {.seed = seed, .packets = 200, .max_switches = UINT64_MAX};
    config.program =
        rng_below(&rng, 2) ? PROGRAM_RANDOM : (enum program_kind)rng_between(&rng, 1, PROGRAMS - 1);
    config.workers = rng_between(&rng, 2, 4);
    config.variables = rng_between(&rng, 2, 6);
    config.backups = rng_between(&rng, 1, 2);
    config.exact = rng_below(&rng, 2);
    config.reads_locked = rng_below(&rng, 8) == 0;
    config.batch = rng_below(&rng, 6) != 0;
    config.burst = rng_between(&rng, 1, 4);
    config.window = rng_between(&rng, 1, 40);
    config.frame_pals = rng_below(&rng, 6);
    config.log_pals = 512u << rng_below(&rng, 2);
    config.log_outputs = 64u << rng_below(&rng, 2);
    config.log_bytes = 4096u << rng_below(&rng, 3);
    config.switch_every = every[rng_below(&rng, 6)];
    config.gap_ns = 2000u << rng_below(&rng, 4);
    config.period_us = 50u << rng_below(&rng, 5);
    draw_engine(&config, &rng);
    draw_links(&config.links, &rng);
    draw_faults(&config, &rng);
    draw_switchovers(&config, seed);
    if (options->program != PROGRAM_ALL)
        config.program = options->program;
    if (options->engine != SIM_ENGINE_ALL)
        config.engine = options->engine;
    if (options->packets >= 0)
        config.packets = (uint32_t)options->packets;
    if (options->backups >= 0)
        config.backups = (uint32_t)options->backups;
    if (options->workers >= 0)
        config.workers = (uint32_t)options->workers;
    if (options->fault_mask >= 0)
        keep_faults(&config, (uint64_t)options->fault_mask);
    if (options->clean_links > 0)
        config.links = (struct link_faults){0};
    if (options->max_switches >= 0)
        config.max_switches = (uint64_t)options->max_switches;
    if (options->order >= 0)
        config.order = (uint64_t)options->order;
    return config;
}

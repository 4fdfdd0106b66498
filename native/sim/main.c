/* ftmb-sim: the command line (docs/SIMULATOR.md).
 *
 *   --seeds N --seed-base M   N schedules, from seed M on (default: the clock)
 *   --seed S                  one schedule
 *   --jobs J                  processes
 *   --program P               random, all, or a network function
 *   --engine E                cow, stop-copy, page or all (default: each schedule draws one)
 *   --plant P07 (or a name)   with a planted bug
 *   --plants                  each planted bug, until it is found; --limit N schedules at most;
 *                             --quick: without those that take thousands
 *   --covered                 fail if a rare path was not reached
 *   --twice                   every schedule twice: the same must happen
 *   --json FILE --trace
 *   --packets --workers --backups --fault-mask --order --switches --clean-links: what a failure's
 *     command line says */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sim/plants.h"
#include "sim/program.h"
#include "sim/shrink.h"
#include "sim/totals.h"

struct command {
    struct plan plan;
    bool one, trace, plants, covered;
    uint64_t seed, limit;
    const char *json;
};

static const struct option long_options[] = {
    {"seeds", required_argument, NULL, 'n'},   {"seed-base", required_argument, NULL, 'b'},
    {"seed", required_argument, NULL, 's'},    {"jobs", required_argument, NULL, 'j'},
    {"program", required_argument, NULL, 'p'}, {"engine", required_argument, NULL, 'e'},
    {"plant", required_argument, NULL, 'x'},   {"plants", no_argument, NULL, 'X'},
    {"limit", required_argument, NULL, 'l'},   {"covered", no_argument, NULL, 'c'},
    {"twice", no_argument, NULL, '2'},         {"quick", no_argument, NULL, 'q'},
    {"json", required_argument, NULL, 'o'},    {"trace", no_argument, NULL, 't'},
    {"packets", required_argument, NULL, 'P'}, {"workers", required_argument, NULL, 'W'},
    {"backups", required_argument, NULL, 'B'}, {"fault-mask", required_argument, NULL, 'F'},
    {"order", required_argument, NULL, 'O'},   {"switches", required_argument, NULL, 'S'},
    {"clean-links", no_argument, NULL, 'C'},   {NULL, 0, NULL, 0},
};

static _Noreturn void usage(const char *why)
{
    fprintf(stderr, "ftmb-sim: %s; see docs/SIMULATOR.md\n", why);
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    if (*end || end == text)
        usage("a number is expected");
    return value;
}

static enum program_kind program_named(const char *name)
{
    for (unsigned i = 0; i <= PROGRAM_ALL; i++) {
        if (strcmp(i == PROGRAM_ALL ? "all" : config_program_names[i], name) == 0)
            return (enum program_kind)i;
    }
    usage("programs are random, all, or a network function");
}

static enum engine_kind engine_named(const char *name)
{
    for (unsigned i = 0; i <= SIM_ENGINE_ALL; i++) {
        if (strcmp(i == SIM_ENGINE_ALL ? "all" : config_engine_names[i], name) == 0)
            return (enum engine_kind)i;
    }
    usage("engines are cow, stop-copy, page, all");
}

static bool parse_schedule(struct sim_options *options, int key)
{
    switch (key) {
    case 'P':
        options->packets = (int64_t)number(optarg);
        return true;
    case 'W':
        options->workers = (int64_t)number(optarg);
        return true;
    case 'B':
        options->backups = (int64_t)number(optarg);
        return true;
    case 'F':
        options->fault_mask = (int64_t)number(optarg);
        return true;
    case 'O':
        options->order = (int64_t)number(optarg);
        return true;
    case 'S':
        options->max_switches = (int64_t)number(optarg);
        return true;
    case 'C':
        options->clean_links = 1;
        return true;
    case 'p':
        options->program = program_named(optarg);
        return true;
    case 'e':
        options->engine = engine_named(optarg);
        return true;
    default:
        return false;
    }
}

static void parse_one(struct command *command, int key)
{
    struct plan *plan = &command->plan;
    switch (key) {
    case 'n':
        plan->seeds = number(optarg);
        break;
    case 'b':
        plan->base = number(optarg);
        break;
    case 's':
        command->one = true;
        command->seed = number(optarg);
        break;
    case 'j':
        plan->jobs = (uint32_t)number(optarg);
        break;
    case 'x':
        ftmb_planted = plants_find(optarg);
        if (!ftmb_planted)
            usage("there is no such planted bug");
        break;
    case 'X':
        command->plants = true;
        break;
    case 'l':
        command->limit = number(optarg);
        break;
    case 'c':
        command->covered = true;
        break;
    case 'q':
        plan->quick = true;
        break;
    case '2':
        plan->twice = true;
        break;
    case 'o':
        command->json = optarg;
        break;
    case 't':
        command->trace = true;
        break;
    default:
        usage("unknown option");
    }
}

static struct command parse(int argc, char **argv)
{
    struct command command = {.plan = {.seeds = 1000, .jobs = 1, .stop_after = 4}, .limit = 100000};
    struct sim_options *options = &command.plan.options;
    *options = (struct sim_options){-1, -1, -1, -1, -1, -1, -1, PROGRAM_ALL, SIM_ENGINE_ALL};
    command.plan.base = (uint64_t)time(NULL) * 1000000;
    command.plan.progress = isatty(2);
    int key;
    while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (key == '?')
            exit(2);
        if (!parse_schedule(options, key))
            parse_one(&command, key);
    }
    if (optind != argc || command.plan.jobs == 0)
        usage("what is this argument?");
    if (options->workers > (int64_t)SIM_WORKERS || options->workers == 0 || options->workers == 1 ||
        options->backups == 0 || options->backups > (int64_t)SIM_SLOTS - 1)
        usage("workers are 2 to 4, backups 1 or 2");
    return command;
}

static void explain(const struct command *command, uint64_t seed)
{
    struct sim_options options = command->plan.options;
    char text[256];
    uint32_t runs = shrink(seed, &options);
    shrink_command(text, sizeof(text), seed, &options);
    printf("  shortest schedule found (%u tried): %s%s --trace\n", runs, text,
           ftmb_planted ? " (and the same --plant)" : "");
}

static int run_one(const struct command *command)
{
    struct sim_config config = config_draw(command->seed, &command->plan.options);
    bool ok = sim_run(&config, command->trace);
    printf("seed %llu: %s: %u workers, %u variables, %u packets, %u faults, %s, %s%s, %u backups; "
           "%llu "
           "steps, %llu switches, trace %016llx\n",
           (unsigned long long)command->seed, sim.program->name, config.workers,
           sim.needs.variables, config.packets, config.faults, config.exact ? "exact" : "max",
           config_engine_names[config.engine], config.check ? " with checks" : "", config.backups,
           (unsigned long long)sim.steps, (unsigned long long)sim.switches,
           (unsigned long long)sim.trace_hash);
    if (ok)
        return 0;
    printf("VIOLATION of %s: %s\n", sim.invariant, sim.violation);
    if (!command->trace)
        explain(command, command->seed);
    return 1;
}

static bool all_covered(const struct totals *totals)
{
    bool all = true;
    for (uint32_t i = 0; i < COVERAGE_COUNT; i++) {
        if (totals->coverage[i])
            continue;
        printf("never reached: %s\n", coverage_name[i]);
        all = false;
    }
    return all;
}

static int run_many(const struct command *command)
{
    const struct plan *plan = &command->plan;
    static struct totals totals;
    printf("seeds %llu to %llu\n", (unsigned long long)plan->base,
           (unsigned long long)(plan->base + plan->seeds - 1));
    fflush(stdout);
    double start = wall_seconds();
    totals_run(plan, &totals);
    double seconds = wall_seconds() - start;
    totals_print(plan, &totals, seconds);
    for (uint32_t i = 0; i < totals.violations && i < TOTALS_VIOLATIONS; i++) {
        const struct violation *violation = &totals.violation[i];
        printf("VIOLATION at seed %llu: %s: %s\n", (unsigned long long)violation->seed,
               violation->invariant, violation->what);
        printf("  again: ftmb-sim --seed %llu --trace\n", (unsigned long long)violation->seed);
        if (i == 0 && strcmp(violation->invariant, "sim") != 0)
            explain(command, violation->seed);
    }
    int error = command->json ? totals_json(command->json, plan, &totals, seconds) : 0;
    if (error) {
        fprintf(stderr, "ftmb-sim: cannot write %s: %s\n", command->json, strerror(error));
        return 2;
    }
    bool covered = !command->covered || all_covered(&totals);
    return totals.violations || !covered;
}

int main(int argc, char **argv)
{
    struct command command = parse(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (command.plants)
        return plants_run(&command.plan, command.limit, command.json);
    return command.one ? run_one(&command) : run_many(&command);
}

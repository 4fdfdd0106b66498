/* Many schedules in several processes, which share nothing but the memory for their sums. */
#include "sim/totals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/hash.h"

double wall_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void note_violation(struct totals *totals, uint64_t seed, const char *invariant,
                           const char *what)
{
    uint32_t n = totals->violations++;
    if (n >= TOTALS_VIOLATIONS)
        return;
    struct violation *violation = &totals->violation[n];
    violation->seed = seed;
    snprintf(violation->invariant, sizeof(violation->invariant), "%s", invariant);
    snprintf(violation->what, sizeof(violation->what), "%s", what);
}

static void run_seed(const struct plan *plan, uint64_t seed, struct totals *totals)
{
    struct sim_config config = config_draw(seed, &plan->options);
    if (!sim_run(&config, false))
        note_violation(totals, seed, sim.invariant, sim.violation);
    uint64_t hash = sim.trace_hash;
    if (plan->twice) {
        sim_run(&config, false);
        if (sim.trace_hash != hash)
            note_violation(totals, seed, "sim", "the same seed gave another schedule");
    }
    totals->packets += config.packets;
    totals->steps += sim.steps;
    totals->programs[config.program]++;
    totals->engines[config.engine]++;
    totals->exact += config.exact;
    totals->hash ^= hash_mix(hash, seed);
    totals->schedules++;
}

static void run_job(const struct plan *plan, uint32_t job, struct totals *totals)
{
    memset(coverage_count, 0, sizeof(coverage_count));
    for (uint64_t n = job; n < plan->seeds; n += plan->jobs) {
        run_seed(plan, plan->base + n, totals);
        if (plan->stop_after && totals->violations >= plan->stop_after)
            break;
    }
    memcpy(totals->coverage, coverage_count, sizeof(coverage_count));
    totals->crashes = coverage_count[COVER_KILL_MASTER] + coverage_count[COVER_KILL_AGAIN] +
                      coverage_count[COVER_KILL_BACKUP] + coverage_count[COVER_KILL_NEWCOMER] +
                      coverage_count[COVER_KILL_HOLDER] + coverage_count[COVER_KILL_OL] +
                      coverage_count[COVER_KILL_IL];
}

static void add(struct totals *to, const struct totals *from)
{
    to->schedules += from->schedules;
    to->packets += from->packets;
    to->crashes += from->crashes;
    to->steps += from->steps;
    to->exact += from->exact;
    to->hash ^= from->hash;
    for (uint32_t i = 0; i < PROGRAMS; i++)
        to->programs[i] += from->programs[i];
    for (uint32_t i = 0; i < SIM_ENGINES; i++)
        to->engines[i] += from->engines[i];
    for (uint32_t i = 0; i < COVERAGE_COUNT; i++)
        to->coverage[i] += from->coverage[i];
    for (uint32_t i = 0; i < from->violations && i < TOTALS_VIOLATIONS; i++)
        note_violation(to, from->violation[i].seed, from->violation[i].invariant,
                       from->violation[i].what);
}

static void show_progress(const struct plan *plan, const struct totals *job, double start)
{
    uint64_t done = 0, violations = 0;
    for (uint32_t j = 0; j < plan->jobs; j++) {
        done += job[j].schedules;
        violations += job[j].violations;
    }
    double seconds = wall_seconds() - start, rate = (double)done / (seconds > 0 ? seconds : 1);
    fprintf(stderr, "\r%llu of %llu schedules, %.0f/s, %llu violations, %.0f s left ",
            (unsigned long long)done, (unsigned long long)plan->seeds, rate,
            (unsigned long long)violations, rate > 0 ? (double)(plan->seeds - done) / rate : 0.0);
}

static void wait_for_jobs(const struct plan *plan, const pid_t *pid, struct totals *job)
{
    double start = wall_seconds();
    for (uint32_t j = 0; j < plan->jobs; j++) {
        int status = 0;
        while (waitpid(pid[j], &status, plan->progress ? WNOHANG : 0) == 0) {
            show_progress(plan, job, start);
            nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
        }
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            note_violation(&job[j], plan->base + j + job[j].schedules * plan->jobs, "sim",
                           "the simulator itself died at this seed");
    }
    if (plan->progress)
        fputc('\n', stderr);
}

void totals_run(const struct plan *plan, struct totals *totals)
{
    size_t bytes = plan->jobs * sizeof(struct totals);
    struct totals *job =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[64];
    if (job == MAP_FAILED || plan->jobs > 64) {
        fprintf(stderr, "ftmb-sim: no memory for %u jobs\n", plan->jobs);
        exit(2);
    }
    fflush(NULL);
    for (uint32_t j = 0; j < plan->jobs; j++) {
        pid[j] = fork();
        if (pid[j] == 0) {
            run_job(plan, j, &job[j]);
            _exit(0);
        }
        if (pid[j] < 0) {
            fprintf(stderr, "ftmb-sim: cannot fork: %s\n", strerror(errno));
            exit(2);
        }
    }
    wait_for_jobs(plan, pid, job);
    memset(totals, 0, sizeof(*totals));
    for (uint32_t j = 0; j < plan->jobs; j++)
        add(totals, &job[j]);
    munmap(job, bytes);
}

void totals_print(const struct plan *plan, const struct totals *totals, double seconds)
{
    printf("%-70s %12s\n", "reached", "times");
    for (uint32_t i = 0; i < COVERAGE_COUNT; i++)
        printf("%-70s %12llu\n", coverage_name[i], (unsigned long long)totals->coverage[i]);
    printf("%llu schedules from seed %llu on, %llu packets, %llu kills, %.1f s, %.0f schedules/s, "
           "%llu violations\n",
           (unsigned long long)totals->schedules, (unsigned long long)plan->base,
           (unsigned long long)totals->packets, (unsigned long long)totals->crashes, seconds,
           (double)totals->schedules / seconds, (unsigned long long)totals->violations);
}

void json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        if ((unsigned char)*text >= ' ')
            fputc(*text, out);
    }
    fputc('"', out);
}

int totals_json(const char *path, const struct plan *plan, const struct totals *totals,
                double seconds)
{
    FILE *out = fopen(path, "w");
    if (!out)
        return errno;
    fprintf(
        out,
        "{\"version\": 1, \"kind\": \"sim\", \"seed_base\": %llu, \"schedules\": %llu, "
        "\"packets\": %llu, \"crashes\": %llu, \"seconds\": %.1f, \"trace_hash\": \"%016llx\",\n"
        " \"release\": {\"max\": %llu, \"exact\": %llu},\n \"programs\": {",
        (unsigned long long)plan->base, (unsigned long long)totals->schedules,
        (unsigned long long)totals->packets, (unsigned long long)totals->crashes, seconds,
        (unsigned long long)totals->hash, (unsigned long long)(totals->schedules - totals->exact),
        (unsigned long long)totals->exact);
    for (uint32_t i = 0; i < PROGRAMS; i++)
        fprintf(out, "%s\"%s\": %llu", i ? ", " : "", config_program_names[i],
                (unsigned long long)totals->programs[i]);
    fprintf(out, "},\n \"engines\": {");
    for (uint32_t i = 0; i < SIM_ENGINES; i++)
        fprintf(out, "%s\"%s\": %llu", i ? ", " : "", config_engine_names[i],
                (unsigned long long)totals->engines[i]);
    fprintf(out, "},\n \"violations\": [");
    for (uint32_t i = 0; i < totals->violations && i < TOTALS_VIOLATIONS; i++) {
        const struct violation *violation = &totals->violation[i];
        fprintf(out, "%s\n  {\"seed\": %llu, \"what\": ", i ? "," : "",
                (unsigned long long)violation->seed);
        json_string(out, violation->what);
        fprintf(out, ", \"invariant\": \"%s\"}", violation->invariant);
    }
    fprintf(out, "],\n \"coverage\": {");
    for (uint32_t i = 0; i < COVERAGE_COUNT; i++) {
        fprintf(out, "%s\n  ", i ? "," : "");
        json_string(out, coverage_name[i]);
        fprintf(out, ": %llu", (unsigned long long)totals->coverage[i]);
    }
    fprintf(out, "}}\n");
    return fclose(out) ? errno : 0;
}

/* The planted bugs (core/plant.h): what they are, who finds them, and after how many schedules. */
#include "sim/plants.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct plant {
    unsigned id;
    const char *name;
    const char *from; /* row of the protocol's review, or what it stands for */
    enum program_kind program;
    const char *model; /* found there: the simulator has no such code */
    bool rare;         /* takes thousands of schedules */
};

#define NET PROGRAM_NAT
#define ANY PROGRAM_RANDOM

static const struct plant plants[] = {
    {P_NO_CONTIGUITY, "no-contiguity", "release without contiguity", ANY, NULL, false},
    {P_PUBLISH_AFTER_UNLOCK, "publish-after-unlock", "publish after unlock", ANY, NULL, false},
    {P_VECTOR_BEFORE_LAST, "vector-before-last", "D read before the last access", ANY, NULL, false},
    {P_VECTOR_AT_ACQUIRE, "vector-at-acquire", "vector copied at acquire", ANY, NULL, false},
    {P_VECTOR_PER_PACKET, "vector-per-packet", "D per packet only", ANY, NULL, false},
    {P_FREE_RUNS_AHEAD, "free-runs-ahead", "no wait of free-running workers", ANY, NULL, false},
    {P_WRITER_IGNORES_READERS, "writer-ignores-readers", "no wait of writers for logged readers",
     ANY, NULL, false},
    {P_READS_NOT_LOGGED, "reads-not-logged", "reads not logged", ANY, NULL, false},
    {P_NO_CUT, "no-cut", "no truncation to a consistent cut", ANY, NULL, false},
    {P_CUT_WITHOUT_BASE, "cut-without-base", "cut without base versions", ANY, NULL, false},
    {P_READER_NEEDS_WRITER, "reader-needs-writer", "reader requires W(x,v)", ANY, NULL, false},
    {P_KEEP_HELD, "keep-held", "held outputs kept", ANY, NULL, false},
    {P_KEEP_LOG, "keep-log", "log not truncated", ANY, NULL, false},
    {P_OLD_FRAMES, "old-frames", "old frames accepted", ANY, NULL, false},
    {P_COMMIT_WITHOUT_OL, "commit-without-ol", "commit without the OL", ANY, NULL, false},
    {P_COMMIT_PALS_ONLY, "commit-pals-only", "commit on PALs only", ANY, NULL, false},
    {P_NO_BARRIER, "no-barrier", "no barrier at the flip", ANY, NULL, false},
    {P_ONLY_WRITES_GATED, "only-writes-gated", "only writes gated", ANY, NULL, false},
    {P_FLIP_IN_REPLAY, "flip-in-replay", "flip during replay", ANY, NULL, false},
    {P_CUT_SPLITS_SECTIONS, "cut-splits-sections", "cut splits sections, frames whole", ANY, NULL,
     false},
    {P_FRAME_SPLITS_SECTIONS, "frame-splits-sections", "sections whole in the cut, frames split",
     ANY, NULL, false},
    {P_EARLY_UNLOCK, "early-unlock", "early unlock", ANY, NULL, false},
    {P_OL_FORGETS_PALS, "ol-forgets-pals",
     "OL restart without hold (here: goes on without the PALs of its file)", ANY, NULL, false},
    {P_OL_HOLDS_FOR_COMMIT, "ol-holds-for-commit",
     "OL restart, commit on release (here: with a hold until the next commit)", ANY, NULL, false},
    {P_STOP_BEFORE_BUSY, "stop-before-busy", "spin: epoch tested before BUSY", ANY, NULL, true},
    {P_LINE_APPEND_FIRST, "line-append-first", "spin: line claim, entry appended before the CAS",
     ANY, NULL, false},
    {P_LINE_STAMP_FIRST, "line-stamp-first", "spin: line claim, CAS before the save", ANY, NULL,
     false},
    {P_LINE_NO_WAIT, "line-no-wait", "spin: line claim, streamer does not wait for the entry", ANY,
     NULL, false},
    {P_BUMP_ONCE, "bump-once", "spin: version bumped once", ANY, NULL, false},
    {P_NAT_PORT_TWICE, "nat-port-twice", "function: NAT port released twice", NET, NULL, false},
    {P_NAT_MAPPING_CHANGES, "nat-mapping-changes", "function: NAT mapping changed", NET, NULL,
     false},
    {P_NF_CLOCK, "nf-clock", "function: time read from a clock", ANY, NULL, false},
    {P_MONITOR_LOST_UPDATE, "monitor-lost-update", "function: counter read outside of its section",
     PROGRAM_MONITOR, NULL, false},
    {P_NAT_NO_SECOND_LOOK, "nat-no-second-look",
     "function: NAT does not search again under the lock", NET, NULL, false},
    {P_NAT_PORT_OUTSIDE_SECTION, "nat-port-outside-section",
     "function: NAT takes a port without its pool's lock", NET, NULL, false},
    {P_NAT_INSIDE_UNLOGGED, "nat-inside-unlogged",
     "function: NAT looks for a receiver inside without an access", NET, NULL, false},
    {P_NAT_NOTE_UNLOCKED, "nat-note-unlocked",
     "function: NAT notes a fragmented datagram without its lock", NET, NULL, false},
    {P_NF_RANDOM, "nf-random", "function: randomness from outside the state", ANY, NULL, false},
    {P_NF_STATIC_STATE, "nf-static-state", "function: state outside of the arena", ANY, NULL,
     false},
    {P_NO_PROBE, "no-probe", "H4: a lost last frame is not repeated", ANY, NULL, false},
    {P_DETERMINANT_ANEW, "determinant-anew", "determinant drawn again in the replay", ANY, NULL,
     false},
    {P_PROMOTE_PREPARED, "promote-prepared", "C1(d): promoted from a prepared, not the named base",
     ANY, NULL, false},
    {P_RELEASED_AFTER_HANDOVER, "released-after-handover",
     "C4: released count raised after the hand-over", ANY, NULL, false},
    {P_OL_ACKS_ON_ARRIVAL, "ol-acks-on-arrival",
     "H3: OL acknowledges what it holds, not what is settled", ANY, NULL, false},
    {P_IL_COUNTS_BEFORE_FILLED, "il-counts-before-filled",
     "IL: an input gets its number before its record is whole", ANY, NULL, false},
    {P_NO_CREDIT, "no-credit", "H9(c): input accepted without credit", ANY, NULL, true},
    {P_SILENCE_FENCES_ALWAYS, "silence-fences-always",
     "H2: silence fences without an eligible backup", ANY, NULL, true},
    {P_DELTA_ON_UNCOMMITTED, "delta-on-uncommitted",
     "H7: an aborted snapshot's lines are left out of the next", ANY, NULL, false},
    {P_IL_TRIMS_ON_PREPARED, "il-trims-on-prepared",
     "C1(c): IL trims on something else than a commit", ANY, NULL, false},
    {P_REPLAY_WAITS_FOR_ROOM, "replay-waits-for-room",
     "found by the simulator: a worker waits for room in a replay", ANY, NULL, true},
    {P_STAMP_BEFORE_READ, "stamp-before-read",
     "line claim: the stamp is reset before the line is read", ANY, NULL, false},
    {P_UNDO_FULL_IGNORED, "undo-full-ignored", "a full undo log is not noticed", ANY, NULL, false},
    {P_LOST_FORGETS, "lost-forgets",
     "lines handed over before a snapshot is lost are not marked again", ANY, NULL, false},
    {P_HEADER_AT_FLIP, "header-at-flip", "cursors are read when all have joined, not as each joins",
     ANY, NULL, false},
    {P_FLIP_TOO_EARLY, "flip-too-early", "flip while lines of the closing epoch are left", ANY,
     NULL, false},
    {P_NF_NO_MARK, "nf-no-mark", "function: a store without a mark", ANY, NULL, false},
    {P_SLICE_NOT_MARKED, "slice-not-marked", "a slice's lines are not marked", ANY, NULL, false},
    {P_BUILD_ENDS_EARLY, "build-ends-early", "a build's last slice is counted twice", ANY, NULL,
     false},
    {P_BUILD_TAKES_GAP, "build-takes-gap", "a build goes on after a delta that it has not got", ANY,
     NULL, true},
    {P_BUILD_NOT_UNDONE, "build-not-undone", "a build that is given up leaves its lines behind",
     ANY, NULL, true},
    {P_NO_GATE, "no-gate", "no gate after a flip", ANY, NULL, false},
    {P_NO_ROOM_FORGETS, "no-room-forgets",
     "found by reading: a line for which there was no room is in no delta", ANY, NULL, false},
    {P_GIVE_UP_RACES, "give-up-races",
     "found by reading: a snapshot is given up while a worker still saves a line of it", ANY, NULL,
     true},
    {P_BUILDER_SILENT, "builder-silent",
     "found by thought: a commit waits for a backup with a base that builds", ANY, NULL, false},
    {P_IDLE_SEEN_ONCE, "idle-seen-once", "an idle worker's cursor is read without a second look",
     ANY, NULL, false},
    {P_PARKED_STALE, "parked-stale",
     "found by the simulator: a parked worker that the next flip finds asleep", ANY, NULL, true},
    {P_CHECK_UNCLAIMED, "check-unclaimed",
     "found by the model: a stamp is checked that may be out of date by then", ANY, NULL, true},
    {P_LATE_UNTOLD, "late-untold",
     "found by the simulator: the master does not hear of a backup that came to hold the base", ANY,
     NULL, true},
    {P_SUPERSEDED_UNTOLD, "superseded-untold",
     "found by the simulator: a backup keeps what it prepared though another prepared a later one",
     ANY, NULL, true},
    {P_RATELIMIT_LOST_UPDATE, "ratelimit-lost-update",
     "function: total read outside of its section", PROGRAM_RATELIMIT, NULL, false},
    {P_FORGET_GOES_ON, "forget-goes-on", "changes are forgotten, and builds go on all the same",
     ANY, NULL, false},
    {P_ANEW_KEEPS_BASE, "anew-keeps-base",
     "changes are forgotten, and deltas build on the base all the same", ANY, NULL, false},
    {P_FIREWALL_TWO_ENTRIES, "firewall-two-entries",
     "function: firewall looks for an entry before it has the set", PROGRAM_FIREWALL, NULL, false},
    {P_LB_LOADS_OUTSIDE, "lb-loads-outside", "function: loads read outside of their section",
     PROGRAM_LB, NULL, false},
    {P_WANOPT_TWO_ENTRIES, "wanopt-two-entries",
     "function: wanopt looks for a chunk before it has the set", PROGRAM_WANOPT, NULL, false},
    {P_IDS_LOST_UPDATE, "ids-lost-update", "function: sketch read outside of its section",
     PROGRAM_IDS, NULL, false},
    {P_HANDOVER_UNFENCED, "handover-unfenced",
     "a planned change of master keeps what is held: nothing failed", ANY, NULL, false},
    {P_CHAIN_ONE_NUMBERING, "chain-one-numbering",
     "function: a later stage's accesses are logged as the first one's", PROGRAM_CHAIN, NULL,
     false},
    {P_CHAIN_DROPPED_LEAVES, "chain-dropped-leaves",
     "function: what a stage drops goes on to the next one", PROGRAM_CHAIN, NULL, false},
};
#define PLANTS (sizeof(plants) / sizeof(plants[0]))

unsigned plants_find(const char *name)
{
    for (size_t i = 0; i < PLANTS; i++) {
        char id[8];
        snprintf(id, sizeof(id), "P%02u", plants[i].id);
        if (strcmp(name, id) == 0 || strcmp(name, plants[i].name) == 0)
            return plants[i].id;
    }
    return 0;
}

struct result {
    uint64_t schedules; /* 0: not found */
    struct violation violation;
    double seconds;
};

static void search(const struct plan *plan, const struct plant *plant, uint64_t limit,
                   struct result *result)
{
    struct sim_options options = plan->options;
    ftmb_planted = plant->id;
    /* Half of the random ones would be spent on functions that cannot show it. */
    options.program = plant->program;
    for (uint64_t n = 0; n < limit; n++) {
        struct sim_config config = config_draw(plan->base + n, &options);
        result->schedules = n + 1;
        result->violation.seed = plan->base + n;
        if (sim_run(&config, false))
            continue;
        snprintf(result->violation.invariant, sizeof(result->violation.invariant), "%s",
                 sim.invariant);
        snprintf(result->violation.what, sizeof(result->violation.what), "%s", sim.violation);
        return;
    }
    result->schedules = 0;
}

/* In a process of its own: what a bug does to memory may end it. That is a find too. */
static struct result search_apart(const struct plan *plan, const struct plant *plant,
                                  uint64_t limit)
{
    struct result *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        exit(2);
    double start = wall_seconds();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        search(plan, plant, limit, shared);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        exit(2);
    struct result result = *shared;
    munmap(shared, sizeof(*shared));
    if (!WIFEXITED(status))
        snprintf(result.violation.what, sizeof(result.violation.what), "the process dies");
    result.seconds = wall_seconds() - start;
    return result;
}

static void write_json(FILE *out, const struct plant *plant, const struct result *result,
                       bool first)
{
    fprintf(out, "%s\n  {\"id\": \"P%02u\", \"name\": \"%s\", \"from\": ", first ? "" : ",",
            plant->id, plant->name);
    json_string(out, plant->from);
    fprintf(out, ", \"found_by\": \"%s\", \"schedules\": %llu, \"seconds\": %.2f, \"what\": ",
            plant->model        ? "model"
            : result->schedules ? "sim"
                                : "none",
            (unsigned long long)result->schedules, result->seconds);
    char what[300];
    snprintf(what, sizeof(what), "%s%s%s",
             plant->model ? plant->model : result->violation.invariant,
             result->schedules ? ": " : "", result->violation.what);
    json_string(out, what);
    fprintf(out, "}");
}

static bool left_out(const struct plan *plan, const struct plant *plant)
{
    return plan->quick && plant->rare;
}

/* The end of the file, with those that were not looked for. */
static void end_json(FILE *out, const struct plan *plan)
{
    bool first = true;
    fprintf(out, "],\n \"left_out\": [");
    for (size_t i = 0; i < PLANTS; i++) {
        if (!left_out(plan, &plants[i]))
            continue;
        fprintf(out, "%s\"P%02u\"", first ? "" : ", ", plants[i].id);
        first = false;
    }
    fprintf(out, "]}\n");
    fclose(out);
}

int plants_run(const struct plan *plan, uint64_t limit, const char *json)
{
    FILE *out = json ? fopen(json, "w") : NULL;
    if (json && !out) {
        fprintf(stderr, "ftmb-sim: cannot write %s: %s\n", json, strerror(errno));
        return 2;
    }
    if (out)
        fprintf(out, "{\"version\": 1, \"kind\": \"plants\", \"seed_base\": %llu, \"plants\": [",
                (unsigned long long)plan->base);
    printf("seeds from %llu on\n", (unsigned long long)plan->base);
    bool first = true;
    unsigned missed = 0, only = ftmb_planted;
    for (size_t i = 0; i < PLANTS; i++) {
        const struct plant *plant = &plants[i];
        struct result result = {0};
        if ((only && only != plant->id) || left_out(plan, plant))
            continue;
        if (!plant->model)
            result = search_apart(plan, plant, limit);
        missed += !plant->model && !result.schedules;
        printf("P%02u %-26s %9llu  %7.2f s  %s%s %s\n", plant->id, plant->name,
               (unsigned long long)result.schedules, result.seconds,
               plant->model ? "model: " : result.violation.invariant,
               plant->model ? plant->model : "", result.violation.what);
        if (out)
            write_json(out, plant, &result, first);
        first = false;
    }
    if (out)
        end_json(out, plan);
    printf("%u not found within %llu schedules\n", missed, (unsigned long long)limit);
    return missed != 0;
}

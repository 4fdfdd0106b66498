/* One schedule: the scheduler, time, and the judgement. */
#include "sim/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "sim/oracle.h"
#include "sim/program.h"
#include "sim/world.h"

#define STALL_NS (600 * SIM_MS) /* nothing went forward for so long: a deadlock */
#define MAX_STEPS 4000000u
#define PHASE_STEPS 256u /* then the actors' speeds are drawn anew */
#define MAX_ACTORS (SIM_SLOTS * (SIM_WORKERS + 2) + 2)
#define PICKS 128u

struct sim sim;
uint64_t coverage_count[COVERAGE_COUNT];
const char *const coverage_name[COVERAGE_COUNT] = {
#define X(name, text) text,
    COVERAGE(X)
#undef X
};

static struct coro *actor[MAX_ACTORS];
static uint32_t actors;
static struct coro *pick[PICKS];
static uint32_t picks;
static bool actors_changed;

/* ---- hooks -------------------------------------------------------------------------------- */

static void draw_switch(void)
{
    uint32_t every = sim.config.switch_every;
    sim.until_switch = every ? 1 + rng_below(&sim.schedule, 2 * every) : UINT32_MAX;
}

void sim_point(void)
{
    if (--sim.until_switch)
        return;
    draw_switch();
    if (!coro_inside() || sim.switches >= sim.config.max_switches)
        return;
    sim.switches++;
    sim.worked = true;
    cover(COVER_PREEMPTED);
    coro_yield();
}

void sim_wait(void)
{
    coro_yield();
}

void sim_progress(void)
{
    sim.progress_ns = sim.now_ns;
}

void sim_note(uint64_t what)
{
    sim.trace_hash = hash_mix(sim.trace_hash ^ what, sim.now_ns);
}

void sim_trace(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%10.3f us  ", (double)sim.now_ns / 1000);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

void sim_fail(const char *invariant, const char *format, ...)
{
    if (!sim.violated) {
        va_list args;
        va_start(args, format);
        vsnprintf(sim.violation, sizeof(sim.violation), format, args);
        va_end(args);
        snprintf(sim.invariant, sizeof(sim.invariant), "%s", invariant);
        sim.violated = true;
    }
    for (;;) /* never resumed */
        coro_inside() ? coro_yield() : abort();
}

static void panic(const char *file, int line, const char *what)
{
    const char *name = strrchr(file, '/');
    sim_fail("assert", "%s:%d: %s", name ? name + 1 : file, line, what);
}

void sim_seen(enum sim_seen what)
{
    static const enum coverage seen[] = {[SIM_SEEN_BUSY] = COVER_LINE_WAITS,
                                         [SIM_SEEN_RACE] = COVER_CLAIM_RACED,
                                         [SIM_SEEN_WOKE] = COVER_IDLE_WOKE,
                                         [SIM_SEEN_GATE] = COVER_GATE_WAITS};
    cover(seen[what]);
    sim.waits_for_line = what == SIM_SEEN_BUSY;
}

uint64_t program_noise(void)
{
    return rng_next(&sim.values);
}

#ifdef FTMB_PLANTS
unsigned ftmb_planted;

uint64_t plant_clock(void)
{
    return sim.now_ns;
}

uint64_t plant_random(void)
{
    return program_noise();
}
#endif

/* ---- actors ------------------------------------------------------------------------------- */

void world_actors_changed(void)
{
    actors_changed = true;
}

static void add(struct coro *coro)
{
    actor[actors++] = coro;
}

/* Who may run, and how fast: one actor may be many times as fast as another for a while, or stand
 * still, which is what makes the rare orders. */
static void draw_actors(void)
{
    actors_changed = false;
    actors = 0;
    if (sim.il.alive && !sim.il.stopped)
        add(&sim.il.coro);
    if (sim.ol.alive && !sim.ol.stopped)
        add(&sim.ol.coro);
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        struct proc *proc = &sim.proc[slot];
        if (!proc->alive || proc->stopped)
            continue;
        add(&proc->control);
        add(&proc->state);
        for (uint32_t w = 0; proc->active && w < sim.config.workers; w++)
            add(&proc->worker[w].coro);
    }
    picks = 0;
    for (uint32_t i = 0; i < actors; i++) {
        static const uint8_t speed[8] = {0, 1, 1, 2, 2, 3, 4, 6};
        uint32_t weight = speed[rng_below(&sim.schedule, 8)];
        for (uint32_t n = 0; n < weight && picks < PICKS; n++)
            pick[picks++] = actor[i];
    }
    for (uint32_t i = 0; picks == 0 && i < actors; i++)
        pick[picks++] = actor[i];
}

/* ---- the loop ----------------------------------------------------------------------------- */

static void fail_stalled(const char *what)
{
    const struct ol *ol = &sim.ol;
    sim.violated = true;
    snprintf(sim.invariant, sizeof(sim.invariant), "live");
    int at = snprintf(sim.violation, sizeof(sim.violation), "%s: view %u, master %d%s%s; ", what,
                      ol->state.view, ol->state.master, ol->state.promoting ? ", promoting" : "",
                      view_eligible(&ol->state) >= 0 ? ", protected" : "");
    for (uint32_t w = 0; w < sim.config.workers && at < 200; w++)
        at += snprintf(sim.violation + at, sizeof(sim.violation) - (size_t)at,
                       "w%u in %llu held %llu; ", w, (unsigned long long)sim.il.log[w].next,
                       (unsigned long long)(ol->release.worker[w].held_tail -
                                            ol->release.worker[w].held_head));
}

static void loop(void)
{
    uint32_t idle = 0, phase = 0;
    uint64_t jump_ns = 5 * SIM_US;
    while (!sim.violated && !sim.lost) {
        if (actors_changed || ++phase >= PHASE_STEPS) {
            phase = 0;
            draw_actors();
        }
        sim.worked = false;
        if (picks)
            coro_resume(pick[rng_below(&sim.schedule, picks)]);
        sim.now_ns += rng_below(&sim.schedule, 300);
        sim.steps++;
        world_events();
        if (sim.worked) {
            idle = 0;
            jump_ns = 5 * SIM_US;
            continue;
        }
        if (++idle < 2 * picks)
            continue;
        /* Nobody has anything to do: let time pass. */
        idle = 0;
        phase = PHASE_STEPS;
        sim.now_ns += jump_ns;
        jump_ns = u64_min(2 * jump_ns, SIM_MS);
        if (world_finished())
            break;
        if (sim.now_ns - sim.progress_ns > STALL_NS)
            fail_stalled("nothing goes forward");
        if (sim.steps > MAX_STEPS)
            fail_stalled("does not end");
    }
    if (!sim.violated && sim.steps > MAX_STEPS)
        fail_stalled("does not end");
}

static void end_main(void *self)
{
    (void)self;
    oracle_end(&sim.proc[sim.ol.state.master]);
    sim.worked = true;
    for (;;)
        coro_yield();
}

static void choose_program(void)
{
    static const struct program *const programs[PROGRAMS] = {
        [PROGRAM_RANDOM] = &program_random,     [PROGRAM_NAT] = &program_nat,
        [PROGRAM_MONITOR] = &program_monitor,   [PROGRAM_RATELIMIT] = &program_ratelimit,
        [PROGRAM_FIREWALL] = &program_firewall, [PROGRAM_LB] = &program_lb,
        [PROGRAM_WANOPT] = &program_wanopt,     [PROGRAM_IDS] = &program_ids,
    };
    char why[160];
    sim.program = programs[sim.config.program];
    sim.program->params(sim.params);
    FTMB_ASSERT(sim.program->nf->needs(sim.params, sim.config.workers, &sim.needs, why));
    FTMB_ASSERT(sim.config.burst * sim.needs.max_pals <= FTMB_BURST * 64);
    sim.config.frame_pals += sim.program->section_pals;
    sim.config.window += sim_room(sim.config.burst) + sim_room(1);
    FTMB_ASSERT(sim.config.window <= SIM_WINDOW);
}

/* Frames that an earlier schedule left behind: the pool is new. */
static void forget_frames(struct stream_tx *tx, struct stream_rx *rx)
{
    tx->next = 1;
    tx->acked = 0;
    if (rx->early_count)
        memset(rx, 0, sizeof(*rx));
}

static void reset(const struct sim_config *config)
{
    sim.config = *config;
    uint64_t seed = config->seed;
    sim.schedule = rng_stream(seed + config->order * 0x9e3779b9ull, 1);
    sim.links = rng_stream(seed + config->order, 2);
    sim.traffic = rng_stream(seed, 3);
    sim.faults = rng_stream(seed, 4);
    sim.values = rng_stream(seed, 5);
    sim.now_ns = 1000000; /* a stamp of 0 is not like any other */
    sim.steps = sim.switches = sim.uids = 0;
    sim.run++;
    sim.progress_ns = sim.now_ns;
    sim.violated = sim.lost = false;
    sim.trace_hash = seed;
    sim.world_link = 1;
    sim.promoted_base = (struct base_name){0};
    draw_switch();
    oracle_reset();
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        sim.file[slot].used = false;
        for (uint32_t w = 0; w < SIM_WORKERS; w++) {
            struct lane *lane[4] = {&sim.il_to[slot][w], &sim.il_from[slot][w], &sim.ol_to[slot][w],
                                    &sim.ol_from[slot][w]};
            for (uint32_t i = 0; i < 4; i++) {
                lane[i]->head = lane[i]->tail = 0;
                lane[i]->cut_until_ns = 0;
            }
        }
        sim.from_proc[slot].head = sim.from_proc[slot].tail = 0;
        sim.to_proc[slot].head = sim.to_proc[slot].tail = 0;
        sim.from_proc[slot].cut_until_ns = sim.to_proc[slot].cut_until_ns = 0;
        for (uint32_t i = 0; i < SIM_SLOTS; i++) {
            sim.state[slot][i].full = false;
            sim.state[slot][i].acked = (struct base_name){0};
        }
    }
    sim.from_il.head = sim.from_il.tail = sim.to_il.head = sim.to_il.tail = 0;
    sim.deaths.head = sim.deaths.tail = 0;
    for (uint32_t w = 0; w < SIM_WORKERS; w++) {
        for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
            forget_frames(&sim.proc[slot].worker[w].out, &sim.proc[slot].worker[w].in);
        forget_frames(&sim.il.out[w], &sim.ol.in[w]);
    }
    frames_reset();
}

bool sim_run(const struct sim_config *config, bool trace)
{
    static struct coro judge;
    ftmb_panic = panic;
    sim.tracing = trace;
    reset(config);
    choose_program();
    world_reset();
    loop();
    if (!sim.violated && !sim.lost) {
        coro_begin(&judge, end_main, NULL);
        coro_resume(&judge);
    }
    return !sim.violated;
}

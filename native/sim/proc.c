/* A replica process: admission, promotion, its end. What roles/replica*.c do. */
#include <stdlib.h>
#include <string.h>

#include "sim/oracle.h"
#include "sim/program.h"
#include "sim/sim.h"
#include "sim/world.h"

static void relax(void *env, unsigned w, uint64_t rounds)
{
    const struct proc *proc = env;
    const struct worker *worker = &proc->worker[w];
    const struct replay *replay = worker->ctx.replay;
    bool elsewhere = worker->ctx.gate || sim.waits_for_line;
    sim.waits_for_line = false;
    if (rounds == 0 && !elsewhere) {
        if (!replay)
            cover(COVER_WAIT_TAKEN);
        else if (replay->cursor[w].position >= replay->count[w])
            cover(COVER_REPLAY_WAIT_FREE);
        else {
            uint64_t pal = replay->log[w][replay->cursor[w].position];
            uint64_t seq = worker->ctx.seq[pal_id(pal)];
            bool there = !(seq & 1) && pal_version_since(pal, seq >> 1) == 0;
            cover(there ? COVER_REPLAY_WAIT_READERS : COVER_REPLAY_WAIT_VERSION);
        }
    }
    sim_wait();
}

static uint64_t now_ns(void *env)
{
    (void)env;
    return sim.now_ns;
}

static void diverged(void *env, unsigned w, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    sim_fail("I6", "worker %u, variable %u: %s (logged %016llx)", w, id, why,
             (unsigned long long)pal);
}

void proc_send(struct proc *proc, const struct message *message)
{
    struct message copy = *message;
    copy.slot = proc->slot;
    copy.view = proc->view;
    copy.incarnation = proc->incarnation;
    channel_send(&sim.from_proc[proc->slot], &copy);
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Zeroes what an earlier schedule used of it. */
static void clear_arena(struct arena *arena)
{
    if (arena->magic != ARENA_MAGIC) {
        memset((void *)arena, 0, SIM_ARENA_BYTES);
        return;
    }
    for (uint32_t e = 0; e <= arena->workers; e++)
        memset((uint8_t *)arena + arena->extents[e].start, 0, arena->extents[e].used);
    memset((void *)arena, 0, sizeof(*arena));
}

static struct arena *arena_memory(void)
{
    struct arena *arena = aligned_alloc(4096, SIM_ARENA_BYTES);
    FTMB_ASSERT(arena);
    memset((void *)arena, 0, SIM_ARENA_BYTES);
    return arena;
}

static void build_arena(struct proc *proc)
{
    const struct nf_needs *needs = &sim.needs;
    uint32_t workers = sim.config.workers;
    clear_arena(proc->arena);
    uint64_t size =
        arena_bytes(needs->shared_bytes, needs->worker_bytes, workers, needs->variables);
    FTMB_ASSERT(size <= SIM_ARENA_BYTES && needs->variables <= SIM_VARIABLES);
    struct arena *arena = arena_create(proc->arena, size, needs->shared_bytes, needs->worker_bytes,
                                       workers, needs->variables, sim.config.seed | 1);
    FTMB_ASSERT(arena);
    void *root = sim.program->nf->init(arena, sim.params);
    FTMB_ASSERT(root);
    arena->root_offset = (uint64_t)((uint8_t *)root - (uint8_t *)arena);
    /* Versions begin anywhere, also just before a PAL's 38 bits wrap. */
    struct rng rng = rng_stream(sim.config.seed, 77);
    for (uint32_t id = 0; id < needs->variables; id++)
        arena_seq(arena)[id] =
            2 * (rng_below(&rng, 2) ? PAL_VERSION_MASK - rng_below(&rng, 20) : rng_below(&rng, 3));
}

static void take_memory(struct proc *proc)
{
    uint64_t left_bytes = standby_bytes(SIM_ARENA_BYTES);
    if (!proc->arena) {
        proc->arena = arena_memory();
        proc->image[0] = arena_memory();
        proc->image[1] = arena_memory();
        proc->header = arena_memory();
        uint64_t bytes = marks_bytes(SIM_ARENA_BYTES, SIM_WORKERS, SIM_LINES);
        proc->marks_memory = aligned_alloc(4096, align_up(bytes, 4096));
        proc->replay_pals = malloc(SIM_WORKERS * SIM_PALS * sizeof(uint64_t));
        proc->program = malloc(sizeof(*proc->program));
        proc->standby.head = NULL;
    }
    struct slot_file *file = &sim.file[proc->slot];
    if (!file->memory) {
        file->memory = aligned_alloc(4096, align_up(left_bytes, 4096));
        file->spare = aligned_alloc(4096, align_up(left_bytes, 4096));
    }
    if (!proc->replay.variable)
        FTMB_ASSERT(replay_init(&proc->replay, SIM_WORKERS, SIM_VARIABLES, 4096) == REPLAY_OK);
    proc->replay.workers = sim.config.workers;
    proc->replay.variables = sim.needs.variables;
}

/* A new process maps a new file, and adopts what the slot's old one holds. */
static void open_base(struct proc *proc)
{
    struct slot_file *file = &sim.file[proc->slot];
    uint8_t *old = file->memory;
    file->memory = file->spare;
    file->spare = old;
    memset(file->memory, 0, STANDBY_HEAD_BYTES + proc->arena->size);
    standby_create(&proc->standby, proc->arena, file->memory);
    if (file->used && standby_adopt(&proc->standby, old, standby_bytes(SIM_ARENA_BYTES)))
        cover(COVER_BASE_FROM_FILE);
    oracle_adopted(proc);
    file->used = true;
}

static void init_workers(struct proc *proc)
{
    proc->env =
        (struct ctx_env){.relax = relax, .diverged = diverged, .clock = now_ns, .env = proc};
    memset(proc->vectors, 0, sizeof(proc->vectors));
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        struct worker *worker = &proc->worker[w];
        worker->proc = proc;
        worker->ctx = (struct ftmb_ctx){
            .arena = proc->arena,
            .cursor = &proc->arena->cursors[w],
            .seq = arena_seq(proc->arena),
            .worker = w,
            .workers = sim.config.workers,
            .variables = sim.needs.variables,
            .mode = ACCESS_LOG,
            .reads_locked = sim.config.reads_locked,
            .exact = sim.config.exact,
            .pals = worker->pals,
            .pal_capacity = sizeof(worker->pals) / sizeof(worker->pals[0]),
            .published = proc->published,
            .vectors = proc->vectors,
            .marks = sim.config.engine == SIM_COW ? &proc->marks : NULL,
            .epochs = &proc->epochs,
            .env = &proc->env,
        };
        stream_tx_reset(&worker->out, 1, sim.now_ns);
        worker->output_count = 0;
        worker->in_packet = false;
    }
}

/* ---- life and death ----------------------------------------------------------------------- */

static void control_main(void *self);

void proc_start(uint32_t slot)
{
    struct proc *proc = &sim.proc[slot];
    proc->slot = slot;
    take_memory(proc);
    build_arena(proc);
    proc->alive = true;
    proc->stopped = false;
    proc->mute_until_ns = 0;
    proc->uid = ++sim.uids;
    proc->incarnation = proc->watched = 0;
    proc->view = 0;
    proc->active = false;
    proc->promised_view = 0;
    proc->link = 0;
    proc->snapshots = (struct snapshots){0};
    proc->received = (struct base_name){0};
    atomic_store(&proc->replaying, 0);
    open_base(proc);
    init_workers(proc);
    oracle_promoted(proc);
    TRACE("r%u    starts, base %llu of view %u", slot,
          (unsigned long long)standby_base(&proc->standby).epoch,
          standby_base(&proc->standby).view);
    coro_begin(&proc->control, control_main, proc);
    coro_begin(&proc->state, snapshot_main, proc);
    world_actors_changed();
}

/* Its memory is gone but for the files; what it had sent may arrive or not. */
void proc_kill(struct proc *proc)
{
    TRACE("r%u    ends", proc->slot);
    proc->alive = false;
    proc->active = false;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        worker_drop_frames(&proc->worker[w]);
        lane_break(&sim.ol_to[proc->slot][w]);
        lane_break(&sim.il_from[proc->slot][w]);
        lane_clear(&sim.il_to[proc->slot][w]);
        lane_clear(&sim.ol_from[proc->slot][w]);
    }
    channel_break(&sim.from_proc[proc->slot]);
    channel_break(&sim.to_proc[proc->slot]);
    for (uint32_t i = 0; i < SIM_SLOTS; i++) {
        sim.state[i][proc->slot].full = false;
        sim.state[i][proc->slot].acked = (struct base_name){0};
    }
    world_died(proc);
    world_actors_changed();
}

/* It found out that it belongs to an ended view. */
void proc_exit(struct proc *proc)
{
    cover(COVER_FENCED_OUT);
    proc_kill(proc);
}

/* ---- promotion ---------------------------------------------------------------------------- */

/* The working copy becomes the base that the OL names, and stays it. */
static void settle_on(struct proc *proc, struct base_name base)
{
    struct standby *standby = &proc->standby;
    if (PLANTED(P_PROMOTE_PREPARED) && standby_prepared(standby).epoch)
        return;
    if (!base_same(standby_base(standby), base)) {
        (void)standby_commit(standby, base);
        cover(COVER_BASE_BY_PROMOTION);
    }
    cover_if(standby_prepared(standby).epoch != 0, COVER_BASE_ROLLED_BACK);
    standby_roll_back(standby);
    struct base_name held = standby_base(standby);
    if (!base_same(held, base))
        sim_fail("I6", "promoted with snapshot %llu of view %u, held: %llu of view %u",
                 (unsigned long long)base.epoch, base.view, (unsigned long long)held.epoch,
                 held.view);
    oracle_starts(proc, held);
}

static void promote(struct proc *proc, const struct message *message)
{
    if (proc->active || message->view < proc->promised_view)
        return;
    if (message->view == proc->promised_view) { /* told again: the answer is the same */
        proc_send(proc, &proc->cut);
        return;
    }
    settle_on(proc, message->name);
    cover_if(base_same(sim.promoted_base, message->name), COVER_BASE_SECOND_CRASH);
    sim.promoted_base = message->name;
    struct replay *replay = &proc->replay;
    struct message cut = {.type = MSG_CUT, .name = {.view = message->view}};
    uint64_t *at = proc->replay_pals, stored[SIM_WORKERS];
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        uint64_t count = message->limit[w];
        memcpy(at, sim.promote_pals[w], count * sizeof(uint64_t));
        replay->log[w] = at;
        replay->count[w] = count;
        stored[w] = proc->arena->cursors[w].pals + count;
        at += count;
    }
    if (replay_cut(replay, arena_seq(proc->arena)))
        sim_fail("I6", "the logs contradict each other");
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        uint64_t kept = replay->count[w];
        cut.cut.pals[w] = proc->arena->cursors[w].pals + kept;
        cut.cut.next_input[w] = proc->arena->cursors[w].next_input;
        if (kept < message->limit[w]) {
            cover_if(kept + 1 < message->limit[w] && (replay->log[w][kept + 1] & PAL_INSIDE),
                     COVER_CUT_DROPS_SECTION);
        }
    }
    oracle_cut(cut.cut.pals, stored);
    proc->promised_view = message->view;
    proc->cut = cut;
    proc_send(proc, &cut);
    if (replay_prepare(replay, arena_seq(proc->arena)))
        sim_fail("I6", "the cut contradicts itself");
}

static void go(struct proc *proc, uint32_t view)
{
    if (proc->active || proc->promised_view != view)
        return;
    bool anything = !replay_done(&proc->replay);
    cover_if(!anything, COVER_EMPTY_REPLAY);
    proc->view = view;
    master_begin(proc, standby_base(&proc->standby));
    memset(proc->vectors, 0, sizeof(proc->vectors));
    atomic_store(&proc->replaying, anything ? sim.config.workers : 0);
    oracle_promoted(proc);
    proc->active = true;
    for (uint32_t w = 0; w < sim.config.workers; w++)
        worker_begin(&proc->worker[w], anything ? &proc->replay : NULL);
    world_actors_changed();
}

/* ---- messages ----------------------------------------------------------------------------- */

static void welcome(struct proc *proc, const struct message *message)
{
    bool new = proc->incarnation == 0;
    proc->incarnation = message->incarnation;
    if (!message->rejoined || new)
        proc->view = message->view;
    snapshot_tell(proc);
    if (!message->active || !new)
        return;
    master_begin(proc, (struct base_name){0});
    proc->active = true;
    for (uint32_t w = 0; w < sim.config.workers; w++)
        worker_begin(&proc->worker[w], NULL);
    world_actors_changed();
}

static void on_message(struct proc *proc, const struct message *message)
{
    switch (message->type) {
    case MSG_WELCOME:
        welcome(proc, message);
        break;
    case MSG_BACKUP:
        master_backup(proc, message);
        break;
    case MSG_COMMITTED:
        snapshot_committed(proc, message->name);
        break;
    case MSG_VOID:
        if (base_same(standby_prepared(&proc->standby), message->name) && !proc->promised_view)
            standby_roll_back(&proc->standby);
        break;
    case MSG_SNAPSHOT:
        proc->snapshots.wanted = true;
        break;
    case MSG_PROMOTE:
        promote(proc, message);
        break;
    case MSG_GO:
        go(proc, message->view);
        break;
    case MSG_NEW_VIEW:
        if (!proc->active && message->view >= proc->view) {
            proc->view = message->view;
            standby_new_view(&proc->standby, message->view);
            cover(COVER_STANDBY_STAYS);
        }
        break;
    case MSG_FENCED:
        proc_exit(proc);
        coro_yield(); /* never resumed */
        break;
    default:
        sim_fail("sim", "a replica gets message %d", (int)message->type);
    }
}

static void hello(struct proc *proc)
{
    struct message message = {.type = MSG_HELLO, .pid = proc->uid, .active = proc->active};
    message.name = standby_base(&proc->standby);
    message.prepared = standby_prepared(&proc->standby);
    proc->link = sim.world_link;
    proc_send(proc, &message);
}

static void control_main(void *self)
{
    struct proc *proc = self;
    for (;;) {
        const struct message *message = NULL;
        if (sim.ol.alive && proc->link != sim.world_link) {
            hello(proc);
            sim.worked = true;
        } else if ((message = channel_take(&sim.to_proc[proc->slot])) != NULL) {
            struct message copy = *message;
            sim.worked = true;
            on_message(proc, &copy);
        }
        coro_yield();
    }
}

/* The oracle's own copy of the state at each cut: what standbys hold must be equal to it.
 *
 * It knows nothing of stamps, undo logs, gates and seats. A cut is an instant at which no worker is
 * inside a packet of the ended epoch: then shared memory is copied. A worker's own memory and
 * cursor are copied at that instant too, or before, when its first packet of the new epoch begins.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/oracle.h"

#define CUTS 3u

struct cut {
    uint32_t uid; /* whose */
    struct base_name name;
    uint32_t taken; /* workers, as bits */
    bool complete;
    struct arena *image;
};

static struct cut cuts[SIM_SLOTS][CUTS]; /* a fenced master may not know it yet */
static uint32_t next_cut[SIM_SLOTS];
static struct cut prepared[SIM_SLOTS]; /* what a slot's standby prepared last: its file keeps it */
static struct cut base;                /* the committed one */

static struct arena *image_memory(void)
{
    struct arena *image = aligned_alloc(4096, SIM_ARENA_BYTES);
    FTMB_ASSERT(image);
    return image;
}

void oracle_cuts_reset(void)
{
    for (uint32_t i = 0; i < SIM_SLOTS * CUTS; i++) {
        struct cut *cut = &cuts[i / CUTS][i % CUTS];
        struct arena *image = cut->image ? cut->image : image_memory();
        *cut = (struct cut){.image = image};
    }
    for (uint32_t slot = 0; slot <= SIM_SLOTS; slot++) {
        struct cut *cut = slot == SIM_SLOTS ? &base : &prepared[slot];
        struct arena *image = cut->image ? cut->image : image_memory();
        *cut = (struct cut){.image = image};
    }
}

static struct cut *newest(const struct proc *proc)
{
    struct cut *cut = &cuts[proc->slot][next_cut[proc->slot] % CUTS];
    return cut->uid == proc->uid ? cut : NULL;
}

static void take_worker(struct cut *cut, const struct proc *proc, uint32_t w)
{
    const struct arena_extent *own = &proc->arena->extents[1 + w];
    cut->taken |= 1u << w;
    cut->image->cursors[w] = proc->arena->cursors[w];
    cut->image->extents[1 + w] = *own;
    memcpy((uint8_t *)cut->image + own->start, (const uint8_t *)proc->arena + own->start,
           own->used);
}

/* A worker in the middle of a packet of the ended epoch. */
static bool inside(const struct cut *cut, const struct proc *proc, uint32_t w)
{
    const struct worker *worker = &proc->worker[w];
    return worker->in_packet && worker->ctx.epoch_seen >> 1 < cut->name.epoch;
}

static void complete(struct cut *cut, struct proc *proc)
{
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        if (inside(cut, proc, w))
            return;
    }
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        if (!(cut->taken & 1u << w))
            take_worker(cut, proc, w);
    }
    const struct arena_extent *shared = &proc->arena->extents[0];
    memcpy((uint8_t *)cut->image + shared->start, (const uint8_t *)proc->arena + shared->start,
           shared->used);
    cut->complete = true;
    TRACE("r%u    cut %llu is complete", proc->slot, (unsigned long long)cut->name.epoch);
    oracle_report(cut->image);
}

/* Whoever stored the number: a worker, or the one who wanted it. */
void sim_flipped(struct epoch_group *group)
{
    struct proc *proc = (struct proc *)((uint8_t *)group - offsetof(struct proc, epochs));
    struct cut *cut = &cuts[proc->slot][++next_cut[proc->slot] % CUTS];
    cut->uid = proc->uid;
    cut->name = (struct base_name){proc->flipping.view, proc->flipping.epoch};
    cut->taken = 0;
    cut->complete = false;
    memcpy(cut->image, proc->arena, sizeof(struct arena));
    TRACE("r%u    epoch %llu begins", proc->slot, (unsigned long long)cut->name.epoch);
    complete(cut, proc);
}

void oracle_begins(struct worker *worker)
{
    struct cut *cut = newest(worker->proc);
    uint64_t epoch = worker->ctx.epoch_seen >> 1;
    if (!cut)
        return;
    if (epoch < cut->name.epoch && cut->complete)
        sim_fail("I3", "worker %u begins a packet of an epoch that has ended", worker->ctx.worker);
    if (epoch == cut->name.epoch && !(cut->taken & 1u << worker->ctx.worker))
        take_worker(cut, worker->proc, worker->ctx.worker);
}

void oracle_ends(struct worker *worker)
{
    struct cut *cut = newest(worker->proc);
    if (cut && !cut->complete)
        complete(cut, worker->proc);
}

void oracle_shared(struct worker *worker)
{
    const struct cut *cut = newest(worker->proc);
    if (cut && !cut->complete && worker->ctx.epoch_seen >> 1 == cut->name.epoch)
        sim_fail("I3", "worker %u, in the new epoch, comes to shared state before its cut",
                 worker->ctx.worker);
}

void oracle_complete(struct proc *proc)
{
    const struct cut *cut = newest(proc);
    FTMB_ASSERT(cut);
    if (!cut->complete)
        sim_fail("I3", "a worker inside a packet counts as joined");
    if (memcmp(cut->image, proc->header, sizeof(struct arena)) != 0)
        sim_fail("I3", "the header is not that of the cut");
}

/* NULL: it is long past (a standby that was stopped goes on). */
static const struct cut *find(struct base_name name)
{
    bool past = false;
    for (uint32_t i = 0; i < SIM_SLOTS * CUTS; i++) {
        const struct cut *cut = &cuts[i / CUTS][i % CUTS];
        if (cut->name.epoch && cut->complete && base_same(cut->name, name))
            return cut;
        past |= cut->name.view > name.view ||
                (cut->name.view == name.view && cut->name.epoch > name.epoch);
    }
    if (past)
        return NULL;
    sim_fail("I4", "nobody made snapshot %llu of view %u", (unsigned long long)name.epoch,
             name.view);
}

static void compare(const struct arena *image, const struct arena *held, const char *what)
{
    uint64_t at = snapshot_first_difference(image, held);
    char where[48];
    if (at == UINT64_MAX)
        return;
    snapshot_where(image, at, where);
    sim_fail("I3", "%s is not the state at the cut: offset %llu, %s", what, (unsigned long long)at,
             where);
}

void oracle_prepared(const struct proc *proc)
{
    struct base_name name = standby_prepared(&proc->standby);
    const struct cut *cut = find(name);
    if (cut)
        compare(cut->image, proc->arena, "what a standby prepared");
    snapshot_copy(proc->arena, prepared[proc->slot].image);
    prepared[proc->slot].name = name;
}

/* Somebody has prepared it, and was right. */
void oracle_base(struct base_name name)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS && !base_same(base.name, name); slot++) {
        if (!base_same(prepared[slot].name, name))
            continue;
        snapshot_copy(prepared[slot].image, base.image);
        base.name = name;
    }
    if (!base_same(base.name, name))
        sim_fail("I4", "snapshot %llu of view %u is committed, and nobody has it",
                 (unsigned long long)name.epoch, name.view);
}

/* A process found a prepared snapshot in its slot. */
void oracle_adopted(const struct proc *proc)
{
    const struct cut *cut = &prepared[proc->slot];
    if (cut->name.epoch && base_same(cut->name, standby_prepared(&proc->standby)))
        compare(cut->image, proc->arena, "what a process found prepared");
}

void oracle_starts(const struct proc *proc, struct base_name name)
{
    if (base.name.epoch && base_same(base.name, name))
        compare(base.image, proc->arena, "what a new master starts from");
}

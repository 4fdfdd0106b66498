/* The oracle's checks (see oracle.h). */
#include "sim/oracle.h"

#include <stdio.h>
#include <string.h>

#include "core/hash.h"
#include "sim/program.h"

static struct oracle memory;

void oracle_reset(void)
{
    /* The long arrays are only read where they were written. */
    memset(memory.accepted_count, 0, sizeof(memory.accepted_count));
    memset(memory.released_count, 0, sizeof(memory.released_count));
    memset(memory.delivered, 0, sizeof(memory.delivered));
    memset(memory.skippable, 0, sizeof(memory.skippable));
    memset(memory.past, 0, sizeof(memory.past));
    memset(memory.verified, 0, sizeof(memory.verified));
    memory.master_uid = 0;
    memory.delivered_count = 0;
    memory.lost_in_hand = 0;
    sim.oracle = &memory;
    oracle_cuts_reset();
}

/* ---- true pasts --------------------------------------------------------------------------- */

static struct worker *worker_of(struct ftmb_ctx *ctx)
{
    return (struct worker *)((uint8_t *)ctx - offsetof(struct worker, ctx));
}

static void join(uint64_t *to, const uint64_t *from)
{
    for (uint32_t j = 0; j < SIM_WORKERS; j++)
        to[j] = u64_max(to[j], from[j]);
}

void sim_wrote(struct ftmb_ctx *ctx, uint32_t id)
{
    struct worker *worker = worker_of(ctx);
    oracle_shared(worker);
    join(worker->ghost, worker->proc->ghost[id]);
}

void sim_read(struct ftmb_ctx *ctx, uint32_t id)
{
    struct worker *worker = worker_of(ctx);
    oracle_shared(worker);
    join(worker->ghost, worker->proc->ghost[id]);
}

void sim_section_ends(struct ftmb_ctx *ctx)
{
    struct worker *worker = worker_of(ctx);
    worker->ghost[ctx->worker] = ctx->cursor->pals;
    for (unsigned i = 0; i < ctx->held_count; i++)
        join(worker->proc->ghost[ctx->held[i]], worker->ghost);
}

void sim_pal(struct ftmb_ctx *ctx, uint64_t pal)
{
    uint64_t number = ctx->cursor->pals;
    if (number >= SIM_PALS)
        sim_fail("sim", "more PALs than the simulator has room for");
    worker_of(ctx)->proc->true_pals[ctx->worker][number] = pal;
    cover_if(pal_id(pal) == PAL_ID_DETERMINANT, COVER_DETERMINANT);
    if (pal_id(pal) != PAL_ID_DETERMINANT && (pal & PAL_VERSION_MASK) == 0)
        cover_if(ctx->seq[pal_id(pal)] >> 1 >= PAL_VERSION_MASK, COVER_VERSION_WRAP);
    TRACE("r%u    w%u PAL %llu: %s%s variable %u version %llu", worker_of(ctx)->proc->slot,
          ctx->worker, (unsigned long long)number, (pal & PAL_WRITE) ? "write" : "read",
          (pal & PAL_INSIDE) ? " inside" : "", pal_id(pal),
          (unsigned long long)(pal & PAL_VERSION_MASK));
    if (ctx->replay && ctx->pal_count == 0 && number <= sim.ol.release.worker[ctx->worker].stored) {
        cover(COVER_REPLAYED);
        cover_if(pal_id(pal) == PAL_ID_DETERMINANT, COVER_REPLAY_DETERMINANT);
        cover_if((pal & PAL_INSIDE) != 0, COVER_REPLAY_SECTION);
    }
}

/* ---- versions ----------------------------------------------------------------------------- */

#define VERSIONS 4096u

struct version {
    uint64_t version;
    uint64_t value;
    uint32_t run; /* schedule that this belongs to */
};

static struct version versions[SIM_VARIABLES][VERSIONS];

void oracle_version(struct ftmb_ctx *ctx, uint32_t id, uint64_t value)
{
    if (worker_of(ctx)->proc->uid != memory.master_uid)
        return; /* of an ended view: it may do what it likes */
    uint64_t version = (ctx->seq[id] >> 1) + 1;
    bool logged = ctx->replay && ctx->replay->cursor[ctx->worker].section_logged;
    struct version *x = &versions[id][version % VERSIONS];
    if (logged && x->run == sim.run && x->version == version && x->value != value)
        sim_fail("I3", "version %llu of variable %u has another value in the replay",
                 (unsigned long long)version, id);
    x->version = version;
    x->value = value;
    x->run = sim.run;
}

/* ---- inputs ------------------------------------------------------------------------------- */

static uint64_t input_hash(const uint8_t *bytes, uint32_t length, uint8_t port, uint64_t stamp_ns,
                           bool tick)
{
    return hash_mix(hash_bytes(port + 2 * tick, bytes, length), stamp_ns);
}

void oracle_accepted(uint32_t w, uint64_t number, const uint8_t *bytes, uint32_t length,
                     uint8_t port, uint64_t stamp_ns, bool tick)
{
    if (number != memory.accepted_count[w] + 1)
        sim_fail("I2", "worker %u: input %llu follows input %u", w, (unsigned long long)number,
                 memory.accepted_count[w]);
    if (number >= SIM_INPUTS)
        sim_fail("sim", "more inputs than the simulator has room for");
    memory.accepted_count[w]++;
    memory.accepted[w][number] = input_hash(bytes, length, port, stamp_ns, tick);
    TRACE("il    accepts %s %u.%llu", tick ? "tick" : "packet", w, (unsigned long long)number);
    sim_note(memory.accepted[w][number]);
}

void oracle_input(struct worker *worker, const struct wire_input *in)
{
    uint32_t w = worker->ctx.worker;
    uint64_t number = worker->ctx.cursor->next_input;
    if (in->head.seq != number || number > memory.accepted_count[w])
        sim_fail("I2", "worker %u: input %llu where %llu should be", w,
                 (unsigned long long)in->head.seq, (unsigned long long)number);
    TRACE("r%u    begins input %u.%llu%s", worker->proc->slot, w, (unsigned long long)number,
          worker->ctx.replay ? " (replay)" : "");
    uint64_t hash = input_hash((const uint8_t *)(in + 1), in->head.length, in->head.port,
                               in->stamp_ns, in->head.type == WIRE_TICK);
    if (hash != memory.accepted[w][number])
        sim_fail("I2", "worker %u: input %llu is not the one that was accepted", w,
                 (unsigned long long)number);
    worker->proc->program->latest_ns = u64_max(worker->proc->program->latest_ns, in->stamp_ns);
    if (sim.program->begins)
        sim.program->begins(in);
}

void oracle_packet(struct worker *worker, const struct wire_input *in, const struct nf_packet *out)
{
    if (sim.program->processed)
        sim.program->processed(worker, in, out);
}

/* ---- outputs ------------------------------------------------------------------------------ */

static uint64_t output_hash(const struct frame *frame)
{
    const struct wire_head *head = (const struct wire_head *)frame->bytes;
    return hash_bytes(head->port, frame->bytes + wire_output_bytes(sim.config.workers),
                      head->length);
}

void oracle_produced(struct worker *worker, struct frame *frame)
{
    uint32_t w = worker->ctx.worker;
    uint64_t number = ((const struct wire_output *)frame->bytes)->number;
    if (number >= SIM_OUTPUTS)
        sim_fail("sim", "more outputs than the simulator has room for");
    worker->proc->true_outputs[w][number] = output_hash(frame);
    memcpy(frame->ghost, worker->ghost, sizeof(frame->ghost));
    frame->ghost[w] = worker->ctx.cursor->pals;
    TRACE("r%u    makes output %u.%llu", worker->proc->slot, w, (unsigned long long)number);
}

void oracle_taken(const struct frame *frame)
{
    if (frame->uid != memory.master_uid)
        sim_fail("I4", "the OL takes a frame of a process whose view has ended");
}

static struct proc *proc_of(uint32_t uid)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        if (sim.proc[slot].uid == uid)
            return &sim.proc[slot];
    }
    return NULL;
}

/* Is every PAL of the true past in the OL's store, as it was, or covered by the base? */
static void check_past(uint32_t w, const struct frame *frame, const struct proc *proc)
{
    for (uint32_t j = 0; j < sim.config.workers; j++) {
        const struct release_worker *x = &sim.ol.release.worker[j];
        uint64_t at = u64_max(memory.verified[j], x->pal_base);
        for (; at < frame->ghost[j]; at++) {
            if (at + 1 > x->stored || x->pals[(at + 1) & x->pal_mask] != proc->true_pals[j][at + 1])
                sim_fail("I1",
                         "worker %u releases an output that depends on PAL %llu of worker %u, "
                         "which is not stored",
                         w, (unsigned long long)at + 1, j);
        }
        memory.verified[j] = at;
    }
}

void oracle_released(uint32_t w, const struct frame *frame)
{
    uint64_t number = ((const struct wire_output *)frame->bytes)->number;
    uint64_t hash = output_hash(frame);
    const struct proc *proc = proc_of(frame->uid);
    if (!proc || frame->uid != memory.master_uid)
        sim_fail("I4", "an output of an ended view is released");
    if (number != memory.released_count[w] + 1)
        sim_fail("I2", "worker %u: output %llu is released after output %llu", w,
                 (unsigned long long)number, (unsigned long long)memory.released_count[w]);
    if (hash != proc->true_outputs[w][number])
        sim_fail("I3", "worker %u: output %llu is not what the master made", w,
                 (unsigned long long)number);
    TRACE("ol    releases output %u.%llu", w, (unsigned long long)number);
    check_past(w, frame, proc);
    memory.released_count[w] = number;
    memory.released[w][number] = hash;
    join(memory.past, frame->ghost);
    sim_note(hash);
    sim_progress();
}

void oracle_delivered(uint32_t w, const struct frame *frame)
{
    const struct wire_output *out = (const struct wire_output *)frame->bytes;
    uint64_t next = memory.delivered[w] + 1;
    if (out->number != next && out->number <= memory.delivered[w])
        sim_fail("I2", "worker %u: output %llu is delivered twice", w,
                 (unsigned long long)out->number);
    if (out->number != next && out->number > memory.skippable[w] + 1)
        sim_fail("I2", "worker %u: output %llu is delivered after %llu", w,
                 (unsigned long long)out->number, (unsigned long long)memory.delivered[w]);
    memory.lost_in_hand += out->number - next;
    memory.delivered[w] = out->number;
    memory.delivered_count++;
    if (sim.program->delivered)
        sim.program->delivered(frame->bytes + wire_output_bytes(sim.config.workers),
                               out->head.length, out->head.port);
}

/* ---- the OL's decisions ------------------------------------------------------------------- */

void oracle_committed(const struct snapshot_cut *cut)
{
    const struct proc *master = proc_of(memory.master_uid);
    for (uint32_t w = 0; master && w < sim.config.workers; w++)
        memcpy(memory.base_outputs[w], master->true_outputs[w],
               (cut->outputs[w] + 1) * sizeof(uint64_t));
    oracle_base((struct base_name){sim.ol.state.base_view, sim.ol.state.base_epoch});
    cover(COVER_COMMIT);
    TRACE("ol    commits snapshot %llu of view %u", (unsigned long long)sim.ol.state.base_epoch,
          sim.ol.state.base_view);
    sim_note(cut->pals[0]);
}

void oracle_cut(const uint64_t *pals, const uint64_t *stored)
{
    for (uint32_t j = 0; j < sim.config.workers; j++) {
        TRACE("cut   keeps PALs of worker %u up to %llu of %llu", j, (unsigned long long)pals[j],
              (unsigned long long)stored[j]);
        if (pals[j] < memory.past[j])
            sim_fail("I1",
                     "the cut keeps %llu PALs of worker %u, and a released output depends on %llu",
                     (unsigned long long)pals[j], j, (unsigned long long)memory.past[j]);
        cover_if(pals[j] < stored[j], COVER_CUT_DROPS);
    }
}

void oracle_view_begins(struct proc *master)
{
    memory.master_uid = master->uid;
    TRACE("ol    begins view %u with r%u", sim.ol.view, master->slot);
    for (uint32_t j = 0; j < sim.config.workers; j++)
        memory.verified[j] = 0;
    sim_progress();
    sim_note(master->uid);
}

void oracle_ol_restarted(void)
{
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        memory.verified[w] = 0;
        memory.skippable[w] = memory.released_count[w];
    }
}

/* ---- replicas ----------------------------------------------------------------------------- */

void oracle_promoted(struct proc *proc)
{
    memset(proc->ghost, 0, sizeof(proc->ghost));
    memset(proc->program, 0, sizeof(*proc->program));
    for (uint32_t w = 0; w < sim.config.workers; w++)
        memcpy(proc->true_outputs[w], memory.base_outputs[w],
               (proc->arena->cursors[w].outputs + 1) * sizeof(uint64_t));
}

static void on_counter(void *self, const char *name, uint64_t value)
{
    (void)self;
    cover_if(value && strcmp(name, "mappings_expired") == 0, COVER_NAT_EXPIRED);
    cover_if(value && strcmp(name, "dropped_no_port") == 0, COVER_NAT_EXHAUSTED);
    cover_if(value && strcmp(name, "dropped_half_open") == 0, COVER_FIREWALL_HALF_OPEN);
    cover_if(value && strcmp(name, "ended") == 0, COVER_FIREWALL_EXPIRED);
    cover_if(value && strcmp(name, "scanners") == 0, COVER_IDS_SCANNER);
    cover_if(value && strcmp(name, "flood") == 0, COVER_IDS_FLOOD);
    cover_if(value && strcmp(name, "dropped_user") == 0, COVER_LIMIT_USER);
    cover_if(value && strcmp(name, "dropped_total") == 0, COVER_LIMIT_TOTAL);
}

static void on_check(void *self, const char *name, bool ok, const char *detail)
{
    (void)self;
    if (!ok)
        sim_fail("nf", "check %s of %s: %s", name, sim.program->name, detail);
}

void oracle_report(struct arena *image)
{
    const struct nf_report report = {.counter = on_counter, .check = on_check};
    if (sim.program->nf->report)
        sim.program->nf->report(image, &report);
}

/* Everything that was accepted is done, and all that was released is what the survivor's own
 * history says. */
void oracle_end(struct proc *master)
{
    uint64_t released = 0;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        const struct worker_cursor *cursor = &master->arena->cursors[w];
        if (cursor->next_input != memory.accepted_count[w] + 1ull)
            sim_fail("I2", "worker %u: %u inputs accepted, %llu done", w, memory.accepted_count[w],
                     (unsigned long long)cursor->next_input - 1);
        if (memory.released_count[w] != cursor->outputs)
            sim_fail("I2", "worker %u: %llu outputs made, %llu released", w,
                     (unsigned long long)cursor->outputs,
                     (unsigned long long)memory.released_count[w]);
        for (uint64_t n = 1; n <= cursor->outputs; n++) {
            if (memory.released[w][n] != master->true_outputs[w][n])
                sim_fail("I3",
                         "worker %u: output %llu was released with other content than the "
                         "survivor's history has",
                         w, (unsigned long long)n);
        }
        memory.lost_in_hand += cursor->outputs - memory.delivered[w];
        released += cursor->outputs;
    }
    if (memory.delivered_count + memory.lost_in_hand != released ||
        memory.lost_in_hand > sim.ol.release.lost_in_hand)
        sim_fail("I2", "%llu outputs released, %llu delivered, %llu lost in an OL's hands",
                 (unsigned long long)released, (unsigned long long)memory.delivered_count,
                 (unsigned long long)sim.ol.release.lost_in_hand);
    oracle_report(master->arena);
}

/* A worker of a replica: what roles/worker.c and roles/worker_stream.c do, over simulated links. */
#include <string.h>

#include "core/framing.h"
#include "core/room.h"
#include "sim/oracle.h"
#include "sim/program.h"
#include "sim/sim.h"

#define PROGRESS_EVERY 16u

static struct frame *head_frame(struct worker *worker, enum wire_type type, uint32_t bytes)
{
    struct proc *proc = worker->proc;
    struct frame *frame = frame_new(proc->uid);
    frame->length = bytes;
    wire_head_put((struct wire_head *)frame->bytes, type, worker->ctx.worker, 0, 0, proc->view,
                  proc->incarnation, 0);
    return frame;
}

static uint32_t may_take(const struct worker *worker)
{
    return room_inputs(stream_tx_unacked(&worker->out), sim.config.window, sim.config.burst,
                       sim_room(sim.config.burst), sim_room(1), room_log_left(&worker->ctx));
}

static void append(struct worker *worker, struct frame *frame)
{
    uint64_t seq = worker->out.next++;
    ((struct wire_head *)frame->bytes)->seq = seq;
    worker->kept[seq % SIM_WINDOW] = frame;
}

static void append_pals(struct worker *worker, uint32_t from, uint32_t to)
{
    const struct ftmb_ctx *ctx = &worker->ctx;
    uint32_t bytes = (to - from) * (uint32_t)sizeof(uint64_t);
    struct frame *frame = head_frame(worker, WIRE_PAL, (uint32_t)sizeof(struct wire_pals) + bytes);
    FTMB_ASSERT(frame->length <= SIM_FRAME_BYTES);
    struct wire_pals *pals = (struct wire_pals *)frame->bytes;
    pals->head.length = (uint16_t)bytes;
    pals->first = ctx->cursor->pals - (ctx->pal_count - from) + 1;
    pals->next_input = to == ctx->pal_count ? ctx->cursor->next_input : worker->progress_sent;
    worker->progress_sent = pals->next_input;
    memcpy(pals->pals, ctx->pals + from, bytes);
    append(worker, frame);
}

static void flush(struct worker *worker)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    for (uint32_t from = 0; from < ctx->pal_count;) {
        uint32_t to =
            framing_end(ctx->pals, from, ctx->pal_count, sim.config.frame_pals, sim.config.batch);
        append_pals(worker, from, to);
        from = to;
    }
    ctx->pal_count = 0;
    for (uint32_t i = 0; i < worker->output_count; i++)
        append(worker, worker->outputs[i]);
    worker->output_count = 0;
}

static bool send(struct worker *worker)
{
    struct stream_tx *out = &worker->out;
    struct lane *lane = &sim.ol_to[worker->proc->slot][worker->ctx.worker];
    uint64_t first;
    bool any = false;
    while (stream_tx_run(out, 1, &first) && lane_send(lane, worker->kept[first % SIM_WINDOW])) {
        cover_if(first != out->cursor, COVER_SENT_AGAIN);
        stream_tx_sent(out, first, 1);
        any = true;
        SIM_POINT();
    }
    return any;
}

static void take_ack(struct worker *worker, const struct frame *frame)
{
    const struct wire_head *head = (const struct wire_head *)frame->bytes;
    if (!wire_valid(frame->bytes, frame->length, worker->ctx.workers) || head->type != WIRE_ACK ||
        !wire_current(head, worker->proc->view, worker->proc->incarnation))
        return;
    uint64_t from = worker->out.acked + 1, cursor = worker->out.cursor;
    uint64_t freed = stream_tx_settle(&worker->out, head->seq, sim.now_ns);
    stream_tx_report(&worker->out, &((const struct wire_ack *)head)->report, sim.now_ns);
    for (uint64_t seq = from; seq < from + freed; seq++)
        frame_drop(worker->kept[seq % SIM_WINDOW]);
    cover_if(worker->out.cursor < cursor, COVER_GO_BACK);
}

static void acknowledge(struct worker *worker, struct lane *lane)
{
    struct frame *frame = head_frame(worker, WIRE_ACK, sizeof(struct wire_ack));
    struct wire_ack *ack = (struct wire_ack *)frame->bytes;
    ack->head.seq = stream_rx_taken(&worker->in);
    stream_rx_report(&worker->in, &ack->report);
    if (lane_send(lane, frame))
        stream_rx_acked(&worker->in, ack->head.seq);
    frame_drop(frame);
}

static void probe(struct worker *worker, struct lane *lane)
{
    struct frame *frame = head_frame(worker, WIRE_PROBE, sizeof(struct wire_head));
    ((struct wire_head *)frame->bytes)->seq = worker->out.cursor - 1;
    cover(COVER_PROBE);
    (void)lane_send(lane, frame);
    frame_drop(frame);
}

static void housekeeping(struct worker *worker, bool idle)
{
    uint32_t slot = worker->proc->slot, w = worker->ctx.worker;
    struct frame *frame;
    while ((frame = lane_take(&sim.ol_from[slot][w])) != NULL) {
        take_ack(worker, frame);
        frame_drop(frame);
    }
    if (stream_rx_ack_due(&worker->in, stream_rx_taken(&worker->in), idle))
        acknowledge(worker, &sim.il_from[slot][w]);
    uint64_t told = worker->ctx.cursor->next_input - worker->progress_sent;
    if ((told >= PROGRESS_EVERY || (idle && told)) && may_take(worker))
        append_pals(worker, 0, 0);
    if (idle && stream_tx_probe_due(&worker->out, sim.now_ns))
        probe(worker, &sim.ol_to[slot][w]);
}

/* ---- inputs ------------------------------------------------------------------------------- */

static void emit(struct worker *worker, struct frame *frame, const struct nf_packet *packet)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    struct wire_output *out = (struct wire_output *)frame->bytes;
    uint64_t vector[SIM_WORKERS];
    shared_vector(ctx, vector);
    if (PLANTED(P_VECTOR_BEFORE_LAST) && !ctx->exact) {
        memcpy(vector, worker->early, sizeof(vector));
        vector[ctx->worker] = ctx->cursor->pals;
    }
    memcpy(out->vector, vector, ctx->workers * sizeof(uint64_t));
    ctx->cursor->outputs++;
    wire_head_put(&out->head, WIRE_OUTPUT, ctx->worker, packet->port, packet->length,
                  worker->proc->view, worker->proc->incarnation, 0);
    out->number = ctx->cursor->outputs;
    frame->length = wire_output_bytes(ctx->workers) + packet->length;
    worker->outputs[worker->output_count++] = frame;
    oracle_produced(worker, frame);
}

static void run_packet(struct worker *worker, const struct wire_input *in)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    struct frame *frame = frame_new(worker->proc->uid);
    uint32_t offset = wire_output_bytes(ctx->workers);
    memcpy(frame->bytes + offset, in + 1, in->head.length);
    struct nf_packet packet = {.data = frame->bytes + offset,
                               .length = in->head.length,
                               .capacity = SIM_FRAME_BYTES - offset,
                               .port = in->head.port};
    uint32_t before = ctx->pal_count;
    if (PLANTED(P_VECTOR_PER_PACKET))
        memset(ctx->deps, 0, sizeof(ctx->deps));
    if (PLANTED(P_VECTOR_BEFORE_LAST))
        shared_vector(ctx, worker->early);
    ctx->emitted = NULL;
    ctx->cursor->packets++;
    sim.program->nf->process(ctx, &packet);
    FTMB_ASSERT(!ctx->held_count && ctx->pal_count - before <= sim.needs.max_pals);
    oracle_packet(worker, in, ctx->emitted);
    SIM_POINT();
    if (!ctx->emitted) {
        cover(COVER_DROPPED_BY_NF);
        ctx->cursor->dropped++;
        frame_drop(frame);
        return;
    }
    emit(worker, frame, &packet);
}

static void run_input(struct worker *worker, const struct frame *frame)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    const struct wire_input *in = (const struct wire_input *)frame->bytes;
    oracle_begins(worker);
    oracle_input(worker, in);
    bool logged =
        ctx->replay && ctx->replay->cursor[ctx->worker].position < ctx->replay->count[ctx->worker];
    uint32_t appended = ctx->pal_count;
    worker->in_packet = true;
    ctx->now_ns = in->stamp_ns;
    ctx->cursor->now_ns = in->stamp_ns;
    ctx->cursor->next_input++;
    if (in->head.type == WIRE_INPUT) {
        run_packet(worker, in);
        sim_progress();
    } else {
        ctx->cursor->ticks++;
        ctx->emitted = NULL;
        if (sim.program->nf->tick)
            sim.program->nf->tick(ctx);
    }
    worker->in_packet = false;
    oracle_ends(worker);
    cover_if(logged && ctx->pal_count != appended, COVER_CUT_IN_PACKET);
    sim_note(ctx->cursor->pals);
}

static enum stream_verdict take_input(struct worker *worker, struct frame *frame)
{
    const struct wire_head *head = (const struct wire_head *)frame->bytes;
    FTMB_ASSERT(wire_valid(frame->bytes, frame->length, worker->ctx.workers));
    if (!wire_current(head, worker->proc->view, worker->proc->incarnation)) {
        cover(COVER_OLD_FRAMES);
        return STREAM_GAP;
    }
    if (head->type == WIRE_PROBE) {
        stream_rx_probe(&worker->in, head->seq);
        return STREAM_GAP;
    }
    return stream_rx_frame(&worker->in, head->seq, frame);
}

static void leave_replay(struct worker *worker)
{
    worker->ctx.replay = NULL;
    atomic_fetch_sub(&worker->proc->replaying, 1);
}

/* Join a new epoch before the next packet. */
static void look_at_epoch(struct worker *worker, bool first)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    bool same = first ? epoch_enter(ctx) : epoch_same(ctx);
    uint64_t before = ctx->epoch_seen >> 1;
    while (!same && !epoch_turn(ctx)) {
        cover(COVER_PARKED);
        sim_wait();
    }
    cover_if(ctx->epoch_seen >> 1 != before, first ? COVER_JOINED_IDLE : COVER_JOINED_BUSY);
    cover_if(ctx->epoch_seen >> 1 > before + 1, COVER_SLEPT_THROUGH);
}

/* The next inputs: those that came before their turn first. Returns frames looked at. */
static uint32_t take_burst(struct worker *worker, struct frame **burst, uint32_t inputs,
                           uint32_t *taken)
{
    struct lane *lane = &sim.il_to[worker->proc->slot][worker->ctx.worker];
    struct frame *frame;
    uint32_t count = 0;
    *taken = 0;
    while (*taken < inputs && (frame = stream_rx_early(&worker->in)) != NULL) {
        stream_rx_take_early(&worker->in);
        cover(COVER_TAKEN_EARLY);
        burst[(*taken)++] = frame;
        count++;
    }
    for (; count < inputs && (frame = lane_take(lane)) != NULL; count++) {
        enum stream_verdict verdict = take_input(worker, frame);
        if (verdict == STREAM_TAKE)
            burst[(*taken)++] = frame;
        else if (verdict != STREAM_KEPT)
            frame_drop(frame);
    }
    return count;
}

static bool run_burst(struct worker *worker, uint32_t inputs)
{
    struct frame *burst[FTMB_BURST];
    uint32_t taken, count = take_burst(worker, burst, inputs, &taken);
    if (count == 0)
        return false;
    if (!taken)
        return true;
    for (uint32_t i = 0; i < taken; i++) {
        look_at_epoch(worker, i == 0);
        run_input(worker, burst[i]);
        frame_drop(burst[i]);
        SIM_POINT();
        if (worker->ctx.replay && replay_done(worker->ctx.replay))
            leave_replay(worker);
        if (!sim.config.batch)
            flush(worker);
    }
    flush(worker);
    epoch_leave(&worker->ctx);
    return true;
}

void worker_main(void *self)
{
    struct worker *worker = self;
    for (;;) {
        bool work = send(worker);
        if (worker->ctx.replay && replay_done(worker->ctx.replay))
            leave_replay(worker);
        uint32_t inputs = may_take(worker);
        bool ran = inputs && run_burst(worker, inputs);
        cover_if(!inputs, COVER_WINDOW_FULL);
        cover_if(ran && inputs < sim.config.burst, COVER_WINDOW_REPLAY);
        if (ran)
            send(worker);
        housekeeping(worker, !ran);
        if (ran || work)
            sim.worked = true;
        coro_yield();
    }
}

void worker_begin(struct worker *worker, struct replay *replay)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    worker_drop_frames(worker);
    stream_rx_reset(&worker->in, ctx->cursor->next_input);
    stream_tx_reset(&worker->out, 1, sim.now_ns);
    worker->progress_sent = ctx->cursor->next_input;
    worker->in_packet = false;
    ctx->replay = replay;
    ctx->pal_count = 0;
    ctx->held_count = 0;
    ctx->section_pals = 0;
    memset(ctx->deps, 0, sizeof(ctx->deps));
    memset(worker->ghost, 0, sizeof(worker->ghost));
    worker->output_count = 0;
    epoch_sit(ctx);
    atomic_store(&worker->proc->published[ctx->worker].pals, ctx->cursor->pals);
    coro_begin(&worker->coro, worker_main, worker);
}

void worker_drop_frames(struct worker *worker)
{
    for (uint64_t seq = worker->out.acked + 1; seq < worker->out.next; seq++)
        frame_drop(worker->kept[seq % SIM_WINDOW]);
    stream_tx_reset(&worker->out, 1, sim.now_ns);
    struct frame *frame;
    while ((frame = stream_rx_early_drop(&worker->in)) != NULL)
        frame_drop(frame);
}

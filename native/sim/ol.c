/* The output logger's lcore: what roles/output_logger.c does. */
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "sim/ol.h"
#include "sim/oracle.h"
#include "sim/world.h"

#define HELD 64u

/* ---- frames out --------------------------------------------------------------------------- */

static void hand_over(void)
{
    struct ol *ol = &sim.ol;
    for (uint32_t i = 0; i < ol->leaving_count; i++) {
        struct frame *frame = ol->leaving[i];
        oracle_delivered(((const struct wire_head *)frame->bytes)->worker, frame);
        ol->leaving[i] = NULL;
        frame_drop(frame);
        SIM_POINT();
    }
    release_handed(&ol->release, ol->leaving_count);
    ol->leaving_count = 0;
}

bool ol_release_all(void)
{
    struct ol *ol = &sim.ol;
    bool any = false;
    if (ol->holding)
        return false;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        struct frame *frame;
        while (ol->leaving_count < FTMB_BURST && (frame = release_next(&ol->release, w)) != NULL) {
            oracle_released(w, frame);
            ol->leaving[ol->leaving_count++] = frame;
            any = true;
            if (PLANTED(P_RELEASED_AFTER_HANDOVER)) {
                ol->release.worker[w].released--;
                hand_over();
                ol->release.worker[w].released++;
            }
            SIM_POINT();
        }
        cover_if(ol->release.worker[w].held_head != ol->release.worker[w].held_tail, COVER_HELD);
    }
    SIM_POINT();
    if (ol->leaving_count)
        hand_over();
    return any;
}

/* ---- frames in ---------------------------------------------------------------------------- */

static void take_pals(uint32_t w, const struct wire_pals *frame)
{
    struct ol *ol = &sim.ol;
    uint32_t count = frame->head.length / (uint32_t)sizeof(uint64_t);
    if (count) {
        enum release_verdict verdict =
            release_pals(&ol->release, w, frame->first, frame->pals, count);
        cover_if(verdict == RELEASE_DUPLICATE, COVER_REPEATED);
        if (verdict == RELEASE_DIVERGED)
            sim_fail("I3", "worker %u: PALs from %llu on differ from those stored", w,
                     (unsigned long long)frame->first);
        if (verdict == RELEASE_BAD)
            sim_fail("I5", "worker %u: PAL %llu out of order, or beyond its credit", w,
                     (unsigned long long)frame->first);
    }
    ol->progress[w] = frame->next_input;
}

/* True: the release keeps it. */
static bool take_output(uint32_t w, struct frame *frame)
{
    const struct wire_output *out = (const struct wire_output *)frame->bytes;
    uint64_t hash = hash_bytes(out->head.port, frame->bytes + wire_output_bytes(sim.config.workers),
                               out->head.length);
    uint64_t duplicates = sim.ol.release.duplicates;
    switch (
        release_output(&sim.ol.release, w, out->number, out->vector, frame, hash, out->head.seq)) {
    case RELEASE_OK:
        return true;
    case RELEASE_DUPLICATE:
        cover(sim.ol.release.duplicates != duplicates ? COVER_DUPLICATE : COVER_REPEATED);
        return false;
    case RELEASE_DIVERGED:
        sim_fail("I3", "worker %u: output %llu differs from the one released before", w,
                 (unsigned long long)out->number);
    case RELEASE_BAD:
        break;
    }
    sim_fail("I5", "worker %u: output %llu out of order, or beyond its credit", w,
             (unsigned long long)out->number);
}

static bool take_next(uint32_t w, struct frame *frame)
{
    const struct wire_head *head = (const struct wire_head *)frame->bytes;
    oracle_taken(frame);
    SIM_POINT();
    if (head->type == WIRE_OUTPUT)
        return take_output(w, frame);
    take_pals(w, (const struct wire_pals *)head);
    return false;
}

/* True: kept, by the stream or by the release. */
static bool take_frame(uint32_t w, struct frame *frame)
{
    struct ol *ol = &sim.ol;
    const struct wire_head *head = (const struct wire_head *)frame->bytes;
    FTMB_ASSERT(wire_valid(frame->bytes, frame->length, sim.config.workers));
    if (!wire_current(head, ol->view, ol->incarnation)) {
        cover(COVER_OLD_FRAMES);
        return false;
    }
    if (head->type == WIRE_PROBE) {
        stream_rx_probe(&ol->in[w], head->seq);
        return false;
    }
    enum stream_verdict verdict = stream_rx_frame(&ol->in[w], head->seq, frame);
    if (verdict == STREAM_TAKE)
        return take_next(w, frame);
    return verdict == STREAM_KEPT;
}

static void acknowledge(uint32_t w, uint64_t settled)
{
    struct ol *ol = &sim.ol;
    struct frame *frame = frame_new(0);
    struct wire_ack *ack = (struct wire_ack *)frame->bytes;
    frame->length = sizeof(*ack);
    wire_head_put(&ack->head, WIRE_ACK, w, 0, 0, ol->view, ol->incarnation, settled);
    stream_rx_report(&ol->in[w], &ack->report);
    release_settle(&ol->release.worker[w], settled);
    SIM_POINT();
    if (lane_send(&sim.ol_from[ol->slot][w], frame))
        stream_rx_acked(&ol->in[w], settled);
    frame_drop(frame);
}

static bool receive(uint32_t w)
{
    struct ol *ol = &sim.ol;
    struct release_worker *x = &ol->release.worker[w];
    if (x->held_tail - x->held_head + sim.config.burst > HELD)
        return false;
    uint32_t count = 0;
    struct frame *frame;
    for (; count < sim.config.burst && (frame = stream_rx_early(&ol->in[w])) != NULL; count++) {
        stream_rx_take_early(&ol->in[w]);
        cover(COVER_TAKEN_EARLY);
        if (!take_next(w, frame))
            frame_drop(frame);
    }
    struct lane *lane = &sim.ol_to[ol->slot][w];
    for (; count < sim.config.burst && (frame = lane_take(lane)) != NULL; count++) {
        if (!take_frame(w, frame))
            frame_drop(frame);
    }
    uint64_t taken = stream_rx_taken(&ol->in[w]);
    uint64_t settled = PLANTED(P_OL_ACKS_ON_ARRIVAL) ? taken : release_settled(x, taken);
    if (stream_rx_ack_due(&ol->in[w], settled, count == 0))
        acknowledge(w, settled);
    return count != 0;
}

/* ---- the control side's jobs --------------------------------------------------------------- */

static void discard(void *self, void *frame)
{
    (void)self;
    frame_drop(frame);
}

static void drop_early(void)
{
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        struct frame *frame;
        while ((frame = stream_rx_early_drop(&sim.ol.in[w])) != NULL)
            frame_drop(frame);
    }
}

void ol_fence(void)
{
    struct ol *ol = &sim.ol;
    ol->flowing = false;
    for (uint32_t w = 0; w < sim.config.workers; w++)
        cover_if(sim.ol_to[ol->slot][w].head != sim.ol_to[ol->slot][w].tail, COVER_VIEW_IN_FLIGHT);
    release_fence(&ol->release, discard, NULL);
}

void ol_begin(uint32_t slot, uint32_t view, uint32_t incarnation, const struct snapshot_cut *cut)
{
    struct ol *ol = &sim.ol;
    if (view > 1 && !release_truncate(&ol->release, cut->pals))
        sim_fail("I1", "the cut excludes the past of a released output");
    ol->slot = slot;
    ol->view = view;
    ol->incarnation = incarnation;
    memcpy(ol->start, cut->next_input, sizeof(ol->start));
    drop_early();
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        stream_rx_reset(&ol->in[w], 1);
        ol->progress[w] = cut->next_input[w];
    }
    oracle_view_begins(&sim.proc[slot]);
    ol->flowing = true;
}

bool ol_covers(const struct snapshot_cut *cut)
{
    (void)ol_release_all();
    return release_covers(&sim.ol.release, cut->pals, cut->outputs);
}

void ol_trim(const struct snapshot_cut *cut)
{
    release_commit(&sim.ol.release, cut->pals, cut->outputs);
}

/* ---- the role ----------------------------------------------------------------------------- */

/* Frames of replicas that are not the master. */
static void drain_others(void)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        struct frame *frame;
        if (slot == sim.ol.slot && sim.ol.flowing)
            continue;
        for (uint32_t w = 0; w < sim.config.workers; w++) {
            while ((frame = lane_take(&sim.ol_to[slot][w])) != NULL) {
                cover(COVER_OLD_FRAMES);
                frame_drop(frame);
            }
        }
    }
}

static void ol_main(void *self)
{
    struct ol *ol = self;
    for (;;) {
        ol_control();
        if (++ol->polls % 16 == 0)
            drain_others();
        for (uint32_t w = 0; ol->flowing && w < sim.config.workers; w++) {
            if (receive(w))
                sim.worked = true;
        }
        if (ol->flowing && ol_release_all())
            sim.worked = true;
        coro_yield();
    }
}

static void attach(struct ol *ol)
{
    if (PLANTED(P_OL_FORGETS_PALS)) {
        for (uint32_t w = 0; w < sim.config.workers; w++)
            memset(ol->release.worker[w].pals, 0,
                   (ol->release.worker[w].pal_mask + 1) * sizeof(uint64_t));
    }
    if (!release_attach(&ol->release, sim.config.workers, ol->memory, sim.config.log_pals,
                        sim.config.log_outputs, HELD))
        sim_fail("I6", "the OL cannot go on from its file");
    ol->holding = PLANTED(P_OL_HOLDS_FOR_COMMIT);
    oracle_ol_restarted();
}

void ol_start(bool first)
{
    struct ol *ol = &sim.ol;
    uint64_t bytes =
        release_bytes(sim.config.workers, sim.config.log_pals, sim.config.log_outputs, HELD);
    if (!ol->memory)
        ol->memory = aligned_alloc(64, 1u << 20);
    FTMB_ASSERT(ol->memory && bytes <= 1u << 20);
    ol->alive = true;
    ol->stopped = false;
    if (first) {
        release_init(&ol->release, sim.config.workers, ol->memory, sim.config.log_pals,
                     sim.config.log_outputs, HELD);
        view_init(&ol->state);
        ol->flowing = ol->holding = ol->forgotten = false;
        ol->release.exact = sim.config.exact;
        memset(ol->progress, 0, sizeof(ol->progress)); /* also of workers that there are not */
        ol->slot = ol->view = ol->incarnation = 0;
    } else {
        attach(ol);
        /* The base was recorded; its trimming may have been cut off. */
        if (ol->state.base_epoch)
            release_commit(&ol->release, ol->cut.pals, ol->cut.outputs);
        ol->flowing = ol->state.master >= 0 && !ol->state.promoting && ol->view == ol->state.view;
    }
    drop_early();
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        stream_rx_reset(&ol->in[w], 1);
        stream_rx_resume(&ol->in[w], ol->release.worker[w].settled + 1);
        if (first)
            ol->progress[w] = 1;
    }
    ol->leaving_count = ol->polls = 0;
    ol_control_start();
    coro_begin(&ol->coro, ol_main, ol);
    world_actors_changed();
}

void ol_kill(void)
{
    struct ol *ol = &sim.ol;
    cover_if(ol->leaving_count != 0, COVER_KILL_OL_IN_HAND);
    cover_if(ol->state.promoting, COVER_KILL_OL_PROMOTING);
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        struct release_worker *x = &ol->release.worker[w];
        cover_if(x->held_head != x->held_tail, COVER_KILL_OL_HELD);
        for (; x->held_head != x->held_tail; x->held_head++)
            frame_drop(x->held[x->held_head & x->held_mask].frame);
    }
    for (uint32_t i = 0; i < ol->leaving_count; i++) {
        if (ol->leaving[i])
            frame_drop(ol->leaving[i]);
    }
    ol->leaving_count = 0;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        channel_break(&sim.from_proc[slot]);
        channel_break(&sim.to_proc[slot]);
        for (uint32_t w = 0; w < sim.config.workers; w++) {
            lane_clear(&sim.ol_to[slot][w]);
            lane_break(&sim.ol_from[slot][w]);
        }
    }
    channel_break(&sim.from_il);
    channel_break(&sim.to_il);
    channel_break(&sim.deaths);
    ol->alive = false;
    sim.world_link++;
    world_actors_changed();
}

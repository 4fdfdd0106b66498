/* The input logger: what roles/input_logger.c and il_control.c do. */
#include <stdlib.h>
#include <string.h>

#include "core/flow.h"
#include "sim/oracle.h"
#include "sim/sim.h"
#include "sim/world.h"

#define TICK_NS 1000000ull
#define LOG_BYTES_PER_RECORD 64u
#define ASK_NS 1000000ull

static uint64_t log_records(void)
{
    return sim.config.log_bytes / LOG_BYTES_PER_RECORD;
}

/* Log one input. The record first, then its number: a kill in between leaves no input. */
static bool log_input(uint32_t w, const uint8_t *data, uint32_t length, uint8_t port, bool tick)
{
    struct il *il = &sim.il;
    struct input_log *log = &il->log[w];
    if (log->next > il->limit[w]) {
        cover(COVER_REFUSED_CREDIT);
        return false;
    }
    struct input_record *record = input_log_append(log, length);
    if (!record) {
        cover(COVER_REFUSED_LOG);
        return false;
    }
    if (PLANTED(P_IL_COUNTS_BEFORE_FILLED)) {
        oracle_accepted(w, log->next, data, length, port, u64_max(il->latest_ns[w], sim.now_ns),
                        tick);
        input_log_commit(log);
    }
    SIM_POINT();
    il->latest_ns[w] = u64_max(il->latest_ns[w], sim.now_ns);
    record->stamp_ns = il->latest_ns[w];
    record->length = length;
    record->tick = tick;
    record->port = port;
    SIM_POINT();
    memcpy(record->data, data, length);
    SIM_POINT();
    if (!PLANTED(P_IL_COUNTS_BEFORE_FILLED)) {
        oracle_accepted(w, log->next, data, length, port, record->stamp_ns, tick);
        input_log_commit(log);
    }
    il->out[w].next = log->next;
    return true;
}

/* ---- towards the master ------------------------------------------------------------------- */

static void send_head(uint32_t w, enum wire_type type, uint64_t seq)
{
    struct il *il = &sim.il;
    struct frame *frame = frame_new(0);
    frame->length = sizeof(struct wire_head);
    wire_head_put((struct wire_head *)frame->bytes, type, w, 0, 0, il->view, il->incarnation, seq);
    (void)lane_send(&sim.il_to[il->slot][w], frame);
    frame_drop(frame);
}

static bool send_inputs(uint32_t w)
{
    struct il *il = &sim.il;
    uint64_t number;
    bool any = false;
    for (unsigned n = 0; n < 8 && stream_tx_run(&il->out[w], 1, &number); n++) {
        const struct input_record *record = input_log_get(&il->log[w], number);
        struct frame *frame = frame_new(0);
        struct wire_input *in = (struct wire_input *)frame->bytes;
        frame->length = (uint32_t)sizeof(*in) + record->length;
        wire_head_put(&in->head, record->tick ? WIRE_TICK : WIRE_INPUT, w, record->port,
                      record->length, il->view, il->incarnation, number);
        in->stamp_ns = record->stamp_ns;
        memcpy(in + 1, record->data, record->length);
        bool sent = lane_send(&sim.il_to[il->slot][w], frame);
        frame_drop(frame);
        if (!sent)
            break;
        stream_tx_sent(&il->out[w], number, 1);
        any = true;
    }
    return any;
}

static void take_acks(uint32_t w)
{
    struct il *il = &sim.il;
    struct frame *frame;
    while ((frame = lane_take(&sim.il_from[il->slot][w])) != NULL) {
        const struct wire_ack *ack = (const struct wire_ack *)frame->bytes;
        if (ack->head.type == WIRE_ACK && wire_current(&ack->head, il->view, il->incarnation)) {
            stream_tx_settle(&il->out[w], ack->head.seq, sim.now_ns);
            stream_tx_report(&il->out[w], &ack->report, sim.now_ns);
        } else {
            cover(COVER_OLD_FRAMES);
        }
        frame_drop(frame);
    }
}

static void look_at_time(void)
{
    struct il *il = &sim.il;
    bool pressed = false;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        uint64_t silent = sim.now_ns - u64_min(sim.now_ns, il->latest_ns[w]);
        if (il->accepting && silent >= TICK_NS && log_input(w, (const uint8_t *)"", 0, 0, true))
            cover(COVER_TICK);
        if (stream_tx_probe_due(&il->out[w], sim.now_ns))
            send_head(w, WIRE_PROBE, il->out[w].cursor - 1);
        pressed |= input_log_pressed(&il->log[w]);
    }
    if (pressed && sim.now_ns - il->pressed_ns > ASK_NS) {
        il->pressed_ns = sim.now_ns;
        const struct message message = {.type = MSG_PRESSED};
        channel_send(&sim.from_il, &message);
    }
}

/* ---- messages ----------------------------------------------------------------------------- */

/* May come again: a view that has begun here goes on. */
static void on_view(const struct message *message)
{
    struct il *il = &sim.il;
    if (message->view <= il->view)
        return;
    il->view = message->view;
    il->slot = message->slot;
    il->incarnation = message->incarnation;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        uint64_t first = message->cut.next_input[w];
        FTMB_ASSERT(first >= il->log[w].first && first <= il->log[w].next);
        stream_tx_reset(&il->out[w], first, sim.now_ns);
        il->out[w].next = il->log[w].next;
    }
}

static void trim(const struct snapshot_cut *cut)
{
    struct il *il = &sim.il;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        SIM_POINT();
        if (cut->next_input[w] > il->log[w].next)
            sim_fail("I2", "worker %u: a snapshot covers inputs that the IL never accepted", w);
        input_log_trim(&il->log[w], cut->next_input[w]);
        stream_tx_settle(&il->out[w], cut->next_input[w] - 1, sim.now_ns);
    }
}

static void on_message(const struct message *message)
{
    struct il *il = &sim.il;
    switch (message->type) {
    case MSG_VIEW:
        on_view(message);
        break;
    case MSG_COMMITTED:
        trim(&message->cut);
        il->accepting = true;
        break;
    case MSG_CREDIT:
        memcpy(il->limit, message->limit, sizeof(il->limit));
        break;
    default:
        sim_fail("sim", "the IL gets message %d", (int)message->type);
    }
}

/* ---- the role ----------------------------------------------------------------------------- */

static void il_main(void *self)
{
    struct il *il = self;
    for (;;) {
        const struct message *message = NULL;
        if (sim.ol.alive && il->link != sim.world_link) {
            const struct message hello = {.type = MSG_HELLO_IL, .view = il->view};
            il->link = sim.world_link;
            channel_send(&sim.from_il, &hello);
        } else if ((message = channel_take(&sim.to_il)) != NULL) {
            struct message copy = *message;
            on_message(&copy);
            sim.worked = true;
        }
        for (uint32_t w = 0; il->view && w < sim.config.workers; w++) {
            take_acks(w);
            if (send_inputs(w))
                sim.worked = true;
        }
        if (il->view && sim.now_ns - il->ticked_ns >= 200 * SIM_US) {
            il->ticked_ns = sim.now_ns;
            look_at_time();
        }
        struct packet_in packet;
        if (il->view && il->accepting && world_offer(&packet)) {
            uint32_t w = flow_worker(flow_hash(packet.bytes, packet.length), sim.config.workers);
            if (log_input(w, packet.bytes, packet.length, packet.port, false))
                world_accepted();
            sim.worked = true;
        }
        coro_yield();
    }
}

void il_start(bool first)
{
    struct il *il = &sim.il;
    uint64_t records = log_records(), each = input_log_bytes(sim.config.log_bytes, records);
    if (!il->memory)
        il->memory = aligned_alloc(64, SIM_WORKERS * 64 * 1024);
    FTMB_ASSERT(il->memory && each <= 64 * 1024);
    il->alive = true;
    il->stopped = false;
    il->link = 0;
    il->ticked_ns = il->pressed_ns = sim.now_ns;
    if (first) {
        il->view = il->slot = il->incarnation = 0;
        il->accepting = false;
        memset(il->latest_ns, 0, sizeof(il->latest_ns));
    }
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        uint8_t *memory = il->memory + w * each;
        if (first)
            input_log_init(&il->log[w], memory, sim.config.log_bytes, records);
        else if (!input_log_attach(&il->log[w], memory, sim.config.log_bytes, records))
            sim_fail("I6", "worker %u: the IL cannot go on from its log", w);
        /* What has arrived there already is ignored there, and acknowledged. */
        stream_tx_reset(&il->out[w], il->log[w].first, sim.now_ns);
        il->out[w].next = il->log[w].next;
        il->limit[w] = 0;
    }
    coro_begin(&il->coro, il_main, il);
    world_actors_changed();
}

void il_kill(void)
{
    struct il *il = &sim.il;
    for (uint32_t w = 0; w < sim.config.workers; w++) {
        cover_if(stream_tx_unacked(&il->out[w]) != 0, COVER_KILL_IL_BACKLOG);
        lane_break(&sim.il_to[il->slot][w]);
        lane_clear(&sim.il_from[il->slot][w]);
    }
    channel_break(&sim.from_il);
    channel_break(&sim.to_il);
    il->alive = false;
    world_actors_changed();
}

/* Generator and sink: frames to and from links, around the modules of traffic/. */
#include "roles/traffic_run.h"

#include "core/flow.h"
#include "core/wire.h"
#include "io/clock.h"
#include "io/event.h"
#include "roles/traffic_role.h"

#define BURST FTMB_BURST
#define LATE_NS 1000000u

/* ---- sending ---- */

/* Hand over what waits on a lane. */
static void flush_lane(struct traffic *t, struct out_lane *out, uint64_t now)
{
    unsigned taken = io_tx(out->lane, out->frames, (uint16_t)out->count);
    for (unsigned i = 0; i < taken && i < out->waited; i++)
        t->tally.late_blocked += out->intended[i] != PACE_NEVER && now > out->intended[i] + LATE_NS;
    t->tally.sent += taken;
    out->count -= taken;
    if (unlikely(out->count)) {
        memmove(out->frames, out->frames + taken, out->count * sizeof(out->frames[0]));
        memmove(out->intended, out->intended + taken, out->count * sizeof(out->intended[0]));
    }
    out->waited = out->count;
}

static unsigned flush_lanes(struct traffic *t, uint64_t now)
{
    unsigned left = 0;
    for (unsigned i = 0; i < t->n_out; i++) {
        if (t->out[i].count)
            flush_lane(t, &t->out[i], now);
        left = t->out[i].count > left ? t->out[i].count : left;
    }
    return left;
}

/* Intended times of the packets that are due, at most a burst of them. */
static unsigned schedule(struct traffic *t, struct send *sends, uint64_t now)
{
    unsigned n = 0;
    if (unlikely(t->phase == PHASE_FILLING)) {
        n = fill_due(&t->fill, BURST, now);
        for (unsigned i = 0; i < n; i++)
            sends[i].intended_ns = now;
        return n;
    }
    if (t->max_rate) {
        if (now >= t->stop_at)
            return 0;
        uint32_t room = flight_room(t->tally.flight, now, t->arrived);
        t->arrived = false;
        for (; n < BURST && n < room; n++)
            sends[n].intended_ns = now;
        return n;
    }
    uint64_t until = u64_min(now + 1, t->stop_at);
    for (; n < BURST && t->pace.next_ns < until; n++) {
        sends[n].intended_ns = t->pace.next_ns;
        pace_advance(&t->pace);
    }
    return n;
}

/* Over a millisecond late, and whose fault it is. Returns what to remember as intended time. */
static uint64_t note_late(struct traffic *t, uint64_t intended, uint64_t now)
{
    uint64_t late = now - intended;
    if (likely(late <= LATE_NS))
        return intended;
    if (t->blocked) {
        t->tally.late_blocked++;
    } else if (tally_in_window(&t->tally, intended)) {
        t->tally.late++;
        t->tally.late_max_ns = u64_max(t->tally.late_max_ns, late);
    }
    return PACE_NEVER;
}

/* Write one frame and queue it on its lane. */
static void emit_frame(struct traffic *t, const struct send *send, struct rte_mbuf *m, uint64_t now)
{
    uint8_t *data = rte_pktmbuf_mtod(m, uint8_t *);
    uint8_t *frame = t->direct ? data + sizeof(struct wire_input) : data;
    enum side side = t->from_capture ? capture_write(&t->capture, send, frame, &t->tally)
                                     : source_write(&t->source, send, frame, &t->tally);
    struct out_lane *out = &t->out[side];
    uint32_t length = send->length;
    if (t->direct) {
        uint32_t worker = flow_worker(flow_hash(frame, length), t->workers);
        out = &t->out[worker];
        struct wire_input head = {.stamp_ns = t->start_ns + now};
        wire_head_put(&head.head, WIRE_INPUT, worker, side, length, TRAFFIC_DIRECT_VIEW,
                      TRAFFIC_DIRECT_INCARNATION, ++out->inputs);
        memcpy(data, &head, sizeof(head));
        length += (uint32_t)sizeof(head);
    }
    m->data_len = (uint16_t)length;
    m->pkt_len = length;
    if (unlikely(t->phase == PHASE_FILLING)) {
        tally_offer_fill(&t->tally);
        out->intended[out->count] = PACE_NEVER;
    } else {
        tally_offer(&t->tally, send->intended_ns);
        out->intended[out->count] = note_late(t, send->intended_ns, now);
    }
    out->frames[out->count++] = m;
}

static void plan(struct traffic *t, struct send *sends, unsigned n, uint64_t now)
{
    if (unlikely(t->phase == PHASE_FILLING)) {
        source_plan_fill(&t->source, sends, n);
        fill_sent(&t->fill, n, now);
    } else if (t->from_capture) {
        capture_plan(&t->capture, sends, n, &t->tally);
    } else {
        source_plan(&t->source, sends, n);
    }
}

/* Send what is due. Never waits: what the links do not take stays in order, at most two bursts a
 * lane as frames and the rest as schedule, with the times at which it was meant to be sent. */
static unsigned generate(struct traffic *t, uint64_t now)
{
    struct send sends[BURST];
    struct rte_mbuf *frames[BURST];
    if (unlikely(flush_lanes(t, now) > TRAFFIC_QUEUE - BURST)) {
        t->blocked = true;
        return 0;
    }
    struct pace *pace = t->phase == PHASE_FILLING ? &t->fill.pace : &t->pace;
    struct pace before = *pace;
    unsigned n = schedule(t, sends, now);
    if (n == 0) {
        t->blocked = false;
        return 0;
    }
    if (unlikely(rte_pktmbuf_alloc_bulk(t->pool, frames, n))) {
        *pace = before; /* all buffers are in links: as good as a full one */
        t->no_buffers++;
        t->blocked = true;
        return 0;
    }
    plan(t, sends, n, now);
    for (unsigned i = 0; i < n; i++)
        emit_frame(t, &sends[i], frames[i], now);
    if (unlikely(flush_lanes(t, now)))
        t->blocked = true;
    else if (n < BURST)
        t->blocked = false;
    return n;
}

/* ---- receiving ---- */

/* The packet inside an output frame of mode `direct`. False: not an output (a PAL frame, ...). */
static bool unwrap(const struct traffic *t, struct arrival *arrival)
{
    struct wire_head head;
    if (!wire_valid(arrival->frame, arrival->length, t->workers))
        return false;
    memcpy(&head, arrival->frame, sizeof(head));
    arrival->frame += wire_output_bytes(t->workers);
    arrival->length = head.length;
    arrival->side = head.port;
    return head.type == WIRE_OUTPUT;
}

static unsigned receive_lane(struct traffic *t, unsigned lane)
{
    struct rte_mbuf *frames[SINK_BURST];
    struct arrival arrivals[SINK_BURST];
    unsigned known = 0;
    unsigned n = io_rx(t->in[lane], frames, SINK_BURST);
    if (n == 0)
        return 0;
    uint64_t now = clock_ns();
    for (unsigned i = 0; i < n; i++)
        rte_prefetch0(rte_pktmbuf_mtod(frames[i], void *));
    for (unsigned i = 0; i < n; i++) {
        struct arrival *arrival = &arrivals[known];
        arrival->frame = rte_pktmbuf_mtod(frames[i], uint8_t *);
        arrival->length = frames[i]->data_len;
        arrival->side = (uint8_t)lane;
        known += !t->direct || unwrap(t, arrival);
    }
    if (t->phase == PHASE_IDLE)
        t->tally.unmatched += known;
    else if (t->from_capture)
        capture_take(&t->capture, arrivals, known, now - t->start_ns, &t->tally);
    else
        sink_take(&t->sink, arrivals, known, now - t->start_ns, &t->tally);
    t->arrived |= known > 0;
    rte_pktmbuf_free_bulk(frames, n);
    return n;
}

/* ---- the run ---- */

static void tell_fill(const struct traffic *t, const char *event)
{
    event_emit(event, "{s:I,s:I,s:I,s:b}", "flows", (json_int_t)t->fill.flows, "sent",
               (json_int_t)t->fill.sent, "delivered", (json_int_t)t->fill.delivered, "complete",
               (int)fill_complete(&t->fill));
}

static void advance_fill(struct traffic *t)
{
    uint64_t now = clock_ns() - t->start_ns;
    fill_delivered(&t->fill, (uint32_t)t->tally.fill_delivered, now);
    bool stop = atomic_load_explicit(&t->stop_asked, memory_order_relaxed);
    if (!fill_over(&t->fill, now) && !stop) {
        if (unlikely(fill_telling(&t->fill, now)))
            tell_fill(t, "filling");
        return;
    }
    t->fill.took_ns = now;
    t->phase = PHASE_FILLED;
    tell_fill(t, "filled");
}

/* The clock of the run starts at 0 when the fill is over and what came of it. */
static bool begin_run(struct traffic *t)
{
    if (!atomic_load_explicit(&t->run_asked, memory_order_relaxed) &&
        !atomic_load_explicit(&t->stop_asked, memory_order_relaxed))
        return false;
    t->start_ns = clock_ns();
    t->phase = PHASE_RUNNING;
    return true;
}

static void open_window(struct traffic *t)
{
    t->window_open = true;
    hiccup_record(t->hiccup, true);
    event_emit("window_start", "{s:I}", "at_ns", (json_int_t)(t->start_ns + t->tally.start_ns));
}

static void close_window(struct traffic *t)
{
    if (!t->window_open)
        open_window(t); /* stopped during the warm-up: an empty window */
    t->phase = PHASE_DRAINING;
    hiccup_record(t->hiccup, false);
    event_emit("window_end", "{s:I}", "at_ns", (json_int_t)(t->start_ns + t->tally.end_ns));
}

static void stop_early(struct traffic *t, uint64_t now)
{
    t->stop_at = now;
    t->tally.end_ns = now;
    t->tally.start_ns = u64_min(t->tally.start_ns, now);
}

/* Is everything that was sent accounted for, or nothing more to be expected? */
static bool drained(const struct traffic *t, uint64_t now, bool *complete)
{
    unsigned waiting = 0;
    for (unsigned i = 0; i < t->n_out; i++)
        waiting += t->out[i].count;
    bool behind = !t->max_rate && t->pace.next_ns < t->stop_at;
    *complete = !waiting && !behind && t->tally.delivered == t->tally.sent;
    uint64_t quiet_since = u64_max(t->stop_at, t->tally.last_ns);
    return *complete || now >= quiet_since + t->config.drain_ns;
}

static void advance_phase(struct traffic *t, uint64_t now)
{
    bool complete;
    if (t->phase == PHASE_RUNNING) {
        if (unlikely(atomic_load_explicit(&t->stop_asked, memory_order_relaxed)) &&
            now < t->stop_at)
            stop_early(t, now);
        if (unlikely(!t->window_open) && now >= t->tally.start_ns)
            open_window(t);
        if (unlikely(now >= t->stop_at))
            close_window(t);
    } else if (t->phase == PHASE_DRAINING && drained(t, now, &complete)) {
        t->phase = PHASE_DONE;
        event_emit("drained", "{s:I,s:I,s:b}", "sent", (json_int_t)t->tally.sent, "delivered",
                   (json_int_t)t->tally.delivered, "complete", (int)complete);
    }
}

unsigned traffic_poll(void *self)
{
    struct traffic *t = self;
    unsigned work = 0;
    for (unsigned i = 0; i < t->n_in; i++)
        work += receive_lane(t, i);
    if (t->phase == PHASE_IDLE) {
        if (!atomic_load_explicit(&t->start_asked, memory_order_acquire))
            return work;
        t->start_ns = clock_ns();
        t->phase = t->fill.flows ? PHASE_FILLING : PHASE_RUNNING;
    }
    if (t->phase == PHASE_DONE)
        return work;
    if (unlikely(t->phase == PHASE_FILLING))
        advance_fill(t);
    if (unlikely(t->phase == PHASE_FILLED) && !begin_run(t))
        return work;
    uint64_t now = clock_ns() - t->start_ns;
    advance_phase(t, now);
    return work + generate(t, now);
}

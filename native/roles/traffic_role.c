/* Generator and sink: frames to and from links, around the modules of traffic/. */
#include "roles/traffic_role.h"

#include "core/flow.h"
#include "core/wire.h"
#include "io/clock.h"
#include "io/event.h"
#include "traffic/capture.h"
#include "traffic/report.h"
#include "traffic/sink.h"
#include "traffic/source.h"
#include "traffic/why.h"

#include <errno.h>
#include <stdlib.h>

#define BURST FTMB_BURST
/* Frames of one lane that a full link has not taken: two bursts, so that one lane that is full for
 * a moment does not stop the others. */
#define QUEUE (2 * BURST)
#define MAX_LANES FTMB_MAX_WORKERS
#define LATE_NS 1000000u

enum phase { PHASE_IDLE, PHASE_RUNNING, PHASE_DRAINING, PHASE_DONE };

struct out_lane {
    struct io_lane lane;
    unsigned count;
    unsigned waited; /* the first `waited` frames were here before this poll */
    struct rte_mbuf *frames[QUEUE];
    uint64_t intended[QUEUE]; /* PACE_NEVER: already counted as late */
    uint64_t inputs;          /* direct: number of the last input */
};

struct traffic {
    struct traffic_config config;
    json_t *spec;
    struct out_lane out[MAX_LANES];
    struct io_lane in[MAX_LANES];
    unsigned n_out, n_in;
    bool direct, max_rate, from_capture;
    unsigned workers;
    struct rte_mempool *pool;
    /* The run. Times are relative to start_ns but for this one. */
    uint64_t start_ns;
    uint64_t stop_at; /* intended times stay below */
    enum phase phase;
    bool window_open;
    bool blocked; /* behind schedule because links were full */
    bool arrived; /* since the last burst was sent */
    uint64_t no_buffers;
    struct pace pace;
    struct flows flows;
    struct source source;
    struct sink sink;
    struct capture capture;
    struct tally tally;
    struct hiccup *hiccup;
    _Atomic bool start_asked, stop_asked;
};

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
    tally_offer(&t->tally, send->intended_ns);
    out->intended[out->count] = note_late(t, send->intended_ns, now);
    out->frames[out->count++] = m;
}

/* Send what is due. Never waits: what the links do not take stays in order, at most two bursts a
 * lane as frames and the rest as schedule, with the times at which it was meant to be sent. */
static unsigned generate(struct traffic *t, uint64_t now)
{
    struct send sends[BURST];
    struct rte_mbuf *frames[BURST];
    if (unlikely(flush_lanes(t, now) > QUEUE - BURST)) {
        t->blocked = true;
        return 0;
    }
    struct pace before = t->pace;
    unsigned n = schedule(t, sends, now);
    if (n == 0) {
        t->blocked = false;
        return 0;
    }
    if (unlikely(rte_pktmbuf_alloc_bulk(t->pool, frames, n))) {
        t->pace = before; /* all buffers are in links: as good as a full one */
        t->no_buffers++;
        t->blocked = true;
        return 0;
    }
    if (t->from_capture)
        capture_plan(&t->capture, sends, n, &t->tally);
    else
        source_plan(&t->source, sends, n);
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

static unsigned traffic_poll(void *self)
{
    struct traffic *t = self;
    unsigned work = 0;
    for (unsigned i = 0; i < t->n_in; i++)
        work += receive_lane(t, i);
    if (t->phase == PHASE_IDLE) {
        if (!atomic_load_explicit(&t->start_asked, memory_order_acquire))
            return work;
        t->start_ns = clock_ns();
        t->phase = PHASE_RUNNING;
    }
    if (t->phase == PHASE_DONE)
        return work;
    uint64_t now = clock_ns() - t->start_ns;
    advance_phase(t, now);
    return work + generate(t, now);
}

/* ---- control thread ---- */

static void traffic_command(void *self, const char *verb)
{
    struct traffic *t = self;
    if (strcmp(verb, "start") == 0)
        atomic_store_explicit(&t->start_asked, true, memory_order_release);
    else if (strcmp(verb, "stop") == 0)
        atomic_store_explicit(&t->stop_asked, true, memory_order_relaxed);
}

static json_t *traffic_stats(void *self)
{
    struct traffic *t = self;
    char why[TRAFFIC_WHY];
    hiccup_stop(t->hiccup);
    /* What was due and never became a frame was offered all the same. */
    for (; !t->max_rate && t->phase != PHASE_IDLE && t->pace.next_ns < t->stop_at;
         pace_advance(&t->pace))
        tally_offer(&t->tally, t->pace.next_ns);
    tally_finish(&t->tally);
    if (report_files(&t->tally, &t->config, why))
        die(3, "%s", why);
    json_t *stats = report_stats(&t->tally, t->start_ns);
    json_object_set_new(stats, "no_buffers", json_integer((json_int_t)t->no_buffers));
    json_object_set_new(stats, "capture_skipped", json_integer(t->capture.skipped));
    json_object_set_new(stats, "capture_repaired", json_integer(t->capture.repaired));
    json_object_set_new(stats, "noise", hiccup_json(t->hiccup));
    json_object_set_new(stats, "scheduler", json_string(hiccup_fifo(t->hiccup) ? "fifo" : "other"));
    return stats;
}

/* ---- set-up ---- */

/* Synthetic traffic: flows, source, sink. */
static int set_up_synthetic(struct traffic *t, char *why)
{
    const struct traffic_config *c = &t->config;
    double seconds = (double)(c->warmup_ns + c->duration_ns) / 1e9;
    uint64_t fresh = (uint64_t)((double)c->new_flows_per_s * seconds) + 1;
    struct source_options options = {.path = c->template,
                                     .zipf = c->zipf,
                                     .reply_share = c->reply_share,
                                     .new_flows_per_s = c->new_flows_per_s,
                                     .seed = c->seed};
    if (c->new_flows_per_s == 0)
        fresh = 0;
    if (flows_init(&t->flows, c->flows, fresh, c->inside, c->inside_prefix, why) ||
        source_init(&t->source, &t->flows, &options, why))
        return -EINVAL;
    if (sink_init(&t->sink, &t->flows, c->seed)) {
        traffic_say(why, "traffic: no memory for the sink");
        return -ENOMEM;
    }
    return 0;
}

static int set_up(struct traffic *t, const unsigned *noise_cpus, unsigned n_noise, char *why)
{
    if (traffic_config_read(&t->config, t->spec, why))
        return -EINVAL;
    const struct traffic_config *c = &t->config;
    t->max_rate = c->rate_pps == 0;
    t->from_capture = *c->capture != '\0';
    t->stop_at = c->warmup_ns + c->duration_ns;
    pace_init(&t->pace, c->rate_pps);
    if (tally_init(&t->tally, c->warmup_ns, c->duration_ns, c->drain_ns, *c->samples != '\0',
                   t->max_rate)) {
        traffic_say(why, "traffic: no memory for %llu ms of counters",
                    (unsigned long long)(t->stop_at / 1000000));
        return -ENOMEM;
    }
    int rc = 0;
    if (!t->from_capture)
        rc = set_up_synthetic(t, why);
    else if (capture_init(&t->capture, c->capture, c->inside, c->inside_prefix, why))
        rc = -EINVAL;
    if (rc)
        return rc;
    t->hiccup = hiccup_start(noise_cpus, n_noise, why);
    return t->hiccup ? 0 : -EINVAL;
}

int traffic_create(struct role *out, const json_t *traffic_spec, const struct io_lane *tx,
                   unsigned ntx, const struct io_lane *rx, unsigned nrx, bool direct,
                   unsigned workers, const unsigned *noise_cpus, unsigned n_noise,
                   struct rte_mempool *pool)
{
    char why[TRAFFIC_WHY];
    struct traffic *t = calloc(1, sizeof(*t));
    FTMB_ASSERT(ntx <= MAX_LANES && nrx <= MAX_LANES && ntx >= (direct ? workers : 2));
    if (!t) {
        fprintf(stderr, "ftmb-node: traffic: no memory\n");
        return -ENOMEM;
    }
    t->spec = json_deep_copy(traffic_spec); /* strings of the configuration live in it */
    t->n_out = ntx;
    t->n_in = nrx;
    t->direct = direct;
    t->workers = workers;
    t->pool = pool;
    for (unsigned i = 0; i < ntx; i++)
        t->out[i].lane = tx[i];
    for (unsigned i = 0; i < nrx; i++)
        t->in[i] = rx[i];
    *out = (struct role){.name = "traffic",
                         .self = t,
                         .poll = traffic_poll,
                         .command = traffic_command,
                         .stats = traffic_stats};
    int rc = set_up(t, noise_cpus, n_noise, why);
    if (rc) {
        fprintf(stderr, "ftmb-node: %s\n", why);
        traffic_destroy(out);
    }
    return rc;
}

void traffic_destroy(struct role *role)
{
    struct traffic *t = role->self;
    for (unsigned i = 0; i < t->n_out; i++)
        rte_pktmbuf_free_bulk(t->out[i].frames, t->out[i].count);
    if (t->hiccup) {
        hiccup_stop(t->hiccup);
        hiccup_free(t->hiccup);
    }
    tally_free(&t->tally);
    capture_free(&t->capture);
    sink_free(&t->sink);
    source_free(&t->source);
    flows_free(&t->flows);
    json_decref(t->spec);
    free(t);
    role->self = NULL;
}

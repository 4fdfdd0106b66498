/* The output logger's lcore (see output_logger.h). */
#include "roles/output_logger.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/hash.h"
#include "io/clock.h"
#include "io/event.h"

/* ---- frames out --------------------------------------------------------------------------- */

/* Hand over what waits at `port`; false while the port does not take all of it. */
static bool send_leaving(struct output_logger *ol, uint32_t port)
{
    uint32_t count = ol->leaving_count[port];
    if (count == 0)
        return true;
    uint16_t sent = io_tx(ol->out[port], ol->leaving[port], (uint16_t)count);
    release_handed(ol->release, sent);
    ol->leaving_count[port] = count - sent;
    if (sent < count)
        memmove(ol->leaving[port], ol->leaving[port] + sent,
                (count - sent) * sizeof(ol->leaving[port][0]));
    return sent == count;
}

/* Strip the role header and queue the packet at its port. */
static void leave(struct output_logger *ol, struct rte_mbuf *m)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    uint32_t port = head->port;
    rte_pktmbuf_adj(m, (uint16_t)wire_output_bytes(ol->config->workers));
    ol->leaving[port][ol->leaving_count[port]++] = m;
    if (ol->leaving_count[port] == FTMB_BURST)
        send_leaving(ol, port);
}

static bool ports_have_room(const struct output_logger *ol)
{
    return ol->leaving_count[0] < FTMB_BURST && ol->leaving_count[1] < FTMB_BURST;
}

/* Release in worker order whatever its past allows; workers do not wait for each other. */
static unsigned release_all(struct output_logger *ol)
{
    unsigned count = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        struct rte_mbuf *m;
        while (ports_have_room(ol) && (m = release_next(ol->release, w)) != NULL) {
            leave(ol, m);
            count++;
        }
    }
    for (uint32_t port = 0; port < OL_PORTS; port++)
        send_leaving(ol, port);
    if (unlikely(count && ol->kept->resumed_view != ol->view)) {
        ol->kept->resumed_view = ol->view;
        if (ol->view > 1)
            event_emit("resumed", "{s:I}", "view", (json_int_t)ol->view);
    }
    return count;
}

/* ---- frames in ---------------------------------------------------------------------------- */

static void take_pals(struct output_logger *ol, uint32_t w, const struct wire_pals *frame)
{
    uint32_t count = frame->head.length / (uint32_t)sizeof(uint64_t);
    /* A frame without PALs only tells progress (in a replay, of inputs whose PALs are stored). */
    enum release_verdict verdict =
        count ? release_pals(ol->release, w, frame->first, frame->pals, count) : RELEASE_OK;
    if (unlikely(verdict != RELEASE_OK && verdict != RELEASE_DUPLICATE))
        die(4, "worker %u sent PAL %llu %s", w, (unsigned long long)frame->first,
            verdict == RELEASE_DIVERGED ? "again, another one" : "out of order");
    ol->kept->pals += count;
    uint64_t progress = atomic_load_explicit(&ol->kept->progress[w], memory_order_relaxed);
    atomic_store_explicit(&ol->kept->progress[w], u64_max(progress, frame->next_input),
                          memory_order_release);
}

/* Hash of what an endpoint would see: the side it leaves at and the packet. */
static uint64_t output_hash(const struct output_logger *ol, const struct wire_output *frame)
{
    const uint8_t *packet = (const uint8_t *)frame + wire_output_bytes(ol->config->workers);
    return hash_bytes(frame->head.port, packet, frame->head.length);
}

static bool take_output(struct output_logger *ol, uint32_t w, struct rte_mbuf *m)
{
    const struct wire_output *frame = rte_pktmbuf_mtod(m, const struct wire_output *);
    ol->kept->outputs++;
    switch (release_output(ol->release, w, frame->number, frame->vector, m, output_hash(ol, frame),
                           frame->head.seq)) {
    case RELEASE_OK:
        return true;
    case RELEASE_DUPLICATE:
        return false;
    case RELEASE_DIVERGED:
        event_emit("hash_mismatch", "{s:i,s:I}", "worker", (int)w, "output",
                   (json_int_t)frame->number);
        die(4, "divergence: output %llu of worker %u differs from the one released before",
            (unsigned long long)frame->number, w);
    case RELEASE_BAD:
        break;
    }
    die(4, "worker %u sent output %llu out of order", w, (unsigned long long)frame->number);
}

/* Credit keeps the logs from overflowing, except after a cut: inputs past it run anew and may leave
 * more than they did before. Such a frame counts as lost, and comes again when there is room. */
static bool has_room(const struct output_logger *ol, uint32_t w, const struct wire_head *head)
{
    const struct release_worker *x = &ol->release->worker[w];
    if (head->type == WIRE_PAL)
        return release_pals_fit(x, ((const struct wire_pals *)head)->first,
                                head->length / sizeof(uint64_t));
    return release_output_fits(x, ((const struct wire_output *)head)->number);
}

/* The next frame of the stream; true: kept, the release has it now. */
static bool take_next(struct output_logger *ol, uint32_t w, struct rte_mbuf *m)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    if (head->type == WIRE_OUTPUT)
        return take_output(ol, w, m);
    take_pals(ol, w, (const struct wire_pals *)head);
    return false;
}

/* Frames that came before their turn, whose turn it is now. */
static unsigned take_early(struct output_logger *ol, uint32_t w)
{
    struct rte_mbuf *m;
    unsigned count = 0;
    for (; count < FTMB_BURST && (m = stream_rx_early(&ol->in[w])) != NULL; count++) {
        if (unlikely(!has_room(ol, w, rte_pktmbuf_mtod(m, const struct wire_head *))))
            break;
        stream_rx_take_early(&ol->in[w]);
        if (!take_next(ol, w, m))
            rte_pktmbuf_free(m);
    }
    return count;
}

/* One frame of the current master; true: kept, by the stream or the release. */
static bool take_frame(struct output_logger *ol, uint32_t w, struct rte_mbuf *m)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    if (unlikely(!wire_valid((const uint8_t *)head, rte_pktmbuf_data_len(m), ol->config->workers) ||
                 head->worker != w)) {
        ol->kept->bad++;
        return false;
    }
    if (unlikely(!wire_current(head, ol->view, ol->incarnation))) {
        ol->kept->old_view++;
        return false;
    }
    if (unlikely(head->type == WIRE_PROBE)) {
        stream_rx_probe(&ol->in[w], head->seq);
        return false;
    }
    if (unlikely(head->type != WIRE_PAL && head->type != WIRE_OUTPUT)) {
        ol->kept->bad++;
        return false;
    }
    if (unlikely(!has_room(ol, w, head))) {
        ol->kept->no_room++;
        return false;
    }
    enum stream_verdict verdict = stream_rx_frame(&ol->in[w], head->seq, m);
    if (likely(verdict == STREAM_TAKE))
        return take_next(ol, w, m);
    return verdict == STREAM_KEPT;
}

/* The worker may forget what is settled: it does not come back from here (core/release.h). */
static void acknowledge(struct output_logger *ol, uint32_t w, uint64_t settled)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(ol->pool);
    if (!m)
        return;
    struct wire_ack *ack = (struct wire_ack *)rte_pktmbuf_append(m, sizeof(*ack));
    wire_head_put(&ack->head, WIRE_ACK, w, 0, 0, ol->view, ol->incarnation, settled);
    stream_rx_report(&ol->in[w], &ack->report);
    release_settle(&ol->release->worker[w], settled);
    if (io_tx(ol->replica[ol->slot][w], &m, 1) == 1)
        stream_rx_acked(&ol->in[w], settled);
    else
        rte_pktmbuf_free(m);
}

static unsigned receive(struct output_logger *ol, uint32_t w)
{
    struct release_worker *x = &ol->release->worker[w];
    /* PALs are never refused because outputs fill the buffer: a frame that found no room would
     * have to be; so the worker waits instead, between packets. */
    if (x->held_tail - x->held_head + FTMB_BURST > OL_HELD)
        return 0;
    unsigned early = take_early(ol, w);
    struct rte_mbuf *burst[FTMB_BURST];
    uint16_t count = io_rx(ol->replica[ol->slot][w], burst, (uint16_t)(FTMB_BURST - early));
    for (uint16_t i = 0; i < count; i++) {
        if (i + 2 < count)
            __builtin_prefetch(rte_pktmbuf_mtod(burst[i + 2], void *));
        if (!take_frame(ol, w, burst[i]))
            rte_pktmbuf_free(burst[i]);
    }
    ol->kept->frames += count;
    uint64_t settled = release_settled(x, stream_rx_taken(&ol->in[w]));
    if (stream_rx_ack_due(&ol->in[w], settled, early + count == 0))
        acknowledge(ol, w, settled);
    return early + count;
}

/* ---- jobs --------------------------------------------------------------------------------- */

static void discard(void *self, void *frame)
{
    (void)self;
    rte_pktmbuf_free(frame);
}

/* Release stops, held outputs go: replay makes them again. What was handed over stays released. */
static void fence(struct output_logger *ol)
{
    ol->flowing = false;
    release_fence(ol->release, discard, NULL);
}

/* Frames of this view are taken from here on. */
static void take_view(struct output_logger *ol, const struct ol_job *job)
{
    ol->slot = job->slot;
    ol->view = job->view;
    ol->incarnation = job->incarnation;
    ol->flowing = true;
}

static bool begin(struct output_logger *ol, const struct ol_job *job)
{
    if (job->view > 1 && !release_truncate(ol->release, job->pals))
        return false;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        void *early;
        while ((early = stream_rx_early_drop(&ol->in[w])) != NULL)
            rte_pktmbuf_free(early);
        stream_rx_reset(&ol->in[w], 1);
        atomic_store(&ol->kept->progress[w], job->next_input[w]);
    }
    take_view(ol, job);
    return true;
}

/* What the worker was told is settled will not come again; all else will, and is asked for. */
static void resume(struct output_logger *ol, const struct ol_job *job)
{
    for (uint32_t w = 0; w < ol->config->workers; w++)
        stream_rx_resume(&ol->in[w], ol->release->worker[w].settled + 1);
    take_view(ol, job);
}

/* Whoever takes over could not use the logs any more: they must not stop the traffic. The next
 * backup gets a full snapshot, whose cut lies ahead. */
static void forget(struct output_logger *ol)
{
    release_all(ol);
    release_forget(ol->release, ol->job.pals, ol->job.outputs);
    for (uint32_t w = 0; w < ol->config->workers; w++)
        ol->job.next_input[w] = atomic_load(&ol->kept->progress[w]);
}

static bool covers(struct output_logger *ol, const struct ol_job *job)
{
    release_all(ol);
    return release_covers(ol->release, job->pals, job->outputs);
}

static void run_job(struct output_logger *ol, enum ol_job_kind kind)
{
    struct ol_job *job = &ol->job;
    job->ok = true;
    switch (kind) {
    case OL_JOB_NONE:
        break;
    case OL_JOB_BEGIN:
        job->ok = begin(ol, job);
        break;
    case OL_JOB_RESUME:
        resume(ol, job);
        break;
    case OL_JOB_COVERS:
        job->ok = covers(ol, job);
        break;
    case OL_JOB_TRIM:
        release_commit(ol->release, job->pals, job->outputs);
        break;
    case OL_JOB_FENCE:
        fence(ol);
        break;
    case OL_JOB_FORGET:
        forget(ol);
        break;
    }
    atomic_store_explicit(&job->kind, OL_JOB_NONE, memory_order_release);
}

/* Frames of replicas that are not the master belong to ended views: drop them, visibly. */
static void drain_others(struct output_logger *ol)
{
    struct rte_mbuf *burst[FTMB_BURST];
    for (uint32_t slot = 0; slot < ol->config->replicas; slot++) {
        if (slot == ol->slot && ol->flowing)
            continue;
        for (uint32_t w = 0; w < ol->config->workers; w++) {
            uint16_t count = io_rx(ol->replica[slot][w], burst, FTMB_BURST);
            ol->kept->old_view += count;
            rte_pktmbuf_free_bulk(burst, count);
        }
    }
}

static unsigned poll_logged(struct output_logger *ol)
{
    uint32_t kind = atomic_load_explicit(&ol->job.kind, memory_order_acquire);
    if (unlikely(kind != OL_JOB_NONE))
        run_job(ol, (enum ol_job_kind)kind);
    if (unlikely(++ol->polls % 64 == 0))
        drain_others(ol);
    if (unlikely(!ol->flowing))
        return 0;
    unsigned work = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++)
        work += receive(ol, w);
    return work + release_all(ol);
}

/* Mode none: the same hop, nothing stored, nothing held. */
static unsigned poll_plain(struct output_logger *ol)
{
    unsigned work = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        if (!send_leaving(ol, 0) || !send_leaving(ol, 1))
            return work;
        struct rte_mbuf *burst[FTMB_BURST];
        uint16_t count = io_rx(ol->replica[0][w], burst, FTMB_BURST);
        for (uint16_t i = 0; i < count; i++) {
            const struct wire_head *head = rte_pktmbuf_mtod(burst[i], const struct wire_head *);
            if (wire_valid((const uint8_t *)head, rte_pktmbuf_data_len(burst[i]),
                           ol->config->workers) &&
                head->type == WIRE_OUTPUT) {
                leave(ol, burst[i]);
                ol->kept->outputs++;
            } else {
                rte_pktmbuf_free(burst[i]);
                ol->kept->bad++;
            }
        }
        ol->kept->frames += count;
        work += count;
    }
    send_leaving(ol, 0);
    send_leaving(ol, 1);
    return work;
}

static unsigned poll(void *self)
{
    struct output_logger *ol = self;
    return ol->config->mode == MODE_FTMB ? poll_logged(ol) : poll_plain(ol);
}

static json_t *stats(void *self)
{
    struct output_logger *ol = self;
    uint64_t held_peak = 0, log_peak = 0, asked = 0, released = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        held_peak = u64_max(held_peak, ol->release->worker[w].held_peak);
        log_peak +=
            (ol->release->worker[w].pal_peak + ol->release->worker[w].out_peak) * sizeof(uint64_t);
        released += ol->release->worker[w].released;
        asked += ol->in[w].asked;
    }
    json_t *all = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "role", "ol",
        "frames", (json_int_t)ol->kept->frames, "pals", (json_int_t)ol->kept->pals, "pal_bytes",
        (json_int_t)(ol->kept->pals * sizeof(uint64_t)), "outputs", (json_int_t)ol->kept->outputs,
        "released", (json_int_t)released, "duplicates_dropped", (json_int_t)ol->release->duplicates,
        "hash_mismatches", (json_int_t)ol->release->hash_mismatches, "dropped_old_view",
        (json_int_t)ol->kept->old_view, "dropped_bad", (json_int_t)ol->kept->bad, "dropped_no_room",
        (json_int_t)ol->kept->no_room, "held_peak", (json_int_t)held_peak, "log_peak_bytes",
        (json_int_t)log_peak, "log_capacity_bytes",
        (json_int_t)(ol->config->workers * (ol->config->pals + ol->config->outputs) *
                     sizeof(uint64_t)),
        "commits", (json_int_t)ol->state.commits, "snapshot_requests",
        (json_int_t)ol->snapshot_requests, "resend_requests", (json_int_t)asked);
    json_object_update_new(all, json_pack("{s:I,s:I,s:I,s:I}", "lost_in_hand",
                                          (json_int_t)ol->release->lost_in_hand, "repeated",
                                          (json_int_t)ol->release->repeated, "bad_messages",
                                          (json_int_t)ol->bad_messages, "connections_dropped",
                                          (json_int_t)ol->connections_dropped));
    return all;
}

int output_logger_create(struct output_logger *ol, const struct node_config *config,
                         struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS],
                         const struct io_lane *out, struct rte_mempool *pool)
{
    memset(ol, 0, sizeof(*ol));
    ol->config = config;
    ol->pool = pool;
    memcpy(ol->replica, replica, sizeof(ol->replica));
    memcpy(ol->out, out, sizeof(ol->out));
    int error = ol_keep_open(ol);
    return error || config->mode != MODE_FTMB ? error : ol_control_start(ol);
}

static void command(void *self, const char *verb)
{
    struct output_logger *ol = self;
    if (strcmp(verb, "switchover") == 0)
        atomic_store_explicit(&ol->handover_wanted, true, memory_order_release);
}

struct role output_logger_role(struct output_logger *ol)
{
    return (struct role){
        .name = "ol", .self = ol, .poll = poll, .command = command, .stats = stats};
}

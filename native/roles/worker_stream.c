/* The worker's stream to the OL: PAL frames and outputs under one numbering, kept until they are
 * acknowledged (see core/stream.h). */
#include "roles/worker_stream.h"

#include <string.h>

#include "core/framing.h"
#include "io/clock.h"

/* Inputs after which the OL is told of progress even if they left no PAL and no output. */
#define PROGRESS_EVERY 256u

uint32_t worker_stream_room(const struct node_config *config, uint32_t inputs)
{
    uint32_t pals = inputs * config->needs.max_pals;
    /* A frame may end up to a section early, so that it does not end inside one. */
    uint32_t per_frame = WIRE_MAX_PALS - FTMB_MAX_SECTION_PALS;
    uint32_t frames = config->pal_batch ? pals / per_frame + 2 : pals + inputs;
    return frames + inputs * config->needs.max_outputs;
}

void worker_stream_output(struct worker *worker, struct rte_mbuf *m, uint8_t port)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    uint32_t length = rte_pktmbuf_data_len(m);
    struct wire_output *out =
        (struct wire_output *)rte_pktmbuf_prepend(m, (uint16_t)wire_output_bytes(ctx->workers));
    FTMB_ASSERT(out && worker->output_count < FTMB_BURST);
    ctx->cursor->outputs++;
    wire_head_put(&out->head, WIRE_OUTPUT, ctx->worker, port, length, worker->view,
                  worker->incarnation, 0);
    out->number = ctx->cursor->outputs;
    if (ctx->mode == ACCESS_LOG)
        shared_vector(ctx, out->vector);
    worker->outputs[worker->output_count++] = m;
}

static void append(struct worker *worker, struct rte_mbuf *m)
{
    uint64_t seq = worker->out.next++;
    rte_pktmbuf_mtod(m, struct wire_head *)->seq = seq;
    worker->kept[seq & (WORKER_WINDOW - 1)] = m;
}

static struct rte_mbuf *control_frame(struct worker *worker, enum wire_type type, uint32_t bytes)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(worker->pool);
    if (unlikely(!m))
        return NULL;
    struct wire_head *head = (struct wire_head *)rte_pktmbuf_append(m, (uint16_t)bytes);
    wire_head_put(head, type, worker->ctx.worker, 0, 0, worker->view, worker->incarnation, 0);
    return m;
}

/* One frame with PALs [from, to) of the burst. */
static void append_pals(struct worker *worker, uint32_t from, uint32_t to)
{
    const struct ftmb_ctx *ctx = &worker->ctx;
    uint32_t bytes = (to - from) * (uint32_t)sizeof(uint64_t);
    struct rte_mbuf *m =
        control_frame(worker, WIRE_PAL, (uint32_t)sizeof(struct wire_pals) + bytes);
    FTMB_ASSERT(m); /* the pool holds a window of frames beyond all rings */
    struct wire_pals *frame = rte_pktmbuf_mtod(m, struct wire_pals *);
    frame->head.length = (uint16_t)bytes;
    frame->first = ctx->cursor->pals - (ctx->pal_count - from) + 1;
    /* Progress is told with the last PALs only. */
    frame->next_input = to == ctx->pal_count ? ctx->cursor->next_input : worker->progress_sent;
    worker->progress_sent = frame->next_input;
    memcpy(frame->pals, ctx->pals + from, bytes);
    append(worker, m);
}

void worker_stream_flush(struct worker *worker)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    if (ctx->mode != ACCESS_LOG)
        return;
    for (uint32_t from = 0; from < ctx->pal_count;) {
        uint32_t to =
            framing_end(ctx->pals, from, ctx->pal_count, WIRE_MAX_PALS, worker->config->pal_batch);
        append_pals(worker, from, to);
        from = to;
    }
    ctx->pal_count = 0;
    for (uint32_t i = 0; i < worker->output_count; i++)
        append(worker, worker->outputs[i]);
    worker->output_count = 0;
}

unsigned worker_stream_send(struct worker *worker)
{
    struct stream_tx *out = &worker->out;
    unsigned total = 0;
    uint64_t first;
    uint16_t count;
    while ((count = (uint16_t)stream_tx_run(out, FTMB_BURST, &first)) != 0) {
        struct rte_mbuf *burst[FTMB_BURST];
        for (uint16_t i = 0; i < count; i++) {
            burst[i] = worker->kept[(first + i) & (WORKER_WINDOW - 1)];
            rte_mbuf_refcnt_update(burst[i], 1); /* one stays with `kept` until acknowledged */
        }
        uint16_t sent = io_tx(worker->output, burst, count);
        for (uint16_t i = sent; i < count; i++)
            rte_mbuf_refcnt_update(burst[i], -1);
        stream_tx_sent(out, first, sent);
        total += sent;
        if (sent < count)
            break;
    }
    return total;
}

static void take_ack(struct worker *worker, const struct rte_mbuf *m, uint64_t now)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    if (!wire_valid((const uint8_t *)head, rte_pktmbuf_data_len(m), worker->ctx.workers) ||
        head->type != WIRE_ACK || head->worker != worker->ctx.worker) {
        worker->bad++;
        return;
    }
    if (!wire_current(head, worker->view, worker->incarnation)) {
        worker->old_view++;
        return;
    }
    uint64_t from = worker->out.acked + 1;
    uint64_t freed = stream_tx_settle(&worker->out, head->seq, now);
    stream_tx_report(&worker->out, &((const struct wire_ack *)head)->report, now);
    for (uint64_t seq = from; seq < from + freed; seq++)
        rte_pktmbuf_free(worker->kept[seq & (WORKER_WINDOW - 1)]);
}

/* Send a lone control frame; a full link just means later. */
static bool send_one(struct io_lane lane, struct rte_mbuf *m)
{
    if (m && io_tx(lane, &m, 1) == 1)
        return true;
    rte_pktmbuf_free(m);
    return false;
}

static void acknowledge_inputs(struct worker *worker)
{
    struct rte_mbuf *m = control_frame(worker, WIRE_ACK, sizeof(struct wire_ack));
    if (!m)
        return;
    struct wire_ack *ack = rte_pktmbuf_mtod(m, struct wire_ack *);
    ack->head.seq = stream_rx_taken(&worker->in);
    stream_rx_report(&worker->in, &ack->report);
    if (send_one(worker->input, m))
        stream_rx_acked(&worker->in, stream_rx_taken(&worker->in));
}

void worker_stream_housekeeping(struct worker *worker, bool idle)
{
    struct rte_mbuf *burst[FTMB_BURST];
    uint16_t count = io_rx(worker->output, burst, FTMB_BURST);
    uint64_t now = count || idle ? clock_ns() : 0;
    for (uint16_t i = 0; i < count; i++) {
        take_ack(worker, burst[i], now);
        rte_pktmbuf_free(burst[i]);
    }
    if (stream_rx_ack_due(&worker->in, stream_rx_taken(&worker->in), idle))
        acknowledge_inputs(worker);
    uint64_t told = worker->ctx.cursor->next_input - worker->progress_sent;
    if ((told >= PROGRESS_EVERY || (idle && told)) && worker_stream_inputs(worker)) {
        append_pals(worker, 0, 0);
        worker_stream_send(worker);
    }
    if (idle && stream_tx_probe_due(&worker->out, now)) {
        struct rte_mbuf *m = control_frame(worker, WIRE_PROBE, sizeof(struct wire_head));
        if (m)
            rte_pktmbuf_mtod(m, struct wire_head *)->seq = worker->out.cursor - 1;
        send_one(worker->output, m);
    }
}

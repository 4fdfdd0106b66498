/* The worker's loop (see worker.h). */
#include "roles/worker.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/worker_stream.h"

int worker_init(struct worker *worker, uint32_t index, const struct node_config *config,
                struct worker_group *group, struct arena *arena, const struct ctx_env *env,
                struct io_lane input, struct io_lane output, struct rte_mempool *pool)
{
    memset(worker, 0, sizeof(*worker));
    worker->group = group;
    worker->config = config;
    worker->input = input;
    worker->output = output;
    worker->pool = pool;
    worker->burst = worker_burst(config);
    worker->room_needed = worker_stream_room(config, worker->burst);
    worker->room_for_one = worker_stream_room(config, 1) + 1; /* and one that tells progress */
    if (worker->room_needed > WORKER_WINDOW / 2) {
        fprintf(stderr, "ftmb-node: %s needs %u stream frames a burst, at most %u are possible\n",
                config->nf->name, worker->room_needed, WORKER_WINDOW / 2);
        return -EINVAL;
    }
    struct ftmb_ctx *ctx = &worker->ctx;
    ctx->arena = arena;
    ctx->cursor = &arena->cursors[index];
    ctx->seq = arena_seq(arena);
    ctx->worker = index;
    ctx->workers = config->workers;
    ctx->variables = arena->variables;
    ctx->mode = config->mode == MODE_FTMB ? ACCESS_LOG : ACCESS_PLAIN;
    ctx->reads_locked = config->reads_locked;
    ctx->exact = config->exact;
    ctx->pal_capacity = FTMB_BURST * config->needs.max_pals;
    ctx->pals = calloc(ctx->pal_capacity + 1, sizeof(*ctx->pals));
    ctx->published = group->published;
    ctx->env = env;
    ctx->epochs = &group->epochs;
    group->epochs.workers = config->workers;
    epoch_sit(ctx);
    return ctx->pals ? 0 : -ENOMEM;
}

void worker_begin(struct worker *worker, struct replay *replay)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    uint64_t now = clock_ns();
    worker->view = worker->group->view;
    worker->incarnation = worker->group->incarnation;
    worker->hand = (struct crash_hand){.worker = ctx->worker, .view = worker->view};
    void *kept;
    while ((kept = stream_rx_early_drop(&worker->in)) != NULL)
        rte_pktmbuf_free(kept);
    stream_rx_reset(&worker->in, ctx->cursor->next_input);
    stream_tx_reset(&worker->out, 1, now);
    worker->out.window = node_window(worker->config);
    worker->progress_sent = ctx->cursor->next_input;
    worker->packets_at_promotion = ctx->cursor->packets;
    ctx->replay = replay;
    epoch_sit(ctx);
    memset(ctx->deps, 0, sizeof(ctx->deps));
    atomic_store_explicit(&worker->group->published[ctx->worker].pals, ctx->cursor->pals,
                          memory_order_release);
}

/* A standby costs nothing: its workers sleep until they are needed. */
static void sleep_until_active(struct worker_group *group)
{
    pthread_mutex_lock(&group->lock);
    while (!atomic_load(&group->active) && !atomic_load(&group->quit))
        pthread_cond_wait(&group->wake, &group->lock);
    pthread_mutex_unlock(&group->lock);
}

/* A new epoch has begun: join it, and stand still for as long as that is wanted. */
static void turn(struct worker *worker)
{
    for (uint64_t rounds = 0; !epoch_turn(&worker->ctx); rounds++)
        rounds < 64 ? cpu_relax() : (void)sched_yield();
}

static void leave_replay(struct worker *worker)
{
    struct worker_group *group = worker->group;
    worker->ctx.replay = NULL;
    atomic_fetch_add(&group->packets_replayed,
                     worker->ctx.cursor->packets - worker->packets_at_promotion);
    if (atomic_fetch_sub(&group->replaying, 1) != 1)
        return;
    uint64_t pals = 0;
    for (uint32_t w = 0; w < group->replay.workers; w++)
        pals += group->replay.count[w];
    event_emit("replay_done", "{s:I,s:I,s:I}", "view", (json_int_t)group->view, "packets",
               (json_int_t)atomic_load(&group->packets_replayed), "pals", (json_int_t)pals);
}

/* The role header goes, the packet stays in its buffer: a function works in place. */
static void run_packet(struct worker *worker, struct rte_mbuf *m, const struct wire_input *in)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    uint32_t length = in->head.length;
    uint8_t port = in->head.port;
    uint8_t *data = (uint8_t *)rte_pktmbuf_adj(m, sizeof(struct wire_input));
    rte_pktmbuf_trim(m, (uint16_t)(rte_pktmbuf_data_len(m) - length));
    struct nf_packet packet = {
        .data = data, .length = length, .capacity = length + rte_pktmbuf_tailroom(m), .port = port};
    uint32_t pals_before = ctx->pal_count;
    ctx->emitted = NULL;
    ctx->cursor->packets++;
    worker->config->nf->process(ctx, &packet);
    FTMB_ASSERT(!ctx->held_count);
    FTMB_ASSERT(ctx->pal_count - pals_before <= worker->config->needs.max_pals);
    if (!ctx->emitted) {
        ctx->cursor->dropped++;
        rte_pktmbuf_free(m);
        return;
    }
    FTMB_ASSERT(packet.length <= WIRE_MAX_PACKET);
    if (packet.length > length)
        rte_pktmbuf_append(m, (uint16_t)(packet.length - length));
    else
        rte_pktmbuf_trim(m, (uint16_t)(length - packet.length));
    worker_stream_output(worker, m, packet.port);
}

static void run_input(struct worker *worker, struct rte_mbuf *m)
{
    struct ftmb_ctx *ctx = &worker->ctx;
    const struct wire_input *in = rte_pktmbuf_mtod(m, const struct wire_input *);
    worker->hand.input = in->head.seq;
    ctx->now_ns = in->stamp_ns;
    ctx->cursor->now_ns = in->stamp_ns;
    ctx->cursor->next_input++;
    if (likely(in->head.type == WIRE_INPUT)) {
        run_packet(worker, m, in);
    } else {
        ctx->cursor->ticks++;
        if (worker->config->nf->tick) {
            ctx->emitted = NULL;
            worker->config->nf->tick(ctx);
            FTMB_ASSERT(!ctx->held_count && !ctx->emitted);
        }
        rte_pktmbuf_free(m);
    }
    if (unlikely(ctx->replay != NULL) && replay_done(ctx->replay))
        leave_replay(worker);
}

/* What becomes of a frame: taken as the next input of the view, kept until the gap before it is
 * closed, or counted and dropped (DUPLICATE, GAP). */
static enum stream_verdict take_input(struct worker *worker, struct rte_mbuf *m)
{
    const struct wire_head *head = rte_pktmbuf_mtod(m, const struct wire_head *);
    if (unlikely(!wire_valid((const uint8_t *)head, rte_pktmbuf_data_len(m), worker->ctx.workers) ||
                 head->worker != worker->ctx.worker)) {
        worker->bad++;
        return STREAM_GAP;
    }
    if (worker->config->mode != MODE_FTMB)
        return head->type == WIRE_INPUT ? STREAM_TAKE : STREAM_GAP;
    if (unlikely(!wire_current(head, worker->view, worker->incarnation))) {
        worker->old_view++;
        return STREAM_GAP;
    }
    if (unlikely(head->type == WIRE_PROBE)) {
        stream_rx_probe(&worker->in, head->seq);
        return STREAM_GAP;
    }
    if (head->type != WIRE_INPUT && head->type != WIRE_TICK) {
        worker->bad++;
        return STREAM_GAP;
    }
    return stream_rx_frame(&worker->in, head->seq, m);
}

/* Ask the processor for what the function will touch, for the whole burst before its first packet:
 * state is cold in the cache far more often than not. */
static void prefetch_state(struct worker *worker, struct rte_mbuf **burst, unsigned count)
{
    const struct nf *nf = worker->config->nf;
    for (unsigned stage = 0; nf->prefetch && stage < 2; stage++) {
        for (unsigned i = 0; i < count; i++) {
            struct wire_input *in = rte_pktmbuf_mtod(burst[i], struct wire_input *);
            struct nf_packet packet = {
                .data = (uint8_t *)(in + 1), .length = in->head.length, .port = in->head.port};
            worker->hand.input = in->head.seq;
            if (in->head.type == WIRE_INPUT)
                nf->prefetch(&worker->ctx, &packet, stage);
        }
    }
}

/* The next inputs: those that came before their turn first, then from the link. Returns frames
 * looked at; `taken` of them are in the burst. */
static unsigned take_burst(struct worker *worker, struct rte_mbuf **burst, unsigned inputs,
                           unsigned *taken)
{
    unsigned early = 0;
    while (early < inputs && (burst[early] = stream_rx_early(&worker->in)) != NULL) {
        stream_rx_take_early(&worker->in);
        early++;
    }
    *taken = early;
    if (unlikely(early == inputs))
        return early;
    uint16_t end = (uint16_t)early;
    end += io_rx(worker->input, burst + early, (uint16_t)(inputs - early));
    for (unsigned i = early; i < end; i++)
        __builtin_prefetch(rte_pktmbuf_mtod(burst[i], void *));
    for (unsigned i = early; i < end; i++) {
        enum stream_verdict verdict = take_input(worker, burst[i]);
        if (likely(verdict == STREAM_TAKE))
            burst[(*taken)++] = burst[i];
        else if (verdict != STREAM_KEPT)
            rte_pktmbuf_free(burst[i]);
    }
    return end;
}

static unsigned run_burst(struct worker *worker, unsigned inputs)
{
    struct rte_mbuf *burst[FTMB_BURST];
    unsigned taken, count = take_burst(worker, burst, inputs, &taken);
    if (count == 0)
        return 0;
    if (unlikely(!epoch_enter(&worker->ctx)))
        turn(worker);
    crash_hand = &worker->hand;
    prefetch_state(worker, burst, taken);
    for (unsigned i = 0; i < taken; i++) {
        if (unlikely(!epoch_same(&worker->ctx)))
            turn(worker);
        run_input(worker, burst[i]);
        if (unlikely(!worker->config->pal_batch))
            worker_stream_flush(worker);
    }
    worker_stream_flush(worker);
    crash_hand = NULL;
    epoch_leave(&worker->ctx);
    return count;
}

static unsigned run_timed_burst(struct worker *worker, unsigned inputs)
{
    uint64_t packets = worker->ctx.cursor->packets, begun = clock_ns();
    unsigned count = run_burst(worker, inputs);
    packets = worker->ctx.cursor->packets - packets;
    if (packets) {
        atomic_fetch_add_explicit(&worker->timed_ns, clock_ns() - begun, memory_order_relaxed);
        atomic_fetch_add_explicit(&worker->timed_packets, packets, memory_order_relaxed);
    }
    return count;
}

static unsigned poll_logged(struct worker *worker)
{
    unsigned work = worker_stream_send(worker);
    if (unlikely(worker->ctx.replay != NULL) && replay_done(worker->ctx.replay))
        leave_replay(worker);
    unsigned inputs = worker_stream_inputs(worker), count = 0;
    if (inputs)
        count = unlikely(worker->polls % 64 == 0) ? run_timed_burst(worker, inputs)
                                                  : run_burst(worker, inputs);
    if (count)
        worker_stream_send(worker);
    worker_stream_housekeeping(worker, count == 0);
    return work + count;
}

/* Modes without logs: outputs that the link does not take wait, and so does the worker. */
static unsigned poll_plain(struct worker *worker)
{
    if (worker->output_count == 0 && run_burst(worker, worker->burst) == 0)
        return 0;
    uint16_t sent = io_tx(worker->output, worker->outputs, (uint16_t)worker->output_count);
    worker->output_count -= sent;
    memmove(worker->outputs, worker->outputs + sent,
            worker->output_count * sizeof(worker->outputs[0]));
    return 1;
}

unsigned worker_poll(void *self)
{
    struct worker *worker = self;
    if (unlikely(!atomic_load_explicit(&worker->group->active, memory_order_acquire))) {
        sleep_until_active(worker->group);
        return 0;
    }
    worker->polls++;
    return worker->config->mode == MODE_FTMB ? poll_logged(worker) : poll_plain(worker);
}

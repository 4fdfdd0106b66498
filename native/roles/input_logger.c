/* The input logger's lcore (see input_logger.h). */
#include "roles/input_logger.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/flow.h"
#include "io/clock.h"
#include "io/event.h"

#define TICK_NS 1000000ull
#define PROBE_LOOK_NS 200000ull
/* Polls without a new attempt after a link took nothing. */
#define LINK_FULL_POLLS 4u

/* ---- towards the master ------------------------------------------------------------------- */

static void fill_head(const struct input_logger *il, uint32_t w, struct wire_input *head,
                      const struct input_record *record, uint64_t number)
{
    wire_head_put(&head->head, record->tick ? WIRE_TICK : WIRE_INPUT, w, record->port,
                  record->length, il->kept->view, il->kept->incarnation, number);
    head->stamp_ns = record->stamp_ns;
}

/* Send from the log what the link has not taken yet, or has to get again. */
static unsigned send_backlog(struct input_logger *il, uint32_t w)
{
    struct il_worker *x = &il->worker[w];
    struct rte_mbuf *burst[FTMB_BURST];
    uint64_t first;
    uint32_t count = (uint32_t)stream_tx_run(&x->out, FTMB_BURST, &first);
    if (count == 0)
        return 0;
    if (x->link_full) {
        x->link_full--; /* copying frames that the link will not take is work for nothing */
        return 0;
    }
    if (rte_pktmbuf_alloc_bulk(il->pool, burst, count))
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = first + i;
        const struct input_record *record = input_log_get(&x->log, number);
        struct wire_input *head = (struct wire_input *)rte_pktmbuf_append(
            burst[i], (uint16_t)(sizeof(*head) + record->length));
        fill_head(il, w, head, record, number);
        memcpy(head + 1, record->data, record->length);
    }
    uint16_t sent = io_tx(il->replica[il->kept->slot][w], burst, (uint16_t)count);
    rte_pktmbuf_free_bulk(burst + sent, count - sent);
    stream_tx_sent(&x->out, first, sent);
    x->link_full = sent ? 0 : LINK_FULL_POLLS;
    return sent;
}

/* The fast path: what was just logged goes out in the buffer that it came in. */
static void send_burst(struct input_logger *il, uint32_t w)
{
    struct il_worker *x = &il->worker[w];
    if (x->burst_count == 0)
        return;
    uint16_t sent = io_tx(il->replica[il->kept->slot][w], x->burst, (uint16_t)x->burst_count);
    rte_pktmbuf_free_bulk(x->burst + sent, x->burst_count - sent);
    x->out.cursor += sent;
    x->burst_count = 0;
}

/* ---- inputs ------------------------------------------------------------------------------- */

/* Log one input and give it the next number. False: no room or no credit. */
static bool log_input(struct input_logger *il, uint32_t w, const uint8_t *data, uint32_t length,
                      uint8_t port, bool tick, uint64_t now)
{
    struct il_worker *x = &il->worker[w];
    if (x->out.next > x->limit)
        return false;
    struct input_record *record = input_log_append(&x->log, length);
    if (!record)
        return false;
    x->latest_ns = u64_max(x->latest_ns, now);
    record->stamp_ns = x->latest_ns;
    record->length = length;
    record->tick = tick;
    record->port = port;
    if (length)
        memcpy(record->data, data, length);
    input_log_commit(&x->log);
    x->out.next++;
    tick ? x->ticks++ : x->accepted++;
    il->kept->log_bytes += sizeof(*record) + length;
    return true;
}

static bool waits(const struct input_logger *il)
{
    return atomic_load_explicit(&il->waits, memory_order_relaxed);
}

/* Log and forward one frame; false: not accepted, `m` still belongs to the caller. */
static bool accept_input(struct input_logger *il, struct rte_mbuf *m, uint8_t port, uint64_t now)
{
    const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);
    uint32_t length = rte_pktmbuf_data_len(m);
    uint32_t w = flow_worker(flow_hash(data, length), il->config->workers);
    struct il_worker *x = &il->worker[w];
    if (waits(il) && x->out.next - x->out.cursor > IL_BACKLOG)
        return false;
    uint64_t number = x->out.next;
    if (!log_input(il, w, data, length, port, false, now))
        return false;
    if (unlikely(x->out.cursor + x->burst_count != number || !stream_tx_open(&x->out, number))) {
        rte_pktmbuf_free(m); /* others wait before it: it will be sent from the log */
        return true;
    }
    struct wire_input *head = (struct wire_input *)rte_pktmbuf_prepend(m, sizeof(*head));
    FTMB_ASSERT(head);
    fill_head(il, w, head, input_log_get(&x->log, number), number);
    x->burst[x->burst_count++] = m;
    if (x->burst_count == FTMB_BURST)
        send_burst(il, w);
    return true;
}

/* Counted, and told once each time it begins. */
static void refuse(struct input_logger *il, struct rte_mbuf *m)
{
    il->kept->refused++;
    if (!il->full)
        event_emit("log_full", "{s:s}", "role", "il");
    il->full = true;
    rte_pktmbuf_free(m);
}

static bool acceptable(struct input_logger *il, const struct rte_mbuf *m)
{
    uint32_t length = rte_pktmbuf_data_len(m);
    if (likely(length >= 14 && length <= WIRE_MAX_PACKET && m->nb_segs == 1))
        return true;
    il->kept->malformed++;
    return false;
}

/* Take in one burst, from the door first. What is not accepted is refused, or waits. */
static unsigned receive(struct input_logger *il, uint64_t now)
{
    if (il->door_count == 0) {
        il->door_port = il->next_port;
        il->next_port ^= 1;
        il->door_count = io_rx(il->in[il->door_port], il->door, FTMB_BURST);
        il->kept->received += il->door_count;
        /* A full ring of buffers does not stay in the cache: ask for all headers at once. */
        for (uint32_t i = 0; i < il->door_count; i++)
            __builtin_prefetch(il->door[i]);
    }
    uint32_t i = 0;
    for (; i < il->door_count; i++) {
        if (i + 2 < il->door_count)
            __builtin_prefetch(rte_pktmbuf_mtod(il->door[i + 2], void *));
        struct rte_mbuf *m = il->door[i];
        if (unlikely(!acceptable(il, m))) {
            rte_pktmbuf_free(m);
        } else if (unlikely(!accept_input(il, m, il->door_port, now))) {
            if (waits(il))
                break;
            refuse(il, m);
        }
    }
    uint32_t left = il->door_count - i;
    memmove(il->door, il->door + i, left * sizeof(il->door[0]));
    il->door_count = left;
    for (uint32_t w = 0; w < il->config->workers; w++)
        send_burst(il, w);
    return i;
}

/* ---- time, acknowledgements, orders ------------------------------------------------------- */

static void send_probe(struct input_logger *il, uint32_t w)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(il->pool);
    if (!m)
        return;
    struct wire_head *head = (struct wire_head *)rte_pktmbuf_append(m, sizeof(*head));
    wire_head_put(head, WIRE_PROBE, w, 0, 0, il->kept->view, il->kept->incarnation,
                  il->worker[w].out.cursor - 1);
    if (io_tx(il->replica[il->kept->slot][w], &m, 1) != 1)
        rte_pktmbuf_free(m);
}

static void tick(struct input_logger *il, uint64_t now)
{
    uint32_t pressed = LOG_CALM;
    uint64_t snapshot_at =
        il->config->schedule == SCHEDULE_LOG ? (uint64_t)il->config->log_mb << 20 : UINT64_MAX;
    for (uint32_t w = 0; w < il->config->workers; w++) {
        struct il_worker *x = &il->worker[w];
        if (il->kept->accepting && now - u64_min(now, x->latest_ns) >= TICK_NS)
            (void)log_input(il, w, (const uint8_t *)"", 0, 0, true, now);
        if (stream_tx_probe_due(&x->out, now))
            send_probe(il, w);
        if (input_log_pressed(&x->log))
            pressed = LOG_HALF_FULL;
        else if (input_log_used(&x->log) > snapshot_at && pressed == LOG_CALM)
            pressed = LOG_WANTS_SNAPSHOT;
    }
    atomic_store_explicit(&il->pressed, pressed, memory_order_relaxed);
}

static void take_ack(struct input_logger *il, uint32_t w, const struct rte_mbuf *m, uint64_t now)
{
    const struct wire_ack *ack = rte_pktmbuf_mtod(m, const struct wire_ack *);
    if (!wire_valid((const uint8_t *)ack, rte_pktmbuf_data_len(m), il->config->workers) ||
        ack->head.type != WIRE_ACK || ack->head.worker != w) {
        il->bad++;
    } else if (!wire_current(&ack->head, il->kept->view, il->kept->incarnation)) {
        il->old_view++;
    } else {
        stream_tx_settle(&il->worker[w].out, ack->head.seq, now);
        stream_tx_report(&il->worker[w].out, &ack->report, now);
    }
}

static unsigned take_acks(struct input_logger *il, uint32_t w, uint64_t now)
{
    struct rte_mbuf *burst[FTMB_BURST];
    uint16_t count = io_rx(il->replica[il->kept->slot][w], burst, FTMB_BURST);
    for (uint16_t i = 0; i < count; i++) {
        take_ack(il, w, burst[i], now);
        rte_pktmbuf_free(burst[i]);
    }
    return count;
}

/* A new master: its first input is the one after the base; everything since is in the log. The view
 * is stored last: a process that dies before it is told again. */
static void begin_view(struct input_logger *il, const struct il_orders *orders, uint64_t now)
{
    if (orders->view_number <= il->kept->view)
        return;
    for (uint32_t w = 0; w < il->config->workers; w++) {
        struct il_worker *x = &il->worker[w];
        uint64_t resent = x->out.resent, next = x->out.next;
        uint64_t first = orders->view.next_input[w];
        if (first < x->log.first || first > x->log.next)
            die(4, "state_lost: worker %u needs input %llu, kept are %llu to %llu", w,
                (unsigned long long)first, (unsigned long long)x->log.first,
                (unsigned long long)x->log.next - 1);
        rte_pktmbuf_free_bulk(x->burst, x->burst_count);
        x->burst_count = 0;
        stream_tx_reset(&x->out, first, now);
        x->out.window = node_window(il->config);
        x->out.next = next;
        x->out.resent = resent + next - first;
    }
    il->kept->slot = orders->view.slot;
    il->kept->incarnation = orders->view.incarnation;
    atomic_signal_fence(memory_order_release);
    il->kept->view = orders->view_number;
}

static void take_orders(struct input_logger *il, uint64_t now)
{
    struct il_orders *orders = &il->orders;
    if (orders->new_view)
        begin_view(il, orders, now);
    for (uint32_t w = 0; w < il->config->workers; w++) {
        if (orders->commit) { /* what is covered has arrived, whatever its acknowledgement does */
            input_log_trim(&il->worker[w].log, orders->cut.next_input[w]);
            stream_tx_settle(&il->worker[w].out, orders->cut.next_input[w] - 1, now);
        }
        if (orders->credit)
            il->worker[w].limit = orders->limits.limit[w];
    }
    il->kept->accepting |= orders->commit;
    if (orders->commit)
        il->full = false; /* there is room again */
    orders->new_view = orders->commit = orders->credit = false;
    atomic_store_explicit(&orders->pending, false, memory_order_release);
}

static unsigned poll_logged(struct input_logger *il)
{
    uint64_t now = clock_ns();
    if (unlikely(atomic_load_explicit(&il->orders.pending, memory_order_acquire)))
        take_orders(il, now);
    if (unlikely(il->kept->view == 0))
        return 0;
    unsigned work = 0;
    for (uint32_t w = 0; w < il->config->workers; w++) {
        work += take_acks(il, w, now);
        work += send_backlog(il, w);
    }
    if (now - il->ticked_ns >= PROBE_LOOK_NS) {
        il->ticked_ns = now;
        tick(il, now);
    }
    return il->kept->accepting ? work + receive(il, now) : work;
}

/* ---- mode none ---------------------------------------------------------------------------- */

/* The same hop, nothing stored: what the links do not take waits, and so does the door. */
static unsigned poll_plain(struct input_logger *il)
{
    unsigned work = 0;
    bool blocked = false;
    for (uint32_t w = 0; w < il->config->workers; w++) {
        struct il_worker *x = &il->worker[w];
        uint16_t sent = io_tx(il->replica[0][w], x->burst, (uint16_t)x->burst_count);
        x->burst_count -= sent;
        memmove(x->burst, x->burst + sent, x->burst_count * sizeof(x->burst[0]));
        blocked |= x->burst_count != 0;
        work += sent;
    }
    if (blocked)
        return work;
    struct rte_mbuf *burst[FTMB_BURST];
    uint8_t port = il->next_port;
    il->next_port ^= 1;
    uint16_t count = io_rx(il->in[port], burst, FTMB_BURST);
    for (uint16_t i = 0; i < count; i++)
        __builtin_prefetch(burst[i]);
    uint64_t now = count ? clock_ns() : 0;
    for (uint16_t i = 0; i < count; i++) {
        if (!acceptable(il, burst[i])) {
            rte_pktmbuf_free(burst[i]);
            continue;
        }
        const uint8_t *data = rte_pktmbuf_mtod(burst[i], const uint8_t *);
        uint32_t length = rte_pktmbuf_data_len(burst[i]);
        uint32_t w = flow_worker(flow_hash(data, length), il->config->workers);
        struct wire_input *head = (struct wire_input *)rte_pktmbuf_prepend(burst[i], sizeof(*head));
        FTMB_ASSERT(head);
        wire_head_put(&head->head, WIRE_INPUT, w, port, length, 0, 0, 0);
        head->stamp_ns = now;
        il->worker[w].burst[il->worker[w].burst_count++] = burst[i];
        il->worker[w].accepted++;
    }
    il->kept->received += count;
    return work + count;
}

static unsigned poll(void *self)
{
    struct input_logger *il = self;
    return il->config->mode == MODE_FTMB ? poll_logged(il) : poll_plain(il);
}

/* ---- set-up ------------------------------------------------------------------------------- */

static json_t *stats(void *self)
{
    const struct input_logger *il = self;
    uint64_t peak = 0, resent = 0, accepted = 0, ticks = 0;
    for (uint32_t w = 0; w < il->config->workers; w++) {
        peak += il->worker[w].log.peak;
        resent += il->worker[w].out.resent;
        accepted += il->worker[w].accepted;
        ticks += il->worker[w].ticks;
    }
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "role", "il",
                     "received", (json_int_t)il->kept->received, "accepted", (json_int_t)accepted,
                     "refused", (json_int_t)il->kept->refused, "ticks", (json_int_t)ticks,
                     "malformed", (json_int_t)il->kept->malformed, "log_peak_bytes",
                     (json_int_t)peak, "log_capacity_bytes",
                     (json_int_t)(il->config->workers * il->config->input_bytes), "log_bytes",
                     (json_int_t)il->kept->log_bytes, "resent", (json_int_t)resent,
                     "snapshot_requests", (json_int_t)il->snapshot_requests, "dropped_bad",
                     (json_int_t)il->bad, "dropped_old_view", (json_int_t)il->old_view);
}

int input_logger_create(struct input_logger *il, const struct node_config *config,
                        const struct io_lane *in,
                        struct io_lane replica[VIEW_SLOTS][FTMB_MAX_WORKERS],
                        struct rte_mempool *pool)
{
    memset(il, 0, sizeof(*il));
    il->config = config;
    atomic_init(&il->waits, config->wait_when_full);
    il->pool = pool;
    memcpy(il->in, in, sizeof(il->in));
    memcpy(il->replica, replica, sizeof(il->replica));
    int error = il_keep_open(il);
    return error || config->mode != MODE_FTMB ? error : il_control_start(il);
}

static void command(void *self, const char *verb)
{
    struct input_logger *il = self;
    if (strcmp(verb, "wait") == 0)
        atomic_store_explicit(&il->waits, true, memory_order_relaxed);
    else if (strcmp(verb, "refuse") == 0)
        atomic_store_explicit(&il->waits, false, memory_order_relaxed);
}

struct role input_logger_role(struct input_logger *il)
{
    return (struct role){
        .name = "il", .self = il, .poll = poll, .command = command, .stats = stats};
}

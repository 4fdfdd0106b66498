/* A numbered stream over a simulated link that loses, repeats and reorders, both ways. */
#include "core/stream.h"

#include <string.h>

#include "tests/core_test.h"

#define STEP_NS 10000ull
#define IN_FLIGHT 1024u

enum kind { DATA, PROBE, ACK };

struct frame {
    uint64_t due_ns; /* 0: free */
    uint64_t order;  /* of frames that are due at the same time */
    uint64_t seq;
    enum kind kind;
    bool resend;
};

struct link {
    struct frame frame[IN_FLIGHT];
    uint64_t seed;
    unsigned lose, repeat, delay; /* of 100; the longest delay in steps */
    uint64_t sent;
};

struct both_ends {
    struct stream_tx tx;
    struct stream_rx rx;
    struct link there, back;
    uint64_t now_ns;
    uint64_t total;     /* frames to send in all */
    uint64_t window;    /* most unacknowledged frames */
    uint64_t delivered; /* frames taken, in order */
    uint64_t probes;
    uint64_t freed;
    bool restarts;    /* the receiver dies now and then */
    uint64_t settled; /* what it would come back with */
    uint64_t most;    /* frames ever taken */
};

static void put(struct link *link, uint64_t now_ns, struct frame frame)
{
    unsigned copies = 1 + (seed_below(&link->seed, 100) < link->repeat);
    frame.order = ++link->sent;
    for (; copies; copies--) {
        if (seed_below(&link->seed, 100) < link->lose)
            continue;
        frame.due_ns = now_ns + STEP_NS * (1 + seed_below(&link->seed, link->delay));
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            if (link->frame[i].due_ns == 0) {
                link->frame[i] = frame;
                break;
            }
        }
    }
}

/* The frame that was due first; different delays are what reorders. */
static bool get(struct link *link, uint64_t now_ns, struct frame *frame)
{
    struct frame *first = NULL;
    for (unsigned i = 0; i < IN_FLIGHT; i++) {
        struct frame *f = &link->frame[i];
        if (f->due_ns && f->due_ns <= now_ns &&
            (!first || f->due_ns < first->due_ns ||
             (f->due_ns == first->due_ns && f->order < first->order)))
            first = f;
    }
    if (!first)
        return false;
    *frame = *first;
    first->due_ns = 0;
    return true;
}

static void run_sender(struct both_ends *e, uint64_t burst)
{
    struct frame frame;
    while (get(&e->back, e->now_ns, &frame)) {
        CHECK(frame.kind == ACK);
        uint64_t acked = e->tx.acked;
        uint64_t freed = stream_tx_ack(&e->tx, frame.seq, frame.resend, e->now_ns);
        CHECK(e->tx.acked == acked + freed && e->tx.acked < e->tx.cursor);
        e->freed += freed;
    }
    while (burst-- && e->tx.next <= e->total && stream_tx_unacked(&e->tx) < e->window)
        e->tx.next++;
    for (unsigned n = 0; n < 8 && e->tx.cursor < e->tx.next; n++, e->tx.cursor++)
        put(&e->there, e->now_ns, (struct frame){.kind = DATA, .seq = e->tx.cursor});
    if (stream_tx_probe_due(&e->tx, e->now_ns)) {
        e->probes++;
        put(&e->there, e->now_ns, (struct frame){.kind = PROBE, .seq = e->tx.cursor - 1});
    }
}

/* Frames that the receiver has taken and would lose at its death: it does not tell of them. */
static uint64_t unsettled(struct both_ends *e)
{
    if (!e->restarts || e->most == e->total)
        return 0;
    return seed_below(&e->there.seed, stream_rx_taken(&e->rx) - e->settled + 1);
}

/* It dies and comes back with what it had told of: the rest comes again. */
static void restart_receiver(struct both_ends *e)
{
    stream_rx_resume(&e->rx, e->settled + 1);
    e->delivered = e->settled;
}

static void run_receiver(struct both_ends *e)
{
    struct frame frame;
    bool idle = true;
    while (get(&e->there, e->now_ns, &frame)) {
        idle = false;
        CHECK(frame.seq < e->tx.next);
        if (frame.kind == PROBE) {
            stream_rx_probe(&e->rx, frame.seq);
        } else if (stream_rx_frame(&e->rx, frame.seq) == STREAM_TAKE) {
            CHECK(frame.seq == e->delivered + 1); /* in order, once */
            e->delivered++;
            e->most = u64_max(e->most, e->delivered);
        }
    }
    if (e->restarts && seed_below(&e->there.seed, 400) == 0)
        restart_receiver(e);
    uint64_t upto = stream_rx_taken(&e->rx) - unsettled(e);
    if (stream_rx_ack_due(&e->rx, upto, idle)) {
        put(&e->back, e->now_ns, (struct frame){.kind = ACK, .seq = upto, .resend = e->rx.gap});
        stream_rx_acked(&e->rx, upto);
        e->settled = upto;
    }
}

static void step(struct both_ends *e, uint64_t burst)
{
    e->now_ns += STEP_NS;
    run_sender(e, burst);
    run_receiver(e);
}

static struct both_ends *open_ends(uint64_t seed, uint64_t total)
{
    struct both_ends *e = calloc(1, sizeof(*e));
    e->now_ns = 1000000000;
    e->total = total;
    e->window = 256;
    e->there = (struct link){.seed = seed, .delay = 1};
    e->back = (struct link){.seed = ~seed, .delay = 1};
    stream_tx_reset(&e->tx, 1, e->now_ns);
    stream_rx_reset(&e->rx, 1);
    return e;
}

static void check_done(struct both_ends *e)
{
    CHECK(e->delivered == e->total && e->freed == e->total);
    CHECK(stream_tx_unacked(&e->tx) == 0 && e->tx.cursor == e->tx.next);
    /* With nothing unacknowledged the line falls silent. */
    uint64_t sent = e->there.sent;
    for (unsigned i = 0; i < 1000; i++)
        step(e, 0);
    CHECK(e->there.sent == sent && !stream_rx_ack_due(&e->rx, e->settled, true));
}

static void test_bad_links(uint64_t seed)
{
    struct both_ends *e = open_ends(seed_next(&seed), 1 + seed_below(&seed, 1500));
    struct link *links[2] = {&e->there, &e->back};
    for (unsigned i = 0; i < 2; i++) {
        links[i]->lose = (unsigned)seed_below(&seed, 40);
        links[i]->repeat = (unsigned)seed_below(&seed, 40);
        links[i]->delay = 1 + (unsigned)seed_below(&seed, seed_below(&seed, 2) ? 3 : 60);
    }
    e->window = 1 + seed_below(&seed, 512);
    e->restarts = seed_below(&seed, 2);
    uint64_t end = e->now_ns + 60000000000ull; /* a minute: probes are at most 64 ms apart */
    for (unsigned i = 0; e->freed < e->total; i++) {
        CHECK(e->now_ns < end);
        step(e, seed_below(&seed, 8) ? 0 : seed_below(&seed, 40));
        if (e->tx.next > e->total && i % 2) /* all is said: only lost frames are left */
            e->now_ns += seed_below(&seed, 1000000);
    }
    e->there.lose = e->there.repeat = e->back.lose = e->back.repeat = 0;
    for (unsigned i = 0; i < 200; i++)
        step(e, 0); /* what is still under way */
    check_done(e);
    free(e);
}

/* Nothing is lost: nothing is sent twice, and acknowledgements are few. */
static void test_good_link(uint64_t seed)
{
    struct both_ends *e = open_ends(seed, 4000);
    for (unsigned i = 0; i < 5000; i++)
        step(e, 8);
    check_done(e);
    CHECK(e->there.sent == e->total && e->probes == 0 && e->tx.resent == 0);
    CHECK(e->rx.gaps == 0 && e->rx.duplicates == 0);
    CHECK(e->back.sent <= e->total / STREAM_ACK_EVERY + 2);
    free(e);
}

/* The last frame is lost, and then nothing comes: only a probe can reveal it. */
static void test_lost_last_frame(uint64_t seed)
{
    struct both_ends *e = open_ends(seed, 9);
    for (unsigned i = 0; i < 9; i++) {
        e->there.lose = i == 8 ? 100 : 0;
        step(e, 1);
    }
    e->there.lose = 0;
    uint64_t lost_at = e->now_ns;
    while (e->delivered < 9) {
        step(e, 0);
        CHECK(e->now_ns < lost_at + 2 * STREAM_PROBE_NS);
    }
    step(e, 0);
    step(e, 0);
    check_done(e);
    CHECK(e->probes == 1 && e->tx.resent == 1);
    free(e);
}

/* A dead peer is asked ever less often, but never given up. */
static void test_probes_back_off(uint64_t seed)
{
    struct both_ends *e = open_ends(seed, 5);
    e->there.lose = 100;
    while (e->now_ns < 2000000000ull)
        step(e, 5);
    CHECK(e->probes >= 6 + 10 && e->probes <= 6 + 15); /* 1+2+4+...+32 = 63 ms, then 64 ms each */
    e->there.lose = 0;
    uint64_t repaired = e->now_ns;
    while (e->freed < e->total) {
        step(e, 0);
        CHECK(e->now_ns < repaired + 2 * STREAM_PROBE_MAX_NS);
    }
    CHECK(e->tx.probe_ns == STREAM_PROBE_NS);
    check_done(e);
    free(e);
}

static void test_acknowledgements(void)
{
    struct stream_tx tx;
    uint64_t now = 1000000000;
    stream_tx_reset(&tx, 101, now);
    CHECK(!stream_tx_probe_due(&tx, now + 10 * STREAM_PROBE_NS));
    tx.next = 111; /* 101..110, of which 106..110 wait for the link */
    tx.cursor = 106;
    CHECK(stream_tx_unacked(&tx) == 10);
    CHECK(stream_tx_ack(&tx, 111, true, now) == 0 && stream_tx_ack(&tx, 99, true, now) == 0);
    CHECK(tx.acked == 100 && tx.cursor == 106);
    CHECK(stream_tx_ack(&tx, 103, false, now) == 3 && tx.cursor == 106);
    CHECK(stream_tx_ack(&tx, 102, true, now) == 0 && tx.cursor == 106); /* an old one, late */
    /* Go back once per gap: the answers to frames already under way ask again and again. */
    CHECK(stream_tx_ack(&tx, 103, true, now) == 0 && tx.cursor == 104 && tx.resent == 2);
    tx.cursor = 111;
    CHECK(stream_tx_ack(&tx, 103, true, now + 100) == 0 && tx.cursor == 111);
    CHECK(stream_tx_ack(&tx, 105, true, now + 200) == 2 && tx.cursor == 106);
    tx.cursor = 111;
    CHECK(stream_tx_ack(&tx, 105, true, now + 2 * STREAM_PROBE_NS) == 0 && tx.cursor == 106);
    /* Arrived although it was about to be sent again. */
    CHECK(stream_tx_ack(&tx, 110, false, now) == 5 && tx.cursor == 111);
    CHECK(stream_tx_unacked(&tx) == 0);
    struct stream_rx rx = {.gaps = 3, .duplicates = 4};
    stream_rx_reset(&rx, 50);
    CHECK(rx.expected == 50 && rx.gaps == 3 && rx.duplicates == 4);
    CHECK(!stream_rx_ack_due(&rx, 49, true));
    CHECK(stream_rx_frame(&rx, 50) == STREAM_TAKE);
    CHECK(!stream_rx_ack_due(&rx, 50, false) && stream_rx_ack_due(&rx, 50, true));
    CHECK(!stream_rx_ack_due(&rx, 49, true)); /* taken, not settled */
    CHECK(stream_rx_frame(&rx, 52) == STREAM_GAP && rx.gap && stream_rx_ack_due(&rx, 49, false));
    CHECK(stream_rx_frame(&rx, 50) == STREAM_DUPLICATE && rx.expected == 51);
    CHECK(stream_rx_frame(&rx, 51) == STREAM_TAKE && !rx.gap);
    stream_rx_probe(&rx, 51);
    CHECK(!rx.gap && rx.ack_now);
    stream_rx_probe(&rx, 52);
    CHECK(rx.gap);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv), until = 0;
    test_acknowledgements();
    test_good_link(seed);
    test_lost_last_frame(seed);
    test_probes_back_off(seed);
    while (time_left(&until, 1.5))
        test_bad_links(seed_next(&seed));
    return 0;
}

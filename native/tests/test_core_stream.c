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
    struct stream_report report;
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
    uint64_t number[STREAM_EARLY]; /* what the receiver keeps, by slot */
    bool restarts;                 /* the receiver dies now and then */
    uint64_t settled;              /* what it would come back with */
    uint64_t most;                 /* frames ever taken */
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
        uint64_t freed = stream_tx_settle(&e->tx, frame.seq, e->now_ns);
        stream_tx_report(&e->tx, &frame.report, e->now_ns);
        CHECK(e->tx.acked == acked + freed && e->tx.acked < e->tx.cursor);
        e->freed += freed;
    }
    while (burst-- && e->tx.next <= e->total && stream_tx_unacked(&e->tx) < e->window)
        e->tx.next++;
    uint64_t first, count;
    for (uint64_t room = 8; room && (count = stream_tx_run(&e->tx, room, &first)); room -= count) {
        CHECK(count <= room && first > e->tx.acked && first + count <= e->tx.next);
        for (uint64_t seq = first; seq < first + count; seq++)
            put(&e->there, e->now_ns, (struct frame){.kind = DATA, .seq = seq});
        stream_tx_sent(&e->tx, first, count);
    }
    if (stream_tx_probe_due(&e->tx, e->now_ns)) {
        e->probes++;
        put(&e->there, e->now_ns, (struct frame){.kind = PROBE, .seq = e->tx.cursor - 1});
    }
}

static void take(struct both_ends *e, uint64_t seq)
{
    CHECK(seq == ++e->delivered); /* in order, once */
    e->most = u64_max(e->most, e->delivered);
}

static void take_early(struct both_ends *e)
{
    uint64_t *number;
    while ((number = stream_rx_early(&e->rx)) != NULL) {
        take(e, *number);
        stream_rx_take_early(&e->rx);
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
    while (stream_rx_early_drop(&e->rx))
        ;
    stream_rx_resume(&e->rx, e->settled + 1);
    e->delivered = e->settled;
}

static void receive_data(struct both_ends *e, uint64_t seq)
{
    uint64_t *slot = &e->number[seq % STREAM_EARLY];
    /* A link may deliver a frame again while the first of its kind is kept: a buffer of its own. */
    uint64_t own = seq;
    switch (stream_rx_frame(&e->rx, seq, e->rx.early[seq % STREAM_EARLY] ? &own : slot)) {
    case STREAM_TAKE:
        take(e, seq);
        break;
    case STREAM_KEPT:
        CHECK(seq > e->delivered + 1 && seq <= e->delivered + STREAM_EARLY);
        *slot = seq;
        break;
    case STREAM_DUPLICATE:
        CHECK(seq <= e->delivered || *slot == seq);
        break;
    case STREAM_GAP:
        CHECK(seq > e->delivered + STREAM_EARLY);
    }
}

static void run_receiver(struct both_ends *e)
{
    struct frame frame;
    bool idle = true;
    take_early(e);
    while (get(&e->there, e->now_ns, &frame)) {
        idle = false;
        CHECK(frame.seq < e->tx.next);
        if (frame.kind == PROBE)
            stream_rx_probe(&e->rx, frame.seq);
        else
            receive_data(e, frame.seq);
    }
    if (e->restarts && seed_below(&e->there.seed, 400) == 0)
        restart_receiver(e);
    uint64_t upto = stream_rx_taken(&e->rx) - unsettled(e);
    if (stream_rx_ack_due(&e->rx, upto, idle)) {
        struct frame ack = {.kind = ACK, .seq = upto};
        stream_rx_report(&e->rx, &ack.report);
        put(&e->back, e->now_ns, ack);
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

static void test_settling(void)
{
    struct stream_tx tx;
    uint64_t now = 1000000000;
    stream_tx_reset(&tx, 101, now);
    CHECK(!stream_tx_probe_due(&tx, now + 10 * STREAM_PROBE_NS));
    tx.next = 111; /* 101..110, of which 106..110 wait for the link */
    tx.cursor = 106;
    CHECK(stream_tx_unacked(&tx) == 10);
    CHECK(stream_tx_settle(&tx, 111, now) == 0 && stream_tx_settle(&tx, 99, now) == 0);
    CHECK(tx.acked == 100 && tx.cursor == 106);
    CHECK(stream_tx_settle(&tx, 103, now) == 3 && tx.cursor == 106);
    CHECK(stream_tx_settle(&tx, 102, now) == 0 && tx.acked == 103); /* an old one, late */
    /* Arrived although it was about to be sent again. */
    CHECK(stream_tx_settle(&tx, 110, now) == 7 && tx.cursor == 111);
    CHECK(stream_tx_unacked(&tx) == 0);
}

/* Which frames go again, and when once more. */
/* No more under way than the window lets, however much waits; what arrives opens it. */
static void test_window(void)
{
    struct stream_report report = {.have = 2, .seen = 2};
    struct stream_tx tx;
    uint64_t first;
    stream_tx_reset(&tx, 1, 0);
    tx.next = 21;
    CHECK(stream_tx_run(&tx, 100, &first) == 20 && stream_tx_open(&tx, 20));
    tx.window = 4;
    CHECK(stream_tx_run(&tx, 3, &first) == 3 && stream_tx_run(&tx, 100, &first) == 4);
    CHECK(first == 1 && stream_tx_open(&tx, 4) && !stream_tx_open(&tx, 5));
    stream_tx_sent(&tx, 1, 4);
    CHECK(stream_tx_run(&tx, 100, &first) == 0);
    stream_tx_report(&tx, &report, 1);
    CHECK(stream_tx_run(&tx, 100, &first) == 2 && first == 5);
    stream_tx_sent(&tx, 5, 2);
    CHECK(stream_tx_settle(&tx, 5, 2) == 5); /* a commit may know more than the last report */
    CHECK(stream_tx_run(&tx, 100, &first) == 3 && first == 7 && !stream_tx_open(&tx, 10));
    /* What is missing is sent again, window or not. */
    report = (struct stream_report){.have = 5, .seen = 6, .missing = {1}};
    stream_tx_sent(&tx, 7, 3);
    stream_tx_report(&tx, &report, 3 + STREAM_PROBE_NS);
    CHECK(stream_tx_run(&tx, 100, &first) == 1 && first == 6);
}

static void test_again(void)
{
    struct stream_tx tx;
    struct stream_report report = {.have = 2, .seen = 8, .missing = {1u | 1u << 1 | 1u << 3}};
    uint64_t now = 1000000000, first;
    stream_tx_reset(&tx, 1, now);
    tx.next = tx.cursor = 11; /* 3, 4 and 6 are missing, 9 and 10 under way */
    stream_tx_report(&tx, &report, now);
    CHECK(stream_tx_run(&tx, 32, &first) == 2 && first == 3);
    stream_tx_sent(&tx, first, 1);
    CHECK(stream_tx_run(&tx, 32, &first) == 1 && first == 4);
    stream_tx_sent(&tx, first, 1);
    CHECK(stream_tx_run(&tx, 32, &first) == 1 && first == 6);
    CHECK(stream_tx_settle(&tx, 6, now) == 6); /* meanwhile it has come */
    CHECK(stream_tx_run(&tx, 32, &first) == 0 && tx.resent == 2 && tx.cursor == 11);
    /* The same report again, of frames that were already under way: nothing is sent twice ... */
    stream_tx_reset(&tx, 1, now);
    tx.next = tx.cursor = 11;
    for (int time = 0; time < 2; time++) {
        report.seen += time;
        stream_tx_report(&tx, &report, now);
        while (stream_tx_run(&tx, 32, &first))
            stream_tx_sent(&tx, first, 1);
        CHECK(tx.resent == 3);
    }
    /* ... unless a frame that was sent later has arrived, or much time has passed. */
    tx.next = tx.cursor = 12;
    report.seen = 11;
    stream_tx_report(&tx, &report, now + 1);
    while (stream_tx_run(&tx, 32, &first))
        stream_tx_sent(&tx, first, 1);
    CHECK(tx.resent == 6);
    stream_tx_report(&tx, &report, now + 2 + STREAM_PROBE_NS);
    CHECK(stream_tx_run(&tx, 32, &first) == 2 && first == 3);
}

/* Frames beyond the window are gone: back to them, once. */
static void test_beyond(void)
{
    struct stream_tx tx;
    struct stream_report report = {.have = 5, .seen = 5, .beyond = 1};
    uint64_t now = 1000000000, first;
    stream_tx_reset(&tx, 1, now);
    tx.next = tx.cursor = 1001;
    stream_tx_report(&tx, &report, now);
    CHECK(tx.cursor == 6 && stream_tx_run(&tx, 32, &first) == 32 && first == 6);
    stream_tx_sent(&tx, first, 32);
    stream_tx_report(&tx, &report, now + 1);
    CHECK(tx.cursor == 38);
    stream_tx_report(&tx, &report, now + 2 * STREAM_PROBE_NS);
    CHECK(tx.cursor == 6);
}

/* Any report is safe: nothing settled and nothing that was never sent is sent. */
static void test_nonsense_reports(uint64_t seed)
{
    struct stream_tx tx;
    stream_tx_reset(&tx, 1 + seed_below(&seed, 1000), 0);
    for (unsigned i = 0; i < 20000; i++) {
        struct stream_report report = {.have = tx.acked + seed_below(&seed, 400) - 50,
                                       .beyond = seed_below(&seed, 2)};
        report.seen = report.have + seed_below(&seed, 300) - 20;
        for (unsigned word = 0; word < STREAM_EARLY_WORDS; word++)
            report.missing[word] = seed_next(&seed);
        if (seed_below(&seed, 10) == 0)
            report.have = seed_next(&seed);
        if (seed_below(&seed, 10) == 0)
            report.seen = seed_next(&seed);
        tx.next += seed_below(&seed, 40);
        stream_tx_settle(&tx, tx.acked + seed_below(&seed, 30), i * 1000ull);
        stream_tx_report(&tx, &report, i * 1000ull);
        uint64_t first, count = stream_tx_run(&tx, 32, &first);
        CHECK(count <= 32 && (!count || (first > tx.acked && first + count <= tx.next)));
        stream_tx_sent(&tx, first, seed_below(&seed, count + 1));
        CHECK(tx.acked < tx.cursor && tx.cursor <= tx.next);
    }
}

static void test_receiving(void)
{
    struct stream_rx rx = {.gaps = 3, .duplicates = 4};
    struct stream_report report;
    int frame[8];
    stream_rx_reset(&rx, 50);
    CHECK(rx.expected == 50 && rx.gaps == 3 && rx.duplicates == 4);
    CHECK(!stream_rx_ack_due(&rx, 49, true));
    CHECK(stream_rx_frame(&rx, 50, &frame[0]) == STREAM_TAKE && !stream_rx_early(&rx));
    CHECK(!stream_rx_ack_due(&rx, 50, false) && stream_rx_ack_due(&rx, 50, true));
    CHECK(!stream_rx_ack_due(&rx, 49, true)); /* taken, not settled */
    CHECK(stream_rx_frame(&rx, 52, &frame[2]) == STREAM_KEPT && stream_rx_ack_due(&rx, 49, false));
    CHECK(stream_rx_frame(&rx, 52, &frame[3]) == STREAM_DUPLICATE && !stream_rx_early(&rx));
    CHECK(stream_rx_frame(&rx, 54, &frame[4]) == STREAM_KEPT);
    stream_rx_report(&rx, &report);
    CHECK(report.have == 50 && report.seen == 54 && report.missing[0] == 5 && !report.beyond);
    CHECK(stream_rx_frame(&rx, 50, &frame[0]) == STREAM_DUPLICATE && rx.expected == 51);
    CHECK(stream_rx_frame(&rx, 51, &frame[1]) == STREAM_TAKE);
    CHECK(stream_rx_frame(&rx, 52, &frame[5]) == STREAM_DUPLICATE); /* it is kept already */
    CHECK(stream_rx_early(&rx) == &frame[2]);
    stream_rx_take_early(&rx);
    CHECK(!stream_rx_early(&rx) && rx.expected == 53);
    CHECK(stream_rx_frame(&rx, 53 + STREAM_EARLY, &frame[6]) == STREAM_GAP);
    CHECK(stream_rx_frame(&rx, 52 + STREAM_EARLY, &frame[7]) == STREAM_KEPT);
    stream_rx_probe(&rx, 1000);
    stream_rx_report(&rx, &report);
    CHECK(report.have == 52 && report.seen == 52 + STREAM_EARLY && report.beyond);
    CHECK(report.missing[0] == ~2ull && report.missing[STREAM_EARLY_WORDS - 1] == ~0ull >> 1);
    CHECK(rx.asked == 2);
    unsigned kept = 0;
    while (stream_rx_early_drop(&rx))
        kept++;
    CHECK(kept == 2);
    stream_rx_reset(&rx, 7);
    stream_rx_probe(&rx, 6);
    stream_rx_report(&rx, &report);
    CHECK(report.seen == 6 && rx.ack_now);
    stream_rx_probe(&rx, 7);
    stream_rx_report(&rx, &report);
    CHECK(report.seen == 7 && report.missing[0] == 1);
}

/* Being told again and again what is known is no answer: an input logger hears of every commit,
 * perhaps more often than a probe takes to fall due, while its last frame is lost. */
static void test_settled_again(void)
{
    struct stream_tx tx;
    stream_tx_reset(&tx, 1, 0);
    tx.next = tx.cursor = 4;
    CHECK(stream_tx_settle(&tx, 2, 10) == 2);
    unsigned probes = 0;
    for (uint64_t now = 0; now < 4 * STREAM_PROBE_NS; now += STREAM_PROBE_NS / 4) {
        CHECK(stream_tx_settle(&tx, 2, 10 + now) == 0);
        probes += stream_tx_probe_due(&tx, 10 + now);
    }
    CHECK(probes == 2);
    /* An answer to a probe is one, also if nothing new is settled. */
    const struct stream_report report = {.have = 2, .seen = 2};
    stream_tx_report(&tx, &report, 10 * STREAM_PROBE_NS);
    CHECK(!stream_tx_probe_due(&tx, 10 * STREAM_PROBE_NS + STREAM_PROBE_NS / 2));
    CHECK(stream_tx_probe_due(&tx, 11 * STREAM_PROBE_NS));
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv), until = 0;
    test_settling();
    test_settled_again();
    test_window();
    test_again();
    test_beyond();
    test_receiving();
    test_nonsense_reports(seed);
    test_good_link(seed);
    test_lost_last_frame(seed);
    test_probes_back_off(seed);
    while (time_left(&until, 1.5))
        test_bad_links(seed_next(&seed));
    return 0;
}

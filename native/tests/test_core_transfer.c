/* Transfers over a channel that loses, repeats, reorders and breaks: what arrives is what was sent,
 * once and in order, and it always arrives. */
#include "core/transfer.h"

#include <string.h>

#include "tests/core_test.h"

#define IN_FLIGHT 256u
#define MAX_TOTAL 20000u

struct message {
    bool ack;
    uint32_t view;
    uint64_t epoch;
    uint64_t total;
    struct transfer_piece piece;
    uint64_t have;
    bool resend;
    uint64_t due_ns;
};

struct world {
    uint64_t seed;
    uint64_t now_ns;
    unsigned loss; /* of 100; likewise the others */
    unsigned repeat;
    unsigned delay;
    struct message flying[IN_FLIGHT];
    unsigned count;
    uint32_t view;
    uint64_t epoch;
    struct transfer_tx tx;
    struct transfer_rx rx;
    uint8_t sent[MAX_TOTAL];
    uint8_t got[MAX_TOTAL];
    uint64_t taken;
};

static void post(struct world *w, struct message message)
{
    unsigned copies = 1 + (seed_below(&w->seed, 100) < w->repeat);
    for (unsigned i = 0; i < copies; i++) {
        if (seed_below(&w->seed, 100) < w->loss || w->count == IN_FLIGHT)
            continue;
        bool late = seed_below(&w->seed, 100) < w->delay;
        message.due_ns = w->now_ns + (late ? seed_below(&w->seed, 5000000) : 0);
        w->flying[w->count++] = message;
    }
}

static void post_piece(struct world *w, struct transfer_piece piece)
{
    CHECK(piece.length && piece.offset + piece.length <= w->tx.total);
    post(w, (struct message){
                .view = w->view, .epoch = w->epoch, .total = w->tx.total, .piece = piece});
}

static void post_ack(struct world *w)
{
    post(w, (struct message){.ack = true,
                             .view = w->rx.view,
                             .epoch = w->rx.epoch,
                             .have = w->rx.have,
                             .resend = w->rx.gap});
    transfer_rx_acked(&w->rx);
}

static void deliver(struct world *w, const struct message *message)
{
    if (message->ack) {
        if (message->view == w->view && message->epoch == w->epoch)
            transfer_tx_ack(&w->tx, message->have, message->resend, w->now_ns);
        return;
    }
    bool anew = transfer_rx_newer(&w->rx, message->view, message->epoch);
    enum transfer_verdict verdict =
        transfer_rx_take(&w->rx, message->view, message->epoch, message->total, message->piece);
    CHECK(verdict != TRANSFER_BAD);
    if (anew)
        w->taken = 0;
    if (verdict == TRANSFER_TAKE) {
        CHECK(message->piece.offset == w->taken);
        w->taken += message->piece.length;
        CHECK(w->taken == w->rx.have);
        /* What still comes of one that was given up has no bytes any more. */
        if (message->view == w->view && message->epoch == w->epoch)
            memcpy(w->got + message->piece.offset, w->sent + message->piece.offset,
                   message->piece.length);
    }
    if (transfer_rx_ack_due(&w->rx, w->count == 0))
        post_ack(w);
}

/* The first message that is due; they are kept in the order of posting. */
static bool deliver_one(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        if (w->flying[i].due_ns > w->now_ns)
            continue;
        struct message message = w->flying[i];
        memmove(w->flying + i, w->flying + i + 1, (w->count - i - 1) * sizeof(message));
        w->count--;
        deliver(w, &message);
        return true;
    }
    return false;
}

static void begin(struct world *w)
{
    uint64_t total = 1 + seed_below(&w->seed, MAX_TOTAL);
    if (seed_below(&w->seed, 5) == 0) {
        w->view++;
        w->epoch = 0;
    }
    w->epoch += 1 + seed_below(&w->seed, 3);
    seed_fill(&w->seed, w->sent, total);
    memset(w->got, 0, total);
    transfer_tx_begin(&w->tx, total, 1 + seed_below(&w->seed, 700), w->now_ns);
}

/* Some steps of one transfer; `until_done`: as many as it takes, within simulated seconds. */
static void run(struct world *w, bool until_done)
{
    uint64_t limit = w->now_ns + (until_done ? 60000000000ull : seed_below(&w->seed, 20000000));
    while (!transfer_tx_done(&w->tx) && w->now_ns < limit) {
        struct transfer_piece piece;
        for (unsigned i = (unsigned)seed_below(&w->seed, 9); i; i--) {
            if (transfer_tx_next(&w->tx, &piece))
                post_piece(w, piece);
        }
        CHECK(w->tx.cursor - w->tx.acked <= TRANSFER_WINDOW + 1);
        if (transfer_tx_repeat(&w->tx, w->now_ns, &piece))
            post_piece(w, piece);
        for (unsigned i = (unsigned)seed_below(&w->seed, 9); i; i--)
            deliver_one(w);
        if (w->rx.epoch && w->count == 0 && transfer_rx_ack_due(&w->rx, true))
            post_ack(w);
        if (seed_below(&w->seed, 2000) == 0) { /* the connection ends and is made anew */
            w->count = 0;
            transfer_tx_reconnect(&w->tx, w->now_ns);
        }
        w->now_ns += seed_below(&w->seed, 200000);
    }
    if (!until_done)
        return;
    CHECK(transfer_tx_done(&w->tx) && transfer_rx_whole(&w->rx));
    CHECK(w->rx.view == w->view && w->rx.epoch == w->epoch && w->taken == w->tx.total);
    CHECK(memcmp(w->sent, w->got, w->tx.total) == 0);
}

static void test_lossy(uint64_t seed)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    w.seed = seed;
    w.view = 1;
    w.loss = (unsigned)seed_below(&w.seed, 51);
    w.repeat = (unsigned)seed_below(&w.seed, 51);
    w.delay = (unsigned)seed_below(&w.seed, 51);
    for (unsigned i = 0; i < 12; i++) {
        begin(&w);
        run(&w, seed_below(&w.seed, 4) != 0); /* some are given up for the next */
    }
    begin(&w);
    run(&w, true);
}

/* Without faults nothing is sent twice. */
static void test_clean(void)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    w.view = 1;
    w.epoch = 4;
    transfer_tx_begin(&w.tx, 10001, 100, 0);
    unsigned pieces = 0;
    struct transfer_piece piece;
    while (!transfer_tx_done(&w.tx)) {
        while (transfer_tx_next(&w.tx, &piece)) {
            post_piece(&w, piece);
            pieces++;
        }
        while (deliver_one(&w))
            ;
    }
    CHECK(pieces == 101 && w.rx.duplicates == 0 && w.rx.gaps == 0 && w.taken == 10001);
    CHECK(w.tx.resent == 0);
    CHECK(!transfer_tx_repeat(&w.tx, 1000000000, &piece));
}

/* A lost last piece is seen by its repetition alone. */
static void test_last_lost(void)
{
    struct transfer_tx tx = {0};
    struct transfer_rx rx = {0};
    struct transfer_piece piece;
    transfer_tx_begin(&tx, 250, 100, 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(transfer_tx_next(&tx, &piece));
        if (i < 2)
            CHECK(transfer_rx_take(&rx, 1, 1, 250, piece) == TRANSFER_TAKE);
    }
    CHECK(!transfer_tx_next(&tx, &piece));
    CHECK(!transfer_tx_repeat(&tx, TRANSFER_REPEAT_NS - 1, &piece));
    CHECK(transfer_tx_repeat(&tx, TRANSFER_REPEAT_NS, &piece));
    CHECK(!transfer_tx_repeat(&tx, 3 * TRANSFER_REPEAT_NS - 1, &piece));
    CHECK(piece.offset == 200 && piece.length == 50);
    CHECK(transfer_rx_take(&rx, 1, 1, 250, piece) == TRANSFER_TAKE && transfer_rx_whole(&rx));
    CHECK(transfer_rx_ack_due(&rx, false));
    transfer_tx_ack(&tx, rx.have, false, 0);
    CHECK(transfer_tx_done(&tx));
}

static void test_bad(void)
{
    struct transfer_rx rx = {0};
    struct transfer_piece piece = {0, 100};
    CHECK(transfer_rx_take(&rx, 1, 0, 100, piece) == TRANSFER_BAD);
    CHECK(transfer_rx_take(&rx, 1, 1, 99, piece) == TRANSFER_BAD);
    CHECK(transfer_rx_take(&rx, 1, 1, 0, (struct transfer_piece){0, 0}) == TRANSFER_BAD);
    CHECK(transfer_rx_take(&rx, 1, 1, 100, (struct transfer_piece){UINT64_MAX, 2}) == TRANSFER_BAD);
    CHECK(rx.epoch == 0);
    CHECK(transfer_rx_take(&rx, 1, 5, 300, piece) == TRANSFER_TAKE);
    CHECK(transfer_rx_take(&rx, 1, 5, 301, (struct transfer_piece){100, 100}) == TRANSFER_BAD);
    /* Older ones change nothing and are not answered; a newer one begins anew. */
    transfer_rx_acked(&rx);
    CHECK(transfer_rx_take(&rx, 1, 4, 300, (struct transfer_piece){100, 100}) == TRANSFER_IGNORE);
    CHECK(transfer_rx_take(&rx, 0, 9, 300, (struct transfer_piece){100, 100}) == TRANSFER_IGNORE);
    CHECK(!transfer_rx_ack_due(&rx, true) && rx.have == 100);
    CHECK(transfer_rx_take(&rx, 2, 1, 200, (struct transfer_piece){100, 100}) == TRANSFER_IGNORE);
    CHECK(rx.view == 2 && rx.have == 0 && rx.gap && transfer_rx_ack_due(&rx, false));
    /* Acknowledgements of what was never sent, or of half a piece. */
    struct transfer_tx tx = {0};
    transfer_tx_begin(&tx, 250, 100, 0);
    CHECK(transfer_tx_next(&tx, &piece) && transfer_tx_next(&tx, &piece));
    transfer_tx_ack(&tx, 50, false, 0);
    transfer_tx_ack(&tx, 300, false, 0);
    CHECK(tx.acked == 0);
    transfer_tx_ack(&tx, 100, false, 0);
    CHECK(tx.acked == 1);
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    uint64_t until = 0;
    test_clean();
    test_last_lost();
    test_bad();
    for (unsigned i = 0; i < 5 || time_left(&until, 2); i++)
        test_lossy(seed_next(&seed));
    return 0;
}

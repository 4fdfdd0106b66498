/* The state channel between two ends whose messages are lost, repeated, delayed and overtaken on
 * purpose, and whose link is cut for a while: transfers arrive whole and in order. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/transfer.h"
#include "io/clock.h"
#include "roles/messages.h"
#include "roles/state_channel.h"
#include "tests/core_test.h"

#define MOST (40u * 4096)

static uint8_t sent[MOST], got[MOST];
static struct state_channel ends[2]; /* sender's, receiver's */
static struct transfer_tx tx;
static struct transfer_rx rx;

static void connect_ends(uint64_t now)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    state_channel_open(&ends[0], fds[0]);
    state_channel_open(&ends[1], fds[1]);
    transfer_tx_reconnect(&tx, now);
}

static void send_pieces(uint64_t epoch, uint64_t now)
{
    struct transfer_piece piece;
    while (state_channel_ready(&ends[0]) == 1 &&
           (transfer_tx_next(&tx, &piece) || transfer_tx_repeat(&tx, now, &piece))) {
        struct msg_delta head = {
            .view = 1, .epoch = epoch, .offset = piece.offset, .total = tx.total};
        struct iovec body[2] = {{&head, sizeof(head)}, {sent + piece.offset, piece.length}};
        CHECK(state_channel_send(&ends[0], MSG_DELTA, 1, body, 2) == 0);
    }
}

static void take_acks(uint64_t epoch, uint64_t now)
{
    struct control_msg *message;
    while (state_channel_recv(&ends[0], &message) == 1) {
        struct msg_delta_ack ack;
        CHECK(message->type == MSG_DELTA_ACK && message->length == sizeof(ack));
        memcpy(&ack, message->body, sizeof(ack));
        if (ack.epoch == epoch)
            transfer_tx_ack(&tx, ack.have, ack.resend, now);
    }
}

static void take_pieces(void)
{
    struct control_msg *message;
    int result;
    do {
        result = state_channel_recv(&ends[1], &message);
        if (result == 1) {
            struct msg_delta piece;
            CHECK(message->type == MSG_DELTA && message->length > sizeof(piece));
            memcpy(&piece, message->body, sizeof(piece));
            uint64_t length = message->length - sizeof(piece);
            if (transfer_rx_take(&rx, 1, piece.epoch, piece.total,
                                 (struct transfer_piece){piece.offset, length}) == TRANSFER_TAKE)
                memcpy(got + piece.offset, message->body + sizeof(piece), length);
        }
        if (transfer_rx_ack_due(&rx, result == 0) && state_channel_ready(&ends[1]) == 1) {
            struct msg_delta_ack ack = {
                .view = 1, .resend = rx.gap, .epoch = rx.epoch, .have = rx.have};
            struct iovec body = {&ack, sizeof(ack)};
            transfer_rx_acked(&rx);
            CHECK(state_channel_send(&ends[1], MSG_DELTA_ACK, 1, &body, 1) == 0);
        }
    } while (result == 1);
    CHECK(result == 0);
}

static void run(uint64_t *seed, uint64_t epoch)
{
    uint64_t total = 1 + seed_below(seed, MOST), start = clock_ns(), now = start;
    bool cut = seed_below(seed, 4) == 0, reconnect = seed_below(seed, 4) == 0;
    seed_fill(seed, sent, total);
    memset(got, 0, total);
    transfer_tx_begin(&tx, total, 4096, now);
    if (cut)
        CHECK(fault_cut("state-1", true));
    while (!transfer_tx_done(&tx)) {
        send_pieces(epoch, now);
        take_pieces();
        take_acks(epoch, now);
        now = clock_ns();
        CHECK(now - start < 20000000000ull);
        if (cut && now - start > 3000000) {
            CHECK(rx.epoch < epoch && tx.acked == 0); /* nothing came through */
            CHECK(fault_cut("state-1", false));
            cut = false;
        }
        if (reconnect && tx.acked) {
            connect_ends(now);
            reconnect = false;
        }
    }
    CHECK(rx.epoch == epoch && transfer_rx_whole(&rx) && rx.total == total);
    CHECK(memcmp(sent, got, total) == 0);
}

static uint64_t counted(const char *name)
{
    json_t *stats = fault_stats();
    CHECK(stats);
    uint64_t sum = 0;
    const char *link;
    json_t *counters;
    json_object_foreach(stats, link, counters) sum +=
        (uint64_t)json_integer_value(json_object_get(counters, name));
    json_decref(stats);
    return sum;
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    struct fault_rates rates = {
        .drop = 0.2, .repeat = 0.2, .reorder = 0.2, .delay = 0.1, .delay_us = 300};
    signal(SIGPIPE, SIG_IGN);
    fault_configure(seed_next(&seed), "state", &rates);
    for (unsigned end = 0; end < 2; end++)
        state_channel_init(&ends[end], fault_link("state-1", end));
    connect_ends(clock_ns());
    for (uint64_t epoch = 1; epoch <= 60; epoch++)
        run(&seed, epoch);
    CHECK(counted("fault_dropped") && counted("fault_repeated") && counted("fault_reordered"));
    CHECK(counted("fault_delayed"));
    for (unsigned end = 0; end < 2; end++)
        state_channel_close(&ends[end]);
    return 0;
}

/* Pieces of a transfer in any order and with any numbers: what is taken is the next, inside, and of
 * one transfer; and whatever acknowledgement comes back, the sender stays inside what it has. */
#include "core/transfer.h"
#include "fuzz/input.h"

#define TOTAL 1000u

static uint64_t small(struct input *input)
{
    uint64_t value = input_u16(input);
    return value < 0xff00 ? value % (TOTAL + 8) : UINT64_MAX - (value & 0xff);
}

static void arrive(struct transfer_rx *rx, struct input *input)
{
    uint32_t view = input_u8(input) % 3;
    uint64_t epoch = input_u8(input) % 4;
    uint64_t total = input_u8(input) % 4 ? TOTAL : small(input);
    struct transfer_piece piece = {small(input), small(input)};
    uint64_t have = rx->have;
    bool newer = transfer_rx_newer(rx, view, epoch);
    if (transfer_rx_take(rx, view, epoch, total, piece) == TRANSFER_TAKE) {
        HOLDS(piece.offset == (newer ? 0 : have) && rx->view == view && rx->epoch == epoch);
        HOLDS(rx->have == piece.offset + piece.length && rx->have <= rx->total);
    }
    HOLDS(rx->have <= rx->total);
    if (transfer_rx_ack_due(rx, input_u8(input) & 1))
        transfer_rx_acked(rx);
}

static void send(struct transfer_tx *tx, struct input *input, uint64_t *now)
{
    struct transfer_piece piece = {0, 1};
    uint8_t what = input_u8(input);
    *now += what * 100000u;
    if (what % 4 == 0)
        transfer_tx_ack(tx, small(input), what & 4, *now);
    else if (what % 4 == 1)
        transfer_tx_reconnect(tx, *now);
    else if (what % 4 == 2)
        transfer_tx_repeat(tx, *now, &piece);
    else
        transfer_tx_next(tx, &piece);
    HOLDS(piece.length > 0 && piece.offset + piece.length <= tx->total);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    struct transfer_rx rx = {0};
    struct transfer_tx tx = {0};
    uint64_t now = 1;
    transfer_tx_begin(&tx, TOTAL, 1 + input_u8(&input), now);
    while (input.left) {
        if (input_u8(&input) & 1)
            arrive(&rx, &input);
        else
            send(&tx, &input, &now);
    }
    return 0;
}

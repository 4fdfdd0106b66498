/* A run of bytes sent in pieces over a channel of messages that may lose, repeat and reorder them.
 *
 * Pieces are numbered: number n holds the bytes from (n - 1) * piece on. The receiver takes them in
 * order; it acknowledges how many bytes it has without a gap, and asks to go on from there when it
 * sees one. (It keeps nothing beyond a gap: a piece is large and a loss is rare.) While anything is
 * unacknowledged the sender repeats its last piece, since a lost last one leaves no gap to see. A
 * transfer is named by (view, epoch); the receiver begins anew with any that is newer than the one
 * it knows, and ignores older ones. */
#ifndef FTMB_CORE_TRANSFER_H
#define FTMB_CORE_TRANSFER_H

#include "core/base.h"

#define TRANSFER_REPEAT_NS 1000000ull      /* silence after which the last piece is repeated */
#define TRANSFER_REPEAT_MAX_NS 64000000ull /* ... doubling up to this */
#define TRANSFER_WINDOW 64u /* pieces that may be unacknowledged, and are sent again at a gap */
#define TRANSFER_ACK_EVERY 8u

struct transfer_piece {
    uint64_t offset;
    uint64_t length;
};

/* acked < cursor <= sent <= next. */
struct transfer_tx {
    uint64_t total;
    uint64_t piece;
    uint64_t next;   /* behind the last piece */
    uint64_t cursor; /* the next piece to hand to the channel */
    uint64_t sent;   /* behind the last piece that was ever handed over */
    uint64_t acked;
    uint64_t heard_ns;
    uint64_t repeat_ns;
    uint64_t went_back; /* `acked` at which we last went back, to do it once per gap */
    uint64_t went_back_ns;
    uint64_t resent;
};

static inline void transfer_tx_begin(struct transfer_tx *tx, uint64_t total, uint64_t piece,
                                     uint64_t now_ns)
{
    FTMB_ASSERT(total && piece);
    *tx = (struct transfer_tx){.total = total,
                               .piece = piece,
                               .next = 1 + (total + piece - 1) / piece,
                               .cursor = 1,
                               .sent = 1,
                               .heard_ns = now_ns,
                               .repeat_ns = TRANSFER_REPEAT_NS,
                               .went_back = UINT64_MAX,
                               .resent = tx->resent};
}

static inline struct transfer_piece transfer_tx_piece(const struct transfer_tx *tx, uint64_t number)
{
    uint64_t offset = (number - 1) * tx->piece;
    return (struct transfer_piece){offset, u64_min(tx->piece, tx->total - offset)};
}

static inline bool transfer_tx_done(const struct transfer_tx *tx)
{
    return tx->acked + 1 == tx->next;
}

/* Is there a piece to hand to the channel now, and which? */
static inline bool transfer_tx_next(struct transfer_tx *tx, struct transfer_piece *piece)
{
    if (tx->cursor >= tx->next || tx->cursor - 1 - tx->acked >= TRANSFER_WINDOW)
        return false;
    *piece = transfer_tx_piece(tx, tx->cursor++);
    tx->sent = u64_max(tx->sent, tx->cursor);
    return true;
}

/* Is it time to repeat the last piece that was sent? At most once per (doubling) interval. */
static inline bool transfer_tx_repeat(struct transfer_tx *tx, uint64_t now_ns,
                                      struct transfer_piece *piece)
{
    if (tx->cursor == tx->acked + 1 || now_ns - tx->heard_ns < tx->repeat_ns)
        return false;
    tx->heard_ns = now_ns;
    tx->repeat_ns = u64_min(2 * tx->repeat_ns, TRANSFER_REPEAT_MAX_NS);
    *piece = transfer_tx_piece(tx, tx->cursor - 1);
    return true;
}

/* `have` bytes have arrived. What no receiver of these pieces can say is ignored. */
static inline void transfer_tx_ack(struct transfer_tx *tx, uint64_t have, bool resend,
                                   uint64_t now_ns)
{
    if (have > tx->total || (have < tx->total && have % tx->piece))
        return;
    uint64_t number = have == tx->total ? tx->next - 1 : have / tx->piece;
    if (number >= tx->sent || number < tx->acked)
        return;
    tx->acked = number;
    tx->cursor = u64_max(tx->cursor, number + 1);
    tx->heard_ns = now_ns;
    tx->repeat_ns = TRANSFER_REPEAT_NS;
    bool again = tx->went_back != number || now_ns - tx->went_back_ns > TRANSFER_REPEAT_NS;
    if (!resend || !again || tx->cursor == number + 1)
        return;
    tx->resent += tx->cursor - (number + 1);
    tx->cursor = number + 1;
    tx->went_back = number;
    tx->went_back_ns = now_ns;
}

/* The channel was made anew: what was on its way is gone. */
static inline void transfer_tx_reconnect(struct transfer_tx *tx, uint64_t now_ns)
{
    tx->cursor = tx->acked + 1;
    tx->heard_ns = now_ns;
    tx->repeat_ns = TRANSFER_REPEAT_NS;
}

enum transfer_verdict {
    TRANSFER_TAKE,   /* these bytes are the next */
    TRANSFER_IGNORE, /* repeated, beyond a gap, or of an older transfer */
    TRANSFER_BAD,    /* contradicts itself or what was said before */
};

struct transfer_rx {
    uint32_t view; /* name of the transfer; epoch 0: none yet */
    uint64_t epoch;
    uint64_t total;
    uint64_t have;    /* bytes, without a gap */
    uint32_t unacked; /* pieces taken since the last acknowledgement */
    bool ack_now;
    bool gap; /* the acknowledgement asks to go on from `have` */
    uint64_t gaps;
    uint64_t duplicates;
};

static inline bool transfer_rx_whole(const struct transfer_rx *rx)
{
    return rx->total && rx->have == rx->total;
}

static inline bool transfer_rx_newer(const struct transfer_rx *rx, uint32_t view, uint64_t epoch)
{
    return view != rx->view ? view > rx->view : epoch > rx->epoch;
}

static inline void transfer_rx_begin(struct transfer_rx *rx, uint32_t view, uint64_t epoch,
                                     uint64_t total)
{
    *rx = (struct transfer_rx){.view = view,
                               .epoch = epoch,
                               .total = total,
                               .gaps = rx->gaps,
                               .duplicates = rx->duplicates};
}

/* A piece has come. With TAKE its bytes belong at its offset; the caller stores them. */
static inline enum transfer_verdict transfer_rx_take(struct transfer_rx *rx, uint32_t view,
                                                     uint64_t epoch, uint64_t total,
                                                     struct transfer_piece piece)
{
    if (!epoch || !piece.length || piece.offset > total || piece.length > total - piece.offset)
        return TRANSFER_BAD;
    if (transfer_rx_newer(rx, view, epoch))
        transfer_rx_begin(rx, view, epoch, total);
    bool same = view == rx->view && epoch == rx->epoch;
    if (same && total != rx->total)
        return TRANSFER_BAD;
    if (!same || piece.offset < rx->have) {
        rx->duplicates++;
        rx->ack_now |= same;
        return TRANSFER_IGNORE;
    }
    if (piece.offset > rx->have) {
        rx->gaps++;
        rx->gap = true;
        rx->ack_now = true;
        return TRANSFER_IGNORE;
    }
    rx->have += piece.length;
    rx->gap = false;
    rx->unacked++;
    return TRANSFER_TAKE;
}

/* Should an acknowledgement go out now? `idle`: no piece is waiting to be taken. */
static inline bool transfer_rx_ack_due(const struct transfer_rx *rx, bool idle)
{
    return rx->ack_now || rx->unacked >= TRANSFER_ACK_EVERY ||
           (rx->unacked && (idle || transfer_rx_whole(rx)));
}

static inline void transfer_rx_acked(struct transfer_rx *rx)
{
    rx->unacked = 0;
    rx->ack_now = false;
}

#endif

/* A numbered stream over a link that may lose, repeat and reorder.
 *
 * The sender keeps every frame until it is acknowledged. Acknowledgements are cumulative. The
 * receiver takes frames in order only: one that lies beyond a gap is dropped and answered with an
 * acknowledgement that asks for a resend, and the sender goes back (links between roles are
 * reliable nearly always, so a reorder buffer would be paid for by all and used by none). A lost
 * last frame leaves no gap to see, so a sender with anything unacknowledged repeats its highest
 * number (PROBE) until it is answered. */
#ifndef FTMB_CORE_STREAM_H
#define FTMB_CORE_STREAM_H

#include "core/base.h"
#include "core/plant.h"

#define STREAM_PROBE_NS 1000000ull      /* silence after which the highest number is repeated */
#define STREAM_PROBE_MAX_NS 64000000ull /* ... doubling up to this */
#define STREAM_ACK_EVERY 64u            /* frames */

/* Sender. Numbers count from 1; acked < cursor <= next. */
struct stream_tx {
    uint64_t next;   /* number of the next new frame */
    uint64_t acked;  /* everything up to here has arrived */
    uint64_t cursor; /* next number to hand to the link; < next: frames wait or are sent again */
    uint64_t heard_ns;
    uint64_t probe_ns;
    uint64_t went_back; /* `acked` at which we last went back, to do it once per gap */
    uint64_t went_back_ns;
    uint64_t resent;
};

static inline void stream_tx_reset(struct stream_tx *tx, uint64_t first, uint64_t now_ns)
{
    *tx = (struct stream_tx){.next = first,
                             .acked = first - 1,
                             .cursor = first,
                             .heard_ns = now_ns,
                             .probe_ns = STREAM_PROBE_NS};
}

static inline uint64_t stream_tx_unacked(const struct stream_tx *tx)
{
    return tx->next - 1 - tx->acked;
}

/* An acknowledgement came in. Returns how many more frames, after the old `acked`, are free. An
 * acknowledgement of something never sent is ignored (0). */
static inline uint64_t stream_tx_ack(struct stream_tx *tx, uint64_t seq, bool resend,
                                     uint64_t now_ns)
{
    if (seq >= tx->next || seq < tx->acked)
        return 0;
    uint64_t freed = seq - tx->acked;
    tx->acked = seq;
    tx->heard_ns = now_ns;
    tx->probe_ns = STREAM_PROBE_NS;
    if (tx->cursor <= seq)
        tx->cursor = seq + 1;
    bool again = tx->went_back != seq || now_ns - tx->went_back_ns > STREAM_PROBE_NS;
    if (resend && tx->cursor > seq + 1 && again) {
        tx->resent += tx->cursor - (seq + 1);
        tx->cursor = seq + 1;
        tx->went_back = seq;
        tx->went_back_ns = now_ns;
    }
    return freed;
}

/* Is it time to repeat the highest number? At most once per (doubling) interval. */
static inline bool stream_tx_probe_due(struct stream_tx *tx, uint64_t now_ns)
{
    if (PLANTED(P_NO_PROBE) || tx->acked + 1 >= tx->cursor || now_ns - tx->heard_ns < tx->probe_ns)
        return false;
    tx->heard_ns = now_ns;
    tx->probe_ns = u64_min(2 * tx->probe_ns, STREAM_PROBE_MAX_NS);
    return true;
}

enum stream_verdict { STREAM_TAKE, STREAM_DUPLICATE, STREAM_GAP };

struct stream_rx {
    uint64_t expected; /* number of the next frame to take */
    uint64_t acked;    /* the sender was told that all up to here have come */
    bool ack_now;
    bool gap; /* the acknowledgement asks for a resend */
    uint64_t gaps;
    uint64_t duplicates;
};

static inline void stream_rx_reset(struct stream_rx *rx, uint64_t first)
{
    *rx = (struct stream_rx){
        .expected = first, .acked = first - 1, .gaps = rx->gaps, .duplicates = rx->duplicates};
}

static inline enum stream_verdict stream_rx_frame(struct stream_rx *rx, uint64_t seq)
{
    if (likely(seq == rx->expected)) {
        rx->expected++;
        rx->gap = false;
        return STREAM_TAKE;
    }
    rx->ack_now = true;
    if (PLANTED(P_NO_CONTIGUITY) && seq > rx->expected) {
        rx->expected = seq + 1;
        return STREAM_TAKE;
    }
    if (seq < rx->expected) {
        rx->duplicates++;
        return STREAM_DUPLICATE;
    }
    rx->gaps++;
    rx->gap = true;
    return STREAM_GAP;
}

/* The sender repeated its highest number. */
static inline void stream_rx_probe(struct stream_rx *rx, uint64_t seq)
{
    rx->ack_now = true;
    rx->gap = seq >= rx->expected;
}

/* The last frame that was taken. */
static inline uint64_t stream_rx_taken(const struct stream_rx *rx)
{
    return rx->expected - 1;
}

/* Should the sender be told now that all up to `upto` have come? Not necessarily all that were
 * taken: a receiver that may lose some again does not tell of those. `idle`: nothing came in this
 * round. */
static inline bool stream_rx_ack_due(const struct stream_rx *rx, uint64_t upto, bool idle)
{
    return rx->ack_now || upto - rx->acked >= STREAM_ACK_EVERY || (idle && upto != rx->acked);
}

static inline void stream_rx_acked(struct stream_rx *rx, uint64_t upto)
{
    rx->acked = upto;
    rx->ack_now = false;
}

/* A receiver that was away: take frames from `first` on, and ask for them at once. */
static inline void stream_rx_resume(struct stream_rx *rx, uint64_t first)
{
    stream_rx_reset(rx, first);
    rx->ack_now = rx->gap = true;
}

#endif

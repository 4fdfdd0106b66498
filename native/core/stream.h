/* A numbered stream over a link that may lose, repeat and reorder.
 *
 * The sender keeps every frame until it is settled: cumulatively acknowledged. The receiver takes
 * frames in order; what lies beyond a gap it keeps, a window full, and its acknowledgement says
 * which numbers are missing. The sender sends those again, and goes back only where frames lay
 * beyond the window. A lost last frame leaves no gap to see, so a sender with anything unsettled
 * repeats its highest number (PROBE) until it is answered.
 *
 * On a link that loses nothing all of this is one comparison a frame at either end. */
#ifndef FTMB_CORE_STREAM_H
#define FTMB_CORE_STREAM_H

#include "core/base.h"
#include "core/plant.h"

#define STREAM_PROBE_NS 1000000ull      /* silence after which the highest number is repeated */
#define STREAM_PROBE_MAX_NS 64000000ull /* ... doubling up to this */
#define STREAM_ACK_EVERY 64u            /* frames */
#define STREAM_EARLY 512u /* frames beyond a gap that a receiver keeps: above what a link holds */
#define STREAM_EARLY_WORDS (STREAM_EARLY / 64)

/* What a receiver tells about arrival; part of an acknowledgement on the wire. */
struct stream_report {
    uint64_t have;   /* all up to here have arrived */
    uint64_t seen;   /* the highest number that has arrived or is known of, within the window */
    uint64_t beyond; /* 1: frames beyond the window were dropped */
    uint64_t
        missing[STREAM_EARLY_WORDS]; /* bit i: have + 1 + i has not arrived, and is asked for */
};

/* Sender. Numbers count from 1; acked < cursor <= next. */
struct stream_tx {
    uint64_t next;   /* number of the next new frame */
    uint64_t acked;  /* everything up to here is settled */
    uint64_t cursor; /* next number to hand to the link; < next: frames wait or are sent again */
    uint64_t heard_ns;
    uint64_t probe_ns;
    uint64_t resent;
    /* At most so many frames beyond the last known to have arrived; 0: the link itself holds fewer
     * than the receiver keeps. Set it after a reset. */
    uint64_t window;

    uint32_t again_count; /* frames before `cursor` that are to be sent again */
    uint64_t again_base;
    uint64_t again[STREAM_EARLY_WORDS]; /* bit i: again_base + i */
    uint64_t again_ns;
    uint64_t have;      /* the latest report's */
    uint64_t went_back; /* where the cursor was last set back to, to do it once per gap */
    uint64_t went_back_ns;
    /* By number: what must have been seen since it was last sent again, before it counts as lost
     * once more. */
    uint64_t mark[STREAM_EARLY];
};

static inline void stream_tx_reset(struct stream_tx *tx, uint64_t first, uint64_t now_ns)
{
    *tx = (struct stream_tx){.next = first,
                             .acked = first - 1,
                             .cursor = first,
                             .have = first - 1,
                             .heard_ns = now_ns,
                             .probe_ns = STREAM_PROBE_NS};
}

static inline uint64_t stream_tx_unacked(const struct stream_tx *tx)
{
    return tx->next - 1 - tx->acked;
}

/* Everything up to `seq` is settled. Returns how many more frames, after the old `acked`, are free.
 * Something never sent, or settled before, is ignored (0), and is no sign that the receiver heard
 * anything: an input logger is told by each commit too, however often those come. */
static inline uint64_t stream_tx_settle(struct stream_tx *tx, uint64_t seq, uint64_t now_ns)
{
    if (seq >= tx->next || seq <= tx->acked)
        return 0;
    uint64_t freed = seq - tx->acked;
    tx->acked = seq;
    tx->heard_ns = now_ns;
    tx->probe_ns = STREAM_PROBE_NS;
    if (tx->cursor <= seq)
        tx->cursor = seq + 1;
    return freed;
}

/* A report came in: what is missing is to be sent again. Any bytes are safe. */
void stream_tx_report(struct stream_tx *tx, const struct stream_report *report, uint64_t now_ns);

uint64_t stream_tx_again(struct stream_tx *tx, uint64_t max, uint64_t *first);
void stream_tx_sent_again(struct stream_tx *tx, uint64_t first, uint64_t count);

/* May new frame number `seq` leave, as far as the window goes? */
static inline bool stream_tx_open(const struct stream_tx *tx, uint64_t seq)
{
    return likely(!tx->window) || seq <= u64_max(tx->have, tx->acked) + tx->window;
}

/* New frames that may leave now, `max` at most. */
static inline uint64_t stream_tx_fresh(const struct stream_tx *tx, uint64_t max)
{
    uint64_t count = u64_min(max, tx->next - tx->cursor);
    if (likely(!tx->window))
        return count;
    uint64_t last = u64_max(tx->have, tx->acked) + tx->window;
    return last < tx->cursor ? 0 : u64_min(count, last + 1 - tx->cursor);
}

/* What to send next: `first` and up to `max` that follow; returns how many. */
static inline uint64_t stream_tx_run(struct stream_tx *tx, uint64_t max, uint64_t *first)
{
    if (unlikely(tx->again_count)) {
        uint64_t count = stream_tx_again(tx, max, first);
        if (count)
            return count;
    }
    *first = tx->cursor;
    return stream_tx_fresh(tx, max);
}

/* The link took the first `count` of a run. */
static inline void stream_tx_sent(struct stream_tx *tx, uint64_t first, uint64_t count)
{
    if (likely(first == tx->cursor))
        tx->cursor += count;
    else
        stream_tx_sent_again(tx, first, count);
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

/* KEPT: beyond a gap; it comes back from stream_rx_early() when the gap is closed. GAP: beyond the
 * window, to be dropped. */
enum stream_verdict { STREAM_TAKE, STREAM_KEPT, STREAM_DUPLICATE, STREAM_GAP };

struct stream_rx {
    uint64_t expected; /* number of the next frame to take */
    uint64_t acked;    /* the sender was told that all up to here have come */
    uint32_t early_count;
    bool ack_now;
    bool beyond;
    uint64_t seen; /* >= expected: there is a gap */
    uint64_t gaps; /* frames that came beyond a gap */
    uint64_t asked;
    uint64_t duplicates;
    void *early[STREAM_EARLY]; /* frames beyond the gap, by number */
};

/* No frame is kept (stream_rx_early_drop()). */
static inline void stream_rx_reset(struct stream_rx *rx, uint64_t first)
{
    FTMB_ASSERT(!rx->early_count);
    rx->expected = first;
    rx->seen = rx->acked = first - 1;
    rx->ack_now = rx->beyond = false;
}

enum stream_verdict stream_rx_odd(struct stream_rx *rx, uint64_t seq, void *frame);

/* Frame number `seq` came in. */
static inline enum stream_verdict stream_rx_frame(struct stream_rx *rx, uint64_t seq, void *frame)
{
    if (unlikely(seq != rx->expected || rx->early_count))
        return stream_rx_odd(rx, seq, frame);
    rx->expected++;
    return STREAM_TAKE;
}

/* The next frame in order, if it came early; NULL: it did not. It is to be taken as soon as there
 * is room for it, before further frames are received. */
static inline void *stream_rx_early(const struct stream_rx *rx)
{
    return likely(!rx->early_count) ? NULL : rx->early[rx->expected % STREAM_EARLY];
}

static inline void stream_rx_take_early(struct stream_rx *rx)
{
    rx->early[rx->expected % STREAM_EARLY] = NULL;
    rx->early_count--;
    rx->expected++;
}

/* One of the kept frames, no longer kept, whatever its number; NULL: there is none. */
void *stream_rx_early_drop(struct stream_rx *rx);

/* The sender repeated its highest number. */
void stream_rx_probe(struct stream_rx *rx, uint64_t seq);

/* The last frame that was taken. */
static inline uint64_t stream_rx_taken(const struct stream_rx *rx)
{
    return rx->expected - 1;
}

/* Should the sender be told now that all up to `upto` are settled? Not necessarily all that were
 * taken: a receiver that may lose some again does not tell of those. `idle`: nothing came in this
 * round. */
static inline bool stream_rx_ack_due(const struct stream_rx *rx, uint64_t upto, bool idle)
{
    return rx->ack_now || upto - rx->acked >= STREAM_ACK_EVERY || (idle && upto != rx->acked);
}

/* What the acknowledgement says. */
void stream_rx_report(struct stream_rx *rx, struct stream_report *report);

/* The acknowledgement was sent. */
static inline void stream_rx_acked(struct stream_rx *rx, uint64_t upto)
{
    rx->acked = upto;
    rx->ack_now = rx->beyond = false;
}

/* A receiver that was away: take frames from `first` on, and ask for them at once. */
static inline void stream_rx_resume(struct stream_rx *rx, uint64_t first)
{
    stream_rx_reset(rx, first);
    rx->ack_now = rx->beyond = true;
}

#endif

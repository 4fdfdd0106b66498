/* What a stream does when its link misbehaves (see stream.h). */
#include "core/stream.h"

#include <string.h>

/* ---- sender ------------------------------------------------------------------------------- */

/* Frames from `to` on were dropped beyond the receiver's window. Those that are under way meanwhile
 * are dropped too and tell the same: go back once. */
static void go_back(struct stream_tx *tx, uint64_t to, uint64_t now_ns)
{
    if (to >= tx->cursor || to <= tx->acked)
        return;
    if (tx->went_back == to && now_ns - tx->went_back_ns <= STREAM_PROBE_NS)
        return;
    tx->resent += tx->cursor - to;
    tx->cursor = to;
    tx->went_back = to;
    tx->went_back_ns = now_ns;
}

/* Has this frame, missing there, not been sent again already, or again in vain? */
static bool lost(const struct stream_tx *tx, uint64_t seq, uint64_t seen, bool long_ago)
{
    return long_ago || seen >= tx->mark[seq % STREAM_EARLY];
}

void stream_tx_report(struct stream_tx *tx, const struct stream_report *report, uint64_t now_ns)
{
    uint64_t have = report->have, seen = report->seen;
    if (have < tx->acked || have >= tx->next || seen < have || seen - have > STREAM_EARLY)
        return;
    tx->heard_ns = now_ns;
    tx->probe_ns = STREAM_PROBE_NS;
    tx->have = have;
    if (tx->cursor <= have)
        tx->cursor = have + 1; /* arrived although it was about to be sent again */
    if (report->beyond)
        go_back(tx, seen + 1, now_ns);
    if (seen == have || tx->again_count)
        return;
    /* While frames are under way, what was sent again may be among them, however slow the peer. */
    bool none_under_way = seen >= u64_min(tx->cursor - 1, have + STREAM_EARLY);
    bool long_ago = none_under_way && now_ns - tx->again_ns > STREAM_PROBE_NS;
    tx->again_base = have + 1;
    memset(tx->again, 0, sizeof(tx->again));
    for (uint64_t i = 0; i < seen - have && have + 1 + i < tx->cursor; i++) {
        uint64_t bit = 1ull << (i % 64);
        if ((report->missing[i / 64] & bit) && lost(tx, have + 1 + i, seen, long_ago)) {
            tx->again[i / 64] |= bit;
            tx->again_count++;
        }
    }
    if (tx->again_count)
        tx->again_ns = now_ns;
}

/* Is frame again_base + i still to be sent again? Not if it was settled, or lies behind the cursor,
 * since it was asked for. */
static bool wanted(const struct stream_tx *tx, uint64_t i)
{
    uint64_t seq = tx->again_base + i;
    return i < STREAM_EARLY && (tx->again[i / 64] >> (i % 64) & 1) && seq > tx->acked &&
           seq > tx->have && seq < tx->cursor;
}

uint64_t stream_tx_again(struct stream_tx *tx, uint64_t max, uint64_t *first)
{
    uint64_t i = 0, count = 0;
    while (i < STREAM_EARLY && !wanted(tx, i))
        i++;
    while (count < max && wanted(tx, i + count))
        count++;
    *first = tx->again_base + i;
    if (count == 0)
        tx->again_count = 0;
    return count;
}

void stream_tx_sent_again(struct stream_tx *tx, uint64_t first, uint64_t count)
{
    for (uint64_t seq = first; seq < first + count; seq++) {
        uint64_t i = seq - tx->again_base;
        tx->again[i / 64] &= ~(1ull << (i % 64));
        tx->mark[seq % STREAM_EARLY] = u64_min(tx->cursor, tx->have + STREAM_EARLY);
    }
    tx->again_count -= (uint32_t)count;
    tx->resent += count;
}

/* ---- receiver ----------------------------------------------------------------------------- */

enum stream_verdict stream_rx_odd(struct stream_rx *rx, uint64_t seq, void *frame)
{
    void **slot = &rx->early[seq % STREAM_EARLY];
    if (seq == rx->expected && !*slot) {
        rx->expected++;
        return STREAM_TAKE;
    }
    if (PLANTED(P_NO_CONTIGUITY) && seq > rx->expected) {
        rx->expected = seq + 1;
        return STREAM_TAKE;
    }
    rx->ack_now = true;
    if (seq < rx->expected) {
        rx->duplicates++;
        return STREAM_DUPLICATE;
    }
    rx->gaps++;
    if (seq - rx->expected >= STREAM_EARLY) {
        rx->beyond = true;
        return STREAM_GAP;
    }
    if (*slot) { /* only this number can be there */
        rx->duplicates++;
        return STREAM_DUPLICATE;
    }
    *slot = frame;
    rx->early_count++;
    rx->seen = u64_max(rx->seen, seq);
    return STREAM_KEPT;
}

void *stream_rx_early_drop(struct stream_rx *rx)
{
    for (uint64_t i = 0; rx->early_count && i < STREAM_EARLY; i++) {
        void *frame = rx->early[i];
        if (!frame)
            continue;
        rx->early[i] = NULL;
        rx->early_count--;
        return frame;
    }
    return NULL;
}

void stream_rx_probe(struct stream_rx *rx, uint64_t seq)
{
    rx->ack_now = true;
    if (seq < rx->expected)
        return;
    uint64_t last = rx->expected - 1 + STREAM_EARLY;
    rx->seen = u64_max(rx->seen, u64_min(seq, last));
    rx->beyond |= seq > last;
}

void stream_rx_report(struct stream_rx *rx, struct stream_report *report)
{
    uint64_t have = rx->expected - 1, seen = u64_max(rx->seen, have);
    *report = (struct stream_report){.have = have, .seen = seen, .beyond = rx->beyond};
    if (likely(seen == have && !rx->beyond))
        return;
    rx->asked++;
    for (uint64_t i = 0; i < seen - have; i++)
        if (!rx->early[(have + 1 + i) % STREAM_EARLY])
            report->missing[i / 64] |= 1ull << (i % 64);
}

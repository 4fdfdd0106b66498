/* The fill: before anything is measured, the first packet of each flow goes out once, in order, so
 * that the function holds all flows (RFC 9693 tests in these two phases). A fixed rate is its upper
 * bound, and so is what may be under way: a system that stands still for a while, for a snapshot
 * say, must not refuse a flow that is never offered again. */
#ifndef FTMB_TRAFFIC_FILL_H
#define FTMB_TRAFFIC_FILL_H

#include "traffic/pace.h"

/* Packets of the fill that may be on their way between generator and sink. */
#define FILL_FLIGHT 4096u
#define FILL_TELL_NS 1000000000u

struct fill {
    uint32_t flows; /* to be opened; 0: no fill is wanted */
    uint32_t sent;
    uint32_t delivered;
    struct pace pace;
    uint64_t silence_ns;  /* so long without a delivery ends it */
    uint64_t movement_ns; /* of the latest delivery, or of a packet sent while none was under way */
    uint64_t tell_ns;     /* when its progress is to be told next */
    uint64_t took_ns;
};

/* Times are nanoseconds since the fill's start. */
static inline void fill_init(struct fill *f, uint32_t flows, uint64_t per_second,
                             uint64_t silence_ns)
{
    *f = (struct fill){
        .flows = per_second ? flows : 0, .silence_ns = silence_ns, .tell_ns = FILL_TELL_NS};
    pace_init(&f->pace, per_second);
}

/* How many packets are due now, at most `most`. */
static inline unsigned fill_due(struct fill *f, unsigned most, uint64_t now_ns)
{
    uint32_t room = FILL_FLIGHT - (f->sent - f->delivered), left = f->flows - f->sent;
    unsigned n = 0;
    while (n < most && n < room && n < left && f->pace.next_ns <= now_ns) {
        pace_advance(&f->pace);
        n++;
    }
    return n;
}

static inline void fill_sent(struct fill *f, unsigned n, uint64_t now_ns)
{
    if (f->sent == f->delivered)
        f->movement_ns = now_ns;
    f->sent += n;
}

/* `delivered`: how many were by now. */
static inline void fill_delivered(struct fill *f, uint32_t delivered, uint64_t now_ns)
{
    if (delivered != f->delivered)
        f->movement_ns = now_ns;
    f->delivered = delivered;
}

static inline bool fill_complete(const struct fill *f)
{
    return f->delivered == f->flows;
}

/* All have come through, or nothing comes any more. */
static inline bool fill_over(const struct fill *f, uint64_t now_ns)
{
    return fill_complete(f) ||
           (f->sent != f->delivered && now_ns >= f->movement_ns + f->silence_ns);
}

/* Once a second. */
static inline bool fill_telling(struct fill *f, uint64_t now_ns)
{
    if (now_ns < f->tell_ns)
        return false;
    f->tell_ns = now_ns + FILL_TELL_NS;
    return true;
}

#endif

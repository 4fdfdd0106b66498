/* When packets are meant to be sent, and how many may be under way. */
#ifndef FTMB_TRAFFIC_PACE_H
#define FTMB_TRAFFIC_PACE_H

#include "core/base.h"

#define PACE_NEVER UINT64_MAX

/* A fixed schedule: multiples of an interval kept to 2^-32 ns, so that it does not drift. */
struct pace {
    uint64_t next_ns;
    uint64_t step_ns;
    uint32_t part;
    uint32_t step_part;
};

/* First event at time 0; `per_second` 0: never. */
static inline void pace_init(struct pace *p, uint64_t per_second)
{
    *p = (struct pace){.next_ns = PACE_NEVER};
    if (per_second == 0)
        return;
    unsigned __int128 step = ((unsigned __int128)1000000000u << 32) / per_second;
    p->next_ns = 0;
    p->step_ns = (uint64_t)(step >> 32);
    p->step_part = (uint32_t)step;
}

static inline void pace_advance(struct pace *p)
{
    uint64_t part = (uint64_t)p->part + p->step_part;
    p->part = (uint32_t)part;
    p->next_ns += p->step_ns + (part >> 32);
}

/* At rate `max` the system sets the pace: at most FLIGHT_MAX packets are on their way between
 * generator and sink. Packets that a function drops never arrive, so what was sent well before
 * something that has arrived is no longer waited for, and after a silence nothing is. */
#define FLIGHT_MAX 4096u
#define FLIGHT_BINS 1024u
#define FLIGHT_BIN_SHIFT 20 /* about a millisecond, without a division */
#define FLIGHT_SLACK_BINS 4u
#define FLIGHT_SILENCE_BINS 50u

struct flight {
    uint32_t out;           /* packets that are waited for */
    uint64_t oldest;        /* bins before this one are closed */
    uint64_t newest_back;   /* bin of the youngest packet that arrived */
    uint64_t last_movement; /* bin of the clock when something last arrived, or was given up */
    uint32_t bins[FLIGHT_BINS];
};

static inline void flight_sent(struct flight *f, uint64_t sent_ns)
{
    f->bins[(sent_ns >> FLIGHT_BIN_SHIFT) % FLIGHT_BINS]++;
    f->out++;
}

static inline void flight_back(struct flight *f, uint64_t sent_ns)
{
    uint64_t bin = sent_ns >> FLIGHT_BIN_SHIFT;
    uint32_t *waiting = &f->bins[bin % FLIGHT_BINS];
    if (bin < f->oldest || *waiting == 0)
        return;
    (*waiting)--;
    f->out--;
    if (bin > f->newest_back)
        f->newest_back = bin;
}

/* How many more may be sent at `now_ns`; once per burst. `arrived`: something did since then. */
static inline uint32_t flight_room(struct flight *f, uint64_t now_ns, bool arrived)
{
    uint64_t now = now_ns >> FLIGHT_BIN_SHIFT;
    if (arrived)
        f->last_movement = now;
    uint64_t close = f->newest_back > FLIGHT_SLACK_BINS ? f->newest_back - FLIGHT_SLACK_BINS : 0;
    if (now > f->last_movement + FLIGHT_SILENCE_BINS) {
        close = now;
        f->last_movement = now;
    }
    for (; f->oldest < close; f->oldest++) {
        f->out -= f->bins[f->oldest % FLIGHT_BINS];
        f->bins[f->oldest % FLIGHT_BINS] = 0;
    }
    return f->out < FLIGHT_MAX ? FLIGHT_MAX - f->out : 0;
}

#endif

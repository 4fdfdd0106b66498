/* A timer wheel: for each of `timers` entries of a table a time at which it is due, set and taken
 * back in constant time.
 *
 * Time is that of inputs, in grains, and the wheel goes by the latest stamp that it was asked with:
 * those of different workers are not ordered. A timer is due at the first full grain that is not
 * before what it was set to, nor before the one that the wheel comes to next. It moves when it is
 * asked, by a bounded number of steps each time: one that is asked rarely is late, never wrong.
 *
 * All of it belongs to one shared variable, which its user chooses, and holds when it calls. */
#ifndef FTMB_NF_TIMER_WHEEL_H
#define FTMB_NF_TIMER_WHEEL_H

#include "nf/nf.h"

#include <string.h>

#define TIMER_NONE UINT32_MAX
#define TIMER_STEPS 16u /* slots and timers that are looked at in a call, at most */

struct timer {
    uint64_t due; /* grain; 0: not set */
    uint32_t next, previous;
};

struct timer_wheel {
    uint64_t slots_at; /* offsets from the arena's base */
    uint64_t timers_at;
    uint64_t grain;  /* the one being looked at */
    uint64_t latest; /* the one to get to */
    uint32_t variable;
    uint32_t timers;
    uint32_t mask;        /* slots - 1 */
    uint32_t grain_shift; /* of nanoseconds */
    uint32_t scan;        /* the timer of this grain's slot to look at next */
    uint32_t set;         /* timers that are set */
};

/* Arena memory for it, all included. `slots` is a power of two. */
static inline uint64_t timer_wheel_bytes(uint32_t timers, uint32_t slots)
{
    return timers * sizeof(struct timer) + slots * sizeof(uint32_t) + 2 * CACHE_LINE;
}

static inline uint32_t *timer_slot(struct arena *arena, const struct timer_wheel *wheel,
                                   uint64_t grain)
{
    return (uint32_t *)((uint8_t *)arena + wheel->slots_at) + (grain & wheel->mask);
}

static inline struct timer *timer_at(struct arena *arena, const struct timer_wheel *wheel,
                                     uint32_t index)
{
    return (struct timer *)((uint8_t *)arena + wheel->timers_at) + index;
}

/* None set. A grain is 2^grain_shift ns (20: a millisecond); `slots` grains should be more than
 * most timers are set ahead. False: the arena is too small. */
static inline bool timer_wheel_init(struct timer_wheel *wheel, struct arena *arena, uint32_t timers,
                                    uint32_t slots, uint32_t grain_shift, uint32_t variable)
{
    FTMB_ASSERT(slots && !(slots & (slots - 1)));
    uint8_t *slot = arena_alloc(arena, 0, slots * sizeof(uint32_t), CACHE_LINE);
    uint8_t *timer = arena_alloc(arena, 0, timers * sizeof(struct timer), CACHE_LINE);
    if (!slot || !timer)
        return false;
    memset(slot, 0xff, slots * sizeof(uint32_t)); /* TIMER_NONE */
    *wheel = (struct timer_wheel){.slots_at = (uint64_t)(slot - (uint8_t *)arena),
                                  .timers_at = (uint64_t)(timer - (uint8_t *)arena),
                                  .variable = variable,
                                  .timers = timers,
                                  .mask = slots - 1,
                                  .grain_shift = grain_shift,
                                  .scan = TIMER_NONE};
    return true;
}

static inline void timer_link(struct ftmb_ctx *ctx, const struct timer_wheel *wheel, uint64_t grain,
                              uint32_t previous, uint32_t next)
{
    uint32_t *from = previous == TIMER_NONE ? timer_slot(ctx->arena, wheel, grain)
                                            : &timer_at(ctx->arena, wheel, previous)->next;
    ftmb_mark(ctx, from, sizeof(*from));
    *from = next;
    if (next == TIMER_NONE)
        return;
    struct timer *to = timer_at(ctx->arena, wheel, next);
    ftmb_mark(ctx, to, sizeof(*to));
    to->previous = previous;
}

/* Takes a timer back; one that is not set is left alone. */
static inline void timer_wheel_clear(struct ftmb_ctx *ctx, struct timer_wheel *wheel,
                                     uint32_t index)
{
    FTMB_ASSERT(shared_holds(ctx, wheel->variable) && index < wheel->timers);
    struct timer *timer = timer_at(ctx->arena, wheel, index);
    if (!timer->due)
        return;
    ftmb_mark(ctx, wheel, sizeof(*wheel));
    ftmb_mark(ctx, timer, sizeof(*timer));
    if (wheel->scan == index)
        wheel->scan = timer->next;
    timer_link(ctx, wheel, timer->due, timer->previous, timer->next);
    timer->due = 0;
    wheel->set--;
}

/* Sets a timer, anew if it was set, to a stamp in nanoseconds. */
static inline void timer_wheel_set(struct ftmb_ctx *ctx, struct timer_wheel *wheel, uint32_t index,
                                   uint64_t due_ns)
{
    timer_wheel_clear(ctx, wheel, index);
    struct timer *timer = timer_at(ctx->arena, wheel, index);
    ftmb_mark(ctx, wheel, sizeof(*wheel));
    ftmb_mark(ctx, timer, sizeof(*timer));
    uint64_t whole = (due_ns + (1ull << wheel->grain_shift) - 1) >> wheel->grain_shift;
    timer->due = u64_max(whole, wheel->grain + 1);
    timer_link(ctx, wheel, timer->due, index, *timer_slot(ctx->arena, wheel, timer->due));
    timer_link(ctx, wheel, timer->due, TIMER_NONE, index);
    wheel->set++;
}

/* A timer that is due, no longer set; TIMER_NONE: none, or none was found in the steps of a call.
 * Ask several times for an input, as many as the input may cost. */
static inline uint32_t timer_wheel_due(struct ftmb_ctx *ctx, struct timer_wheel *wheel,
                                       uint64_t now)
{
    FTMB_ASSERT(shared_holds(ctx, wheel->variable));
    uint64_t latest = u64_max(wheel->latest, now >> wheel->grain_shift);
    if (wheel->scan == TIMER_NONE && latest == wheel->grain)
        return TIMER_NONE;
    ftmb_mark(ctx, wheel, sizeof(*wheel));
    wheel->latest = latest;
    if (!wheel->set) {
        wheel->grain = latest;
        wheel->scan = TIMER_NONE;
    } else if (latest - wheel->grain > 2ull * wheel->mask + 1) {
        /* Once round is enough, and whole rounds are left out: the place in it is kept, so that
         * who asks rarely gets round, too. */
        wheel->grain += ((latest - wheel->grain) & ~(uint64_t)wheel->mask) - wheel->mask - 1;
    }
    for (unsigned step = 0; step < TIMER_STEPS; step++) {
        uint32_t index = wheel->scan;
        if (index == TIMER_NONE) {
            if (latest == wheel->grain)
                break;
            wheel->scan = *timer_slot(ctx->arena, wheel, ++wheel->grain);
            continue;
        }
        const struct timer *timer = timer_at(ctx->arena, wheel, index);
        wheel->scan = timer->next;
        if (timer->due <= wheel->grain) {
            timer_wheel_clear(ctx, wheel, index);
            return index;
        }
    }
    return TIMER_NONE;
}

#endif

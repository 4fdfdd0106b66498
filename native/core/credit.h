/* Credit: how far the input logger may accept input, so that what an accepted input makes always
 * finds room at the output logger. An input in flight still makes PALs, so it is refused before it
 * is logged or not at all (I5). */
#ifndef FTMB_CORE_CREDIT_H
#define FTMB_CORE_CREDIT_H

#include "core/plant.h"
#include "core/release.h"

/* The highest input number of a worker that may be accepted. `progress`: all PALs of the inputs
 * before it are stored; `slack`: most outputs that a report of progress runs ahead of. */
static inline uint64_t credit_limit(const struct release_worker *x, uint64_t progress,
                                    uint32_t max_pals, uint64_t slack)
{
    uint64_t pals = release_pal_room(x);
    uint64_t outputs = release_output_room(x);
    uint64_t inputs = outputs > slack ? outputs - slack : 0;
    if (max_pals)
        inputs = u64_min(inputs, pals / max_pals);
    return PLANTED(P_NO_CREDIT) ? UINT64_MAX : progress + inputs - 1;
}

/* Is a log half full? Time to ask for a snapshot. */
static inline bool credit_pressed(const struct release_worker *x)
{
    return release_pal_room(x) < (x->pal_mask + 1) / 2 ||
           release_output_room(x) < (x->hash_mask + 1) / 2;
}

#endif

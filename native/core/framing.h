/* How a burst's PALs are cut into frames. A frame never ends inside a section: what a writer leaves
 * behind depends on all that it did until it released, so half a section explains nothing. */
#ifndef FTMB_CORE_FRAMING_H
#define FTMB_CORE_FRAMING_H

#include "core/pal.h"
#include "core/plant.h"

/* End of the frame that starts at pals[from] (from < count), at most `capacity` PALs later: as much
 * as fits, or, unbatched (the paper's way), one access or one section. */
static inline uint32_t framing_end(const uint64_t *pals, uint32_t from, uint32_t count,
                                   uint32_t capacity, bool batch)
{
    uint32_t end = batch ? (uint32_t)u64_min(count, (uint64_t)from + capacity) : from + 1;
    if (PLANTED(P_FRAME_SPLITS_SECTIONS))
        return end;
    if (batch) {
        while (end < count && (pals[end] & PAL_INSIDE))
            end--;
    } else {
        while (end < count && (pals[end] & PAL_INSIDE))
            end++;
    }
    FTMB_ASSERT(end > from && end - from <= capacity);
    return end;
}

#endif

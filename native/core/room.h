/* How many inputs a worker may take, given the frames that its stream still has to get settled.
 *
 * A worker waits for room only between packets, holding nothing. That is enough in normal running:
 * whatever its held outputs wait for is on its way. In a replay it is not. There another worker
 * may wait, in the middle of a packet, for what is logged for this one's *next* packets, and the
 * outputs held may depend on what that worker has published and will not send before its packet
 * ends. So a worker with logged accesses left never waits for room: what it makes again was in its
 * window before, and the room for one input more is kept free for the input inside which the cut
 * lies. */
#ifndef FTMB_CORE_ROOM_H
#define FTMB_CORE_ROOM_H

#include "core/plant.h"
#include "core/replay.h"

/* `unsettled` frames of a window of `window`; a burst of `burst` inputs may need `for_burst` of
 * them, a single input `for_one`. */
static inline uint32_t room_inputs(uint64_t unsettled, uint64_t window, uint32_t burst,
                                   uint32_t for_burst, uint32_t for_one, bool log_left)
{
    if (likely(unsettled + for_burst + for_one <= window))
        return burst;
    if (PLANTED(P_REPLAY_WAITS_FOR_ROOM))
        return 0;
    return log_left && unsettled + for_one <= window ? 1 : 0;
}

/* Has this worker logged accesses left? */
static inline bool room_log_left(const struct ftmb_ctx *ctx)
{
    return ctx->replay &&
           ctx->replay->cursor[ctx->worker].position < ctx->replay->count[ctx->worker];
}

#endif

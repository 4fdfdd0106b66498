/* A planned change of master: the output logger's steps towards the end of the view.
 *
 * Nothing of the protocol is new. The master is asked for snapshots until HANDOVER_COMMITS of them
 * are committed; then the view ends as it does when a master falls silent, by fence, promotion, cut
 * and replay. The last snapshot is asked for when the one before is committed, so it carries what
 * changed in one round only and is committed soon after its cut: little is left to replay. Holding
 * input back until nothing is would take longer, since the outputs would stop for as long as that
 * snapshot takes; the replay of what comes meanwhile is shorter.
 *
 * Up to the end of the view nothing has changed, so it can be given up at any time. After that it
 * is a failover, whoever dies. */
#ifndef FTMB_CORE_HANDOVER_H
#define FTMB_CORE_HANDOVER_H

#include "core/view.h"

#define HANDOVER_COMMITS 2u

struct handover {
    uint32_t commits; /* still to come; 0: none is under way */
    uint32_t view;    /* that is to end */
    uint64_t asked_ns;
    uint64_t until_ns; /* it is given up then */
};

static inline bool handover_under_way(const struct handover *handover)
{
    return handover->commits != 0;
}

/* NULL: it has begun; else why it cannot. input_logger: one is connected. Without one nobody can
 * send the inputs of the replay again. */
const char *handover_begin(struct handover *handover, const struct view_state *view,
                           bool input_logger, uint64_t now, uint64_t patience_ns);

/* Is the master to be asked for a snapshot now? Again after `again_ns`: it may not have heard. */
bool handover_asks(struct handover *handover, uint64_t now, uint64_t again_ns);

/* A snapshot was committed. True: it was the last one, end the view at once. */
bool handover_committed(struct handover *handover, const struct view_state *view);

/* Not NULL: it is given up, and why. Ask before each commit too. */
const char *handover_given_up(struct handover *handover, const struct view_state *view,
                              bool input_logger, uint64_t now);

#endif

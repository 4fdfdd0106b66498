/* The steps of a planned change of master (see handover.h). */
#include "core/handover.h"

#include <string.h>

const char *handover_begin(struct handover *handover, const struct view_state *view,
                           bool input_logger, uint64_t now, uint64_t patience_ns)
{
    if (handover_under_way(handover))
        return "one is under way";
    if (view->master < 0 || view->promoting || view->heir)
        return "a failover is under way";
    if (view_eligible(view) < 0)
        return "no backup holds the state";
    if (!input_logger)
        return "no input logger is connected";
    *handover = (struct handover){
        .commits = HANDOVER_COMMITS, .view = view->view, .until_ns = now + patience_ns};
    return NULL;
}

bool handover_asks(struct handover *handover, uint64_t now, uint64_t again_ns)
{
    /* `now` may be older than the question: one look at the clock serves a whole tick. */
    if (!handover_under_way(handover) ||
        (handover->asked_ns && now < handover->asked_ns + again_ns))
        return false;
    handover->asked_ns = now;
    return true;
}

bool handover_committed(struct handover *handover, const struct view_state *view)
{
    if (!handover_under_way(handover) || handover->view != view->view)
        return false;
    handover->asked_ns = 0; /* that one is there: the next */
    return --handover->commits == 0;
}

const char *handover_given_up(struct handover *handover, const struct view_state *view,
                              bool input_logger, uint64_t now)
{
    const char *why = NULL;
    if (!handover_under_way(handover))
        return NULL;
    if (view->view != handover->view || view->master < 0 || view->heir)
        why = "the master was lost before";
    else if (view_eligible(view) < 0)
        why = "no backup holds the state any more";
    else if (!input_logger)
        why = "the input logger was lost before";
    else if (now >= handover->until_ns)
        why = "no snapshot was committed in time";
    if (why)
        memset(handover, 0, sizeof(*handover));
    return why;
}

/* The command `switchover`: a planned change of master (core/handover.h). */
#include "io/clock.h"
#include "io/event.h"
#include "roles/ol_control.h"

#define PATIENCE_NS 10000000000ull
#define ASK_AGAIN_NS 100000000ull

static void begin(struct output_logger *ol, uint64_t now)
{
    const struct view_state *view = &ol->state.view;
    const char *why = "engine none takes no snapshots";
    if (ol->config->engine != ENGINE_NONE)
        why = handover_begin(&ol->handover, view, ol_input_logger(ol) != NULL, now, PATIENCE_NS);
    if (why)
        event_emit("handover_refused", "{s:s}", "why", why);
    else
        event_emit("handover", "{s:I,s:i}", "view", (json_int_t)view->view, "slot", view->master);
}

static void ask(struct output_logger *ol, uint64_t now)
{
    if (handover_asks(&ol->handover, now, ASK_AGAIN_NS))
        ol_send(ol, ol_replica(ol, ol->state.view.master), MSG_SNAPSHOT, NULL, 0);
}

static void look_whether_given_up(struct output_logger *ol, uint64_t now)
{
    const char *why =
        handover_given_up(&ol->handover, &ol->state.view, ol_input_logger(ol) != NULL, now);
    if (why)
        event_emit("handover_given_up", "{s:s}", "why", why);
}

void ol_handover_look(struct output_logger *ol, uint64_t now)
{
    if (atomic_exchange_explicit(&ol->handover_wanted, false, memory_order_acq_rel))
        begin(ol, now);
    look_whether_given_up(ol, now);
    ask(ol, now);
}

/* The last act of the old view, before anything that came later is looked at. */
void ol_handover_committed(struct output_logger *ol)
{
    uint64_t now = clock_ns();
    look_whether_given_up(ol, now);
    if (handover_committed(&ol->handover, &ol->state.view))
        ol_master_failed(ol, "handover");
    else
        ask(ol, now);
}

/* When the next snapshot is due, by the schedule (see state_sender.h). */
#include "roles/replica.h"

#define NS_PER_US 1000ull
#define LEAST_PERIOD_NS 1000000ull /* of the schedule `adaptive` */

/* How long would a replay take that began now, in all likelihood? The inputs since the base, of the
 * worker that has most, at what a packet costs; and those that come until the next one is
 * committed, if that takes as long as the last one did. */
static uint64_t predicted_replay_ns(const struct replica *replica, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    uint64_t inputs = 0, ns = 0, packets = 0;
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        const struct worker *worker = &replica->workers[w];
        uint64_t next = __atomic_load_n(&replica->arena->cursors[w].next_input, __ATOMIC_RELAXED);
        inputs = u64_max(inputs, next - u64_min(next, sender->cut.next_input[w]));
        ns += atomic_load_explicit(&worker->timed_ns, memory_order_relaxed);
        packets += atomic_load_explicit(&worker->timed_packets, memory_order_relaxed);
    }
    if (!packets || now <= sender->cut_ns)
        return 0;
    double replay = (double)inputs * (double)ns / (double)packets;
    double age = (double)(now - sender->cut_ns);
    return (uint64_t)(replay * (1 + (double)sender->commit_ns / age));
}

bool state_timely(const struct replica *replica, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    const struct node_config *config = replica->config;
    if (config->engine == ENGINE_NONE)
        return sender->asked;
    switch (config->schedule) {
    case SCHEDULE_PERIOD:
        return sender->wanted || now >= sender->due_ns;
    case SCHEDULE_LOG: /* the loggers ask */
    case SCHEDULE_DEMAND:
        return sender->wanted;
    case SCHEDULE_ADAPTIVE:
        break;
    }
    return sender->wanted ||
           (now - sender->snapshotter.begun_ns >= LEAST_PERIOD_NS &&
            predicted_replay_ns(replica, now) >= config->replay_target_us * NS_PER_US);
}

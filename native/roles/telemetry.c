/* Counters of a role at work (see telemetry.h). */
#include "roles/telemetry.h"

#include "io/clock.h"

/* Of a counter that another thread writes. */
#define SEEN(counter) ((json_int_t)__atomic_load_n(&(counter), __ATOMIC_RELAXED))
#define SEEN_ATOMIC(counter) ((json_int_t)atomic_load_explicit(&(counter), memory_order_relaxed))

static json_int_t difference(json_int_t later, json_int_t earlier)
{
    return later > earlier ? later - earlier : 0;
}

json_t *il_telemetry(const struct input_logger *il)
{
    json_int_t accepted = 0, ticks = 0, used = 0, resent = 0;
    for (uint32_t w = 0; w < il->config->workers; w++) {
        const struct il_worker *x = &il->worker[w];
        accepted += SEEN(x->accepted);
        ticks += SEEN(x->ticks);
        resent += SEEN(x->out.resent);
        used += difference(SEEN(x->log.head), SEEN(x->log.tail));
    }
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "role", "il", "received",
                     SEEN(il->kept->received), "accepted", accepted, "refused",
                     SEEN(il->kept->refused), "malformed", SEEN(il->kept->malformed), "ticks",
                     ticks, "resent", resent, "logged_bytes", SEEN(il->kept->log_bytes),
                     "log_bytes", used, "log_capacity_bytes",
                     (json_int_t)(il->config->workers * il->config->input_bytes));
}

json_t *ol_telemetry(const struct output_logger *ol)
{
    json_int_t released = 0, held = 0, kept = 0;
    for (uint32_t w = 0; w < ol->config->workers; w++) {
        const struct release_worker *x = &ol->release->worker[w];
        json_int_t out = SEEN(x->released);
        released += out;
        held += difference(SEEN(x->held_tail), SEEN(x->held_head));
        json_int_t stored = SEEN_ATOMIC(x->stored);
        kept += difference(stored, SEEN(x->pal_base)) + difference(out, SEEN(x->out_base));
    }
    json_int_t committed = SEEN(ol->committed_ns);
    json_int_t age = committed ? difference((json_int_t)clock_ns(), committed) : -1;
    return json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "role", "ol", "pals",
        SEEN(ol->kept->pals), "released", released, "sent", SEEN_ATOMIC(ol->release->handed),
        "duplicates", SEEN(ol->release->duplicates), "lost_in_hand",
        SEEN(ol->release->lost_in_hand), "bad", SEEN(ol->kept->bad) + SEEN(ol->kept->old_view),
        "held", held, "log_bytes", kept * (json_int_t)sizeof(uint64_t), "log_capacity_bytes",
        (json_int_t)(ol->config->workers * (ol->config->pals + ol->config->outputs) *
                     sizeof(uint64_t)),
        "commits", SEEN(ol->state.commits), "commit_age_ns", age, "backups", SEEN(ol->protectors));
}

json_t *replica_telemetry(const struct replica *replica)
{
    json_int_t packets = 0, outputs = 0, dropped = 0, pals = 0, waits = 0, resent = 0;
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        const struct worker_cursor *cursor = &replica->arena->cursors[w];
        packets += SEEN(cursor->packets);
        outputs += SEEN(cursor->outputs);
        dropped += SEEN(cursor->dropped);
        pals += SEEN(cursor->pals);
        waits += SEEN(replica->workers[w].ctx.waits);
        resent += SEEN(replica->workers[w].out.resent);
    }
    const struct snapshotter *s = &replica->sender.snapshotter;
    return json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "role", "replica",
                     "active", (int)atomic_load(&replica->active), "inputs", packets, "outputs",
                     outputs, "dropped", dropped, "pals", pals, "waits", waits, "resent", resent,
                     "snapshots", SEEN(s->taken), "snapshots_abandoned", SEEN(s->abandoned),
                     "snapshot_bytes", SEEN(s->bytes), "snapshot_ns",
                     SEEN(replica->sender.commit_ns), "state_bytes",
                     (json_int_t)arena_allocated(replica->arena));
}

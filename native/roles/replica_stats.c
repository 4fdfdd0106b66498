/* What a replica reports at its end. */
#include "roles/replica.h"

static void add_counter(void *self, const char *name, uint64_t value)
{
    json_object_set_new((json_t *)self, name, json_integer((json_int_t)value));
}

static void add_check(void *self, const char *name, bool ok, const char *detail)
{
    json_array_append_new((json_t *)self,
                          json_pack("{s:s,s:b,s:s}", "name", name, "ok", ok, "detail", detail));
}

struct nf_sink {
    json_t *counters;
    json_t *checks;
};

static void sink_counter(void *self, const char *name, uint64_t value)
{
    add_counter(((struct nf_sink *)self)->counters, name, value);
}

static void sink_check(void *self, const char *name, bool ok, const char *detail)
{
    add_check(((struct nf_sink *)self)->checks, name, ok, detail ? detail : "");
}

static json_t *snapshot_stats(const struct snapshotter *s)
{
    json_t *pauses = json_array();
    uint64_t kept = u64_min(s->taken, SNAPSHOT_PAUSES);
    for (uint64_t i = 0; i < kept; i++)
        json_array_append_new(pauses, json_integer((json_int_t)s->pauses[i]));
    bool marks = s->engine == &snapshot_cow;
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "engine",
                     s->engine ? s->engine->name : "none", "taken", (json_int_t)s->taken, "skipped",
                     (json_int_t)s->skipped, "abandoned", (json_int_t)s->abandoned, "bytes",
                     (json_int_t)s->bytes, "lines", (json_int_t)s->lines, "undo_peak_bytes",
                     (json_int_t)(s->marks.undo_peak * sizeof(struct undo_entry)),
                     "undo_bytes_limit", marks ? (json_int_t)s->config->undo_mb << 20 : 0,
                     "staging_peak_bytes", (json_int_t)s->staging_peak, "pause_ns", pauses);
}

json_t *replica_stats(struct replica *replica)
{
    uint64_t packets = 0, ticks = 0, outputs = 0, dropped = 0, pals = 0;
    uint64_t resent = 0, waits = 0, bad = 0, old_view = 0, replayed = 0;
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        const struct worker_cursor *cursor = &replica->arena->cursors[w];
        const struct worker *worker = &replica->workers[w];
        packets += cursor->packets;
        ticks += cursor->ticks;
        outputs += cursor->outputs;
        dropped += cursor->dropped;
        pals += cursor->pals;
        resent += worker->out.resent;
        waits += worker->ctx.waits;
        bad += worker->bad;
        old_view += worker->old_view;
        replayed += replica->group.replay.count[w];
    }
    bool active = replica->config->mode != MODE_FTMB || atomic_load(&replica->active);
    struct nf_sink sink = {json_object(), json_array()};
    struct nf_report report = {.self = &sink, .counter = sink_counter, .check = sink_check};
    if (active)
        replica->config->nf->report(replica->arena, &report);
    json_t *stats = json_pack(
        "{s:s,s:i,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:{s:I,s:I}}", "role",
        "replica", "slot", (int)replica->config->slot, "condition", active ? "active" : "standby",
        "inputs", (json_int_t)packets, "ticks", (json_int_t)ticks, "outputs", (json_int_t)outputs,
        "dropped_by_nf", (json_int_t)dropped, "pals", (json_int_t)pals, "resent",
        (json_int_t)resent, "waits", (json_int_t)waits, "dropped_bad", (json_int_t)bad,
        "dropped_old_view", (json_int_t)old_view, "nf", sink.counters, "nf_checks", sink.checks,
        "snapshot", snapshot_stats(&replica->sender.snapshotter), "replay", "packets",
        (json_int_t)atomic_load(&replica->group.packets_replayed), "pals", (json_int_t)replayed);
    json_object_set_new(stats, "state_bytes",
                        json_integer((json_int_t)arena_allocated(replica->arena)));
    return stats;
}

/* The role's set-up, commands and statistics. */
#include "roles/traffic_role.h"

#include "io/event.h"
#include "roles/traffic_run.h"
#include "traffic/report.h"
#include "traffic/table.h"
#include "traffic/why.h"

#include <errno.h>
#include <stdlib.h>

/* ---- control thread ---- */

static void traffic_command(void *self, const char *verb)
{
    struct traffic *t = self;
    if (strcmp(verb, "start") == 0)
        atomic_store_explicit(&t->start_asked, true, memory_order_release);
    else if (strcmp(verb, "run") == 0)
        atomic_store_explicit(&t->run_asked, true, memory_order_relaxed);
    else if (strcmp(verb, "stop") == 0)
        atomic_store_explicit(&t->stop_asked, true, memory_order_relaxed);
}

static json_t *traffic_stats(void *self)
{
    struct traffic *t = self;
    char why[TRAFFIC_WHY];
    hiccup_stop(t->hiccup);
    /* What was due and never became a frame was offered all the same. */
    for (; !t->max_rate && t->phase >= PHASE_RUNNING && t->pace.next_ns < t->stop_at;
         pace_advance(&t->pace))
        tally_offer(&t->tally, t->pace.next_ns);
    tally_finish(&t->tally);
    if (report_files(&t->tally, t->hiccup, &t->config, why))
        die(3, "%s", why);
    json_t *stats = report_stats(&t->tally, t->start_ns);
    json_object_set_new(stats, "no_buffers", json_integer((json_int_t)t->no_buffers));
    json_object_set_new(stats, "capture_skipped", json_integer(t->capture.skipped));
    json_object_set_new(stats, "capture_repaired", json_integer(t->capture.repaired));
    json_object_set_new(stats, "fill",
                        json_pack("{s:I,s:I,s:I,s:I}", "flows", (json_int_t)t->fill.flows, "sent",
                                  (json_int_t)t->fill.sent, "delivered",
                                  (json_int_t)t->tally.fill_delivered, "took_ns",
                                  (json_int_t)t->fill.took_ns));
    json_object_set_new(stats, "noise", hiccup_json(t->hiccup));
    json_object_set_new(stats, "scheduler", json_string(hiccup_fifo(t->hiccup) ? "fifo" : "other"));
    return stats;
}

/* ---- set-up ---- */

/* Better told now than by the kernel, which would end some process. */
static int check_room(const struct traffic_config *c, uint64_t flows, char *why)
{
    uint64_t needed =
        flows * sizeof(struct flow) + mapping_bytes(flows) + pick_bytes(c->flows, c->zipf);
    uint64_t room = table_room();
    if (flows > FLOWS_MAX || needed <= room)
        return 0;
    return traffic_why(why,
                       "traffic: %llu flows need %llu MB of memory, and %llu MB are free: fewer "
                       "flows, or a machine with more memory",
                       (unsigned long long)flows, (unsigned long long)(needed >> 20),
                       (unsigned long long)(room >> 20));
}

/* Synthetic traffic: flows, source, sink. */
static int set_up_synthetic(struct traffic *t, char *why)
{
    const struct traffic_config *c = &t->config;
    double seconds = (double)(c->warmup_ns + c->duration_ns) / 1e9;
    uint64_t fresh = (uint64_t)((double)c->new_flows_per_s * seconds) + 1;
    struct source_options options = {.path = c->template,
                                     .zipf = c->zipf,
                                     .reply_share = c->reply_share,
                                     .new_flows_per_s = c->new_flows_per_s,
                                     .seed = c->seed};
    if (c->new_flows_per_s == 0)
        fresh = 0;
    if (check_room(c, c->flows + fresh, why))
        return -ENOMEM;
    if (flows_init(&t->flows, c->flows, fresh, c->inside, c->inside_prefix, why) ||
        source_init(&t->source, &t->flows, &options, why))
        return -EINVAL;
    if (sink_init(&t->sink, &t->flows, &t->source.set, c->seed)) {
        traffic_say(why, "traffic: no memory for the sink");
        return -ENOMEM;
    }
    t->sink.filled = c->fill_pps ? c->flows : 0;
    fill_init(&t->fill, c->flows, c->fill_pps, c->fill_silence_ns);
    return 0;
}

static int set_up(struct traffic *t, const unsigned *noise_cpus, unsigned n_noise, char *why)
{
    if (traffic_config_read(&t->config, t->spec, why))
        return -EINVAL;
    const struct traffic_config *c = &t->config;
    t->max_rate = c->rate_pps == 0;
    t->from_capture = *c->capture != '\0';
    t->stop_at = c->warmup_ns + c->duration_ns;
    pace_init(&t->pace, c->rate_pps);
    if (tally_init(&t->tally, c->warmup_ns, c->duration_ns, c->drain_ns, *c->samples != '\0',
                   t->max_rate)) {
        traffic_say(why, "traffic: no memory for %llu ms of counters",
                    (unsigned long long)(t->stop_at / 1000000));
        return -ENOMEM;
    }
    int rc = 0;
    if (!t->from_capture)
        rc = set_up_synthetic(t, why);
    else if (capture_init(&t->capture, c->capture, c->inside, c->inside_prefix, why))
        rc = -EINVAL;
    if (rc)
        return rc;
    t->hiccup = hiccup_start(noise_cpus, n_noise, why);
    return t->hiccup ? 0 : -EINVAL;
}

int traffic_create(struct role *out, const json_t *traffic_spec, const struct io_lane *tx,
                   unsigned ntx, const struct io_lane *rx, unsigned nrx, bool direct,
                   unsigned workers, const unsigned *noise_cpus, unsigned n_noise,
                   struct rte_mempool *pool)
{
    char why[TRAFFIC_WHY];
    struct traffic *t = calloc(1, sizeof(*t));
    FTMB_ASSERT(ntx <= TRAFFIC_LANES && nrx <= TRAFFIC_LANES && ntx >= (direct ? workers : 2));
    if (!t) {
        fprintf(stderr, "ftmb-node: traffic: no memory\n");
        return -ENOMEM;
    }
    t->spec = json_deep_copy(traffic_spec); /* strings of the configuration live in it */
    t->n_out = ntx;
    t->n_in = nrx;
    t->direct = direct;
    t->workers = workers;
    t->pool = pool;
    for (unsigned i = 0; i < ntx; i++)
        t->out[i].lane = tx[i];
    for (unsigned i = 0; i < nrx; i++)
        t->in[i] = rx[i];
    *out = (struct role){.name = "traffic",
                         .self = t,
                         .poll = traffic_poll,
                         .command = traffic_command,
                         .stats = traffic_stats};
    int rc = set_up(t, noise_cpus, n_noise, why);
    if (rc) {
        fprintf(stderr, "ftmb-node: %s\n", why);
        traffic_destroy(out);
    }
    return rc;
}

void traffic_destroy(struct role *role)
{
    struct traffic *t = role->self;
    for (unsigned i = 0; i < t->n_out; i++)
        rte_pktmbuf_free_bulk(t->out[i].frames, t->out[i].count);
    if (t->hiccup) {
        hiccup_stop(t->hiccup);
        hiccup_free(t->hiccup);
    }
    tally_free(&t->tally);
    capture_free(&t->capture);
    sink_free(&t->sink);
    source_free(&t->source);
    flows_free(&t->flows);
    json_decref(t->spec);
    free(t);
    role->self = NULL;
}

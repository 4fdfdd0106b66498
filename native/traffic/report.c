/* Results of a run as JSON and files. */
#include "traffic/report.h"

#include "traffic/why.h"

#include <errno.h>
#include <string.h>

static void put(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *latency_json(const struct histogram *h)
{
    json_t *o = json_object();
    put(o, "count", h->count);
    put(o, "p50", histogram_quantile(h, 0.5));
    put(o, "p90", histogram_quantile(h, 0.9));
    put(o, "p99", histogram_quantile(h, 0.99));
    put(o, "p999", histogram_quantile(h, 0.999));
    put(o, "p9999", histogram_quantile(h, 0.9999));
    put(o, "max", h->max);
    return o;
}

json_t *report_stats(const struct tally *t, uint64_t start_ns)
{
    json_t *o = json_object();
    put(o, "offered", t->offered);
    put(o, "sent", t->sent);
    put(o, "unsent", t->offered - t->sent);
    put(o, "late", t->late);
    put(o, "late_max_ns", t->late_max_ns);
    put(o, "late_blocked", t->late_blocked);
    put(o, "replies", t->replies);
    put(o, "replies_early", t->replies_early);
    put(o, "delivered", t->delivered);
    put(o, "lost", t->sent > t->delivered ? t->sent - t->delivered : 0);
    put(o, "duplicated", t->duplicated);
    put(o, "reordered", t->reordered);
    put(o, "corrupted", t->corrupted);
    put(o, "wrong_tuple", t->wrong_tuple);
    put(o, "unmatched", t->unmatched);
    put(o, "altered", t->altered);
    json_object_set_new(o, "exact", json_boolean(t->untracked == 0));
    put(o, "window_offered", t->window_offered);
    put(o, "window_delivered", t->window_delivered);
    put(o, "window_start_ns", start_ns + t->start_ns);
    put(o, "window_ns", t->end_ns - t->start_ns);
    put(o, "mapping_changed", t->mapping_changed);
    put(o, "mapping_shared", t->mapping_shared);
    put(o, "samples_dropped", t->samples_dropped);
    json_object_set_new(o, "gaps", gaps_json(&t->gaps, start_ns));
    json_object_set_new(o, "latency", latency_json(&t->latency));
    return o;
}

/* Writes `dump` on one line, and lets it go. */
static int write_json(json_t *dump, FILE *out)
{
    int rc = json_dumpf(dump, out, JSON_COMPACT) || fputc('\n', out) == EOF ? -EIO : 0;
    json_decref(dump);
    return rc;
}

static int write_histogram(const struct tally *t, const struct hiccup *h, FILE *out)
{
    (void)h;
    return write_json(histogram_json(&t->latency), out);
}

static int write_timeline(const struct tally *t, const struct hiccup *h, FILE *out)
{
    (void)h;
    return timeline_write(&t->timeline, t->start_ns, out);
}

static int write_samples(const struct tally *t, const struct hiccup *h, FILE *out)
{
    (void)h;
    return tally_write_samples(t, out);
}

static int write_noise(const struct tally *t, const struct hiccup *h, FILE *out)
{
    (void)t;
    return write_json(hiccup_dump(h), out);
}

int report_files(const struct tally *t, const struct hiccup *h, const struct traffic_config *config,
                 char *why)
{
    const struct {
        const char *path;
        int (*write)(const struct tally *, const struct hiccup *, FILE *);
    } files[] = {
        {config->histogram, write_histogram},
        {config->timeline, write_timeline},
        {t->samples ? config->samples : "", write_samples},
        {config->noise, write_noise},
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (!*files[i].path)
            continue;
        FILE *out = fopen(files[i].path, "we");
        int rc = out ? files[i].write(t, h, out) : -errno;
        if (out && fclose(out) && rc == 0)
            rc = -errno;
        if (rc)
            return traffic_why(why, "cannot write %s: %s", files[i].path, strerror(-rc));
    }
    return 0;
}

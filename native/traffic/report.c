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

static int write_histogram(const struct tally *t, FILE *out)
{
    json_t *dump = histogram_json(&t->latency);
    int rc = json_dumpf(dump, out, JSON_COMPACT) || fputc('\n', out) == EOF ? -EIO : 0;
    json_decref(dump);
    return rc;
}

static int write_timeline(const struct tally *t, FILE *out)
{
    return timeline_write(&t->timeline, t->start_ns, out);
}

static int write_file(const struct tally *t, const char *path,
                      int (*write)(const struct tally *, FILE *), char *why)
{
    if (!*path)
        return 0;
    FILE *out = fopen(path, "we");
    if (!out)
        return traffic_why(why, "cannot write %s: %s", path, strerror(errno));
    int rc = write(t, out);
    if (fclose(out) && rc == 0)
        rc = -errno;
    return rc ? traffic_why(why, "cannot write %s: %s", path, strerror(-rc)) : 0;
}

int report_files(const struct tally *t, const struct traffic_config *config, char *why)
{
    if (write_file(t, config->histogram, write_histogram, why) ||
        write_file(t, config->timeline, write_timeline, why))
        return -1;
    return t->samples ? write_file(t, config->samples, tally_write_samples, why) : 0;
}

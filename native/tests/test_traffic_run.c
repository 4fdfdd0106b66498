/* Schedule, what is under way at rate max, timeline, gaps, tally, hiccup meter, configuration. */
#include "check.h"
#include "traffic/config.h"
#include "traffic/fill.h"
#include "traffic/hiccup.h"
#include "traffic/report.h"
#include "traffic/why.h"

#include <string.h>
#include <time.h>

static void test_pace(void)
{
    struct pace p;
    pace_init(&p, 3000000); /* a third of a microsecond must not drift */
    for (uint32_t i = 0; i < 3000000; i++)
        pace_advance(&p);
    CHECK(p.next_ns >= 999999998 && p.next_ns <= 1000000000);
    pace_init(&p, 0);
    CHECK(p.next_ns == PACE_NEVER);
}

static void test_flight(void)
{
    struct flight f = {0};
    uint64_t now = 0;
    CHECK(flight_room(&f, now, false) == FLIGHT_MAX);
    for (uint32_t i = 0; i < FLIGHT_MAX; i++)
        flight_sent(&f, now);
    CHECK(flight_room(&f, now, false) == 0);
    flight_back(&f, now);
    CHECK(flight_room(&f, now, true) == 1);
    /* A younger packet comes back: older ones are given up, and late ones change nothing. */
    now = 40ull << FLIGHT_BIN_SHIFT;
    flight_sent(&f, now);
    flight_back(&f, now);
    CHECK(flight_room(&f, now, true) == FLIGHT_MAX);
    flight_back(&f, 0);
    CHECK(flight_room(&f, now, true) == FLIGHT_MAX);
    /* Silence. */
    for (uint32_t i = 0; i < FLIGHT_MAX; i++)
        flight_sent(&f, now);
    CHECK(flight_room(&f, now + (10ull << FLIGHT_BIN_SHIFT), false) == 0);
    CHECK(flight_room(&f, now + (60ull << FLIGHT_BIN_SHIFT), false) == FLIGHT_MAX);
}

/* A system that answers after `delay_us`, and from flow `dead_from` on not at all. Returns when the
 * fill was over, in microseconds. */
static uint64_t fill(struct fill *f, uint64_t per_second, uint64_t delay_us, uint32_t dead_from)
{
    uint32_t history[2000] = {0}; /* sent by then, of the last microseconds */
    uint32_t delivered = 0;
    fill_init(f, 100000, per_second, 3000000);
    for (uint64_t us = 0;; us++) {
        CHECK(us < 10000000);
        if (us >= delay_us)
            delivered = history[(us - delay_us) % 2000];
        delivered = delivered < dead_from ? delivered : dead_from;
        fill_delivered(f, delivered, us * 1000);
        if (fill_over(f, us * 1000))
            return us;
        fill_sent(f, fill_due(f, 32, us * 1000), us * 1000);
        CHECK(f->sent <= us * per_second / 1000000 + 1); /* never before its time */
        CHECK(f->sent - f->delivered <= FILL_FLIGHT);
        history[us % 2000] = f->sent;
    }
}

static void test_fill(void)
{
    struct fill f;
    uint64_t took = fill(&f, 500000, 100, UINT32_MAX);
    CHECK(fill_complete(&f) && f.sent == 100000 && took >= 200090 && took <= 200200);
    /* Were it not for what may be under way, it would be over after 21.9 ms. */
    took = fill(&f, 5000000, 1900, UINT32_MAX);
    CHECK(fill_complete(&f) && f.sent == 100000);
    CHECK(took >= 1900ull * 100000 / FILL_FLIGHT && took <= 2000ull * 100000 / FILL_FLIGHT + 1900);
    /* The function has room for 60,000: the rest is given up after 3 ms of silence. */
    took = fill(&f, 500000, 100, 60000);
    CHECK(!fill_complete(&f) && f.delivered == 60000 && f.sent > 61500 && f.sent < 61600);
    CHECK(took >= 123090 && took <= 123200);
    fill_init(&f, 100, 0, 1);
    CHECK(f.flows == 0);
}

static void test_gaps(void)
{
    static struct gaps g;
    for (uint64_t i = 0; i < 1000; i++)
        gaps_add(&g, i * 10000000, GAPS_MIN_NS + (i * 7919) % 1000);
    json_t *list = gaps_json(&g, 5);
    CHECK(json_array_size(list) == GAPS_MAX);
    json_int_t before = 0;
    for (size_t i = 0; i < GAPS_MAX; i++) {
        json_t *gap = json_array_get(list, i);
        json_int_t start = json_integer_value(json_array_get(gap, 0));
        CHECK(start > before && start % 10000000 == 5);
        before = start;
        CHECK(json_integer_value(json_array_get(gap, 1)) >= GAPS_MIN_NS + 1000 - GAPS_MAX);
    }
    json_decref(list);
}

/* Window 10..20 ms; packets every ms, none delivered from 14 to 17 ms. */
static void test_tally(void)
{
    static struct tally t;
    char *text = NULL;
    size_t size = 0;
    CHECK(tally_init(&t, 10000000, 10000000, 5000000, true, false) == 0);
    for (uint64_t ms = 0; ms < 20; ms++) {
        uint64_t intended = ms * 1000000 + 100;
        tally_offer(&t, intended);
        t.sent++;
        tally_begin(&t, (ms >= 14 && ms < 17 ? 17000000 : intended) + 50000);
        tally_deliver(&t, intended);
        tally_end(&t);
    }
    tally_finish(&t);
    CHECK(t.offered == 20 && t.window_offered == 10);
    CHECK(t.delivered == 20 && t.window_delivered == 10 && t.latency.count == 10);
    CHECK(t.latency.max == 3049900 && t.sample_count == 10);
    json_t *stats = report_stats(&t, 1000);
    json_t *gaps = json_object_get(stats, "gaps");
    uint64_t longest = 0, start = 0;
    for (size_t i = 0; i < json_array_size(gaps); i++) {
        json_t *gap = json_array_get(gaps, i);
        uint64_t length = (uint64_t)json_integer_value(json_array_get(gap, 1));
        if (length > longest)
            start = (uint64_t)json_integer_value(json_array_get(gap, 0));
        longest = u64_max(longest, length);
    }
    CHECK(longest == 3999900 && start == 13050100 + 1000);
    CHECK(json_integer_value(json_object_get(stats, "lost")) == 0);
    json_decref(stats);
    FILE *out = open_memstream(&text, &size);
    CHECK(out && timeline_write(&t.timeline, t.start_ns, out) == 0 && fclose(out) == 0);
    CHECK(strstr(text, "latency_p50_ns,latency_p99_ns\n-10,1,1,50000,49664,49664\n"));
    CHECK(strstr(text, "\n4,1,0,,,\n5,1,0,,,\n6,1,0,,,\n7,1,4,3049900,"));
    free(text);
    tally_free(&t);
}

static void test_hiccup(void)
{
    char why[TRAFFIC_WHY];
    unsigned cpu = 0, none = 100000;
    struct timespec nap = {.tv_nsec = 100000000};
    CHECK(hiccup_start(&none, 1, why) == NULL && strstr(why, "cpu 100000"));
    struct hiccup *h = hiccup_start(&cpu, 1, why);
    CHECK(h);
    nanosleep(&nap, NULL);
    hiccup_record(h, true);
    nanosleep(&nap, NULL);
    hiccup_record(h, false);
    nanosleep(&nap, NULL);
    hiccup_stop(h);
    json_t *all = hiccup_json(h);
    json_t *one = json_object_get(all, "0");
    json_int_t count = json_integer_value(json_object_get(one, "count"));
    CHECK(count >= 50 && count <= 300); /* 100 if the naps are exact */
    CHECK(json_integer_value(json_object_get(one, "max")) > 0);
    json_decref(all);
    all = hiccup_dump(h);
    one = json_object_get(json_object_get(all, "cpus"), "0");
    CHECK(json_integer_value(json_object_get(one, "count")) == count);
    CHECK(json_array_size(json_object_get(one, "buckets")) > 0);
    json_decref(all);
    hiccup_free(h);
}

static int read_changed(const char *key, json_t *value, char *why)
{
    struct traffic_config config;
    json_t *spec =
        json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:s,s:s,s:s,s:s,s:s,s:s}",
                  "rate_pps", 1000, "warmup_ms", 5, "duration_ms", 10, "drain_ms", 10, "flows", 1,
                  "fill_pps", 0, "fill_silence_ms", 300, "zipf", 0, "new_flows_per_s", 0,
                  "reply_share", 0, "seed", 1, "template", "t.pcap", "capture", "", "inside",
                  "10.1.2.3/8", "histogram", "", "timeline", "", "samples", "", "noise", "");
    if (value)
        json_object_set_new(spec, key, value);
    else if (key)
        json_object_del(spec, key);
    int rc = traffic_config_read(&config, spec, why);
    if (rc == 0)
        CHECK(config.inside == 0x0a000000u && config.inside_prefix == 8 &&
              config.warmup_ns == 5000000);
    json_decref(spec);
    return rc;
}

static void test_config(void)
{
    char why[TRAFFIC_WHY];
    CHECK(read_changed(NULL, NULL, why) == 0);
    CHECK(read_changed("seed", NULL, why) == -1 && strstr(why, "\"seed\" is missing"));
    CHECK(read_changed("sede", json_integer(1), why) == -1 && strstr(why, "unknown key \"sede\""));
    CHECK(read_changed("flows", json_string("x"), why) == -1 && strstr(why, "\"flows\" must be"));
    CHECK(read_changed("reply_share", json_real(1.5), why) == -1 && strstr(why, "reply_share"));
    CHECK(read_changed("inside", json_string("10.0.0.0"), why) == -1 && strstr(why, "inside"));
    CHECK(read_changed("capture", json_string("c.pcap"), why) == -1 && strstr(why, "either"));
    CHECK(read_changed("fill_pps", json_integer(-1), why) == -1 && strstr(why, "fill_pps"));
    CHECK(read_changed("flows", json_integer(40 << 20), why) == -1 && strstr(why, "flows"));
}

int main(void)
{
    test_pace();
    test_flight();
    test_fill();
    test_gaps();
    test_tally();
    test_hiccup();
    test_config();
    return 0;
}

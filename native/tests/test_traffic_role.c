/* The role `traffic` on real rings: straight to the sink, and through a middlebox made up here
 * that translates, loses, repeats, and stands still. */
#include "core/wire.h"
#include "io/clock.h"
#include "io/eal.h"
#include "io/event.h"
#include "io/port.h"
#include "roles/traffic_role.h"
#include "traffic/trailer.h"
#include "traffic_frames.h"

#include <stdlib.h>
#include <unistd.h>

static struct rte_mempool *pool;

struct box {
    uint16_t inside[2], outside[2]; /* rings; [1] is the middlebox's end */
    bool translate;
    unsigned lose_every, repeat_every;
    uint32_t fill; /* so many packets come first, one of each flow, in their order */
    uint64_t seen;
    uint64_t still_from, still_to; /* stands still between these times */
};

static json_t *spec_of(const char *changes)
{
    json_t *spec =
        json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:i,s:f,s:i,s:s,s:s,s:s,s:s,s:s,s:s,s:s}",
                  "rate_pps", 50000, "warmup_ms", 20, "duration_ms", 200, "drain_ms", 100, "flows",
                  1000, "fill_pps", 0, "fill_silence_ms", 300, "zipf", 0.0, "new_flows_per_s", 0,
                  "reply_share", 0.0, "seed", 7, "template", "", "capture", "", "inside",
                  "10.0.0.0/8", "histogram", "", "timeline", "", "samples", "", "noise", "");
    json_t *more = json_loads(changes, 0, NULL);
    CHECK(spec && more);
    json_object_update(spec, more);
    json_decref(more);
    return spec;
}

static uint64_t number(const json_t *stats, const char *key)
{
    const json_t *value = json_object_get(stats, key);
    CHECK(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

/* Source address and port become 203.0.113.1 and a port of the host and port; answers turn back. */
static void translate(uint8_t *frame, uint32_t length, bool outward)
{
    struct packet p;
    uint32_t outside = __builtin_bswap32(0xcb007101u);
    CHECK(packet_parse(&p, frame, length));
    if (outward) {
        /* 16 flows a host, as the generator places them: flow number plus 2048. */
        uint32_t host = __builtin_bswap32(p.source) - 0x0a000001u;
        uint16_t port = (uint16_t)(2048 + host * 16 + __builtin_bswap16(p.source_port) - 1024);
        uint16_t wire = __builtin_bswap16(port);
        memcpy(p.ip + 12, &outside, 4);
        memcpy(p.l4, &wire, 2);
        p.source = outside;
    } else {
        CHECK(p.destination == outside);
        uint32_t flow = __builtin_bswap16(p.destination_port) - 2048u;
        uint32_t host = __builtin_bswap32(0x0a000001u + flow / 16);
        uint16_t wire = __builtin_bswap16((uint16_t)(1024 + flow % 16));
        memcpy(p.ip + 16, &host, 4);
        memcpy(p.l4 + 2, &wire, 2);
        p.destination = host;
    }
    packet_sums_set(&p);
}

/* Who a packet says it is. */
static uint32_t flow_of(uint8_t *frame, uint32_t length)
{
    struct packet p;
    struct trailer trailer;
    CHECK(packet_parse(&p, frame, length));
    memcpy(&trailer, p.l4 + trailer_offset(p.l4_length), sizeof(trailer));
    return (uint32_t)trailer.words[0];
}

static void forward(struct box *box, uint16_t from, uint16_t to, bool outward)
{
    struct rte_mbuf *in[32];
    unsigned n = io_rx((struct io_lane){from, 0}, in, 32);
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = in[i], *copy = NULL;
        if (box->seen++ < box->fill)
            CHECK(flow_of(rte_pktmbuf_mtod(m, uint8_t *), m->data_len) == box->seen - 1);
        if (box->lose_every && box->seen % box->lose_every == 0) {
            rte_pktmbuf_free(m);
            continue;
        }
        if (box->translate)
            translate(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, outward);
        if (box->repeat_every && box->seen % box->repeat_every == 0)
            copy = rte_pktmbuf_copy(m, pool, 0, UINT32_MAX);
        while (io_tx((struct io_lane){to, 0}, &m, 1) == 0)
            ;
        if (copy && io_tx((struct io_lane){to, 0}, &copy, 1) == 0)
            rte_pktmbuf_free(copy);
    }
}

static void box_poll(struct box *box, uint64_t now)
{
    if (now >= box->still_from && now < box->still_to)
        return;
    forward(box, box->inside[1], box->outside[1], true);
    forward(box, box->outside[1], box->inside[1], false);
}

/* One whole run; the box is NULL for the generator's floor. Consumes `spec`. */
static json_t *run(json_t *spec, struct box *box, uint64_t run_ms)
{
    uint16_t ends[2];
    struct io_lane tx[2], rx[2];
    struct role role;
    if (box) {
        CHECK(io_open_ring("inside", 1, box->inside) == 0);
        CHECK(io_open_ring("outside", 1, box->outside) == 0);
        tx[0] = rx[0] = (struct io_lane){box->inside[0], 0};
        tx[1] = rx[1] = (struct io_lane){box->outside[0], 0};
    } else {
        CHECK(io_open_ring("floor", 1, ends) == 0);
        tx[0] = rx[0] = (struct io_lane){ends[0], 0};
        tx[1] = rx[1] = (struct io_lane){ends[1], 0};
    }
    unsigned cpu = 0;
    CHECK(traffic_create(&role, spec, tx, 2, rx, 2, false, 1, &cpu, 1, pool) == 0);
    json_decref(spec);
    uint64_t start = clock_ns(), now = start;
    if (box && box->still_to) {
        box->still_from += start;
        box->still_to += start;
    }
    role.command(role.self, "start");
    role.command(role.self, "run"); /* after a fill, if there is one */
    while ((now = clock_ns()) < start + run_ms * 1000000) {
        role.poll(role.self);
        if (box)
            box_poll(box, now);
    }
    json_t *stats = role.stats(role.self);
    traffic_destroy(&role);
    if (box) {
        for (unsigned i = 0; i < 2; i++) {
            io_close(box->inside[i]);
            io_close(box->outside[i]);
        }
    } else {
        io_close(ends[0]);
        io_close(ends[1]);
    }
    return stats;
}

static void check_clean(const json_t *stats)
{
    const char *zero[] = {"lost",      "duplicated",      "reordered",      "corrupted",
                          "unmatched", "mapping_changed", "mapping_shared", "unsent"};
    char *text = json_dumps(stats, JSON_COMPACT);
    printf("%.400s\n", text);
    free(text);
    for (unsigned i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
        CHECK(number(stats, zero[i]) == 0);
    CHECK(json_is_true(json_object_get(stats, "exact")));
    CHECK(number(stats, "sent") == number(stats, "delivered"));
}

static void test_floor(const char *template)
{
    json_t *spec = spec_of("{\"reply_share\": 0.25}");
    json_object_set_new(spec, "template", json_string(template));
    json_t *stats = run(spec, NULL, 350);
    check_clean(stats);
    CHECK(number(stats, "offered") == 11000); /* 50,000 a second for 220 ms */
    CHECK(number(stats, "window_offered") == 10000);
    uint64_t replies = number(stats, "replies") + number(stats, "replies_early");
    CHECK(replies >= 2749 && replies <= 2751);
    CHECK(number(json_object_get(stats, "latency"), "count") == 10000);
    json_decref(stats);
}

static void test_max_rate(const char *template)
{
    struct box box = {.translate = true, .lose_every = 10};
    json_t *spec = spec_of("{\"rate_pps\": 0, \"reply_share\": 0.2}");
    json_object_set_new(spec, "template", json_string(template));
    json_t *stats = run(spec, &box, 400);
    /* Losses must not use up what may be under way: in the end a tenth is lost, and no more. */
    uint64_t sent = number(stats, "sent"), lost = number(stats, "lost");
    printf("max: %llu sent\n", (unsigned long long)sent);
    CHECK(lost > 2 * 4096);
    CHECK(lost == box.seen / 10 && box.seen == sent);
    CHECK(number(stats, "duplicated") == 0 && number(stats, "corrupted") == 0);
    json_decref(stats);
}

static void test_translation(const char *template)
{
    struct box box = {.translate = true, .repeat_every = 100};
    json_t *spec = spec_of("{\"reply_share\": 0.3, \"new_flows_per_s\": 1000, \"flows\": 100}");
    json_object_set_new(spec, "template", json_string(template));
    json_t *stats = run(spec, &box, 350);
    CHECK(number(stats, "lost") == 0 && number(stats, "reordered") == 0);
    CHECK(number(stats, "duplicated") == box.seen / 100);
    CHECK(number(stats, "replies") > 2000);
    CHECK(number(stats, "mapping_changed") == 0 && number(stats, "mapping_shared") == 0);
    json_decref(stats);
}

/* 60 ms of standing still at 50,000 packets a second is 3,000 packets; the ring holds 1,024. */
static void test_outage(const char *template)
{
    struct box box = {.still_from = 100000000, .still_to = 160000000};
    json_t *spec = spec_of("{}");
    json_object_set_new(spec, "template", json_string(template));
    json_t *stats = run(spec, &box, 400);
    check_clean(stats);
    CHECK(number(stats, "offered") == 11000);
    /* Kept waiting by the link, and counted as such; latency from the intended time shows it. */
    CHECK(number(stats, "late_blocked") > 1000);
    CHECK(number(json_object_get(stats, "latency"), "max") > 55000000);
    uint64_t longest = 0;
    size_t i;
    json_t *gap;
    json_array_foreach(json_object_get(stats, "gaps"), i, gap)
    {
        uint64_t length = (uint64_t)json_integer_value(json_array_get(gap, 1));
        longest = length > longest ? length : longest;
    }
    CHECK(longest > 55000000 && longest < 400000000);
    json_decref(stats);
}

static uint64_t filled(const json_t *stats, const char *key)
{
    return number(json_object_get(stats, "fill"), key);
}

/* 1,000 flows at 20,000 a second take 50 ms; warm-up and window follow, and are as ever. */
static void test_fill(const char *template)
{
    struct box box = {.translate = true, .fill = 1000};
    json_t *spec = spec_of("{\"fill_pps\": 20000, \"reply_share\": 0.25}");
    json_object_set_new(spec, "template", json_string(template));
    json_t *stats = run(spec, &box, 450);
    check_clean(stats);
    CHECK(filled(stats, "flows") == 1000 && filled(stats, "sent") == 1000);
    CHECK(filled(stats, "delivered") == 1000);
    CHECK(filled(stats, "took_ns") >= 49900000);
    CHECK(number(stats, "offered") == 12000 && number(stats, "window_offered") == 10000);
    CHECK(number(stats, "replies_early") == 0);
    CHECK(number(json_object_get(stats, "latency"), "count") == 10000);
    CHECK(box.seen == 12000);
    json_decref(stats);
}

/* What does not come through is given up after 300 ms of silence. */
static void test_fill_lost(const char *template)
{
    struct box box = {.translate = true, .lose_every = 10};
    json_t *spec = spec_of("{\"fill_pps\": 1000000, \"rate_pps\": 0}");
    json_object_set_new(spec, "template", json_string(template));
    json_t *stats = run(spec, &box, 2000); /* of which it needs 600, if the machine lets it */
    CHECK(filled(stats, "sent") == 1000 && filled(stats, "delivered") == 900);
    CHECK(filled(stats, "took_ns") >= 300000000);
    CHECK(number(stats, "window_delivered") > 10000);
    json_decref(stats);
}

static void test_capture(const char *path)
{
    uint8_t frame[200];
    FILE *file = pcap_begin(path, 1);
    for (uint16_t i = 0; i < 40; i++) { /* 20 flows, question and answer */
        uint16_t port = (uint16_t)(1024 + i / 2 % 16);
        uint32_t host = 0x0a000001u + i / 32;
        if (i % 2)
            frame_make(frame, 100, PROTO_UDP, 0xc0000201u, 53, host, port, (uint8_t)i);
        else
            frame_make(frame, 90, PROTO_UDP, host, port, 0xc0000201u, 53, (uint8_t)i);
        pcap_add(file, frame, i % 2 ? 100 : 90, i % 2 ? 100 : 90);
    }
    CHECK(fclose(file) == 0);
    struct box box = {.translate = true};
    json_t *spec = spec_of("{}");
    json_object_set_new(spec, "capture", json_string(path));
    json_t *stats = run(spec, &box, 350);
    check_clean(stats);
    CHECK(number(stats, "offered") == 11000 && number(stats, "replies") > 5000);
    json_decref(stats);
}

static void test_bad_specs(void)
{
    struct role role;
    struct io_lane lanes[2] = {{0, 0}, {0, 0}};
    const char *bad[] = {"{\"colour\": 1}", "{\"rate_pps\": -1}", "{\"template\": \"/none\"}",
                         "{\"inside\": \"ten\", \"template\": \"/none\"}",
                         "{\"fill_pps\": 1, \"capture\": \"/none\"}"};
    for (unsigned i = 0; i < 5; i++) {
        json_t *spec = spec_of(bad[i]);
        CHECK(traffic_create(&role, spec, lanes, 2, lanes, 2, false, 1, NULL, 0, pool) < 0);
        json_decref(spec);
    }
}

int main(void)
{
    char dir[] = "/tmp/ftmb-test-XXXXXX", path[64], capture[64];
    unsigned cpu = 0;
    uint32_t length = 60;
    CHECK(mkdtemp(dir));
    CHECK(io_eal_init("test", dir, 256, &cpu, 1) == 0);
    event_process("test");
    pool = io_pool("frames", 16383);
    CHECK(pool);
    snprintf(path, sizeof(path), "%s/template.pcap", dir);
    snprintf(capture, sizeof(capture), "%s/capture.pcap", dir);
    pcap_template(path, PROTO_UDP, &length, 1);
    test_floor(path);
    test_max_rate(path);
    test_translation(path);
    test_outage(path);
    test_fill(path);
    test_fill_lost(path);
    test_capture(capture);
    test_bad_specs();
    unlink(path);
    unlink(capture);
    io_eal_end();
    rmdir(dir);
    return 0;
}

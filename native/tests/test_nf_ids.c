/* ids: patterns wherever they are split, accesses of each kind of packet, limits and windows, full
 * sets, odd packets. Random traffic is for the oracle (tests/test_nf_ids_oracle.py). */
#include "nf/ids.h"
#include "tests/nf_harness.h"

#include <string.h>

#define CLIENT 0x0a000001u
#define SERVER 0xc0000201u

static const char *const samples[MATCH_RULES] = {
    "/etc/shadow",
    "../../../",
    "Cmd.EXE",
    "UNION +  select",
    "' or '1'='1",
    "<script>",
    "${jndi:ldap",
    "() { :;",
    "\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90",
    "powershell.exe -enc",
    "User-Agent: sqlmap",
    "wget http://",
};

static const struct frame_spec udp = {.protocol = 17,
                                      .source = CLIENT,
                                      .destination = SERVER,
                                      .source_port = 5000,
                                      .destination_port = 53};

static struct frame_spec tcp(uint8_t flags)
{
    struct frame_spec spec = udp;
    spec.protocol = 6;
    spec.tcp_flags = flags;
    return spec;
}

static struct frame_spec back(struct frame_spec spec)
{
    struct frame_spec turned = spec;
    turned.source = spec.destination, turned.destination = spec.source;
    turned.source_port = spec.destination_port, turned.destination_port = spec.source_port;
    return turned;
}

/* True: it went to the other side as it was. */
static bool send(struct harness *h, enum nf_port port, struct frame_spec spec, uint32_t seq,
                 const char *data, size_t bytes)
{
    uint8_t frame[HARNESS_FRAME];
    spec.payload = (uint16_t)bytes;
    uint32_t length = frame_build(frame, &spec, 1);
    memcpy(frame + length - bytes, data, bytes);
    if (spec.protocol == 6)
        packet_store32(frame + 38, __builtin_bswap32(seq));
    if (!harness_packet(h, (uint32_t)(h->now & 1), port, frame, length))
        return false;
    CHECK(h->out_port == 1 - port && h->out_length == length);
    CHECK(memcmp(h->out, frame, length) == 0);
    return true;
}

static bool from_inside(struct harness *h, struct frame_spec spec)
{
    return send(h, NF_INSIDE, spec, 1, "", 0);
}

/* The first inputs of a worker sweep; not what these tests count. */
static void open_ids(struct harness *h, const struct harness_setting *settings)
{
    harness_open(h, "ids", 2, settings);
    harness_tick(h, 0);
    harness_tick(h, 1);
    h->now++;
}

static uint64_t matches(struct harness *h)
{
    return harness_counter(h, "matches");
}

/* ---- patterns ------------------------------------------------------------------------------ */

/* Split in two at every place, or in single bytes, in a stream that has other bytes around. */
static void test_split(uint8_t protocol)
{
    for (unsigned rule = 0; rule < MATCH_RULES; rule++) {
        char name[32] = "rule_";
        size_t length = strlen(samples[rule]);
        strcat(name, match_name(rule));
        for (size_t at = 0; at <= length; at++) {
            struct harness h;
            struct frame_spec spec = protocol == 17 ? udp : tcp(TCP_ACK);
            char text[300];
            memset(text, '-', sizeof(text));
            memcpy(text + 100, samples[rule], length);
            open_ids(&h, NULL);
            size_t sent = at < length ? 100 + at : 90;
            CHECK(send(&h, NF_INSIDE, spec, 7, text, sent) && matches(&h) == 0);
            CHECK(send(&h, NF_OUTSIDE, back(spec), 7, text, sent) && matches(&h) == 0);
            size_t step = at < length ? 200 - at : 1;
            for (; sent < 200; sent += step)
                CHECK(send(&h, NF_INSIDE, spec, 7 + (uint32_t)sent, text + sent, step));
            CHECK(matches(&h) == 1 && harness_counter(&h, name) == 1);
            CHECK(harness_counter(&h, "matched_flows") == 1 && harness_counter(&h, "opened") == 1);
            harness_checks(&h);
            harness_close(&h);
        }
    }
}

/* What does not follow is no continuation, in no flow but its own. */
static void test_not_joined(void)
{
    struct harness h;
    struct frame_spec other = tcp(TCP_ACK), same = tcp(TCP_ACK);
    open_ids(&h, NULL);
    other.source_port++;
    CHECK(send(&h, NF_INSIDE, same, 100, "xx/etc/pas", 10));
    CHECK(send(&h, NF_INSIDE, other, 110, "swd", 3) && matches(&h) == 0);
    CHECK(send(&h, NF_OUTSIDE, back(same), 110, "swd", 3) && matches(&h) == 0);
    CHECK(send(&h, NF_INSIDE, same, 105, "tc/pa", 5) && matches(&h) == 0); /* repeats */
    CHECK(send(&h, NF_INSIDE, same, 110, "swd", 3) && matches(&h) == 1);
    CHECK(send(&h, NF_INSIDE, same, 110, "swd", 3) && matches(&h) == 1);
    CHECK(send(&h, NF_INSIDE, same, 113, "/etc/pas", 8) && matches(&h) == 1);
    CHECK(send(&h, NF_INSIDE, same, 122, "swd", 3) && matches(&h) == 1); /* a byte is missing */
    CHECK(send(&h, NF_INSIDE, same, 125, "/etc/passwd", 11) && matches(&h) == 2);
    CHECK(send(&h, NF_INSIDE, tcp(TCP_FIN | TCP_ACK), 136, "/etc/pas", 8) && matches(&h) == 2);
    CHECK(send(&h, NF_INSIDE, tcp(TCP_SYN), 143, "", 0));
    CHECK(send(&h, NF_INSIDE, same, 144, "swd", 3) && matches(&h) == 2); /* begun anew */
    harness_checks(&h);
    harness_close(&h);
}

static void test_drop(void)
{
    struct harness h;
    open_ids(&h, (struct harness_setting[]){{"drop", 1}, {NULL, 0}});
    CHECK(send(&h, NF_INSIDE, udp, 0, "/etc/pas", 8));
    CHECK(!send(&h, NF_INSIDE, udp, 0, "swd", 3));
    CHECK(!send(&h, NF_INSIDE, udp, 0, "more", 4) && !send(&h, NF_OUTSIDE, back(udp), 0, "-", 1));
    CHECK(harness_counter(&h, "dropped_match") == 3 && matches(&h) == 1);
    h.now += 61 * SECOND; /* another flow by now */
    CHECK(send(&h, NF_INSIDE, udp, 0, "more", 4));
    harness_checks(&h);
    harness_close(&h);
    open_ids(&h, (struct harness_setting[]){{"drop", 1}, {"rules", 2}, {NULL, 0}});
    CHECK(send(&h, NF_INSIDE, udp, 0, "/etc/passwd", 11) && matches(&h) == 0);
    CHECK(!send(&h, NF_INSIDE, udp, 0, "/etc/passwd../../../", 20) && matches(&h) == 1);
    harness_close(&h);
}

/* ---- accesses ------------------------------------------------------------------------------ */

static void expect(struct harness *h, enum nf_port port, struct frame_spec spec, uint32_t accesses)
{
    CHECK(send(h, port, port == NF_INSIDE ? spec : back(spec), 1, "", 0));
    CHECK(h->pal_count == accesses && harness_writes(h) == accesses);
}

static void test_accesses(void)
{
    struct harness h;
    struct frame_spec echo = {
        .protocol = 1, .source = CLIENT, .destination = SERVER, .icmp_type = 8};
    open_ids(&h, (struct harness_setting[]){{"rows", 3}, {NULL, 0}});
    expect(&h, NF_INSIDE, tcp(TCP_SYN), 5); /* flow, source, rows */
    expect(&h, NF_INSIDE, tcp(TCP_SYN), 1);
    expect(&h, NF_OUTSIDE, tcp(TCP_SYN | TCP_ACK), 1);
    CHECK(harness_counter(&h, "half_open") == 1);
    expect(&h, NF_INSIDE, tcp(TCP_ACK), 4);
    expect(&h, NF_INSIDE, tcp(TCP_ACK), 1);
    expect(&h, NF_OUTSIDE, tcp(TCP_RST), 1);
    expect(&h, NF_INSIDE, tcp(TCP_SYN), 5); /* anew */
    expect(&h, NF_OUTSIDE, tcp(TCP_RST), 4);
    expect(&h, NF_INSIDE, udp, 2);
    expect(&h, NF_OUTSIDE, udp, 1);
    expect(&h, NF_INSIDE, echo, 1);
    echo.icmp_type = 0;
    expect(&h, NF_INSIDE, echo, 0);
    CHECK(harness_counter(&h, "half_open") == 0 && harness_counter(&h, "attempts") == 4);
    harness_checks(&h);
    harness_close(&h);
    open_ids(&h, (struct harness_setting[]){
                     {"half_open", 0}, {"scan_ports", 0}, {"scan_hosts", 0}, {NULL, 0}});
    expect(&h, NF_INSIDE, tcp(TCP_SYN), 1);
    expect(&h, NF_INSIDE, tcp(TCP_ACK), 1);
    CHECK(h.needs.max_pals == 6);
    harness_close(&h);
}

/* ---- scans --------------------------------------------------------------------------------- */

/* How many of `tries` attempts at new ports, or hosts, were let through; each is a flow of its own
 * if the port `from` is. */
static unsigned tried(struct harness *h, unsigned tries, bool ports, uint32_t from)
{
    unsigned through = 0;
    for (unsigned n = 0; n < tries; n++) {
        struct frame_spec spec = tcp(TCP_SYN);
        spec.source_port = (uint16_t)from;
        spec.destination_port = (uint16_t)(ports ? 1 + n : 80);
        spec.destination = SERVER + (ports ? 0 : n);
        through += from_inside(h, spec);
    }
    return through;
}

/* The estimate is within a quarter of the limit, for large ones too. */
static void test_scans(void)
{
    for (unsigned limit = 20; limit <= 320; limit *= 4) {
        for (unsigned ports = 0; ports < 2; ports++) {
            struct harness h;
            open_ids(&h, (struct harness_setting[]){{"drop", 1},
                                                    {ports ? "scan_ports" : "scan_hosts", limit},
                                                    {ports ? "scan_hosts" : "scan_ports", 0},
                                                    {NULL, 0}});
            unsigned through = tried(&h, 500, ports, 1000);
            CHECK(through > limit * 3 / 4 && through < limit * 5 / 4);
            CHECK(harness_counter(&h, "scanners") == 1 && tried(&h, 3, !ports, 2000) == 0);
            struct frame_spec other = udp;
            other.source++;
            CHECK(from_inside(&h, other));
            h.now += 10 * SECOND + 1;
            CHECK(tried(&h, 500, ports, 3000) == through && harness_counter(&h, "scanners") == 2);
            harness_checks(&h);
            harness_close(&h);
        }
    }
}

/* Answers are not attempts of those who answer, nor is what was begun before. */
static void test_no_scan(void)
{
    struct harness h;
    open_ids(&h, (struct harness_setting[]){{"drop", 1}, {"scan_ports", 5}, {NULL, 0}});
    for (uint16_t n = 0; n < 100; n++) {
        struct frame_spec asks = udp, acks = tcp(TCP_ACK), resets = tcp(TCP_RST);
        asks.source = CLIENT + n;
        asks.source_port = acks.destination_port = (uint16_t)(3000 + n);
        resets.destination_port = (uint16_t)(4000 + n);
        CHECK(from_inside(&h, asks) && send(&h, NF_OUTSIDE, back(asks), 0, "-", 1));
        CHECK(from_inside(&h, acks) && from_inside(&h, resets));
    }
    CHECK(harness_counter(&h, "scanners") == 0 && harness_counter(&h, "attempts") == 100);
    harness_close(&h);
}

/* In a full set the source is forgotten that began first. */
static void test_forgotten(void)
{
    struct harness h;
    open_ids(&h, (struct harness_setting[]){{"sources", 2}, {"scan_ports", 2}, {NULL, 0}});
    for (unsigned n = 0; n < 10; n++, h.now++) {
        struct frame_spec spec = udp;
        spec.source = CLIENT + n;
        CHECK(from_inside(&h, spec));
    }
    CHECK(harness_counter(&h, "forgotten") == 2);
    struct frame_spec second = udp, last = udp;
    second.source = CLIENT + 1, last.source = CLIENT + 9;
    second.destination_port = last.destination_port = 99;
    CHECK(from_inside(&h, second) && harness_counter(&h, "scanners") == 0);
    CHECK(from_inside(&h, last) && harness_counter(&h, "scanners") == 1);
    harness_checks(&h);
    harness_close(&h);
}

/* ---- floods -------------------------------------------------------------------------------- */

static struct frame_spec syn_of(unsigned n)
{
    struct frame_spec spec = tcp(TCP_SYN);
    spec.source = 0xc6000000 + n;
    return spec;
}

static void test_flood(bool drop)
{
    struct harness h;
    open_ids(&h, (struct harness_setting[]){{"drop", drop},
                                            {"half_open", 50},
                                            {"transitory_ms", 1000},
                                            {"capacity", 200},
                                            {NULL, 0}});
    for (unsigned n = 0; n < 60; n++)
        CHECK(from_inside(&h, syn_of(n)) == (!drop || n < 50));
    CHECK(harness_counter(&h, "flood") == 10);
    CHECK(harness_counter(&h, "half_open") == (drop ? 50 : 60));
    struct frame_spec elsewhere = syn_of(70), confirms = syn_of(3);
    elsewhere.destination++;
    CHECK(from_inside(&h, elsewhere) && harness_counter(&h, "flood") == 10);
    confirms.tcp_flags = TCP_ACK;
    for (unsigned n = 0; n < 11; n++) {
        confirms.source = syn_of(n).source;
        CHECK(from_inside(&h, confirms));
    }
    CHECK(from_inside(&h, syn_of(71)) && harness_counter(&h, "flood") == 10);
    harness_checks(&h);
    h.now += SECOND + 1; /* they expire, and are swept */
    for (unsigned i = 0; i < 1000; i++, h.now += MS)
        harness_tick(&h, i & 1);
    CHECK(harness_counter(&h, "half_open") == 0 && harness_counter(&h, "flows") == 11);
    harness_checks(&h);
    CHECK(tried(&h, 40, false, 1000) == 40 && harness_counter(&h, "half_open") == 40);
    harness_checks(&h);
    harness_close(&h);
}

/* ---- odd ones ------------------------------------------------------------------------------ */

/* A full set: inspected without an entry, and no half-open connection. */
static void test_untracked(void)
{
    struct harness h;
    open_ids(&h, (struct harness_setting[]){{"capacity", 2}, {"drop", 1}, {NULL, 0}});
    for (unsigned n = 0; n < 20; n++)
        CHECK(from_inside(&h, syn_of(n)));
    CHECK(harness_counter(&h, "untracked") == 12 && harness_counter(&h, "half_open") == 8);
    struct frame_spec spec = syn_of(19);
    spec.tcp_flags = TCP_ACK;
    CHECK(!send(&h, NF_INSIDE, spec, 1, "/etc/passwd", 11) &&
          send(&h, NF_INSIDE, spec, 12, "-", 1));
    h.now += 31 * SECOND; /* an expired one gives its place */
    CHECK(from_inside(&h, spec) && harness_counter(&h, "ended") >= 1);
    harness_checks(&h);
    harness_close(&h);
}

static void test_odd_packets(bool drop)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    struct frame_spec options = udp;
    open_ids(&h, (struct harness_setting[]){{"drop", drop}, {NULL, 0}});
    options.option_words = 10;
    CHECK(send(&h, NF_INSIDE, options, 0, "/etc/", 5));
    CHECK(send(&h, NF_INSIDE, udp, 0, "passwd", 6) == !drop && matches(&h) == 1);
    struct frame_spec other = udp;
    other.source_port = 99, other.payload = 20;
    uint32_t length = frame_build(frame, &other, 1);
    for (uint32_t cut = 0; cut < length; cut++) {
        CHECK(harness_packet(&h, 0, NF_OUTSIDE, frame, cut) == !drop);
        CHECK(drop || (h.out_port == NF_INSIDE && memcmp(h.out, frame, cut) == 0));
    }
    CHECK(harness_counter(&h, "malformed") == length);
    CHECK(harness_counter(&h, "dropped_malformed") == (drop ? length : 0));
    memcpy(frame + 42, "/etc/passwd", 11);
    frame[14 + 6] = 0x20; /* a fragment is not inspected, nor is what comes next */
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    frame[14 + 6] = 0, frame[14 + 9] = 47;
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    frame[12] = 0x86, frame[13] = 0xdd;
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    frame[12] = 0x08, frame[13] = 0x06;
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length) && h.out_port == NF_OUTSIDE);
    CHECK(harness_counter(&h, "not_inspected") == 4 && matches(&h) == 1);
    harness_checks(&h);
    harness_close(&h);
}

int main(void)
{
    test_split(17);
    test_split(6);
    test_not_joined();
    test_drop();
    test_accesses();
    test_scans();
    test_no_scan();
    test_forgotten();
    test_flood(false);
    test_flood(true);
    test_untracked();
    test_odd_packets(false);
    test_odd_packets(true);
    return 0;
}

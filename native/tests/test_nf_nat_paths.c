/* nat: what is not a packet from inside to outside or back: between inside hosts, fragments, ICMP
 * errors. That the bytes are right is shown by tests/test_nf_nat_oracle.py; here is what they cost,
 * and what they must leave alone. */
#include "nf/nat.h"
#include "tests/nf_harness.h"

#define INSIDE 0x0a000001u
#define SERVER 0xc0000201u
#define POOL 0xc6120001u

static uint8_t frame[HARNESS_FRAME];

struct endpoint {
    uint32_t address;
    uint16_t port;
};

static struct frame_spec spec_of(uint8_t protocol, uint32_t host, struct endpoint to)
{
    return (struct frame_spec){.protocol = protocol,
                               .source = host,
                               .source_port = 4000,
                               .destination = to.address,
                               .destination_port = to.port,
                               .payload = 24,
                               .icmp_type = 8,
                               .tcp_flags = TCP_ACK};
}

static const struct endpoint server = {SERVER, 80};

static bool send(struct harness *h, enum nf_port side, const struct frame_spec *spec)
{
    return harness_packet(h, 0, side, frame, frame_build(frame, spec, 7));
}

/* The outside endpoint of a flow from `host`. */
static struct endpoint open_flow(struct harness *h, uint8_t protocol, uint32_t host)
{
    struct frame_spec spec = spec_of(protocol, host, server);
    CHECK(send(h, NF_INSIDE, &spec) && h->out_port == NF_OUTSIDE);
    return (struct endpoint){frame_address(h->out, false), frame_port(h->out, false)};
}

static void pass(struct harness *h, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i++) {
        h->now += MS;
        harness_tick(h, 0);
    }
}

/* RFC 4787, REQ-9 and RFC 5382, REQ-8: the receiver sees the sender's outside endpoint. It works
 * before the sender has talked to anybody else, and costs a read more. */
static void test_hairpin(uint8_t protocol)
{
    struct harness h;
    harness_open(&h, "nat", 1, NULL);
    harness_tick(&h, 0);
    struct endpoint b = open_flow(&h, protocol, INSIDE + 1);
    struct frame_spec there = spec_of(protocol, INSIDE, b);
    CHECK(send(&h, NF_INSIDE, &there) && h.out_port == NF_INSIDE);
    CHECK(h.pal_count == 5 && harness_writes(&h) == 3);
    CHECK(frame_address(h.out, true) == INSIDE + 1 && frame_port(h.out, true) == 4000);
    CHECK(frame_checksums_right(h.out, h.out_length));
    struct endpoint a = {frame_address(h.out, false), frame_port(h.out, false)};
    CHECK(a.address - POOL < 4 && a.port >= 1024);
    if (protocol == PROTOCOL_TCP) /* established from now on, both of them */
        CHECK(send(&h, NF_INSIDE, &there));
    struct frame_spec back = spec_of(protocol, INSIDE + 1, a);
    CHECK(send(&h, NF_INSIDE, &back) && h.out_port == NF_INSIDE);
    CHECK(send(&h, NF_INSIDE, &back) && h.pal_count == 2 && harness_writes(&h) == 0);
    CHECK(frame_address(h.out, false) == b.address && frame_port(h.out, false) == b.port);
    CHECK(frame_address(h.out, true) == INSIDE && frame_port(h.out, true) == 4000);
    CHECK(frame_checksums_right(h.out, h.out_length));
    CHECK(harness_counter(&h, "mappings") == 2);
    CHECK(harness_counter(&h, "outbound") == 1 && harness_counter(&h, "inbound") == 0);
    /* Nobody there: no mapping is made for it. */
    there = spec_of(protocol, INSIDE + 2, (struct endpoint){POOL + 3, 1030});
    CHECK(!send(&h, NF_INSIDE, &there) && harness_counter(&h, "dropped_no_mapping") == 1);
    CHECK(harness_counter(&h, "mappings") == 2);
    harness_checks(&h);
    harness_close(&h);
}

/* Between hosts, too, a mapping is kept by what its own host sends, not by what it gets; and a FIN
 * closes both sides'. */
static void test_hairpin_timeouts(void)
{
    struct harness h;
    harness_open(&h, "nat", 1,
                 (struct harness_setting[]){{"udp_ms", 100}, {"capacity", 64}, {NULL, 0}});
    struct endpoint b = open_flow(&h, PROTOCOL_UDP, INSIDE + 1);
    struct frame_spec there = spec_of(PROTOCOL_UDP, INSIDE, b);
    unsigned arrived = 0;
    for (unsigned i = 0; i < 20; i++) {
        arrived += send(&h, NF_INSIDE, &there);
        pass(&h, 10);
    }
    CHECK(arrived >= 10 && arrived <= 14);
    CHECK(harness_counter(&h, "mappings") == 1); /* the sender's, kept alive for as long */
    harness_close(&h);

    harness_open(&h, "nat", 1,
                 (struct harness_setting[]){{"transitory_ms", 100}, {"capacity", 64}, {NULL, 0}});
    b = open_flow(&h, PROTOCOL_TCP, INSIDE + 1);
    CHECK(open_flow(&h, PROTOCOL_TCP, INSIDE + 1).port == b.port); /* established */
    there = spec_of(PROTOCOL_TCP, INSIDE, b);
    there.tcp_flags = TCP_FIN | TCP_ACK;
    CHECK(send(&h, NF_INSIDE, &there));
    pass(&h, 200);
    CHECK(harness_counter(&h, "mappings") == 0);
    harness_checks(&h);
    harness_close(&h);
}

static uint16_t ones_sum(const uint8_t *bytes, uint32_t length)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length; i++)
        sum += (uint32_t)bytes[i] << (i & 1 ? 0 : 8);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Turns `frame` into an error that `source` sends about it, to its source. */
static uint32_t make_error(uint32_t source)
{
    uint8_t about[28];
    struct frame_spec outer = {.protocol = PROTOCOL_ICMP,
                               .source = source,
                               .destination = frame_address(frame, false),
                               .icmp_type = ICMP_UNREACHABLE,
                               .payload = sizeof(about)};
    memcpy(about, frame + 14, sizeof(about));
    uint32_t length = frame_build(frame, &outer, 1);
    memset(frame + 36, 0, 6);
    memcpy(frame + 42, about, sizeof(about));
    uint16_t sum = (uint16_t)~ones_sum(frame + 34, length - 34);
    frame[36] = (uint8_t)(sum >> 8);
    frame[37] = (uint8_t)sum;
    return length;
}

/* RFC 5508, REQ-6, and RFC 5382, REQ-10: errors neither keep a mapping nor end it. One read. */
static void test_errors_change_nothing(void)
{
    struct harness h;
    harness_open(&h, "nat", 1,
                 (struct harness_setting[]){
                     {"tcp_ms", 100}, {"transitory_ms", 100}, {"capacity", 64}, {NULL, 0}});
    struct endpoint a = open_flow(&h, PROTOCOL_TCP, INSIDE);
    CHECK(open_flow(&h, PROTOCOL_TCP, INSIDE).port == a.port);
    struct frame_spec out = spec_of(PROTOCOL_TCP, INSIDE, server);
    struct frame_spec in = spec_of(PROTOCOL_TCP, SERVER, a);
    in.source_port = 80;
    for (unsigned i = 0; i < 10; i++) {
        pass(&h, 10);
        struct frame_spec seen = out; /* as it went out */
        seen.source = a.address;
        seen.source_port = a.port;
        frame_build(frame, &seen, 1);
        uint32_t length = make_error(SERVER + 9);
        CHECK(harness_packet(&h, 0, NF_OUTSIDE, frame, length) && h.out_port == NF_INSIDE);
        CHECK(harness_writes(&h) == 0 && frame_address(h.out, true) == INSIDE);
        seen = in;
        seen.destination = INSIDE;
        seen.destination_port = 4000;
        frame_build(frame, &seen, 1);
        length = make_error(INSIDE + 99); /* a router inside */
        CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length) && h.out_port == NF_OUTSIDE);
        CHECK(harness_writes(&h) == 0 && frame_address(h.out, false) == a.address);
        CHECK(frame_address(h.out, true) == SERVER);
    }
    CHECK(harness_counter(&h, "icmp_errors") == 20);
    CHECK(send(&h, NF_OUTSIDE, &in)); /* still there */
    pass(&h, 50);
    CHECK(harness_counter(&h, "mappings") == 0); /* but kept no longer */
    harness_checks(&h);
    harness_close(&h);
}

/* A fragment of a UDP packet from `host`: the first, or one with an offset. */
static bool send_fragment(struct harness *h, uint32_t host, uint16_t identification, bool first)
{
    struct frame_spec spec = spec_of(PROTOCOL_UDP, host, server);
    uint32_t length = frame_build(frame, &spec, 7);
    frame[18] = (uint8_t)(identification >> 8);
    frame[19] = (uint8_t)identification;
    frame[20] = first ? 0x20 : 0;
    frame[21] = first ? 0 : 4;
    return harness_packet(h, 0, NF_INSIDE, frame, length);
}

/* RFC 4787, REQ-14: later fragments follow the first, in any order, for a time. */
static void test_fragments(void)
{
    struct harness h;
    harness_open(&h, "nat", 1, (struct harness_setting[]){{"datagram_ms", 50}, {NULL, 0}});
    harness_tick(&h, 0);
    CHECK(!send_fragment(&h, INSIDE, 1, false) && h.pal_count == 1); /* too early */
    CHECK(harness_counter(&h, "dropped_fragment") == 1 && harness_counter(&h, "mappings") == 0);
    CHECK(send_fragment(&h, INSIDE, 1, true) && h.pal_count == 5 && harness_writes(&h) == 4);
    uint32_t address = frame_address(h.out, false);
    CHECK(address - POOL < 4);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(send_fragment(&h, INSIDE, 1, false) && h.pal_count == 1 && !harness_writes(&h));
        CHECK(frame_address(h.out, false) == address && h.out_port == NF_OUTSIDE);
    }
    CHECK(!send_fragment(&h, INSIDE, 2, false) && !send_fragment(&h, INSIDE + 1, 1, false));
    h.now += 50 * MS;
    CHECK(send_fragment(&h, INSIDE, 1, false));
    h.now++;
    CHECK(!send_fragment(&h, INSIDE, 1, false));
    CHECK(send_fragment(&h, INSIDE, 1, true) && send_fragment(&h, INSIDE, 1, false));
    CHECK(harness_counter(&h, "fragments") == 5 && harness_counter(&h, "mappings") == 1);
    CHECK(harness_counter(&h, "datagrams_noted") == 2);
    CHECK(harness_counter(&h, "datagrams_forgotten") == 1);
    harness_checks(&h);
    harness_close(&h);
}

/* REQ-14a: as many first fragments as one likes, without the others. The oldest are forgotten, and
 * nothing else is impaired: neither packets nor whoever sends all fragments of a datagram. */
static void test_fragment_flood(void)
{
    struct harness h;
    harness_open(&h, "nat", 1, (struct harness_setting[]){{"datagrams", 2}, {NULL, 0}});
    for (uint16_t i = 0; i < 1000; i++) {
        struct frame_spec spec = spec_of(PROTOCOL_UDP, INSIDE + i, server);
        CHECK(send_fragment(&h, INSIDE + 5000, i, true) && send(&h, NF_INSIDE, &spec));
        h.now += 1000;
        if (i >= SETS_WAYS) {
            CHECK(send_fragment(&h, INSIDE + 5000, i - SETS_WAYS + 1, false));
            CHECK(!send_fragment(&h, INSIDE + 5000, i - SETS_WAYS, false));
        }
    }
    CHECK(harness_counter(&h, "datagrams_forgotten") == 1000 - SETS_WAYS);
    harness_checks(&h);
    /* The check of the table finds what is not so. */
    const struct nat *nat = arena_root(h.arena);
    struct nat_datagram *set = sets_at(h.arena, &nat->datagrams, 0);
    struct nat_datagram kept = set[3];
    set[3] = set[4];
    CHECK(!harness_check_holds(&h, "datagrams"));
    set[3] = kept;
    set[3].source = 1;
    CHECK(!harness_check_holds(&h, "datagrams"));
    set[3] = (struct nat_datagram){0};
    CHECK(!harness_check_holds(&h, "datagrams"));
    harness_close(&h);
}

/* First fragments that lack a part of their header, or that nothing can be done with. */
static void test_short_fragments(void)
{
    struct harness h;
    harness_open(&h, "nat", 1, NULL);
    const uint8_t lacking[][2] = {{6, 19}, {17, 7}, {1, 7}, {47, 60}};
    for (unsigned i = 0; i < 4; i++) {
        struct frame_spec spec = spec_of(PROTOCOL_TCP, INSIDE, server);
        spec.payload = 60;
        frame_build(frame, &spec, 1);
        frame[17] = 20 + lacking[i][1];
        frame[20] = 0x20;
        frame[23] = lacking[i][0];
        CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, 34u + lacking[i][1]));
    }
    CHECK(harness_counter(&h, "dropped_fragment") == 4);
    CHECK(harness_counter(&h, "mappings") == 0 && harness_counter(&h, "datagrams_noted") == 0);
    harness_close(&h);
}

/* Nobody inside has one of our own addresses: with a mapping for it, what came back would go on to
 * be taken for a packet to ourselves, and the fragments of its datagram with it. */
static void test_spoofed(void)
{
    const uint8_t protocols[] = {PROTOCOL_UDP, PROTOCOL_TCP, PROTOCOL_ICMP};
    struct harness h;
    harness_open(&h, "nat", 1, (struct harness_setting[]){{"addresses", 2}, {NULL, 0}});
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned address = 0; address < 2; address++) {
            struct frame_spec spec = spec_of(protocols[i], POOL + address, server);
            CHECK(!send(&h, NF_INSIDE, &spec));
            spec.destination = POOL; /* a hairpin, from and to us */
            CHECK(!send(&h, NF_INSIDE, &spec));
        }
    }
    CHECK(harness_counter(&h, "dropped_spoofed") == 12 && harness_counter(&h, "mappings") == 0);
    CHECK(!send_fragment(&h, POOL, 1, true) && !send_fragment(&h, POOL, 1, false));
    CHECK(harness_counter(&h, "dropped_spoofed") == 13);
    struct frame_spec back = spec_of(PROTOCOL_UDP, SERVER, (struct endpoint){POOL, 1024});
    frame_build(frame, &back, 7);
    frame[20] = 0x20; /* the first fragment of an answer */
    CHECK(!harness_packet(&h, 0, NF_OUTSIDE, frame, 14 + 20 + 8 + 24));
    CHECK(harness_counter(&h, "datagrams_noted") == 0);
    struct frame_spec next = spec_of(PROTOCOL_UDP, POOL + 2, server); /* not ours any more */
    CHECK(send(&h, NF_INSIDE, &next));
    harness_checks(&h);
    harness_close(&h);
}

int main(void)
{
    test_hairpin(PROTOCOL_UDP);
    test_hairpin(PROTOCOL_TCP);
    test_hairpin_timeouts();
    test_spoofed();
    test_errors_change_nothing();
    test_fragments();
    test_fragment_flood();
    test_short_fragments();
    return 0;
}

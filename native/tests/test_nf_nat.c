/* nat: what it does with each kind of packet, its limits, timeouts and logged accesses. */
#include "nf/nat.h"
#include "tests/nf_harness.h"

#define INSIDE 0x0a000001u
#define SERVER 0xc0000201u
#define POOL 0xc6120001u

static uint8_t frame[HARNESS_FRAME];

/* A frame from an inside host, and the answer to whatever the NAT put out last. */
static struct frame_spec flow(uint8_t protocol, uint32_t host, uint16_t port)
{
    return (struct frame_spec){.protocol = protocol,
                               .source = host,
                               .destination = SERVER,
                               .source_port = port,
                               .destination_port = 80,
                               .payload = 24,
                               .icmp_type = 8,
                               .tcp_flags = TCP_ACK};
}

static bool send_out(struct harness *h, uint32_t worker, const struct frame_spec *spec)
{
    return harness_packet(h, worker, NF_INSIDE, frame, frame_build(frame, spec, 7));
}

static bool send_in(struct harness *h, uint8_t protocol, uint32_t address, uint16_t port,
                    uint8_t flags)
{
    struct frame_spec spec = {.protocol = protocol,
                              .source = SERVER,
                              .destination = address,
                              .source_port = protocol == 1 ? port : 80,
                              .destination_port = port,
                              .payload = 11,
                              .tcp_flags = flags};
    return harness_packet(h, 0, NF_OUTSIDE, frame, frame_build(frame, &spec, 9));
}

/* Time passes with a tick a millisecond for each worker, as it does without traffic. */
static void pass(struct harness *h, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i++) {
        h->now += MS;
        for (uint32_t w = 0; w < h->workers; w++)
            harness_tick(h, w);
    }
}

/* Out and back: only the endpoint and the checksums change, and change as if built anew. */
static void check_both_ways(struct harness *h, struct frame_spec spec, const char *what)
{
    uint8_t expected[HARNESS_FRAME];
    if (!send_out(h, 0, &spec)) {
        fprintf(stderr, "%s was dropped\n", what);
        exit(1);
    }
    uint32_t address = frame_address(h->out, false);
    uint16_t port = frame_port(h->out, false);
    CHECK(h->out_port == NF_OUTSIDE && address - POOL < 4 && port >= 1024);
    struct frame_spec after = spec;
    after.source = address;
    after.source_port = port;
    CHECK(h->out_length == frame_build(expected, &after, 7));
    CHECK(memcmp(h->out, expected, h->out_length) == 0);

    struct frame_spec answer = spec;
    answer.source = spec.destination;
    answer.destination = address;
    answer.source_port = spec.protocol == 1 ? port : spec.destination_port;
    answer.destination_port = port;
    answer.icmp_type = 0;
    CHECK(harness_packet(h, 1, NF_OUTSIDE, frame, frame_build(frame, &answer, 3)));
    CHECK(h->out_port == NF_INSIDE && h->pal_count == 1 && harness_writes(h) == 0);
    answer.destination = spec.source;
    answer.destination_port = spec.source_port;
    answer.source_port = spec.protocol == 1 ? spec.source_port : spec.destination_port;
    CHECK(h->out_length == frame_build(expected, &answer, 3));
    CHECK(memcmp(h->out, expected, h->out_length) == 0);
}

static void test_translation(void)
{
    struct harness h;
    harness_open(&h, "nat", 2, NULL);
    harness_tick(&h, 0); /* the sweep's reads are due once at this instant */
    harness_tick(&h, 1);
    const uint8_t protocols[] = {1, 6, 17};
    for (unsigned p = 0; p < 3; p++) {
        struct frame_spec spec = flow(protocols[p], INSIDE, 4000);
        check_both_ways(&h, spec, "a plain packet");
        spec.option_words = 10;
        spec.payload = 1001;
        check_both_ways(&h, spec, "a packet with options and an odd length");
        spec.payload = 0;
        check_both_ways(&h, spec, "an empty packet");
    }
    struct frame_spec plain = flow(17, INSIDE, 4001);
    plain.no_udp_checksum = true;
    check_both_ways(&h, plain, "UDP without a checksum");
    CHECK(harness_counter(&h, "mappings") == 4);
    harness_checks(&h);
    harness_close(&h);
}

/* One read for a known flow; one read and a section of three writes for a new one. */
static void test_accesses(void)
{
    struct harness h;
    harness_open(&h, "nat", 1, NULL);
    struct frame_spec spec = flow(17, INSIDE, 4000);
    harness_tick(&h, 0);
    CHECK(send_out(&h, 0, &spec) && h.pal_count == 4 && harness_writes(&h) == 3);
    CHECK(pal_id(h.pals[1]) < pal_id(h.pals[2]) && pal_id(h.pals[2]) < pal_id(h.pals[3]));
    uint16_t port = frame_port(h.out, false);
    CHECK(send_out(&h, 0, &spec) && h.pal_count == 1 && harness_writes(&h) == 0);
    spec.destination = SERVER + 77; /* endpoint-independent mapping */
    spec.destination_port = 9;
    CHECK(send_out(&h, 0, &spec) && h.pal_count == 1 && frame_port(h.out, false) == port);
    harness_close(&h);
}

/* Every kind of other traffic is dropped under its own name. */
static void test_fates(void)
{
    struct harness h;
    harness_open(&h, "nat", 1, NULL);
    struct frame_spec spec = flow(17, INSIDE, 4000), tcp = flow(6, INSIDE, 4000);
    struct frame_spec echo = flow(1, INSIDE, 4000);
    uint32_t length = frame_build(frame, &spec, 1);
    frame[12] = 0x86, frame[13] = 0xdd;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_not_ipv4") == 1);
    for (unsigned i = 0; i < 2; i++) { /* without a first one: an offset; its highest bit */
        frame_build(frame, &spec, 1);
        frame[20] = i == 0 ? 0 : 0x10;
        frame[21] = i == 0;
        CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    }
    CHECK(harness_counter(&h, "dropped_fragment") == 2);
    echo.icmp_type = 0;
    CHECK(!send_out(&h, 0, &echo)); /* a reply from inside */
    echo.icmp_type = 3;
    CHECK(!send_out(&h, 0, &echo));
    CHECK(harness_counter(&h, "dropped_icmp") == 2);
    length = frame_build(frame, &spec, 1);
    frame[14 + 9] = 47;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_protocol") == 1);
    echo = flow(1, INSIDE, 4000);
    echo.destination = POOL + 2;
    CHECK(!send_out(&h, 0, &echo));
    CHECK(harness_counter(&h, "dropped_hairpin") == 1);
    CHECK(!send_in(&h, 17, POOL, 1024, 0) && !send_in(&h, 17, POOL + 4, 1024, 0));
    CHECK(!send_in(&h, 17, POOL - 1, 1024, 0) && !send_in(&h, 17, POOL, 1023, 0));
    CHECK(!send_in(&h, 17, POOL, 65535, 0)); /* beyond the range of a 16,384-slot pool */
    CHECK(harness_counter(&h, "dropped_no_mapping") == 5);

    length = frame_build(frame, &tcp, 1);
    for (uint32_t cut = 0; cut < length; cut++) /* every truncation; the first two are no IPv4 */
        CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, cut));
    const uint8_t damage[][2] = {{14, 0x44}, {14, 0x55}, {14, 0x4f}, {16, 1},
                                 {46, 0x40}, {46, 0xf0}}; /* ihl, version, length, doff */
    for (unsigned i = 0; i < sizeof(damage) / 2; i++) {
        frame_build(frame, &tcp, 1);
        frame[damage[i][0]] = damage[i][1];
        CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    }
    CHECK(harness_counter(&h, "dropped_malformed") == length + sizeof(damage) / 2);
    CHECK(harness_counter(&h, "mappings") == 0 && harness_counter(&h, "outbound") == 0);
    /* A frame longer than its packet (padding) is no damage. */
    length = frame_build(frame, &tcp, 1);
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length + 6) && h.out_length == length + 6);
    harness_close(&h);
}

/* No port left: the new flow is dropped and counted, the others go on. */
static void test_exhaustion(void)
{
    struct harness h;
    harness_open(
        &h, "nat", 2,
        (struct harness_setting[]){{"addresses", 3}, {"capacity", 10}, {"udp_ms", 100}, {NULL, 0}});
    for (uint16_t i = 0; i < 10; i++) {
        struct frame_spec spec = flow(17, INSIDE + i, 4000);
        CHECK(send_out(&h, i & 1, &spec));
        pass(&h, 2);
    }
    struct frame_spec late = flow(17, INSIDE + 99, 4000), old = flow(17, INSIDE + 3, 4000);
    CHECK(!send_out(&h, 0, &late));
    CHECK(h.pal_count <= 1 + 4 * 3 - 1);
    CHECK(harness_counter(&h, "dropped_no_port") == 1 && harness_counter(&h, "mappings") == 10);
    CHECK(send_out(&h, 0, &old));
    harness_checks(&h);
    pass(&h, 200);
    CHECK(harness_counter(&h, "mappings") == 0 && harness_counter(&h, "mappings_expired") == 10);
    harness_checks(&h);
    harness_close(&h);
}

/* A free port is used again only after all that have been free for longer. */
static void test_longest_unused_first(void)
{
    struct harness h;
    harness_open(
        &h, "nat", 1,
        (struct harness_setting[]){{"addresses", 1}, {"capacity", 5}, {"udp_ms", 20}, {NULL, 0}});
    for (uint16_t i = 0; i < 17; i++) {
        struct frame_spec spec = flow(17, INSIDE + i, 4000);
        CHECK(send_out(&h, 0, &spec) && frame_port(h.out, false) == 1024 + i % 5);
        pass(&h, 40);
        CHECK(harness_counter(&h, "mappings") == 0);
    }
    harness_close(&h);
}

/* A mapping lives for its timeout after the latest outbound packet, and not for much longer. */
static void test_expiry(void)
{
    struct harness h;
    harness_open(&h, "nat", 2,
                 (struct harness_setting[]){{"udp_ms", 400}, {"capacity", 64}, {NULL, 0}});
    struct frame_spec spec = flow(17, INSIDE, 4000);
    CHECK(send_out(&h, 0, &spec));
    uint32_t address = frame_address(h.out, false);
    uint16_t port = frame_port(h.out, false);
    uint32_t writes = 0;
    for (unsigned i = 0; i < 100; i++) { /* kept alive; written to every eighth of the timeout */
        pass(&h, 20);
        CHECK(send_out(&h, 0, &spec) && frame_port(h.out, false) == port);
        writes += harness_writes(&h);
    }
    CHECK(writes >= 20 && writes <= 40);
    pass(&h, 49); /* just inside the granularity: this packet is not written down */
    CHECK(send_out(&h, 0, &spec));
    for (unsigned i = 0; i < 20; i++) {
        CHECK(send_in(&h, 17, address, port, 0)); /* does not refresh */
        pass(&h, 20);
    }
    CHECK(send_in(&h, 17, address, port, 0)); /* 400 ms after the latest outbound packet */
    pass(&h, 50 + 50 + 5);                    /* granularity, one round of the sweep */
    CHECK(!send_in(&h, 17, address, port, 0));
    CHECK(harness_counter(&h, "mappings") == 0);
    harness_checks(&h);
    harness_close(&h);
}

/* Stamps of different workers are not ordered: a packet with an older stamp expires nothing. */
static void test_skewed_stamps(void)
{
    struct harness h;
    harness_open(&h, "nat", 2,
                 (struct harness_setting[]){{"udp_ms", 100}, {"capacity", 16}, {NULL, 0}});
    struct frame_spec spec = flow(17, INSIDE, 4000);
    CHECK(send_out(&h, 0, &spec));
    uint16_t port = frame_port(h.out, false);
    h.now -= 50 * MS;
    for (unsigned i = 0; i < 45; i++, h.now += MS) { /* both sweep all groups several times */
        harness_tick(&h, 0);
        harness_tick(&h, 1);
    }
    CHECK(harness_counter(&h, "groups_swept") > 16);
    CHECK(send_out(&h, 1, &spec) && frame_port(h.out, false) == port && h.pal_count == 1);
    CHECK(harness_counter(&h, "mappings_expired") == 0);
    harness_close(&h);
}

static bool lives(struct harness *h, uint64_t ms, uint32_t address, uint16_t port)
{
    pass(h, ms);
    return send_in(h, 6, address, port, TCP_ACK);
}

/* TCP: transitory until the handshake is over and after FIN or RST; writes only at the changes. */
static void test_tcp(void)
{
    struct harness h;
    harness_open(&h, "nat", 1,
                 (struct harness_setting[]){
                     {"tcp_ms", 2000}, {"transitory_ms", 80}, {"capacity", 16}, {NULL, 0}});
    struct frame_spec spec = flow(6, INSIDE, 4000);
    spec.payload = 0;
    for (unsigned ending = 0; ending < 3; ending++) {
        spec.tcp_flags = TCP_SYN;
        CHECK(send_out(&h, 0, &spec));
        uint32_t address = frame_address(h.out, false);
        uint16_t port = frame_port(h.out, false);
        if (ending == 0) { /* never acknowledged: transitory */
            CHECK(lives(&h, 79, address, port) && !lives(&h, 60, address, port));
            continue;
        }
        spec.tcp_flags = TCP_ACK;
        CHECK(send_out(&h, 0, &spec) && harness_writes(&h) == 1);
        CHECK(send_out(&h, 0, &spec) && harness_writes(&h) == 0);
        CHECK(lives(&h, 1900, address, port));
        if (ending == 1) {
            spec.tcp_flags = TCP_FIN | TCP_ACK;
            CHECK(send_out(&h, 0, &spec));
            spec.tcp_flags = TCP_ACK; /* of the other side's FIN: it stays closing */
            CHECK(send_out(&h, 0, &spec) && harness_writes(&h) == 0);
        } else {
            CHECK(send_in(&h, 6, address, port, TCP_RST) && harness_writes(&h) == 1);
            pass(&h, 40);
            CHECK(send_in(&h, 6, address, port, TCP_RST)); /* does not restart the timer */
            CHECK(!lives(&h, 75, address, port));
            continue;
        }
        CHECK(lives(&h, 79, address, port) && !lives(&h, 60, address, port));
    }
    /* Data after a FIN: another connection uses the same mapping. */
    spec.tcp_flags = TCP_FIN | TCP_ACK;
    CHECK(send_out(&h, 0, &spec));
    uint32_t address = frame_address(h.out, false);
    uint16_t port = frame_port(h.out, false);
    spec.payload = 10;
    spec.tcp_flags = TCP_ACK;
    CHECK(send_out(&h, 0, &spec) && harness_writes(&h) == 1 && lives(&h, 1900, address, port));
    harness_checks(&h);
    harness_close(&h);
}

/* Keys of one bucket: the chain's bound holds, is counted, and frees up again. */
static void test_crowded_chain(void)
{
    struct harness h;
    harness_open(&h, "nat", 1,
                 (struct harness_setting[]){{"capacity", 256}, {"udp_ms", 100}, {NULL, 0}});
    const struct nat *nat = arena_root(h.arena);
    unsigned taken = 0, refused = 0;
    for (uint32_t host = INSIDE; taken + refused < NAT_MAX_CHAIN + 5; host++) {
        struct frame_spec spec = flow(17, host, 4000);
        uint64_t key = nat_key(__builtin_bswap32(host), __builtin_bswap16(4000), 17);
        if (nat_bucket(nat, key) == 0)
            send_out(&h, 0, &spec) ? taken++ : refused++;
    }
    CHECK(taken == NAT_MAX_CHAIN && refused == 5);
    CHECK(harness_counter(&h, "dropped_full_chain") == 5);
    harness_checks(&h);
    h.now += 200 * MS; /* no tick: the next new flow of that bucket clears it */
    for (uint32_t host = INSIDE + 1000000;; host++) {
        struct frame_spec spec = flow(17, host, 4000);
        uint64_t key = nat_key(__builtin_bswap32(host), __builtin_bswap16(4000), 17);
        if (nat_bucket(nat, key) == 0) {
            CHECK(send_out(&h, 0, &spec));
            break;
        }
    }
    CHECK(h.pal_peak <= h.needs.max_pals && harness_counter(&h, "mappings_expired") >= 8);
    harness_checks(&h);
    harness_close(&h);
}

/* All 16 x 64,512 endpoints can be in use at once, each by one flow. */
static void test_million(void)
{
    struct harness h;
    uint32_t capacity = 16 * 64512;
    harness_open(&h, "nat", 2,
                 (struct harness_setting[]){{"addresses", 16}, {"capacity", capacity}, {NULL, 0}});
    uint8_t *used = calloc(16, 65536);
    CHECK(used);
    struct frame_spec spec = flow(17, 0, 0);
    spec.payload = 0;
    for (uint32_t i = 0; i < capacity; i++) {
        spec.source = INSIDE + i / 50;
        spec.source_port = (uint16_t)(1024 + i % 50);
        CHECK(send_out(&h, i & 1, &spec));
        uint32_t number = frame_address(h.out, false) - POOL;
        CHECK(number < 16 && !used[number * 65536 + frame_port(h.out, false)]++);
    }
    spec.source = INSIDE - 1;
    CHECK(!send_out(&h, 0, &spec) && h.pal_count <= h.needs.max_pals);
    CHECK(harness_counter(&h, "mappings") == capacity);
    printf("1M mappings: arena %.1f MB, most PALs of one input %u of %u\n",
           (double)arena_allocated(h.arena) / 1e6, h.pal_peak, h.needs.max_pals);
    harness_checks(&h);
    free(used);
    harness_close(&h);
}

/* As many outside addresses as there can be, ten ports each: all are found, by whatever flow, and
 * all come back to the address that they belong to. */
static void test_many_addresses(void)
{
    struct harness h;
    uint32_t addresses = NAT_MAX_ADDRESSES, capacity = 10 * addresses;
    harness_open(&h, "nat", 2,
                 (struct harness_setting[]){
                     {"addresses", addresses}, {"capacity", capacity}, {"udp_ms", 100}, {NULL, 0}});
    for (unsigned round = 0; round < 2; round++) {
        uint8_t *used = calloc(addresses, 10);
        CHECK(used);
        for (uint32_t i = 0; i < capacity; i++) {
            struct frame_spec spec = flow(17, INSIDE + round * capacity + i, 4000);
            CHECK(send_out(&h, i & 1, &spec));
            uint32_t number = frame_address(h.out, false) - POOL;
            uint32_t port = frame_port(h.out, false) - 1024u;
            CHECK(number < addresses && port < 10 && !used[number * 10 + port]++);
        }
        struct frame_spec spec = flow(17, INSIDE - 1, 4000);
        CHECK(!send_out(&h, 0, &spec) && h.pal_count >= addresses);
        CHECK(h.pal_peak <= h.needs.max_pals && h.needs.max_pals <= 1024);
        CHECK(harness_counter(&h, "mappings") == capacity);
        harness_checks(&h);
        for (unsigned i = 0; i < 20000 && harness_counter(&h, "mappings"); i++) {
            h.now += MS;
            harness_tick(&h, 0);
            harness_tick(&h, 1);
        }
        CHECK(harness_counter(&h, "mappings") == 0);
        harness_checks(&h);
        free(used);
    }
    harness_close(&h);
}

static void test_refused_parameters(void)
{
    struct nf_needs needs;
    char why[160];
    const struct nf *nat = nf_find("nat");
    uint64_t values[NF_MAX_PARAMS];
    for (unsigned i = 0; nat->params[i].name; i++)
        values[i] = nat->params[i].value;
    CHECK(nat->needs(values, 2, &needs, why));
    values[2] = 4 * 64512 + 1;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "64512"));
    values[2] = 3;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "below"));
    values[2] = 64;
    values[0] = UINT32_MAX;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "255.255.255.255"));
    /* Next hops: from `mac`, the tenth, on. */
    values[0] = 1;
    values[9] = 0x020000000001;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "inside_mac or inside_gateway"));
    values[10] = values[11] = 0x020000000002;
    CHECK(nat->needs(values, 2, &needs, why));
    values[14] = SERVER;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "outside_mac or outside_gateway"));
    values[11] = 0;
    CHECK(nat->needs(values, 2, &needs, why));
    values[10] = 0x010000000002;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "group"));
    values[9] = 0;
    CHECK(!nat->needs(values, 2, &needs, why) && strstr(why, "need mac"));
    CHECK(!nf_find("none"));
}

int main(void)
{
    test_translation();
    test_accesses();
    test_fates();
    test_exhaustion();
    test_longest_unused_first();
    test_expiry();
    test_skewed_stamps();
    test_tcp();
    test_crowded_chain();
    test_million();
    test_many_addresses();
    test_refused_parameters();
    return 0;
}

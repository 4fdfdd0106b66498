/* firewall: its rules, its limits, what it does with odd packets, what each costs, and that entries
 * end. What exactly passes in a conversation is for the oracle (tests/test_nf_firewall_oracle.py).
 */
#include "tests/nf_harness.h"

#include <string.h>

#include "nf/packet.h"

#define HOST 0x0a000001u
#define SERVER 0xc0000201u

static const struct frame_spec udp = {.protocol = 17,
                                      .source = HOST,
                                      .destination = SERVER,
                                      .source_port = 5000,
                                      .destination_port = 53,
                                      .payload = 20};

static struct frame_spec back(struct frame_spec spec)
{
    struct frame_spec turned = spec;
    turned.source = spec.destination;
    turned.destination = spec.source;
    turned.source_port = spec.protocol == 1 ? spec.source_port : spec.destination_port;
    turned.destination_port = spec.source_port;
    turned.icmp_type = 0;
    return turned;
}

/* What passes is what came, on the other side. */
static bool send(struct harness *h, enum nf_port port, struct frame_spec spec)
{
    uint8_t frame[HARNESS_FRAME];
    uint32_t length = frame_build(frame, &spec, 7);
    bool passed = harness_packet(h, (uint32_t)(h->now & 1), port, frame, length);
    if (passed)
        CHECK(h->out_length == length && h->out_port == 1 - port &&
              memcmp(h->out, frame, length) == 0);
    return passed;
}

static struct frame_spec tcp(uint32_t number, uint8_t flags)
{
    return (struct frame_spec){.protocol = 6,
                               .source = HOST,
                               .destination = SERVER,
                               .source_port = (uint16_t)(2000 + number),
                               .destination_port = 80,
                               .tcp_flags = flags};
}

static void test_policy(void)
{
    struct harness h;
    harness_open(&h, "firewall", 2, NULL);
    harness_tick(&h, 0);
    harness_tick(&h, 1);
    struct frame_spec echo = {
        .protocol = 1, .source = HOST, .destination = SERVER, .source_port = 77, .icmp_type = 8};
    CHECK(!send(&h, NF_OUTSIDE, back(udp)) && harness_counter(&h, "dropped_rule") == 1);
    CHECK(send(&h, NF_INSIDE, udp) && h.pal_count == 1 && harness_writes(&h) == 1);
    CHECK(send(&h, NF_OUTSIDE, back(udp)) && h.pal_count == 1);
    CHECK(!send(&h, NF_OUTSIDE, back(echo)));
    CHECK(harness_counter(&h, "dropped_no_connection") == 1);
    CHECK(send(&h, NF_INSIDE, echo) && send(&h, NF_OUTSIDE, back(echo)));
    struct frame_spec ask = back(echo);
    ask.icmp_type = 8; /* a request of the other side, by the same name, is none of ours */
    CHECK(!send(&h, NF_OUTSIDE, ask));
    h.now += 61 * SECOND;
    CHECK(!send(&h, NF_OUTSIDE, back(echo)) && send(&h, NF_OUTSIDE, back(udp)));
    h.now += 300 * SECOND; /* either direction has kept it alive */
    CHECK(send(&h, NF_OUTSIDE, back(udp)));
    h.now += 300 * SECOND + 1;
    CHECK(!send(&h, NF_OUTSIDE, back(udp)));
    harness_checks(&h);
    harness_close(&h);
}

static void test_rules(void)
{
    struct harness h;
    harness_open(&h, "firewall", 2,
                 (struct harness_setting[]){{"rule1", 2}, /* no DNS to 192.0.2.0/30 */
                                            {"rule1_side", 0},
                                            {"rule1_protocol", 17},
                                            {"rule1_network", 0xc0000203},
                                            {"rule1_bits", 30},
                                            {"rule1_port", 53},
                                            {"rule2", 1}, /* one service inside */
                                            {"rule2_network", HOST},
                                            {"rule2_bits", 32},
                                            {"rule2_port", 53},
                                            {"rule4", 2}, /* the first that matches counts */
                                            {"rule4_network", HOST},
                                            {"rule4_bits", 32},
                                            {NULL, 0}});
    struct frame_spec other = udp, in = back(udp), web = udp;
    CHECK(!send(&h, NF_INSIDE, udp));
    other.destination = 0xc0000204;
    web.destination_port = 80;
    CHECK(send(&h, NF_INSIDE, other) && send(&h, NF_INSIDE, web));
    CHECK(!send(&h, NF_OUTSIDE, in)); /* port 5000 */
    in.destination_port = 53;
    CHECK(send(&h, NF_OUTSIDE, in) && send(&h, NF_INSIDE, back(in)));
    in.destination++;
    CHECK(!send(&h, NF_OUTSIDE, in));
    in.destination = HOST;
    in.protocol = 1; /* an echo has no port */
    in.icmp_type = 8;
    CHECK(!send(&h, NF_OUTSIDE, in));
    CHECK(harness_counter(&h, "dropped_rule") == 4);
    harness_checks(&h);
    harness_close(&h);
}

/* Half-open connections: counted by all workers, given back by each way out of that state. */
static void test_half_open(void)
{
    struct harness h;
    harness_open(&h, "firewall", 2,
                 (struct harness_setting[]){{"half_open", 3},
                                            {"window", 0},
                                            {"capacity", 100},
                                            {"transitory_ms", 1000},
                                            {NULL, 0}});
    harness_tick(&h, 0); /* the sweep is not due again while the time stands */
    harness_tick(&h, 1);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(send(&h, NF_INSIDE, tcp(i, TCP_SYN)));
    h.now++;
    CHECK(!send(&h, NF_INSIDE, tcp(3, TCP_SYN)) && h.pal_count == 2);
    CHECK(harness_counter(&h, "dropped_half_open") == 1 && harness_counter(&h, "half_open") == 3);
    CHECK(send(&h, NF_INSIDE, tcp(2, TCP_SYN)) && h.pal_count == 1); /* again: no other one */
    CHECK(send(&h, NF_OUTSIDE, back(tcp(0, TCP_SYN | TCP_ACK))) && h.pal_count == 1);
    CHECK(send(&h, NF_INSIDE, tcp(0, TCP_ACK)) && h.pal_count == 2); /* established */
    CHECK(send(&h, NF_INSIDE, tcp(3, TCP_SYN)) && !send(&h, NF_INSIDE, tcp(4, TCP_SYN)));
    CHECK(send(&h, NF_OUTSIDE, back(tcp(1, TCP_RST | TCP_ACK)))); /* refused */
    CHECK(send(&h, NF_INSIDE, tcp(4, TCP_SYN)) && !send(&h, NF_INSIDE, tcp(5, TCP_SYN)));
    h.now += 3 * SECOND; /* forgotten by the sweep */
    for (unsigned i = 0; i < 200; i++, h.now += 10 * MS)
        harness_tick(&h, i & 1);
    CHECK(harness_counter(&h, "half_open") == 0 && harness_counter(&h, "connections") == 1);
    for (uint32_t i = 5; i < 8; i++)
        CHECK(send(&h, NF_INSIDE, tcp(i, TCP_SYN)));
    CHECK(!send(&h, NF_INSIDE, tcp(8, TCP_SYN)));
    harness_checks(&h);
    harness_close(&h);
}

/* A full set: connections in use stay, a closed one gives up its place. */
static void test_no_room(void)
{
    struct harness h;
    harness_open(&h, "firewall", 1,
                 (struct harness_setting[]){{"capacity", 2}, {"window", 0}, {NULL, 0}});
    for (uint32_t i = 0; i < 8; i++)
        CHECK(send(&h, NF_INSIDE, tcp(i, TCP_SYN)));
    CHECK(!send(&h, NF_INSIDE, tcp(8, TCP_SYN)) && harness_counter(&h, "dropped_no_room") == 1);
    CHECK(send(&h, NF_INSIDE, tcp(5, TCP_RST)) && send(&h, NF_INSIDE, tcp(8, TCP_SYN)));
    CHECK(!send(&h, NF_INSIDE, tcp(9, TCP_SYN)) && send(&h, NF_INSIDE, tcp(7, TCP_SYN)));
    CHECK(harness_counter(&h, "half_open") == 8 && harness_counter(&h, "ended") == 1);
    harness_checks(&h);
    harness_close(&h);
}

/* An error from a router outside that quotes the packet `quoted`, cut off after `bytes` of it. */
static bool send_error(struct harness *h, uint8_t type, struct frame_spec quoted, uint32_t to,
                       uint32_t bytes)
{
    uint8_t frame[HARNESS_FRAME], inner[HARNESS_FRAME];
    struct frame_spec outer = {.protocol = 1,
                               .source = 0xcb007101,
                               .destination = to,
                               .icmp_type = type,
                               .payload = (uint16_t)bytes};
    frame_build(inner, &quoted, 3);
    uint32_t length = frame_build(frame, &outer, 3);
    memcpy(frame + 14 + 20 + 8, inner + 14, bytes);
    return harness_packet(h, 0, NF_OUTSIDE, frame, length);
}

static void test_icmp_errors(void)
{
    struct harness h;
    harness_open(&h, "firewall", 2, NULL);
    struct frame_spec other = udp, options = udp;
    other.source_port++;
    options.option_words = 3;
    CHECK(send(&h, NF_INSIDE, udp) && send(&h, NF_INSIDE, tcp(0, TCP_SYN)));
    CHECK(send_error(&h, 3, udp, HOST, 28) && h.out_port == NF_INSIDE);
    CHECK(send_error(&h, 11, tcp(0, TCP_SYN), HOST, 28) && send_error(&h, 12, options, HOST, 40));
    CHECK(!send_error(&h, 3, other, HOST, 28));       /* of no connection */
    CHECK(!send_error(&h, 3, back(udp), SERVER, 28)); /* quotes what the receiver did not send */
    CHECK(!send_error(&h, 3, udp, HOST + 1, 28));     /* to somebody else */
    CHECK(!send_error(&h, 5, udp, HOST, 28));         /* redirect */
    CHECK(!send_error(&h, 3, options, HOST, 39));     /* ports cut off */
    for (uint32_t bytes = 0; bytes < 28; bytes++)
        CHECK(!send_error(&h, 3, udp, HOST, bytes));
    CHECK(harness_counter(&h, "dropped_icmp") == 33);
    h.now += 301 * SECOND; /* errors have kept nothing alive */
    CHECK(!send_error(&h, 3, udp, HOST, 28));
    harness_checks(&h);
    harness_close(&h);
}

static void test_odd_packets(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    harness_open(&h, "firewall", 2, (struct harness_setting[]){{"allow_outside", 1}, {NULL, 0}});
    struct frame_spec options = udp, large = udp;
    options.option_words = 10;
    large.payload = 1900;
    CHECK(send(&h, NF_OUTSIDE, options) && send(&h, NF_INSIDE, large));
    uint32_t length = frame_build(frame, &udp, 1);
    frame[40] ^= 1; /* the checksum */
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length));
    frame[12] = 0x08, frame[13] = 0x06;
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length)); /* ARP */
    frame[12] = 0x86, frame[13] = 0xdd;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_not_ipv4") == 1);
    length = frame_build(frame, &udp, 1);
    frame[14 + 6] = 0x20;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_fragment") == 1);
    frame[14 + 6] = 0;
    frame[14 + 9] = 47;
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_protocol") == 1);
    length = frame_build(frame, &udp, 1);
    for (uint32_t cut = 0; cut < length; cut++)
        CHECK(!harness_packet(&h, 0, cut & 1, frame, cut));
    CHECK(harness_counter(&h, "dropped_malformed") == length);
    const uint8_t senseless[] = {0,
                                 TCP_FIN,
                                 TCP_SYN | TCP_FIN,
                                 TCP_SYN | TCP_RST,
                                 TCP_FIN | TCP_RST | TCP_ACK,
                                 TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK};
    for (unsigned i = 0; i < sizeof(senseless); i++)
        CHECK(!send(&h, NF_INSIDE, tcp(1, senseless[i])) && h.pal_count == 0);
    CHECK(harness_counter(&h, "dropped_state") == sizeof(senseless));
    CHECK(harness_counter(&h, "connections") == 2 && h.pal_peak <= h.needs.max_pals);
    harness_checks(&h);
    harness_close(&h);
}

int main(void)
{
    test_policy();
    test_rules();
    test_half_open();
    test_no_room();
    test_icmp_errors();
    test_odd_packets();
    return 0;
}

/* The NAT's packets (see nat.h): which of them can be translated, and how. */
#include "plain/nat.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "plain/nat_table.h"

#define ETHERNET_BYTES 14u
#define PACKETS_TO_SWEEP 16 /* a busy thread sweeps once in so many */

struct ip_packet {
    uint8_t ethernet[12];
    uint16_t type;
    uint8_t version_and_words;
    uint8_t service;
    uint16_t length;
    uint16_t id;
    uint16_t fragment;
    uint8_t ttl;
    uint8_t protocol;
    uint16_t checksum;
    uint32_t source;
    uint32_t destination;
} __attribute__((packed));

/* What follows it, as far as a NAT cares. */
union transport {
    struct {
        uint16_t source;
        uint16_t destination;
    } __attribute__((packed)) ports;
    struct {
        uint32_t ports;
        uint16_t length;
        uint16_t checksum;
    } __attribute__((packed)) udp;
    struct {
        uint32_t ports;
        uint32_t numbers[2];
        uint8_t words;
        uint8_t flags;
        uint16_t window;
        uint16_t checksum;
    } __attribute__((packed)) tcp;
    struct {
        uint8_t type;
        uint8_t code;
        uint16_t checksum;
        uint16_t id;
    } __attribute__((packed)) echo;
};

struct thread {
    uint64_t count[NAT_COUNTS];
    struct sweeper sweeper;
    uint32_t packets;
} __attribute__((aligned(64)));

/* A packet that can be translated. */
struct packet {
    struct ip_packet *ip;
    union transport *transport;
    struct segment segment;
};

static struct nat_config config;
static struct thread threads[NAT_MAX_THREADS];

int nat_open(const struct nat_config *wanted)
{
    config = *wanted;
    for (unsigned t = 0; t < config.threads; t++)
        threads[t].sweeper.next_stripe = t;
    return table_open(wanted);
}

static void sweep(unsigned number)
{
    struct thread *thread = &threads[number];
    unsigned removed = table_sweep(&thread->sweeper, number);
    if (removed)
        thread->count[NAT_EXPIRED] += removed;
}

void nat_idle(unsigned number)
{
    sweep(number);
}

/* -1, or why the packet cannot be translated. */
static int parse(struct packet *packet, uint8_t *frame, size_t length, unsigned echo_type)
{
    struct ip_packet *ip = (struct ip_packet *)frame;
    if (length < offsetof(struct ip_packet, version_and_words))
        return NAT_MALFORMED;
    if (ip->type != htons(0x0800))
        return NAT_NOT_IPV4;
    if (length < sizeof(*ip) || ip->version_and_words >> 4 != 4)
        return NAT_MALFORMED;
    unsigned header = (ip->version_and_words & 15u) * 4, total = ntohs(ip->length);
    if (header < 20 || total < header || total > length - ETHERNET_BYTES)
        return NAT_MALFORMED;
    if (ip->fragment & htons(0x3fff))
        return NAT_FRAGMENT;
    unsigned rest = total - header;
    packet->ip = ip;
    union transport *transport = packet->transport =
        (union transport *)(frame + ETHERNET_BYTES + header);
    packet->segment = (struct segment){0, 0};
    switch (ip->protocol) {
    case IPPROTO_TCP: {
        unsigned words = rest < 20 ? 0 : transport->tcp.words >> 4;
        if (words < 5 || words * 4 > rest)
            return NAT_MALFORMED;
        packet->segment = (struct segment){transport->tcp.flags, rest > words * 4};
        return -1;
    }
    case IPPROTO_UDP:
        if (rest < 8 || ntohs(transport->udp.length) < 8 || ntohs(transport->udp.length) > rest)
            return NAT_MALFORMED;
        return -1;
    case IPPROTO_ICMP:
        if (rest < 8)
            return NAT_MALFORMED;
        return transport->echo.type == echo_type && transport->echo.code == 0 ? -1 : NAT_ICMP;
    default:
        return NAT_PROTOCOL;
    }
}

/* A checksum after one word has changed (RFC 1624); all in network order. */
static uint16_t patched(uint16_t checksum, uint16_t before, uint16_t after)
{
    uint32_t sum = (uint16_t)~checksum + (uint32_t)(uint16_t)~before + after;
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

static uint16_t patched_address(uint16_t checksum, uint32_t before, uint32_t after)
{
    checksum = patched(checksum, (uint16_t)before, (uint16_t)after);
    return patched(checksum, (uint16_t)(before >> 16), (uint16_t)(after >> 16));
}

/* The end `before` of a packet has become `after`: the checksum that covers it. A UDP checksum of
 * 0 is none. */
static void patch_transport(struct packet *packet, struct end before, struct end after)
{
    union transport *t = packet->transport;
    uint16_t sum;
    switch (before.protocol) {
    case IPPROTO_ICMP: /* covers no addresses */
        t->echo.checksum = patched(t->echo.checksum, before.port, after.port);
        break;
    case IPPROTO_TCP:
        sum = patched_address(t->tcp.checksum, before.address, after.address);
        t->tcp.checksum = patched(sum, before.port, after.port);
        break;
    default:
        if (t->udp.checksum == 0)
            break;
        sum = patched_address(t->udp.checksum, before.address, after.address);
        sum = patched(sum, before.port, after.port);
        t->udp.checksum = sum ? sum : 0xffff;
    }
}

static int is_ours(uint32_t address)
{
    return ntohl(address) - config.outside < config.addresses;
}

static int outbound(struct thread *thread, struct packet *packet)
{
    struct ip_packet *ip = packet->ip;
    union transport *transport = packet->transport;
    int is_echo = ip->protocol == IPPROTO_ICMP;
    struct end inside = {ip->source, is_echo ? transport->echo.id : transport->ports.source,
                         ip->protocol};
    struct end outside;
    if (is_ours(ip->destination)) {
        thread->count[NAT_HAIRPIN]++;
        return NAT_DROP;
    }
    enum found found = table_map(inside, packet->segment, &outside);
    if (found == TABLE_FULL) {
        thread->count[NAT_NO_PORT]++;
        return NAT_DROP;
    }
    if (found == TABLE_NEW)
        thread->count[NAT_CREATED]++;
    ip->source = outside.address;
    ip->checksum = patched_address(ip->checksum, inside.address, outside.address);
    if (is_echo)
        transport->echo.id = outside.port;
    else
        transport->ports.source = outside.port;
    patch_transport(packet, inside, outside);
    thread->count[NAT_OUTBOUND]++;
    return 1;
}

static int inbound(struct thread *thread, struct packet *packet)
{
    struct ip_packet *ip = packet->ip;
    union transport *transport = packet->transport;
    int is_echo = ip->protocol == IPPROTO_ICMP;
    struct end outside = {
        ip->destination, is_echo ? transport->echo.id : transport->ports.destination, ip->protocol};
    struct end inside = table_inside(outside);
    if (inside.protocol != outside.protocol) {
        thread->count[NAT_NO_MAPPING]++;
        return NAT_DROP;
    }
    if (packet->segment.flags & (TCP_FIN | TCP_RST))
        table_close(inside);
    ip->destination = inside.address;
    ip->checksum = patched_address(ip->checksum, outside.address, inside.address);
    if (is_echo)
        transport->echo.id = inside.port;
    else
        transport->ports.destination = inside.port;
    patch_transport(packet, outside, inside);
    thread->count[NAT_INBOUND]++;
    return 0;
}

int nat_frame(unsigned number, unsigned port, void *frame, size_t length)
{
    struct thread *thread = &threads[number];
    struct packet packet;
    if (++thread->packets % PACKETS_TO_SWEEP == 0)
        sweep(number);
    int why = parse(&packet, frame, length, port == 0 ? 8 : 0);
    if (why >= 0) {
        thread->count[why]++;
        return NAT_DROP;
    }
    return port == 0 ? outbound(thread, &packet) : inbound(thread, &packet);
}

void nat_read(struct nat_totals *totals)
{
    memset(totals, 0, sizeof(*totals));
    for (unsigned t = 0; t < config.threads; t++) {
        for (unsigned c = 0; c < NAT_COUNTS; c++)
            totals->count[c] += threads[t].count[c];
    }
    table_check(totals);
    totals->counted = totals->count[NAT_CREATED] - totals->count[NAT_EXPIRED] == totals->mappings;
}

/* Reading an Ethernet frame as the generator and the sink need it. */
#ifndef FTMB_TRAFFIC_PACKET_H
#define FTMB_TRAFFIC_PACKET_H

#include "traffic/checksum.h"

#define ETH_BYTES 14u
#define IPV4_MIN 20u
#define PROTO_ICMP 1u
#define PROTO_TCP 6u
#define PROTO_UDP 17u
#define ICMP_ECHO 8u
#define ICMP_ECHO_REPLY 0u

/* The two directions of a flow, and the ports their packets enter and leave a middlebox at. */
enum direction { OUTBOUND = 0, REPLY = 1 };
enum side { SIDE_INSIDE = 0, SIDE_OUTSIDE = 1 };

/* Addresses and ports as on the wire. ICMP echo: both ports are the identifier. */
struct packet {
    uint8_t *ip;
    uint8_t *l4;
    uint32_t ip_header; /* bytes */
    uint32_t l4_length; /* bytes, header and payload, without the frame's padding */
    uint32_t l4_header; /* bytes */
    uint32_t source;
    uint32_t destination;
    uint16_t source_port;
    uint16_t destination_port;
    uint8_t protocol;
};

/* Where the checksum of the protocol's header is. */
static inline uint32_t packet_sum_offset(uint8_t protocol)
{
    return protocol == PROTO_TCP ? 16 : protocol == PROTO_UDP ? 6 : 2;
}

/* Take a frame apart. False unless it is an unfragmented IPv4 packet of TCP, UDP or ICMP echo whose
 * lengths agree; any bytes are safe. Checksums are not looked at. */
static inline bool packet_parse(struct packet *p, uint8_t *frame, uint32_t length)
{
    if (length < ETH_BYTES + IPV4_MIN || frame[12] != 0x08 || frame[13] != 0x00)
        return false;
    uint8_t *ip = frame + ETH_BYTES;
    uint32_t header = (ip[0] & 15u) * 4u;
    uint32_t total = ((uint32_t)ip[2] << 8) | ip[3];
    bool fragment = ((ip[6] & 0x3f) | ip[7]) != 0;
    if ((ip[0] >> 4) != 4 || header < IPV4_MIN || fragment || total > length - ETH_BYTES ||
        total < header + 8)
        return false;
    p->ip = ip;
    p->ip_header = header;
    p->l4 = ip + header;
    p->l4_length = total - header;
    p->protocol = ip[9];
    p->l4_header = 8;
    memcpy(&p->source, ip + 12, 4);
    memcpy(&p->destination, ip + 16, 4);
    if (p->protocol == PROTO_ICMP) {
        memcpy(&p->source_port, p->l4 + 4, 2);
        p->destination_port = p->source_port;
        return p->l4[0] == ICMP_ECHO || p->l4[0] == ICMP_ECHO_REPLY;
    }
    memcpy(&p->source_port, p->l4, 2);
    memcpy(&p->destination_port, p->l4 + 2, 2);
    if (p->protocol == PROTO_UDP)
        return true;
    if (p->protocol != PROTO_TCP || p->l4_length < 20)
        return false;
    p->l4_header = (p->l4[12] >> 4) * 4u;
    return p->l4_header >= 20 && p->l4_header <= p->l4_length;
}

/* Are the checksums of the IPv4 header and of the protocol right? A UDP checksum of 0 means that
 * there is none, which counts as right only if `optional`. */
static inline bool packet_sums_ok(const struct packet *p, bool optional)
{
    if (sum_fold(sum_bytes(p->ip, p->ip_header)) != 0xffff)
        return false;
    uint64_t sum = sum_bytes(p->l4, p->l4_length);
    if (p->protocol != PROTO_ICMP)
        sum += sum_pseudo(p->source, p->destination, p->protocol, p->l4_length);
    if (p->protocol == PROTO_UDP && p->l4[6] == 0 && p->l4[7] == 0)
        return optional;
    return sum_fold(sum) == 0xffff;
}

/* Compute both checksums anew. */
static inline void packet_sums_set(struct packet *p)
{
    uint32_t offset = packet_sum_offset(p->protocol);
    uint16_t sum;
    memset(p->ip + 10, 0, 2);
    sum = (uint16_t)~sum_fold(sum_bytes(p->ip, p->ip_header));
    memcpy(p->ip + 10, &sum, 2);
    memset(p->l4 + offset, 0, 2);
    uint64_t l4 = sum_bytes(p->l4, p->l4_length);
    if (p->protocol != PROTO_ICMP)
        l4 += sum_pseudo(p->source, p->destination, p->protocol, p->l4_length);
    sum = (uint16_t)~sum_fold(l4);
    if (p->protocol == PROTO_UDP && sum == 0)
        sum = 0xffff;
    memcpy(p->l4 + offset, &sum, 2);
}

#endif

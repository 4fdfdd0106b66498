/* Reading an Ethernet frame: what kind of traffic it is, and where its headers are.
 *
 * Any bytes are safe: no field is used before the frame, the IPv4 total length and the header
 * lengths have been shown to contain it. Numbers stay in network byte order unless named. */
#ifndef FTMB_NF_PACKET_H
#define FTMB_NF_PACKET_H

#include "core/base.h"

#include <string.h>

#define ETHERNET_BYTES 14u
#define IPV4_MIN_BYTES 20u
#define TCP_MIN_BYTES 20u
#define UDP_BYTES 8u
#define ICMP_ECHO_BYTES 8u

#define ETHERTYPE_ARP 0x0806u

#define PROTOCOL_ICMP 1u
#define PROTOCOL_TCP 6u
#define PROTOCOL_UDP 17u

#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_ACK 0x10u

#define ICMP_ECHO_REPLY 0u
#define ICMP_UNREACHABLE 3u
#define ICMP_ECHO_REQUEST 8u
#define ICMP_TIME_EXCEEDED 11u
#define ICMP_PARAMETER_PROBLEM 12u

enum packet_kind {
    PACKET_TCP,
    PACKET_UDP,
    PACKET_ECHO,       /* ICMP echo request or reply */
    PACKET_ICMP_OTHER, /* from here on: no ports */
    PACKET_PROTOCOL,   /* IPv4 with another protocol */
    PACKET_FRAGMENT,   /* any fragment, the first one included */
    PACKET_NOT_IPV4,
    PACKET_MALFORMED, /* IPv4 whose lengths contradict each other or the frame */
};

struct packet_view {
    uint8_t *ip;       /* valid for all kinds but NOT_IPV4 and MALFORMED, as are the rest */
    uint8_t *l4;       /* first byte after the IPv4 header and its options */
    uint32_t l4_bytes; /* by the IPv4 total length; padding of the frame not included */
    uint32_t payload;  /* TCP only: bytes of data */
    uint32_t source;   /* addresses, network order */
    uint32_t destination;
    uint16_t source_port; /* TCP, UDP; for ECHO both are the identifier */
    uint16_t destination_port;
    uint8_t protocol;
    uint8_t tcp_flags; /* TCP only */
    uint8_t icmp_type; /* ECHO only */
    uint8_t kind;      /* enum packet_kind */
};

static inline uint16_t packet_load16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint32_t packet_load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline void packet_store16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof(value));
}

static inline void packet_store32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

/* A MAC address as a number: its first byte on the wire is the highest. */
static inline void packet_store_mac(uint8_t *at, uint64_t mac)
{
    uint64_t wire = __builtin_bswap64(mac << 16);
    memcpy(at, &wire, 6);
}

static inline uint64_t packet_load_mac(const uint8_t *at)
{
    uint64_t wire = 0;
    memcpy(&wire, at, 6);
    return __builtin_bswap64(wire) >> 16;
}

/* Can it be one station's? */
static inline bool packet_mac_of_one(uint64_t mac)
{
    return mac != 0 && !(mac >> 40 & 1);
}

static inline uint16_t packet_host16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

/* The part behind the IPv4 header, of which `view->l4_bytes` are there. */
static inline enum packet_kind packet_parse_l4(struct packet_view *view)
{
    const uint8_t *l4 = view->l4;
    switch (view->protocol) {
    case PROTOCOL_TCP: {
        if (view->l4_bytes < TCP_MIN_BYTES)
            return PACKET_MALFORMED;
        uint32_t header = (uint32_t)(l4[12] >> 4) * 4;
        if (header < TCP_MIN_BYTES || header > view->l4_bytes)
            return PACKET_MALFORMED;
        view->payload = view->l4_bytes - header;
        view->tcp_flags = l4[13];
        view->source_port = packet_load16(l4);
        view->destination_port = packet_load16(l4 + 2);
        return PACKET_TCP;
    }
    case PROTOCOL_UDP: {
        if (view->l4_bytes < UDP_BYTES)
            return PACKET_MALFORMED;
        uint32_t length = packet_host16(l4 + 4);
        if (length < UDP_BYTES || length > view->l4_bytes)
            return PACKET_MALFORMED;
        view->source_port = packet_load16(l4);
        view->destination_port = packet_load16(l4 + 2);
        return PACKET_UDP;
    }
    case PROTOCOL_ICMP:
        if (view->l4_bytes < ICMP_ECHO_BYTES)
            return PACKET_MALFORMED;
        if ((l4[0] != ICMP_ECHO_REQUEST && l4[0] != ICMP_ECHO_REPLY) || l4[1] != 0)
            return PACKET_ICMP_OTHER;
        view->icmp_type = l4[0];
        view->source_port = packet_load16(l4 + 4);
        view->destination_port = view->source_port;
        return PACKET_ECHO;
    default:
        return PACKET_PROTOCOL;
    }
}

/* Fill `view` from a frame of `length` bytes; returns its kind (also in view->kind). */
static inline enum packet_kind packet_parse(struct packet_view *view, uint8_t *frame,
                                            uint32_t length)
{
    memset(view, 0, sizeof(*view));
    if (length < ETHERNET_BYTES)
        return view->kind = PACKET_MALFORMED;
    if (frame[12] != 0x08 || frame[13] != 0x00)
        return view->kind = PACKET_NOT_IPV4;
    uint8_t *ip = frame + ETHERNET_BYTES;
    uint32_t there = length - ETHERNET_BYTES;
    if (there < IPV4_MIN_BYTES || ip[0] >> 4 != 4)
        return view->kind = PACKET_MALFORMED;
    uint32_t header = (ip[0] & 15u) * 4;
    uint32_t total = packet_host16(ip + 2);
    if (header < IPV4_MIN_BYTES || total < header || total > there)
        return view->kind = PACKET_MALFORMED;
    view->ip = ip;
    view->l4 = ip + header;
    view->l4_bytes = total - header;
    view->source = packet_load32(ip + 12);
    view->destination = packet_load32(ip + 16);
    view->protocol = ip[9];
    if ((packet_host16(ip + 6) & 0x3fff) != 0) /* more fragments, or an offset */
        return view->kind = PACKET_FRAGMENT;
    return view->kind = (uint8_t)packet_parse_l4(view);
}

/* The packet that an ICMP error is about, as far as `error` (of kind PACKET_ICMP_OTHER) quotes it:
 * its IPv4 header and 8 bytes or more behind it. `l4_bytes` are those that are there. False: no
 * error, or one about something else than TCP, UDP or an echo, or about a later fragment. */
static inline bool packet_quoted(const struct packet_view *error, struct packet_view *quoted)
{
    uint8_t type = error->l4[0], *ip = error->l4 + ICMP_ECHO_BYTES;
    uint32_t there = error->l4_bytes - ICMP_ECHO_BYTES;
    if (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER_PROBLEM)
        return false;
    uint32_t header = there >= IPV4_MIN_BYTES ? (ip[0] & 15u) * 4 : 0;
    if (header < IPV4_MIN_BYTES || ip[0] >> 4 != 4 || there < header + 8 ||
        (packet_host16(ip + 6) & 0x1fff) != 0)
        return false;
    uint8_t *l4 = ip + header;
    *quoted = (struct packet_view){.ip = ip,
                                   .l4 = l4,
                                   .l4_bytes = there - header,
                                   .source = packet_load32(ip + 12),
                                   .destination = packet_load32(ip + 16),
                                   .source_port = packet_load16(l4),
                                   .destination_port = packet_load16(l4 + 2),
                                   .protocol = ip[9]};
    switch (quoted->protocol) {
    case PROTOCOL_TCP:
        quoted->kind = PACKET_TCP;
        return true;
    case PROTOCOL_UDP:
        quoted->kind = PACKET_UDP;
        return true;
    case PROTOCOL_ICMP:
        quoted->kind = PACKET_ECHO;
        quoted->icmp_type = l4[0];
        quoted->source_port = quoted->destination_port = packet_load16(l4 + 4);
        return l4[0] == ICMP_ECHO_REQUEST || l4[0] == ICMP_ECHO_REPLY;
    default:
        return false;
    }
}

#endif

/* Packet templates: frames from a capture file, of which addresses, one port and the trailer are
 * filled in per packet, and the checksums from sums computed beforehand. */
#ifndef FTMB_TRAFFIC_TEMPLATE_H
#define FTMB_TRAFFIC_TEMPLATE_H

#include "traffic/packet.h"
#include "traffic/pcapfile.h"
#include "traffic/trailer.h"

#define TEMPLATE_MAX 1024u

/* One direction of a template. */
struct template_side {
    uint64_t ip_sum;      /* of all that does not change, without the checksum */
    uint64_t l4_sum;      /* likewise, with the pseudo header's constant part */
    uint16_t port_offset; /* of the port (ICMP: identifier) that is filled in, in the frame */
    uint8_t bytes[PCAP_MAX_FRAME];
};

struct template
{
    uint16_t length;
    uint16_t ip_offset; /* of the IPv4 header, in the frame, like all offsets here */
    uint16_t l4_offset;
    uint16_t sum_offset;
    uint16_t payload_offset;
    uint16_t trailer_offset;
    uint16_t l4_length;
    uint16_t next; /* 1 + the next one of this l4_length; 0: none */
    uint8_t protocol;
    struct template_side sides[2]; /* OUTBOUND, REPLY */
};

struct template_set {
    struct template *list;
    uint32_t count;
    uint16_t first[PCAP_MAX_FRAME]; /* by l4_length, as `next` */
};

/* What is filled in, as on the wire. */
struct template_fill {
    uint32_t source;
    uint32_t destination;
    uint16_t port; /* the inside's port as this direction sees it */
    bool open;     /* a TCP flow's first packet: SYN alone */
    struct trailer trailer;
};

/* Every frame of the file must be an unfragmented IPv4 packet of UDP, TCP or an ICMP echo request
 * with room for the trailer. Returns 0, or -1 with a line in `why` that names file and frame. */
int template_read(struct template_set *set, const char *path, char *why);
void template_free(struct template_set *set);

/* Is the payload of a packet that has a trailer, apart from it, one of the templates'? */
bool template_has(const struct template_set *set, const struct packet *p);

/* Write the packet to `frame` (at least `t->length` bytes). */
static inline void template_build(const struct template *t, enum direction direction,
                                  const struct template_fill *fill, uint8_t *frame)
{
    const struct template_side *side = &t->sides[direction];
    uint64_t addresses = (uint64_t)fill->source + fill->destination;
    uint64_t l4 = side->l4_sum + fill->port + sum_u64(fill->trailer.words[0]) +
                  sum_u64(fill->trailer.words[1]);
    memcpy(frame, side->bytes, t->length);
    uint8_t *ip = frame + t->ip_offset;
    memcpy(ip + 12, &fill->source, 4);
    memcpy(ip + 16, &fill->destination, 4);
    memcpy(frame + side->port_offset, &fill->port, 2);
    memcpy(frame + t->trailer_offset, &fill->trailer, TRAILER_BYTES);
    if (t->protocol != PROTO_ICMP)
        l4 += addresses;
    if (unlikely(fill->open) && t->protocol == PROTO_TCP) {
        uint16_t before, after;
        uint8_t *flags = frame + t->l4_offset + 12;
        memcpy(&before, flags, 2);
        flags[1] = 0x02;
        memcpy(&after, flags, 2);
        l4 += (uint16_t)~before + (uint64_t)after;
    }
    uint16_t ip_sum = (uint16_t)~sum_fold(side->ip_sum + addresses);
    uint16_t l4_sum = (uint16_t)~sum_fold(l4);
    if (l4_sum == 0 && t->protocol == PROTO_UDP)
        l4_sum = 0xffff;
    memcpy(ip + 10, &ip_sum, 2);
    memcpy(frame + t->sum_offset, &l4_sum, 2);
}

#endif

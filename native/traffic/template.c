/* Preparing templates from a capture file. */
#include "traffic/template.h"

#include "traffic/why.h"

#include <stdlib.h>

static void swap_bytes(uint8_t *a, uint8_t *b, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++) {
        uint8_t spare = a[i];
        a[i] = b[i];
        b[i] = spare;
    }
}

/* Turn an outbound frame into the answer to it. */
static void make_reply(uint8_t *frame, const struct template *t)
{
    uint8_t *l4 = frame + t->l4_offset;
    swap_bytes(frame, frame + 6, 6);
    swap_bytes(frame + t->ip_offset + 12, frame + t->ip_offset + 16, 4);
    if (t->protocol == PROTO_ICMP)
        l4[0] = ICMP_ECHO_REPLY;
    else
        swap_bytes(l4, l4 + 2, 2);
}

/* Clear what is filled in per packet, and sum up the rest. */
static void seal_side(struct template *t, enum direction direction, uint32_t ip_header,
                      uint32_t l4_length)
{
    struct template_side *side = &t->sides[direction];
    uint8_t *ip = side->bytes + t->ip_offset;
    side->port_offset = t->l4_offset;
    if (t->protocol == PROTO_ICMP)
        side->port_offset = (uint16_t)(t->l4_offset + 4);
    else if (direction == REPLY)
        side->port_offset = (uint16_t)(t->l4_offset + 2);
    memset(ip + 10, 0, 10); /* checksum, addresses */
    memset(side->bytes + side->port_offset, 0, 2);
    memset(side->bytes + t->sum_offset, 0, 2);
    memset(side->bytes + t->trailer_offset, 0, TRAILER_BYTES);
    side->ip_sum = sum_bytes(ip, ip_header);
    side->l4_sum = sum_bytes(side->bytes + t->l4_offset, l4_length);
    if (t->protocol != PROTO_ICMP)
        side->l4_sum += sum_pseudo(0, 0, t->protocol, l4_length);
}

static int prepare(struct template *t, const struct pcap_frame *frame, const char *path,
                   uint32_t number, char *why)
{
    struct packet p;
    uint8_t *bytes = t->sides[OUTBOUND].bytes;
    memcpy(bytes, frame->bytes, frame->length);
    bool request = packet_parse(&p, bytes, frame->length) &&
                   (p.protocol != PROTO_ICMP || p.l4[0] == ICMP_ECHO);
    if (!request)
        return traffic_why(why,
                           "%s: frame %u is no template: it must be IPv4 and UDP, TCP or an ICMP "
                           "echo request, in one piece",
                           path, number);
    if (p.l4_length < p.l4_header + TRAILER_BYTES + (p.l4_length & 1))
        return traffic_why(why, "%s: frame %u has %u bytes of payload, the trailer needs %u", path,
                           number, p.l4_length - p.l4_header, TRAILER_BYTES);
    t->length = (uint16_t)frame->length;
    t->protocol = p.protocol;
    t->ip_offset = ETH_BYTES;
    t->l4_offset = (uint16_t)(ETH_BYTES + p.ip_header);
    t->sum_offset = (uint16_t)(t->l4_offset + packet_sum_offset(p.protocol));
    t->payload_offset = (uint16_t)(t->l4_offset + p.l4_header);
    t->trailer_offset = (uint16_t)(t->l4_offset + trailer_offset(p.l4_length));
    t->l4_length = (uint16_t)p.l4_length;
    memcpy(t->sides[REPLY].bytes, bytes, frame->length);
    make_reply(t->sides[REPLY].bytes, t);
    seal_side(t, OUTBOUND, p.ip_header, p.l4_length);
    seal_side(t, REPLY, p.ip_header, p.l4_length);
    return 0;
}

/* The list of those of one length. */
static void join(struct template_set *set, struct template *t)
{
    t->next = set->first[t->l4_length];
    set->first[t->l4_length] = (uint16_t)(1 + (t - set->list));
}

bool template_has(const struct template_set *set, const struct packet *p)
{
    uint32_t trailer = trailer_offset(p->l4_length), before = trailer - p->l4_header;
    uint32_t after = p->l4_length - trailer - TRAILER_BYTES; /* a byte, if the length is odd */
    uint16_t next = p->l4_length < PCAP_MAX_FRAME ? set->first[p->l4_length] : 0;
    while (next) {
        const struct template *t = &set->list[next - 1];
        const uint8_t *sent = t->sides[OUTBOUND].bytes; /* a reply's payload is the same */
        if (t->protocol == p->protocol &&
            (uint32_t)(t->trailer_offset - t->payload_offset) == before &&
            memcmp(sent + t->payload_offset, p->l4 + p->l4_header, before) == 0 &&
            memcmp(sent + t->trailer_offset + TRAILER_BYTES, p->l4 + trailer + TRAILER_BYTES,
                   after) == 0)
            return true;
        next = t->next;
    }
    return false;
}

int template_read(struct template_set *set, const char *path, char *why)
{
    struct pcap_file file;
    *set = (struct template_set){0};
    if (pcap_file_read(&file, path, why))
        return -1;
    int rc = 0;
    if (file.count > TEMPLATE_MAX)
        rc = traffic_why(why, "%s: %u frames, a template has at most %u", path, file.count,
                         TEMPLATE_MAX);
    else if (!(set->list = calloc(file.count, sizeof(*set->list))))
        rc = traffic_why(why, "%s: no memory", path);
    for (uint32_t i = 0; rc == 0 && i < file.count; i++) {
        rc = prepare(&set->list[set->count++], &file.frames[i], path, i + 1, why);
        if (rc == 0)
            join(set, &set->list[i]);
    }
    pcap_file_free(&file);
    if (rc)
        template_free(set);
    return rc;
}

void template_free(struct template_set *set)
{
    free(set->list);
    *set = (struct template_set){0};
}

/* Loading a capture: directions, flows, groups of equal keys. */
#include "traffic/capture.h"
#include "traffic/capture_key.h"

#include "traffic/why.h"

#include <stdlib.h>

static uint32_t prefix_mask(uint32_t prefix)
{
    return prefix ? UINT32_MAX << (32 - prefix) : 0;
}

/* Which way does a packet go? False if neither in nor out of the network. */
static bool find_direction(const struct packet *p, uint32_t network, uint32_t mask,
                           uint8_t *direction)
{
    bool from = (__builtin_bswap32(p->source) & mask) == network;
    bool to = (__builtin_bswap32(p->destination) & mask) == network;
    *direction = from ? OUTBOUND : REPLY;
    return from != to;
}

/* The flow of a packet, a new one if need be. A linear search: captures are small, and this is done
 * once; the most recent flows are the likely ones. */
static uint32_t find_flow(struct capture *c, const struct packet *p, uint8_t direction)
{
    bool out = direction == OUTBOUND;
    struct capture_flow flow = {
        .protocol = p->protocol,
        .inside_address = out ? p->source : p->destination,
        .inside_port = out ? p->source_port : p->destination_port,
        .outside_address = out ? p->destination : p->source,
        .outside_port = out ? p->destination_port : p->source_port,
    };
    for (uint32_t i = c->flow_count; i-- > 0;) {
        const struct capture_flow *f = &c->flows[i];
        if (f->protocol == flow.protocol && f->inside_address == flow.inside_address &&
            f->inside_port == flow.inside_port && f->outside_address == flow.outside_address &&
            f->outside_port == flow.outside_port)
            return i;
    }
    c->flows[c->flow_count] = flow;
    return c->flow_count++;
}

static void add_packet(struct capture *c, const struct pcap_frame *frame, uint32_t network,
                       uint32_t mask)
{
    struct packet p;
    uint8_t direction;
    /* The file's memory is ours, and its frames are writable: checksums are mended in place. */
    uint8_t *bytes = c->file.memory + (frame->bytes - c->file.memory);
    if (!packet_parse(&p, bytes, frame->length) || !find_direction(&p, network, mask, &direction)) {
        c->skipped++;
        return;
    }
    if (!packet_sums_ok(&p, true)) {
        packet_sums_set(&p);
        c->repaired++;
    }
    uint64_t key = capture_key(&p, direction);
    struct capture_group *group = capture_group_place(c, key);
    group->key = key;
    c->packets[c->count++] = (struct capture_packet){
        .bytes = bytes,
        .length = (uint16_t)frame->length,
        .l4_offset = (uint16_t)(p.l4 - bytes),
        .protocol = p.protocol,
        .direction = direction,
        .flow = find_flow(c, &p, direction),
        .group = (uint32_t)(group - c->groups),
    };
}

static int allocate(struct capture *c)
{
    uint32_t size = 16;
    while (size < 2 * c->file.count)
        size *= 2;
    c->group_mask = size - 1;
    c->groups = calloc(size, sizeof(*c->groups));
    c->packets = calloc(c->file.count, sizeof(*c->packets));
    c->flows = calloc(c->file.count, sizeof(*c->flows));
    c->pending = calloc(CAPTURE_PENDING, sizeof(*c->pending));
    c->pending_count = 1;
    int rc = mapping_init(&c->mapping, c->file.count);
    return c->groups && c->packets && c->flows && c->pending && rc == 0 ? 0 : -1;
}

int capture_init(struct capture *c, const char *path, uint32_t network, uint32_t prefix, char *why)
{
    *c = (struct capture){0};
    uint32_t mask = prefix_mask(prefix), out = 0;
    if (pcap_file_read(&c->file, path, why))
        return -1;
    if (allocate(c)) {
        capture_free(c);
        return traffic_why(why, "%s: no memory", path);
    }
    for (uint32_t i = 0; i < c->file.count; i++)
        add_packet(c, &c->file.frames[i], network & mask, mask);
    for (uint32_t i = 0; i < c->count; i++)
        out += c->packets[i].direction == OUTBOUND;
    if (out == 0) {
        capture_free(c);
        return traffic_why(why,
                           "%s: no TCP, UDP or ICMP echo packet leaves the inside network "
                           "%u.%u.%u.%u/%u: name the right network",
                           path, network >> 24, (network >> 16) & 255, (network >> 8) & 255,
                           network & 255, prefix);
    }
    return 0;
}

void capture_free(struct capture *c)
{
    pcap_file_free(&c->file);
    mapping_free(&c->mapping);
    free(c->groups);
    free(c->packets);
    free(c->flows);
    free(c->pending);
    *c = (struct capture){0};
}

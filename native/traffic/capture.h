/* Replaying captured traffic, with nothing added to the frames: what was sent is remembered by a
 * key of those bytes that a translator leaves alone, and found again at the sink.
 *
 * Packets are sent in the order of the file, over and over, at the rate of the run. Answers go to
 * the address under which the sink has seen their flow come out. Equal keys are matched first in,
 * first out, so a loss among equal packets shows in the last of them, and a duplicate is noticed
 * only when no equal packet is under way. */
#ifndef FTMB_TRAFFIC_CAPTURE_H
#define FTMB_TRAFFIC_CAPTURE_H

#include "traffic/mapping.h"
#include "traffic/packet.h"
#include "traffic/pcapfile.h"
#include "traffic/sink.h"
#include "traffic/source.h"

/* Packets under way that are remembered at a time. */
#define CAPTURE_PENDING (2u << 20)

struct capture_packet {
    uint8_t *bytes;
    uint16_t length;
    uint16_t l4_offset;
    uint8_t protocol;
    uint8_t direction; /* enum direction, seen from the inside network */
    uint32_t flow;
    uint32_t group; /* of equal keys */
};

struct capture_flow {
    uint32_t inside_address, outside_address; /* all as on the wire */
    uint16_t inside_port, outside_port;
    uint16_t mapped_port;
    uint8_t protocol;
    bool mapped;
    uint32_t mapped_address;
    uint32_t sent[2];
    uint32_t newest[2]; /* highest number delivered, plus one */
};

/* A packet under way; linked per group, oldest first. */
struct capture_pending {
    uint64_t intended_ns;
    uint32_t packet;
    uint32_t number; /* in its flow and direction */
    uint32_t next;
};

struct capture_group {
    uint64_t key; /* 0: empty place of the hash table */
    uint32_t head, tail;
};

struct capture {
    struct pcap_file file;
    struct capture_packet *packets;
    uint32_t count, next;
    uint32_t skipped;  /* frames of the file that cannot be replayed (not IPv4, fragments, ...) */
    uint32_t repaired; /* frames whose checksums had to be computed anew */
    struct capture_flow *flows;
    uint32_t flow_count;
    struct capture_group *groups; /* open addressing, twice as many places as packets */
    uint32_t group_mask;
    struct capture_pending *pending; /* index 0 is never used */
    uint32_t pending_count, pending_free;
    struct mapping mapping;
};

/* Load a capture; hosts of `network`/`prefix` (host order) are inside. Returns 0, or -1 with a line
 * in `why` that names the file: see pcap_file_read(), and no packet that leaves the network. */
int capture_init(struct capture *c, const char *path, uint32_t network, uint32_t prefix, char *why);
void capture_free(struct capture *c);

/* As source_plan() and source_write(). Answers of flows that have not come out yet are passed
 * over (counted as replies_early). */
void capture_plan(struct capture *c, struct send *sends, unsigned n, struct tally *tally);
enum side capture_write(struct capture *c, const struct send *send, uint8_t *frame,
                        struct tally *tally);

/* As sink_take(). */
void capture_take(struct capture *c, const struct arrival *arrivals, unsigned n, uint64_t now_ns,
                  struct tally *tally);

#endif

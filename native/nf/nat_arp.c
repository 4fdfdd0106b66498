/* nat, next hops and ARP. With `mac`, which is its own MAC address on both sides, the NAT is a
 * router to its neighbours: packets that leave go from there to the next hop of their side, and ARP
 * requests for its addresses are answered: outside for every outside address, inside for
 * `inside_address`. Without it, it is a bump in the wire and knows no ARP.
 *
 * A next hop's MAC address is a parameter (`inside_mac`, `outside_mac`), and then no access; or it
 * is learnt from the ARP packets of a gateway (`inside_gateway`, `outside_gateway`), and then each
 * packet that leaves on that side reads it. What was not heard of for arp_ms is asked for, at most
 * once a second; since an input has one output, the packet in hand becomes the request and is
 * itself lost (arp_requests). An address is used until 2 arp_ms; without one packets are dropped,
 * dropped_no_hop. Frames are taken whatever MAC address they are for, and TTL stays as it is.
 *
 * Other ARP packets are dropped, dropped_arp. A learnt address is written when it is heard. */
#include "nf/nat.h"

#define ARP_BYTES 42u /* with the Ethernet header */
#define ARP_REQUEST 1u
#define ARP_REPLY 2u
#define ASK_NS 1000000000ull

/* Offsets of fields in the frame. */
enum {
    ETHERTYPE = 12,
    HEADER = 14, /* types and lengths */
    OPERATION = 20,
    SENDER_MAC = 22,
    SENDER = 28,
    TARGET_MAC = 32,
    TARGET = 38
};

static const uint8_t header[] = {0, 1, 8, 0, 6, 4}; /* Ethernet and IPv4 */

static void put_arp(const struct nat *nat, struct nf_packet *packet, unsigned operation,
                    uint32_t sender, uint64_t target_mac, uint32_t target)
{
    uint8_t *frame = packet->data;
    packet_store_mac(frame + 6, nat->mac);
    frame[ETHERTYPE] = ETHERTYPE_ARP >> 8;
    frame[ETHERTYPE + 1] = ETHERTYPE_ARP & 0xff;
    memcpy(frame + HEADER, header, sizeof(header));
    frame[OPERATION] = 0;
    frame[OPERATION + 1] = (uint8_t)operation;
    packet_store_mac(frame + SENDER_MAC, nat->mac);
    packet_store32(frame + SENDER, sender);
    packet_store_mac(frame + TARGET_MAC, target_mac);
    packet_store32(frame + TARGET, target);
}

/* What is known of the next hop of a side; a copy. */
static struct nat_hop read_hop(struct ftmb_ctx *ctx, const struct nat *nat, enum nf_port side)
{
    const struct nat_hop *hop = nat_hop(ctx->arena, nat, side);
    uint32_t id = nat->first_hop + side;
    struct nat_hop copy;
    uint64_t token;
    do {
        token = ftmb_read_begin(ctx, id);
        copy.mac = NAT_LOAD(hop->mac);
        copy.heard = NAT_LOAD(hop->heard);
        copy.asked = NAT_LOAD(hop->asked);
    } while (!ftmb_read_end(ctx, id, token));
    return copy;
}

/* Is it this packet's turn to ask? One for all workers, once a second. */
static bool may_ask(struct ftmb_ctx *ctx, const struct nat *nat, enum nf_port side)
{
    struct nat_hop *hop = nat_hop(ctx->arena, nat, side);
    ftmb_write(ctx, nat->first_hop + side);
    bool may = ftmb_elapsed(ctx, hop->asked) >= ASK_NS;
    if (may) {
        ftmb_mark(ctx, hop, sizeof(*hop));
        NAT_STORE(hop->asked, ftmb_now(ctx));
    }
    ftmb_section_end(ctx);
    return may;
}

/* The MAC address that was learnt, 0: none. Or the packet has become a request for it, and is on
 * its way. */
static uint64_t learnt_mac(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                           struct nf_packet *packet, enum nf_port side)
{
    struct nat_hop hop = read_hop(ctx, nat, side);
    uint64_t silent = hop.mac ? ftmb_elapsed(ctx, hop.heard) : UINT64_MAX;
    if (likely(silent <= nat->arp_ns))
        return hop.mac;
    if (packet->capacity >= ARP_BYTES && ftmb_elapsed(ctx, hop.asked) >= ASK_NS &&
        may_ask(ctx, nat, side)) {
        memset(packet->data, 0xff, 6);
        put_arp(nat, packet, ARP_REQUEST, nat->own[side], 0, nat->gateway[side]);
        packet->length = ARP_BYTES;
        worker->counters[NAT_ARP_REQUESTS]++;
        ftmb_emit(ctx, packet, side);
        return 0;
    }
    if (silent <= 2 * nat->arp_ns)
        return hop.mac;
    worker->counters[NAT_DROP_NO_HOP]++;
    return 0;
}

bool nat_address(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                 struct nf_packet *packet, enum nf_port side)
{
    uint64_t mac = nat->hop_mac[side];
    if (!mac)
        mac = learnt_mac(ctx, nat, worker, packet, side);
    if (!mac)
        return false;
    packet_store_mac(packet->data, mac);
    packet_store_mac(packet->data + 6, nat->mac);
    return true;
}

static void learn(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                  enum nf_port side, uint64_t mac)
{
    struct nat_hop *hop = nat_hop(ctx->arena, nat, side);
    ftmb_write(ctx, nat->first_hop + side);
    ftmb_mark(ctx, hop, sizeof(*hop));
    NAT_STORE(hop->mac, mac);
    NAT_STORE(hop->heard, u64_max(hop->heard, ftmb_now(ctx)));
    ftmb_section_end(ctx);
    worker->counters[NAT_ARP_LEARNT]++;
}

void nat_arp(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
             struct nf_packet *packet)
{
    const uint8_t *frame = packet->data;
    enum nf_port side = packet->port;
    if (!nat->mac || packet_host16(frame + ETHERTYPE) != ETHERTYPE_ARP) {
        worker->counters[NAT_DROP_NOT_IPV4]++;
        return;
    }
    if (packet->length < ARP_BYTES || memcmp(frame + HEADER, header, sizeof(header)) != 0) {
        worker->counters[NAT_DROP_ARP]++;
        return;
    }
    unsigned operation = packet_host16(frame + OPERATION);
    uint32_t sender = packet_load32(frame + SENDER), target = packet_load32(frame + TARGET);
    uint64_t mac = packet_load_mac(frame + SENDER_MAC);
    bool of_gateway = sender == nat->gateway[side] && sender != 0 && packet_mac_of_one(mac);
    if (of_gateway)
        learn(ctx, nat, worker, side, mac);
    bool for_us = side == NF_OUTSIDE ? nat_is_ours(nat, target)
                                     : target == nat->own[NF_INSIDE] && target != 0;
    if (operation == ARP_REQUEST && for_us && packet_mac_of_one(mac)) {
        packet_store_mac(packet->data, mac);
        put_arp(nat, packet, ARP_REPLY, target, mac, sender);
        worker->counters[NAT_ARP_REPLIES]++;
        ftmb_emit(ctx, packet, side);
    } else if (!of_gateway) {
        worker->counters[NAT_DROP_ARP]++;
    }
}

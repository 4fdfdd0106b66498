/* The NAT under simulation: packets in every direction, between inside hosts too, some in
 * fragments, and what must be true of it. */
#include <string.h>

#include "nf/nat.h"
#include "sim/program.h"

extern const struct nf nf_nat;

#define OUTSIDE 0xc6120001u
#define TIMEOUT_MS 1u
#define HOSTS 6u
#define PORTS 5u
#define MAC_ADDRESS 0x020000000000u
#define GATEWAY 0xc61200feu
#define DATAGRAMS 256u /* more than there are packets in a schedule */

/* Places of parameters. */
enum { DATAGRAM_COUNT = 7, DATAGRAM_MS, MAC, INSIDE_MAC, OUTSIDE_GATEWAY = 14, ARP_MS };

static void nat_params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 7);
    for (unsigned i = 0; nf_nat.params[i].name; i++)
        out[i] = nf_nat.params[i].value;
    out[0] = OUTSIDE;
    out[1] = rng_between(&rng, 1, 2);
    out[2] = rng_between(&rng, 8, 40);
    for (unsigned i = 3; i < 7; i++)
        out[i] = TIMEOUT_MS;
    out[DATAGRAM_COUNT] = rng_between(&rng, 1, 20);
    out[DATAGRAM_MS] = TIMEOUT_MS;
    if (rng_below(&rng, 3) == 0) {
        out[MAC] = MAC_ADDRESS;
        out[INSIDE_MAC] = MAC_ADDRESS + 1;
        out[OUTSIDE_GATEWAY] = GATEWAY;
        out[ARP_MS] = TIMEOUT_MS;
    }
}

/* What has happened in this run, whoever was master. */
static struct {
    /* Outside endpoints that were seen leaving, so that replies can come. */
    struct program_flow seen[16];
    uint32_t seen_count;
    /* Datagrams in fragments: how the first one came, and the addresses that one has left with. */
    struct packet_in first[DATAGRAMS];
    uint32_t source[DATAGRAMS], destination[DATAGRAMS];
    uint32_t datagrams;
    uint32_t run;
} past;

/* In a chain its parameters are not the first number. */
static bool has_macs(void)
{
    return sim.params[(sim.program->nf->stages != 0) + MAC] != 0;
}

static void begin_run(void)
{
    if (past.run != sim.run)
        memset(&past, 0, sizeof(past));
    past.run = sim.run;
}

/* A datagram's number is its identification. */
static void make_fragment(uint8_t *bytes, uint32_t number, bool first)
{
    uint8_t *ip = bytes + ETHERNET_BYTES;
    ip[5] = (uint8_t)number;
    ip[6] = first ? 0x20 : 0;
    ip[7] = first ? 0 : 3;
}

static bool is_arp(const uint8_t *bytes)
{
    return packet_host16(bytes + 12) == ETHERTYPE_ARP;
}

/* The gateway says its MAC address, which changes all the time. */
static void gateway_speaks(struct packet_in *packet)
{
    static const uint8_t reply[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 2};
    uint8_t *bytes = packet->bytes;
    packet->port = NF_OUTSIDE;
    packet->length = 42;
    memset(bytes, 0, packet->length);
    memcpy(bytes + 12, reply, sizeof(reply));
    packet_store_mac(bytes + 22, MAC_ADDRESS + 1 + rng_below(&sim.traffic, 200));
    packet_store32(bytes + 28, __builtin_bswap32(GATEWAY));
}

static bool is_fragment(const uint8_t *bytes)
{
    return bytes[ETHERNET_BYTES + 6] || bytes[ETHERNET_BYTES + 7];
}

static void next_fragment(struct packet_in *packet)
{
    /* Far enough back for some to be forgotten: with others of their set, by other workers. */
    uint32_t latest = (uint32_t)u64_min(past.datagrams, 12);
    uint32_t number = past.datagrams - 1 - rng_below(&sim.traffic, latest);
    *packet = past.first[number];
    make_fragment(packet->bytes, number, false);
}

void program_nat_packet(struct packet_in *packet)
{
    static const uint8_t flags[8] = {TCP_SYN, TCP_ACK, TCP_ACK,           TCP_ACK,
                                     TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST};
    struct rng *rng = &sim.traffic;
    struct program_flow flow = {.destination = 0xcb007101u + rng_below(rng, 3),
                                .destination_port = 80};
    begin_run();
    if (has_macs() && rng_below(rng, 8) == 0) {
        gateway_speaks(packet);
        return;
    }
    if (past.datagrams && rng_below(rng, 8) == 0) {
        next_fragment(packet);
        return;
    }
    const struct program_flow *out = NULL;
    if (past.seen_count)
        out = &past.seen[rng_below(rng, (uint32_t)u64_min(past.seen_count, 16))];
    if (out && rng_below(rng, 3) == 0) {
        flow = (struct program_flow){.source = out->destination,
                                     .destination = out->source,
                                     .source_port = out->destination_port,
                                     .destination_port = out->source_port,
                                     .protocol = out->protocol};
        packet->port = NF_OUTSIDE;
    } else {
        flow.source = 0x0a000001u + rng_below(rng, HOSTS);
        flow.source_port = (uint16_t)(4000 + rng_below(rng, PORTS));
        flow.protocol = rng_below(rng, 2) ? PROTOCOL_TCP : PROTOCOL_UDP;
        packet->port = NF_INSIDE;
        if (out && rng_below(rng, 4) == 0) {
            flow.destination = out->source;
            flow.destination_port = out->source_port;
            flow.protocol = out->protocol;
        }
    }
    flow.tcp_flags = flags[rng_below(rng, 8)];
    packet->length = program_frame(packet->bytes, &flow, rng_next(rng), 0);
    if (past.datagrams < DATAGRAMS && rng_below(rng, 6) == 0) {
        make_fragment(packet->bytes, past.datagrams, true);
        past.first[past.datagrams++] = *packet;
    }
}

/* All fragments of a datagram leave with the same addresses, whoever was master. */
static void check_fragment(const uint8_t *bytes, const struct program_flow *flow)
{
    uint32_t number = bytes[ETHERNET_BYTES + 5];
    if (past.source[number] &&
        (past.source[number] != flow->source || past.destination[number] != flow->destination))
        sim_fail("nf", "NAT: fragments of one datagram left with different addresses");
    past.source[number] = flow->source;
    past.destination[number] = flow->destination;
}

void program_nat_delivered(const uint8_t *bytes, uint32_t length, uint8_t port)
{
    (void)length;
    if (is_arp(bytes))
        return;
    if (has_macs() && packet_load_mac(bytes) - MAC_ADDRESS - 1 >= 200)
        sim_fail("nf", "NAT: a packet left for a next hop that there is not");
    cover_if(has_macs() && port == NF_OUTSIDE, COVER_NAT_LEARNT);
    struct program_flow flow = program_flow_of(bytes);
    begin_run();
    if (is_fragment(bytes))
        check_fragment(bytes, &flow);
    if (port == NF_OUTSIDE && !bytes[ETHERNET_BYTES + 7])
        past.seen[past.seen_count++ % 16] = flow;
}

/* Could the mapping of a packet with this stamp have been removed by now? Whoever removes one has
 * seen a stamp that is later by more than the timeout. */
static bool may_be_gone(const struct program_ghost *ghost, uint64_t stamp_ns)
{
    return ghost->latest_ns > stamp_ns + TIMEOUT_MS * SIM_MS;
}

/* The inside endpoint that the NAT's table has for an outside one; 0: none. */
static uint64_t inside_of(struct arena *arena, uint32_t address, uint16_t port)
{
    const struct nat *nat = arena_root(arena);
    uint32_t number = address - nat->first_address, offset = port - NAT_FIRST_PORT;
    if (number >= nat->addresses || offset >= nat->ranges[number].size)
        sim_fail("nf", "NAT: an outside endpoint that it does not have");
    return nat_slots(arena, nat)[nat->ranges[number].first + offset].key;
}

static void check_outbound(struct arena *arena, struct program_ghost *ghost, uint64_t key,
                           const struct program_flow *out, uint64_t stamp_ns)
{
    uint64_t outside = (uint64_t)out->source << 16 | out->source_port;
    if (inside_of(arena, out->source, out->source_port) != key) {
        if (!may_be_gone(ghost, stamp_ns))
            sim_fail("nf", "NAT: a port that is live for one flow is used by another");
        return;
    }
    for (uint32_t i = 0; i < ghost->flows; i++) {
        if (ghost->flow[i].key != key)
            continue;
        if (ghost->flow[i].outside != outside && !may_be_gone(ghost, ghost->flow[i].stamp_ns))
            sim_fail("nf", "NAT: the mapping of a live flow changed");
        ghost->flow[i].stamp_ns = ghost->flow[i].outside == outside
                                      ? u64_max(ghost->flow[i].stamp_ns, stamp_ns)
                                      : stamp_ns;
        ghost->flow[i].outside = outside;
        return;
    }
    FTMB_ASSERT(ghost->flows < SIM_FLOWS);
    ghost->flow[ghost->flows].key = key;
    ghost->flow[ghost->flows].outside = outside;
    ghost->flow[ghost->flows++].stamp_ns = stamp_ns;
}

void program_nat_check(struct arena *arena, struct worker *worker, const struct wire_input *in,
                       const struct nf_packet *packet)
{
    if (!packet || is_arp(packet->data))
        return;
    if (packet->data[ETHERNET_BYTES + 7]) { /* it has no ports */
        cover(COVER_NAT_FRAGMENT);
        return;
    }
    cover_if(in->head.port == NF_INSIDE && packet->port == NF_INSIDE, COVER_NAT_HAIRPIN);
    struct program_flow before = program_flow_of((const uint8_t *)(in + 1));
    struct program_flow after = program_flow_of(packet->data);
    if (in->head.port == NF_OUTSIDE) {
        const struct nat *nat = arena_root(arena);
        if (packet->port == NF_INSIDE && after.destination - nat->first_address < nat->addresses)
            sim_fail("nf", "NAT: a packet went inside with an outside address as its destination");
        cover(COVER_NAT_REPLY);
        return;
    }
    uint64_t key = nat_key(__builtin_bswap32(before.source), __builtin_bswap16(before.source_port),
                           before.protocol);
    check_outbound(arena, worker->proc->program, key, &after, in->stamp_ns);
}

static void nat_processed(struct worker *worker, const struct wire_input *in,
                          const struct nf_packet *packet)
{
    program_nat_check(worker->ctx.arena, worker, in, packet);
}

const struct program program_nat = {.name = "nat",
                                    .nf = &nf_nat,
                                    .section_pals = 3,
                                    .params = nat_params,
                                    .packet = program_nat_packet,
                                    .processed = nat_processed,
                                    .delivered = program_nat_delivered};

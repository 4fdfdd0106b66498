/* The real network functions under simulation: their traffic, and what must be true of them. */
#include <string.h>

#include "nf/nat.h"
#include "sim/program.h"

extern const struct nf nf_monitor, nf_nat, nf_ratelimit;

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

uint32_t program_frame(uint8_t *bytes, const struct program_flow *flow, uint64_t a, uint64_t b)
{
    bool tcp = flow->protocol == PROTOCOL_TCP;
    uint32_t l4 = tcp ? TCP_MIN_BYTES : UDP_BYTES, total = IPV4_MIN_BYTES + l4 + 16;
    uint8_t *ip = bytes + ETHERNET_BYTES, *at = ip + IPV4_MIN_BYTES;
    memset(bytes, 0, ETHERNET_BYTES + total);
    bytes[12] = 0x08;
    ip[0] = 0x45;
    put16(ip + 2, total);
    ip[8] = 64;
    ip[9] = flow->protocol;
    put32(ip + 12, flow->source);
    put32(ip + 16, flow->destination);
    put16(at, flow->source_port);
    put16(at + 2, flow->destination_port);
    if (tcp) {
        at[12] = 5 << 4;
        at[13] = flow->tcp_flags;
    } else {
        put16(at + 4, UDP_BYTES + 16);
    }
    memcpy(at + l4, &a, sizeof(a));
    memcpy(at + l4 + 8, &b, sizeof(b));
    return ETHERNET_BYTES + total;
}

/* ---- NAT ---------------------------------------------------------------------------------- */

#define OUTSIDE 0xc6120001u
#define TIMEOUT_MS 1u
#define HOSTS 6u
#define PORTS 5u

static void nat_params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 7);
    out[0] = OUTSIDE;
    out[1] = rng_between(&rng, 1, 2);
    out[2] = rng_between(&rng, 8, 40);
    for (unsigned i = 3; i < 7; i++)
        out[i] = TIMEOUT_MS;
}

/* Outside endpoints that were seen leaving, so that replies can come. */
static struct program_flow seen[16];
static uint32_t seen_count, seen_run;

void program_nat_packet(struct packet_in *packet)
{
    static const uint8_t flags[8] = {TCP_SYN, TCP_ACK, TCP_ACK,           TCP_ACK,
                                     TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST};
    struct rng *rng = &sim.traffic;
    struct program_flow flow = {.destination = 0xcb007101u + rng_below(rng, 3),
                                .destination_port = 80};
    if (seen_run != sim.run)
        seen_count = 0;
    if (seen_count && rng_below(rng, 3) == 0) {
        const struct program_flow *out = &seen[rng_below(rng, (uint32_t)u64_min(seen_count, 16))];
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
    }
    flow.tcp_flags = flags[rng_below(rng, 8)];
    packet->length = program_frame(packet->bytes, &flow, rng_next(rng), 0);
}

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) << 16 | get16(at + 2);
}

static struct program_flow flow_of(const uint8_t *bytes)
{
    const uint8_t *ip = bytes + ETHERNET_BYTES;
    return (struct program_flow){.source = get32(ip + 12),
                                 .destination = get32(ip + 16),
                                 .source_port = (uint16_t)get16(ip + 20),
                                 .destination_port = (uint16_t)get16(ip + 22),
                                 .protocol = ip[9]};
}

void program_nat_delivered(const uint8_t *bytes, uint32_t length, uint8_t port)
{
    (void)length;
    if (seen_run != sim.run)
        seen_count = 0;
    seen_run = sim.run;
    if (port == NF_OUTSIDE)
        seen[seen_count++ % 16] = flow_of(bytes);
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
    if (!packet)
        return;
    struct program_flow before = flow_of((const uint8_t *)(in + 1));
    struct program_flow after = flow_of(packet->data);
    if (in->head.port == NF_OUTSIDE) {
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

/* ---- monitor ------------------------------------------------------------------------------ */

static void monitor_params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 8);
    out[0] = rng_between(&rng, 1, 4);
    out[1] = rng_below(&rng, 3);
    out[2] = 16;
    out[3] = rng_below(&rng, 2) ? 0 : rng_below(&rng, 101);
}

static void monitor_packet(struct packet_in *packet)
{
    struct program_flow flow = {.source = 0x0a000001u + rng_below(&sim.traffic, 8),
                                .destination = 0xc0a80001u,
                                .source_port = (uint16_t)(4000 + rng_below(&sim.traffic, 4)),
                                .destination_port = 80,
                                .protocol = PROTOCOL_UDP};
    packet->port = (uint8_t)rng_below(&sim.traffic, 2);
    packet->length = program_frame(packet->bytes, &flow, rng_next(&sim.traffic), 0);
}

const struct program program_monitor = {.name = "monitor",
                                        .nf = &nf_monitor,
                                        .section_pals = 1,
                                        .params = monitor_params,
                                        .packet = monitor_packet};

/* ---- ratelimit ---------------------------------------------------------------------------- */

#define LIMIT_HOSTS 8u /* as many as a set has places: nobody is ever forgotten */
enum { LIMIT_USERS, LIMIT_USER_KBPS, LIMIT_USER_BURST, LIMIT_TOTAL_KBPS, LIMIT_TOTAL_BURST };

/* What has left in this run, whoever was master. */
static struct {
    uint64_t first_ns, latest_ns; /* stamps */
    uint64_t bytes[LIMIT_HOSTS];
    uint32_t run;
} left;

static void ratelimit_params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 9);
    out[LIMIT_USERS] = rng_between(&rng, 1, 6);
    out[LIMIT_USER_KBPS] = 10000u << rng_below(&rng, 5);
    out[LIMIT_USER_BURST] = rng_between(&rng, 64, 500);
    out[LIMIT_TOTAL_KBPS] = 40000u << rng_below(&rng, 4);
    out[LIMIT_TOTAL_BURST] = rng_between(&rng, 64, 1000);
}

static void ratelimit_packet(struct packet_in *packet)
{
    monitor_packet(packet);
    if (packet->port == NF_OUTSIDE) { /* the inside host is the destination */
        uint8_t *ip = packet->bytes + ETHERNET_BYTES, source[4];
        memcpy(source, ip + 12, sizeof(source));
        memcpy(ip + 12, ip + 16, sizeof(source));
        memcpy(ip + 16, source, sizeof(source));
    }
}

static void ratelimit_processed(struct worker *worker, const struct wire_input *in,
                                const struct nf_packet *packet)
{
    (void)worker;
    (void)packet;
    if (left.run != sim.run)
        memset(&left, 0, sizeof(left));
    if (left.run != sim.run || in->stamp_ns < left.first_ns)
        left.first_ns = in->stamp_ns;
    left.run = sim.run;
    left.latest_ns = u64_max(left.latest_ns, in->stamp_ns);
}

/* Bytes that may have left by now. */
static uint64_t allowed(uint64_t kbps, uint64_t burst)
{
    return burst + (left.latest_ns - left.first_ns) * kbps / 8000000 + 1;
}

static void ratelimit_delivered(const uint8_t *bytes, uint32_t length, uint8_t port)
{
    struct program_flow flow = flow_of(bytes);
    uint32_t host = (port == NF_OUTSIDE ? flow.source : flow.destination) - 0x0a000001u;
    uint64_t sum = 0;
    FTMB_ASSERT(host < LIMIT_HOSTS && left.run == sim.run);
    left.bytes[host] += length;
    for (uint32_t h = 0; h < LIMIT_HOSTS; h++)
        sum += left.bytes[h];
    if (left.bytes[host] > allowed(sim.params[LIMIT_USER_KBPS], sim.params[LIMIT_USER_BURST]))
        sim_fail("nf", "ratelimit: more of a user has left than its limit allows");
    if (sum > allowed(sim.params[LIMIT_TOTAL_KBPS], sim.params[LIMIT_TOTAL_BURST]))
        sim_fail("nf", "ratelimit: more has left than the limit for all allows");
}

const struct program program_ratelimit = {.name = "ratelimit",
                                          .nf = &nf_ratelimit,
                                          .section_pals = 2,
                                          .params = ratelimit_params,
                                          .packet = ratelimit_packet,
                                          .processed = ratelimit_processed,
                                          .delivered = ratelimit_delivered};

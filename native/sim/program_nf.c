/* The real network functions under simulation: their traffic, and what must be true of them. */
#include <string.h>

#include "nf/packet.h"
#include "sim/program.h"

extern const struct nf nf_monitor, nf_ratelimit;

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

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) << 16 | get16(at + 2);
}

struct program_flow program_flow_of(const uint8_t *bytes)
{
    const uint8_t *ip = bytes + ETHERNET_BYTES;
    return (struct program_flow){.source = get32(ip + 12),
                                 .destination = get32(ip + 16),
                                 .source_port = (uint16_t)get16(ip + 20),
                                 .destination_port = (uint16_t)get16(ip + 22),
                                 .protocol = ip[9]};
}

/* ---- monitor ------------------------------------------------------------------------------ */

static void monitor_params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 8);
    out[0] = rng_between(&rng, 1, 4);
    out[1] = rng_below(&rng, 3);
    out[2] = 16;
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
    struct program_flow flow = program_flow_of(bytes);
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

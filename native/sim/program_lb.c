/* The load balancer under simulation: few connections of few clients, which expire. What must be
 * true: a connection that has not been silent for its time-out keeps its backend. */
#include <string.h>

#include "nf/lb.h"
#include "sim/program.h"

extern const struct nf nf_lb;

#define CLIENTS 5u
#define PORTS 4u
#define TIMEOUT_MS 1u
enum { BACKENDS = 2, LEAST = 5, TABLE, CAPACITY, UDP_MS, TCP_MS, CLOSING_MS };

static void params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 11);
    for (unsigned i = 0; nf_lb.params[i].name; i++)
        out[i] = nf_lb.params[i].value;
    out[BACKENDS] = rng_between(&rng, 1, 5);
    out[LEAST] = rng_below(&rng, 2);
    out[TABLE] = 251;
    /* Where a set may be full, the table decides, which is the same only if it always does. */
    out[CAPACITY] = out[LEAST] ? 120 : rng_between(&rng, 8, 24);
    out[UDP_MS] = out[TCP_MS] = out[CLOSING_MS] = TIMEOUT_MS;
}

static void next_packet(struct packet_in *packet)
{
    struct rng *rng = &sim.traffic;
    struct program_flow flow = {.source = 0x0a000001u + rng_below(rng, CLIENTS),
                                .destination = 0xc0000205u,
                                .source_port = (uint16_t)(4000 + rng_below(rng, PORTS)),
                                .destination_port = 80,
                                .protocol = rng_below(rng, 2) ? PROTOCOL_TCP : PROTOCOL_UDP,
                                .tcp_flags = TCP_ACK};
    packet->port = NF_INSIDE;
    packet->length = program_frame(packet->bytes, &flow, rng_next(rng), 0);
}

/* A connection may have ended if somebody has seen a stamp that is later by its time-out. */
static bool may_have_ended(const struct program_ghost *ghost, uint64_t stamp_ns)
{
    return ghost->latest_ns > stamp_ns + TIMEOUT_MS * SIM_MS;
}

static void processed(struct worker *worker, const struct wire_input *in,
                      const struct nf_packet *packet)
{
    struct program_ghost *ghost = worker->proc->program;
    if (!packet)
        return;
    const uint8_t *ip = packet->data + ETHERNET_BYTES;
    uint64_t key = (uint64_t)ip[9] << 48 | (uint64_t)packet_load16(ip + IPV4_MIN_BYTES) << 32 |
                   packet_load32(ip + 12);
    uint64_t backend = 1 + packet->data[5];
    for (uint32_t i = 0; i < ghost->flows; i++) {
        if (ghost->flow[i].key != key)
            continue;
        if (ghost->flow[i].outside != backend && !may_have_ended(ghost, ghost->flow[i].stamp_ns))
            sim_fail("nf", "lb: a live connection has changed its backend");
        ghost->flow[i].stamp_ns = ghost->flow[i].outside == backend
                                      ? u64_max(ghost->flow[i].stamp_ns, in->stamp_ns)
                                      : in->stamp_ns;
        ghost->flow[i].outside = backend;
        return;
    }
    FTMB_ASSERT(ghost->flows < SIM_FLOWS);
    ghost->flow[ghost->flows].key = key;
    ghost->flow[ghost->flows].outside = backend;
    ghost->flow[ghost->flows++].stamp_ns = in->stamp_ns;
}

const struct program program_lb = {.name = "lb",
                                   .nf = &nf_lb,
                                   .section_pals = 2,
                                   .params = params,
                                   .packet = next_packet,
                                   .processed = processed};

/* The firewall under simulation: handshakes that are never finished, finished and closed, UDP, and
 * packets from outside that nobody asked for. What must be true: nothing passes, in either
 * direction, of a connection that nobody inside has begun before, whoever was master. */
#include <string.h>

#include "nf/firewall.h"
#include "sim/program.h"

extern const struct nf nf_firewall;

#define HOSTS 4u
#define PORTS 3u
#define INSIDE 0x0a000001u
#define OUTSIDE 0xcb007101u
#define PORT 4000u
enum { CAPACITY, HALF_OPEN, WINDOW, UDP_MS, TCP_MS, TRANSITORY_MS, ICMP_MS };

/* Endpoint pairs from which a worker has begun something that may open a connection. */
static struct {
    bool asked[2][HOSTS][PORTS];
    uint32_t run;
} known;

static void params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 10);
    for (unsigned i = 0; nf_firewall.params[i].name; i++)
        out[i] = nf_firewall.params[i].value;
    out[CAPACITY] = rng_between(&rng, 2, 24);
    out[HALF_OPEN] = rng_below(&rng, 5);
    out[WINDOW] = rng_below(&rng, 2);
    out[UDP_MS] = out[TCP_MS] = out[TRANSITORY_MS] = out[ICMP_MS] = 1;
}

/* Numbers as a connection has them that sends nothing but its handshake: the inside begins at 1000,
 * the outside at 5000. */
static void put_numbers(uint8_t *bytes, bool inside, uint8_t flags)
{
    uint8_t *tcp = bytes + ETHERNET_BYTES + IPV4_MIN_BYTES;
    uint32_t own = inside ? 1000 : 5000, other = inside ? 5000 : 1000;
    packet_store32(tcp + 4, __builtin_bswap32(own + !(flags & TCP_SYN)));
    packet_store32(tcp + 8, flags & TCP_ACK ? __builtin_bswap32(other + 1) : 0);
    packet_store16(tcp + 14, __builtin_bswap16(1000));
}

static void next_packet(struct packet_in *packet)
{
    static const uint8_t inside[8] = {TCP_SYN, TCP_SYN, TCP_ACK,           TCP_ACK,
                                      TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST};
    static const uint8_t outside[4] = {TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK, TCP_ACK,
                                       TCP_FIN | TCP_ACK};
    struct rng *rng = &sim.traffic;
    bool out = rng_below(rng, 3) != 0;
    uint32_t host = INSIDE + rng_below(rng, HOSTS);
    uint16_t port = (uint16_t)(PORT + rng_below(rng, PORTS));
    struct program_flow flow = {.source = out ? host : OUTSIDE,
                                .destination = out ? OUTSIDE : host,
                                .source_port = out ? port : 80,
                                .destination_port = out ? 80 : port,
                                .protocol = rng_below(rng, 4) ? PROTOCOL_TCP : PROTOCOL_UDP,
                                .tcp_flags =
                                    out ? inside[rng_below(rng, 8)] : outside[rng_below(rng, 4)]};
    packet->port = out ? NF_INSIDE : NF_OUTSIDE;
    packet->length = program_frame(packet->bytes, &flow, rng_next(rng), 0);
    if (flow.protocol != PROTOCOL_TCP)
        return;
    /* No payload in TCP: the numbers stay those of the handshake. */
    uint8_t *total = packet->bytes + ETHERNET_BYTES + 2;
    packet_store16(total, __builtin_bswap16((uint16_t)(packet_host16(total) - 16)));
    put_numbers(packet->bytes, out, flow.tcp_flags);
}

/* Where a frame's connection has its place among those asked for. */
static bool *asked(const uint8_t *frame, bool out)
{
    const uint8_t *ip = frame + ETHERNET_BYTES;
    uint32_t host = __builtin_bswap32(packet_load32(ip + (out ? 12 : 16))) - INSIDE;
    uint32_t number = packet_host16(ip + IPV4_MIN_BYTES + (out ? 0 : 2)) - PORT;
    FTMB_ASSERT(host < HOSTS && number < PORTS);
    if (known.run != sim.run)
        memset(&known, 0, sizeof(known));
    known.run = sim.run;
    return &known.asked[ip[9] == PROTOCOL_TCP][host][number];
}

static uint8_t flags_of(const uint8_t *frame)
{
    return frame[ETHERNET_BYTES + IPV4_MIN_BYTES + 13];
}

static void begins(const struct wire_input *in)
{
    const uint8_t *frame = (const uint8_t *)(in + 1);
    if (in->head.type == WIRE_TICK || in->head.port != NF_INSIDE)
        return;
    bool tcp = frame[ETHERNET_BYTES + 9] == PROTOCOL_TCP;
    *asked(frame, true) |= !tcp || flags_of(frame) == TCP_SYN;
}

static void processed(struct worker *worker, const struct wire_input *in,
                      const struct nf_packet *packet)
{
    (void)worker;
    if (!packet)
        return;
    bool out = in->head.port == NF_INSIDE;
    bool tcp = packet->data[ETHERNET_BYTES + 9] == PROTOCOL_TCP;
    cover_if(tcp && out && !(flags_of(packet->data) & (TCP_SYN | TCP_RST)), COVER_FIREWALL_OPEN);
    if (!*asked(packet->data, out))
        sim_fail("nf", "firewall: a packet passes whose connection nobody inside asked for");
}

const struct program program_firewall = {.name = "firewall",
                                         .nf = &nf_firewall,
                                         .section_pals = 2,
                                         .params = params,
                                         .packet = next_packet,
                                         .begins = begins,
                                         .processed = processed};

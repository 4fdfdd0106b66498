/* The intrusion detection under simulation: few flows that carry the halves of a pattern, half-open
 * connections to few destinations, scans; all of it expires soon. What must be true, where it
 * drops: the second half does not pass right after the first, and nothing more of the flow until it
 * may have expired. */
#include <string.h>

#include "nf/ids.h"
#include "sim/program.h"

extern const struct nf nf_ids;

#define CLIENTS 3u
#define PORTS 4u
#define CLIENT 0x0a000001u
#define SERVER 0xc0000201u
#define TIMEOUT_MS 1u
enum { NOTHING, FIRST, SECOND, PARTS };
enum { SEEN = 1, HALF_SEEN, MATCHED };

static const char parts[PARTS][16 + 1] = {"----------------", "--------../../..",
                                          "/-----../../etc/"};

static void params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 12);
    for (unsigned i = 0; nf_ids.params[i].name; i++)
        out[i] = nf_ids.params[i].value;
    out[IDS_PARAM_DROP] = rng_below(&rng, 2);
    out[IDS_PARAM_SCAN_PORTS] = rng_between(&rng, 0, 3);
    out[IDS_PARAM_SCAN_HOSTS] = rng_between(&rng, 0, 3);
    out[IDS_PARAM_HALF_OPEN] = rng_below(&rng, 6);
    out[IDS_PARAM_ROWS] = rng_between(&rng, 1, IDS_MAX_ROWS);
    out[IDS_PARAM_COLUMNS] = rng_between(&rng, 1, 8);
    out[IDS_PARAM_SOURCES] = rng_between(&rng, 1, 6);
    out[IDS_PARAM_CAPACITY] =
        30; /* room for all: without an entry a pattern is not found if it is split */
    out[IDS_PARAM_WINDOW_MS] = out[IDS_PARAM_UDP_MS] = out[IDS_PARAM_TRANSITORY_MS] =
        out[IDS_PARAM_TCP_MS] = TIMEOUT_MS;
}

static void next_packet(struct packet_in *packet)
{
    static const uint8_t flags[8] = {TCP_SYN, TCP_SYN, TCP_SYN, TCP_SYN,
                                     TCP_ACK, TCP_ACK, TCP_RST, TCP_FIN | TCP_ACK};
    struct rng *rng = &sim.traffic;
    bool udp = rng_below(rng, 2);
    uint32_t part = rng_below(rng, PARTS);
    struct program_flow flow = {.source = CLIENT + rng_below(rng, CLIENTS),
                                .source_port = (uint16_t)(4000 + rng_below(rng, PORTS)),
                                .protocol = udp ? PROTOCOL_UDP : PROTOCOL_TCP,
                                .tcp_flags = flags[rng_below(rng, 8)]};
    /* The outside end follows from the inside one, so that there are few flows. */
    flow.destination = SERVER + flow.source_port % 2;
    flow.destination_port = (uint16_t)(80 + flow.source_port % 3);
    uint64_t a, b;
    memcpy(&a, parts[udp ? part : NOTHING], sizeof(a));
    memcpy(&b, parts[udp ? part : NOTHING] + sizeof(a), sizeof(b));
    packet->port = NF_INSIDE;
    if (!udp && flow.tcp_flags == TCP_RST) { /* the refusal of the other side */
        struct program_flow back = flow;
        back.source = flow.destination, back.destination = flow.source;
        back.source_port = flow.destination_port, back.destination_port = flow.source_port;
        flow = back;
        packet->port = NF_OUTSIDE;
    }
    packet->length = program_frame(packet->bytes, &flow, a, b);
}

/* A flow may have ended if somebody has seen a stamp that is later by its time-out. */
static bool may_have_ended(const struct program_ghost *ghost, uint64_t stamp_ns)
{
    return ghost->latest_ns > stamp_ns + TIMEOUT_MS * SIM_MS;
}

static unsigned part_of(const uint8_t *frame)
{
    unsigned part = 0;
    while (memcmp(frame + ETHERNET_BYTES + IPV4_MIN_BYTES + UDP_BYTES, parts[part], 16) != 0)
        part++;
    return part;
}

static void processed(struct worker *worker, const struct wire_input *in,
                      const struct nf_packet *packet)
{
    struct program_ghost *ghost = worker->proc->program;
    const uint8_t *frame = (const uint8_t *)(in + 1), *ip = frame + ETHERNET_BYTES;
    if (in->head.type == WIRE_TICK || ip[9] != PROTOCOL_UDP || !sim.params[IDS_PARAM_DROP])
        return;
    uint64_t key = (uint64_t)packet_load16(ip + IPV4_MIN_BYTES) << 32 | packet_load32(ip + 12),
             was = SEEN;
    uint32_t i = 0;
    while (i < ghost->flows && ghost->flow[i].key != key)
        i++;
    FTMB_ASSERT(i < SIM_FLOWS);
    if (i < ghost->flows && !may_have_ended(ghost, ghost->flow[i].stamp_ns))
        was = ghost->flow[i].outside;
    bool matches = was == HALF_SEEN && part_of(frame) == SECOND;
    if (packet && (was == MATCHED || matches))
        sim_fail("nf", "ids: a pattern that is split, or what follows it, passes");
    cover_if(!packet && matches, COVER_IDS_SPLIT);
    if (i == ghost->flows)
        ghost->flows++;
    ghost->flow[i].key = key;
    ghost->flow[i].stamp_ns = in->stamp_ns;
    if (was == MATCHED || matches)
        ghost->flow[i].outside = MATCHED;
    else
        ghost->flow[i].outside = packet && part_of(frame) == FIRST ? HALF_SEEN : SEEN;
}

const struct program program_ids = {.name = "ids",
                                    .nf = &nf_ids,
                                    .section_pals = 2 + IDS_MAX_ROWS,
                                    .params = params,
                                    .packet = next_packet,
                                    .processed = processed};

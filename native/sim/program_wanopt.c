/* The WAN optimizer under simulation: packets with contents that come back, and from outside what
 * has left before, so that encoded ones, and reports of missing chunks, meet a cache that has
 * changed. What must be true: what leaves outside is the packet that came, or describes it; what
 * is restored is what somebody sent. */
#include <string.h>

#include "nf/wanopt.h"
#include "sim/program.h"

extern const struct nf nf_wanopt;

#define CONTENTS 5u
#define CONTENT_BYTES 35u
#define TAIL_BYTES 16u
#define PAYLOAD_BYTES (2 * CONTENT_BYTES + TAIL_BYTES)
#define HEADERS (ETHERNET_BYTES + IPV4_MIN_BYTES + UDP_BYTES)
#define SEEN 16u
enum { CAPACITY, CHUNKS, MIN_CHUNK, TAIL, KEY0, KEY1, LINE };

/* What has left outside in this run, and not come back. */
static struct {
    struct packet_in packet[SEEN];
    uint32_t count, run;
} seen;

static void params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 12);
    out[CAPACITY] = rng_between(&rng, 4, 24);
    out[CHUNKS] = rng_between(&rng, 1, 6);
    out[MIN_CHUNK] = 16;
    out[TAIL] = TAIL_BYTES;
    out[KEY0] = rng_below(&rng, UINT32_MAX);
    out[KEY1] = rng_below(&rng, UINT32_MAX);
    out[LINE] = NF_OUTSIDE;
}

/* The payload that a number stands for, which is its tail. */
static void write_payload(uint8_t *payload, uint64_t number)
{
    memset(payload, 0, PAYLOAD_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t content = (number >> (8 * i)) % CONTENTS;
        for (unsigned b = 0; b < CONTENT_BYTES; b++)
            payload[i * CONTENT_BYTES + b] = (uint8_t)(sets_mix(content * 64 + b + 1) >> 56);
    }
    memcpy(payload + 2 * CONTENT_BYTES, &number, sizeof(number));
}

static void next_packet(struct packet_in *packet)
{
    struct rng *rng = &sim.traffic;
    struct program_flow flow = {.source = 0x0a000001u + rng_below(rng, 4),
                                .destination = 0xc0a80001u,
                                .source_port = (uint16_t)(4000 + rng_below(rng, 4)),
                                .destination_port = 80,
                                .protocol = PROTOCOL_UDP};
    if (seen.run == sim.run && seen.count && rng_below(rng, 2)) {
        *packet = seen.packet[rng_below(rng, (uint32_t)u64_min(seen.count, SEEN))];
        return;
    }
    packet->port = (uint8_t)rng_below(rng, 4) == 0 ? NF_OUTSIDE : NF_INSIDE;
    program_frame(packet->bytes, &flow, 0, 0);
    packet->length = HEADERS + PAYLOAD_BYTES;
    write_payload(packet->bytes + HEADERS, rng_next(rng));
    packet->bytes[ETHERNET_BYTES + 6] = rng_below(rng, 8) ? WANOPT_DONT_FRAGMENT : 0;
    packet_store16(packet->bytes + 16, __builtin_bswap16(HEADERS - ETHERNET_BYTES + PAYLOAD_BYTES));
    packet_store16(packet->bytes + 38, __builtin_bswap16(UDP_BYTES + PAYLOAD_BYTES));
}

/* Does an encoded payload describe this one? Chunk by chunk, by what it was cut from. */
static bool describes(const struct wanopt *wan, const uint8_t *encoded, uint32_t bytes,
                      const uint8_t *payload)
{
    struct wanopt_shim shim;
    memcpy(&shim, encoded, sizeof(shim));
    const uint8_t *reference = encoded + sizeof(shim);
    const uint8_t *literal = reference + shim.count * WANOPT_REFERENCE + shim.padding;
    uint32_t at = 0;
    for (unsigned n = 0; n < shim.count; n++, reference += WANOPT_REFERENCE) {
        uint32_t before = packet_host16(reference);
        if (at + before > PAYLOAD_BYTES || memcmp(literal, payload + at, before) != 0)
            return false;
        at += before;
        literal += before;
        uint32_t chunk = wanopt_cut(wan, payload + at, PAYLOAD_BYTES - TAIL_BYTES - at);
        uint64_t name = wanopt_name(wan, payload + at, chunk);
        if (!chunk || memcmp(&name, reference + 2, sizeof(name)) != 0)
            return false;
        at += chunk;
    }
    uint32_t rest = (uint32_t)(encoded + bytes - literal);
    return rest == PAYLOAD_BYTES - at && memcmp(literal, payload + at, rest) == 0;
}

static void processed(struct worker *worker, const struct wire_input *in,
                      const struct nf_packet *out)
{
    uint8_t payload[PAYLOAD_BYTES];
    uint64_t number;
    if (!out)
        return;
    const uint8_t *frame = out->data, *before = (const uint8_t *)(in + 1);
    bool marked = frame[ETHERNET_BYTES + 6] & WANOPT_MARK;
    if (in->head.port == NF_OUTSIDE && out->port == NF_OUTSIDE) {
        cover(COVER_WANOPT_MISSING);
        return;
    }
    memcpy(&number, frame + out->length - TAIL_BYTES, sizeof(number));
    write_payload(payload, number);
    if (in->head.port == NF_OUTSIDE)
        cover_if(before[ETHERNET_BYTES + 6] & WANOPT_MARK, COVER_WANOPT_RESTORED);
    bool right = marked ? out->port == NF_OUTSIDE &&
                              before[ETHERNET_BYTES + 6] & WANOPT_DONT_FRAGMENT &&
                              describes(arena_root(worker->ctx.arena), frame + HEADERS,
                                        out->length - HEADERS, payload)
                        : out->length == HEADERS + PAYLOAD_BYTES &&
                              memcmp(frame + HEADERS, payload, PAYLOAD_BYTES) == 0;
    if (!right)
        sim_fail("nf", "wanopt: what leaves is not what came");
}

static void delivered(const uint8_t *bytes, uint32_t length, uint8_t port)
{
    if (seen.run != sim.run)
        seen.count = 0;
    seen.run = sim.run;
    if (port != NF_OUTSIDE)
        return;
    struct packet_in *packet = &seen.packet[seen.count++ % SEEN];
    FTMB_ASSERT(length <= sizeof(packet->bytes));
    packet->port = NF_OUTSIDE;
    packet->length = length;
    memcpy(packet->bytes, bytes, length);
}

const struct program program_wanopt = {.name = "wanopt",
                                       .nf = &nf_wanopt,
                                       .section_pals = 1,
                                       .params = params,
                                       .packet = next_packet,
                                       .processed = processed,
                                       .delivered = delivered};

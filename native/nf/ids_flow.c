/* What the intrusion detection keeps of flows and sources: their last bytes, and what they tried.
 */
#include "nf/ids.h"

struct ids_segment ids_segment_of(const struct packet_view *view, uint8_t side)
{
    bool inside = side == NF_INSIDE;
    uint32_t addresses[2] = {view->source, view->destination};
    uint16_t ports[2] = {view->source_port, view->destination_port};
    struct ids_segment segment = {
        .key = sets_key_of(addresses[!inside], addresses[inside], view->protocol, ports[!inside],
                           ports[inside]),
        .source = view->source,
        .destination = view->destination,
        .port = view->destination_port,
        .side = side,
        .tcp = view->kind == PACKET_TCP,
        .attempt = true,
    };
    if (segment.tcp) {
        segment.flags = view->tcp_flags;
        segment.syn = (view->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
        segment.attempt = !(view->tcp_flags & (TCP_ACK | TCP_RST));
        segment.seq =
            __builtin_bswap32(packet_load32(view->l4 + 4)) + ((view->tcp_flags & TCP_SYN) != 0);
        segment.bytes = view->payload;
        segment.data = view->l4 + (view->l4_bytes - view->payload);
    } else {
        segment.bytes = packet_host16(view->l4 + 4) - UDP_BYTES;
        segment.data = view->l4 + UDP_BYTES;
    }
    return segment;
}

static bool follows(const struct ids_stream *stream, const struct ids_segment *segment)
{
    return !segment->tcp || segment->seq == stream->next;
}

uint32_t ids_inspect(const struct ids *ids, uint32_t worker, const struct ids_flow *flow,
                     const struct ids_segment *segment)
{
    if (!ids->rules || !segment->bytes)
        return 0;
    const struct ids_stream *stream = flow ? &flow->stream[segment->side] : NULL;
    bool joined = stream && follows(stream, segment);
    return ids->rules & match_scan(worker, joined ? stream->tail : NULL, joined ? stream->bytes : 0,
                                   segment->data, segment->bytes);
}

void ids_remember(struct ids_flow *flow, const struct ids_segment *segment)
{
    struct ids_stream *stream = &flow->stream[segment->side];
    uint32_t end = segment->seq + segment->bytes, keep = 0;
    if (!segment->bytes)
        return;
    if (follows(stream, segment)) {
        if (segment->bytes < MATCH_TAIL)
            keep = (uint32_t)u64_min(stream->bytes, MATCH_TAIL - segment->bytes);
    } else if (stream->bytes && (int32_t)(end - stream->next) <= 0) {
        return; /* all of it was there before */
    }
    uint32_t take = (uint32_t)u64_min(segment->bytes, MATCH_TAIL);
    memmove(stream->tail, stream->tail + (stream->bytes - keep), keep);
    memcpy(stream->tail + keep, segment->data + (segment->bytes - take), take);
    stream->bytes = (uint8_t)(keep + take);
    stream->next = end;
}

uint8_t ids_bits_of(uint64_t targets)
{
    uint64_t bits = 0; /* in 65536ths */
    for (uint64_t n = 0; n < targets; n++)
        bits += 65536 - bits / IDS_BITS;
    return (uint8_t)((bits + 32768) / 65536);
}

/* The source's place in a set that is held: its own, else a free one, else of the one whose window
 * began first. */
static struct ids_source *find_source(struct ids_source *set, uint32_t address)
{
    struct ids_source *spare = &set[0];
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        struct ids_source *at = &set[way];
        if (at->used && at->address == address)
            return at;
        if (spare->used && (!at->used || at->since < spare->since))
            spare = at;
    }
    return spare;
}

static void set_bit(uint64_t *bits, uint8_t *count, uint64_t what)
{
    uint32_t place = (uint32_t)(sets_mix(what) >> 57);
    uint64_t bit = 1ull << (place % 64);
    *count += !(bits[place / 64] & bit);
    bits[place / 64] |= bit;
}

static bool reached(uint8_t count, uint8_t limit)
{
    return limit && count >= limit;
}

bool ids_note(struct ftmb_ctx *ctx, const struct ids *ids, struct ids_worker *worker,
              uint32_t source, uint32_t destination, const uint16_t *port)
{
    if (!ids->ports_limit && !ids->hosts_limit)
        return false;
    uint32_t set = ids_source_set(ids, source);
    ftmb_write(ctx, ids->flows.count + set);
    struct ids_source *at = find_source(sets_at(ctx->arena, &ids->sources, set), source);
    bool over = ftmb_elapsed(ctx, at->since) > ids->window_ns;
    ftmb_mark(ctx, at, sizeof(*at));
    if (!at->used || at->address != source || over) {
        worker->counters[IDS_FORGOTTEN] += at->used && at->address != source && !over;
        *at = (struct ids_source){.since = ftmb_now(ctx), .address = source, .used = true};
    }
    set_bit(at->hosts, &at->hosts_count, destination);
    if (port)
        set_bit(at->ports, &at->ports_count, *port);
    bool scans =
        reached(at->ports_count, ids->ports_limit) || reached(at->hosts_count, ids->hosts_limit);
    worker->counters[IDS_ATTEMPTS]++;
    worker->counters[IDS_SCANNERS] += scans && !at->scans;
    at->scans = scans;
    return scans;
}

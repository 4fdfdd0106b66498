/* wanopt: redundancy elimination on a line between two sites, one such function at each end of it.
 *
 * What goes to the line is encoded, what comes from it is decoded, so what leaves the other end is,
 * byte for byte, what went into this one. `line` is the side on which it is: outside, or inside for
 * the end that stands before the servers. The payloads of TCP and UDP are cut into chunks where a
 * rolling hash of their content says so (longer than `min_chunk`, 232 bytes at most, `chunks` in a
 * packet); both ends keep the chunks that they have seen, of either direction, in a cache. A chunk
 * that is in the cache leaves as its name, a hash of its content; a packet that does not become
 * shorter by that leaves as it is. So does one that may be fragmented (without DF): nobody could
 * decode the pieces. So nothing ever grows on the line. The last `tail` bytes of a payload are in
 * no chunk: they are often unlike any others (checks, trailers).
 *
 * An encoded packet keeps its addresses and ports, and has correct lengths and checksums; it is
 * marked by the reserved flag of IPv4, and its payload begins with a shim (wanopt.h). The decoder
 * needs no order and no luck: names are those of contents, not of places, so a packet is either
 * restored, or lacks a chunk. Then it is dropped (TCP sends it again), and in its place the names
 * of what lacks go back to the encoder, which forgets these chunks, so that they leave in full the
 * next time. Whatever is restored must agree with a check of the whole payload, by another hash.
 * Both hashes are keyed (SipHash-2-4, `key0` and `key1`): two users of the line share the cache,
 * and one who could choose contents of equal names and checks would choose what another gets. The
 * default keys are public; who does not trust those inside sets others, at both ends alike.
 *
 * Unchanged in both directions pass: other protocols, fragments, other EtherTypes (IPv6 too),
 * packets of more than 1500 bytes, frames with padding, UDP that is shorter than its packet. IPv4
 * options and wrong checksums do not matter, they are restored too. Dropped, each with a counter:
 * lengths that contradict each other; marked packets that come from elsewhere than the line; marked
 * ones from the line whose shim contradicts itself or is none; what lacks a chunk or fails its
 * check (dropped_missing, dropped_different: an answer goes back in their place); reports of
 * missing chunks, once heeded. Both ends must have the same parameters but `capacity`.
 *
 * Shared variables: one for each set of chunks; protects the chunks in it.
 * Accesses of a packet: a write for each chunk, `chunks` at most; a report of missing chunks: a
 * write for each.
 *
 * Invariants, which the report checks: a chunk is in its set, once, under the name of its content;
 * those learnt and neither replaced nor forgotten are there. */
#include "nf/wanopt.h"

#include "nf/checksum.h"

enum { CAPACITY, CHUNKS, MIN_CHUNK, TAIL, KEY0, KEY1, LINE };

static const struct nf_param params[] = {
    {"capacity", NF_UINT, 16384, 1, 1u << 22, "chunks in the cache"},
    {"chunks", NF_UINT, WANOPT_CHUNKS, 1, WANOPT_CHUNKS, "chunks of a packet, at most"},
    {"min_chunk", NF_UINT, 64, 16, 128, "a chunk has more bytes than this, a power of two"},
    {"tail", NF_UINT, 18, 0, 64, "bytes at a payload's end that are in no chunk"},
    {"key0", NF_UINT, 0x2b7e151628aed2a6, 0, INT64_MAX, "key of names and checks, the one half"},
    {"key1", NF_UINT, 0x2bf7158809cf4f3c, 0, INT64_MAX, "the other half; secret, and as there"},
    {"line", NF_UINT, NF_OUTSIDE, 0, 1, "side on which the line is: 0 inside, 1 outside"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

/* Of all places of the cache, each may be used: none is kept free, as for entries in use. */
static uint64_t cache_for(const uint64_t *values)
{
    return (values[CAPACITY] * SETS_MEAN + SETS_WAYS - 1) / SETS_WAYS;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    static const char reason[] = "min_chunk must be a power of two, such as 64";
    (void)workers;
    if (!is_power_of_two(values[MIN_CHUNK])) {
        memcpy(why, reason, sizeof(reason));
        return false;
    }
    *out = (struct nf_needs){
        .shared_bytes = sizeof(struct wanopt) + CACHE_LINE +
                        sets_bytes(cache_for(values), sizeof(struct wanopt_chunk)),
        .worker_bytes = sizeof(struct wanopt_worker) + CACHE_LINE,
        .variables = sets_for(cache_for(values)),
        .max_pals = (uint32_t)values[CHUNKS],
        .max_outputs = 1,
    };
    return true;
}

static uint64_t offset_of(const struct arena *arena, const void *at)
{
    return (uint64_t)((const uint8_t *)at - (const uint8_t *)arena);
}

/* Names and checks need keys of their own: two contents of one name must not have one check too. */
static void init_keys(struct wanopt *wan, const uint64_t *values)
{
    const struct siphash_key key = {{values[KEY0], values[KEY1]}};
    struct siphash_key *const of[] = {&wan->name_key, &wan->check_key};
    for (uint8_t n = 0; n < 4; n++)
        of[n / 2]->half[n % 2] = siphash(&key, &n, 1);
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct wanopt *wan = arena_alloc(arena, 0, sizeof(*wan), CACHE_LINE);
    if (!wan || !sets_init(&wan->cache, arena, cache_for(values), sizeof(struct wanopt_chunk)))
        return NULL;
    wan->chunks = (uint32_t)values[CHUNKS];
    wan->min = (uint32_t)values[MIN_CHUNK];
    /* A boundary at one byte of min_chunk, in the mean. */
    wan->shift = 64 - (uint32_t)__builtin_ctz(wan->min);
    wan->tail = (uint32_t)values[TAIL];
    wan->line = (uint8_t)values[LINE];
    init_keys(wan, values);
    for (uint64_t b = 0; b < 256; b++)
        wan->gear[b] = sets_mix(sets_mix(b + 1));
    for (uint32_t w = 0; w < arena->workers; w++) {
        struct wanopt_worker *worker = arena_alloc(arena, 1 + w, sizeof(*worker), CACHE_LINE);
        if (!worker)
            return NULL;
        wan->worker_at[w] = offset_of(arena, worker);
    }
    return wan;
}

/* Adds to a 16-bit number of the wire; the change of the checksum over it. */
static uint16_t add16(uint8_t *at, uint32_t more)
{
    uint16_t before = packet_load16(at);
    uint16_t after = __builtin_bswap16((uint16_t)(packet_host16(at) + more));
    packet_store16(at, after);
    return checksum_delta16(before, after);
}

void wanopt_put(struct nf_packet *packet, const struct packet_view *view,
                const struct wanopt_payload *payload, const uint8_t *content, uint32_t bytes,
                bool marked)
{
    uint32_t more = bytes - payload->bytes; /* modulo 2^32: it may be less */
    uint16_t sum = checksum_sum(payload->at, payload->bytes);
    uint16_t before = packet_load16(view->ip + 6);
    memcpy(payload->at, content, bytes);
    sum = checksum_join(checksum_reverse(sum), checksum_sum(content, bytes));
    uint16_t total = add16(view->ip + 2, more);
    view->ip[6] = (uint8_t)(marked ? view->ip[6] | WANOPT_MARK : view->ip[6] & ~WANOPT_MARK);
    checksum_patch(view->ip + 10,
                   checksum_join(total, checksum_delta16(before, packet_load16(view->ip + 6))));
    /* The pseudo-header has the length too, in UDP beside the header. */
    uint16_t length = __builtin_bswap16((uint16_t)view->l4_bytes);
    uint16_t now = __builtin_bswap16((uint16_t)(view->l4_bytes + more));
    sum = checksum_join(sum, checksum_delta16(length, now));
    if (view->kind == PACKET_UDP) {
        sum = checksum_join(sum, add16(view->l4 + 4, more));
        checksum_patch_udp(view->l4 + wanopt_checksum_at(view), sum);
    } else {
        checksum_patch(view->l4 + wanopt_checksum_at(view), sum);
    }
    packet->length += more;
}

/* True: a packet of which both ends know what to do with it, and its payload. */
static bool payload_of(const struct nf_packet *packet, const struct packet_view *view,
                       struct wanopt_payload *payload)
{
    uint32_t total = (uint32_t)(view->l4 - view->ip) + view->l4_bytes;
    if (view->kind > PACKET_UDP || total > WANOPT_MTU || packet->length != ETHERNET_BYTES + total ||
        (view->kind == PACKET_UDP && packet_host16(view->l4 + 4) != view->l4_bytes))
        return false;
    payload->bytes = view->kind == PACKET_TCP ? view->payload : view->l4_bytes - UDP_BYTES;
    payload->at = view->l4 + (view->l4_bytes - payload->bytes);
    return true;
}

/* An encoded payload in the making: references, and literal bytes apart from them. */
struct encoded {
    uint32_t count;
    uint32_t length; /* of the literal bytes */
    uint8_t references[WANOPT_CHUNKS * WANOPT_REFERENCE];
    uint8_t literals[WANOPT_MTU];
};

static void refer(struct encoded *encoded, uint64_t name, const uint8_t *literals, uint32_t bytes)
{
    uint8_t *reference = encoded->references + encoded->count++ * WANOPT_REFERENCE;
    packet_store16(reference, __builtin_bswap16((uint16_t)bytes));
    memcpy(reference + 2, &name, sizeof(name));
    memcpy(encoded->literals + encoded->length, literals, bytes);
    encoded->length += bytes;
}

/* All chunks of the payload, known ones as references. */
static void shorten(struct wanopt_hand *hand, const struct wanopt_payload *payload,
                    struct encoded *encoded)
{
    const struct wanopt *wan = hand->wan;
    const uint8_t *literals = payload->at, *at = payload->at;
    const uint8_t *end = payload->at + payload->bytes - u64_min(payload->bytes, wan->tail);
    encoded->count = encoded->length = 0;
    for (uint32_t n = 0; n < wan->chunks; n++) {
        uint32_t bytes = wanopt_cut(wan, at, (uint32_t)(end - at));
        if (!bytes)
            break;
        uint64_t name = wanopt_name(wan, at, bytes);
        if (wanopt_remember(hand, name, at, bytes)) {
            refer(encoded, name, literals, (uint32_t)(at - literals));
            literals = at + bytes;
        }
        at += bytes;
    }
    uint32_t rest = (uint32_t)(payload->at + payload->bytes - literals);
    memcpy(encoded->literals + encoded->length, literals, rest);
    encoded->length += rest;
}

/* Writes the encoded payload to `out`; its bytes, 0: it would not be shorter. Its length stays odd
 * or even: whoever looks for a trailer at an even place finds it still. */
static uint32_t written(const struct wanopt *wan, const struct encoded *encoded,
                        const struct packet_view *view, const struct wanopt_payload *payload,
                        uint8_t *out)
{
    uint32_t references = encoded->count * WANOPT_REFERENCE;
    uint32_t before = sizeof(struct wanopt_shim) + references;
    uint32_t padding = (payload->bytes - before - encoded->length) & 1;
    uint32_t bytes = before + padding + encoded->length;
    if (!encoded->count || bytes >= payload->bytes)
        return 0;
    struct wanopt_shim shim = {.kind = WANOPT_ENCODED,
                               .count = (uint8_t)encoded->count,
                               .padding = (uint8_t)padding,
                               .bytes = __builtin_bswap16((uint16_t)payload->bytes),
                               .checksum = packet_load16(view->l4 + wanopt_checksum_at(view)),
                               .check = wanopt_check(wan, payload->at, payload->bytes)};
    memcpy(out, &shim, sizeof(shim));
    memcpy(out + sizeof(shim), encoded->references, references);
    out[before] = 0;
    memcpy(out + before + padding, encoded->literals, encoded->length);
    return bytes;
}

static void encode(struct wanopt_hand *hand, struct nf_packet *packet,
                   const struct packet_view *view, const struct wanopt_payload *payload)
{
    struct encoded encoded;
    uint8_t content[WANOPT_MTU];
    shorten(hand, payload, &encoded);
    /* A header's checksum of 0xffff would come back as 0, which means the same: such a packet,
     * which nobody sends who computes as the RFC says, stays as it is. So does one that a router
     * may fragment: nobody could decode the pieces. */
    bool whole = packet_load16(view->ip + 10) != 0xffff && (view->ip[6] & WANOPT_DONT_FRAGMENT);
    uint32_t bytes = whole ? written(hand->wan, &encoded, view, payload, content) : 0;
    if (bytes) {
        hand->worker->counters[WANOPT_BYTES_SAVED] += payload->bytes - bytes;
        wanopt_put(packet, view, payload, content, bytes, true);
    }
    hand->worker->counters[bytes ? WANOPT_SHORTENED : WANOPT_PASSED]++;
    ftmb_emit(hand->ctx, packet, (enum nf_port)hand->wan->line);
}

static void pass(struct wanopt_hand *hand, struct nf_packet *packet)
{
    hand->worker->counters[WANOPT_PASSED]++;
    ftmb_emit(hand->ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct wanopt *wan = arena_root(ctx->arena);
    struct wanopt_hand hand = {ctx, wan, wanopt_worker(ctx->arena, wan, ctx->worker)};
    struct packet_view view;
    struct wanopt_payload payload;
    enum packet_kind kind = packet_parse(&view, packet->data, packet->length);
    bool marked = kind < PACKET_NOT_IPV4 && (view.ip[6] & WANOPT_MARK);
    bool by_line = packet->port == wan->line;
    ftmb_mark(ctx, hand.worker, sizeof(*hand.worker));
    if (unlikely(kind == PACKET_MALFORMED)) {
        hand.worker->counters[WANOPT_DROP_MALFORMED]++;
    } else if (unlikely(marked && !by_line)) {
        hand.worker->counters[WANOPT_DROP_MARKED]++;
    } else if (unlikely(!payload_of(packet, &view, &payload))) {
        if (marked)
            hand.worker->counters[WANOPT_DROP_BAD]++;
        else
            pass(&hand, packet);
    } else if (!by_line) {
        encode(&hand, packet, &view, &payload);
    } else if (marked) {
        wanopt_marked(&hand, packet, &view, &payload);
    } else {
        if (payload.bytes > wan->tail)
            wanopt_learn(&hand, payload.at, payload.bytes - wan->tail, wan->chunks);
        pass(&hand, packet);
    }
}

const struct nf nf_wanopt = {
    .name = "wanopt",
    .params = params,
    .needs = needs,
    .init = init,
    .process = process,
    .report = wanopt_report,
};

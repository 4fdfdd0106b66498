/* The WAN optimizer's decoder, and what it tells the encoder when it lacks a chunk. */
#include "nf/checksum.h"
#include "nf/wanopt.h"

struct reference {
    uint32_t literal; /* bytes before it */
    uint64_t name;
};

static struct reference reference_at(const struct wanopt_payload *payload, uint32_t n)
{
    const uint8_t *at = payload->at + sizeof(struct wanopt_shim) + n * WANOPT_REFERENCE;
    struct reference reference = {.literal = packet_host16(at)};
    memcpy(&reference.name, at + 2, sizeof(reference.name));
    return reference;
}

/* The literal bytes of an encoded packet whose numbers agree with one another. */
static bool literals_of(const struct wanopt *wan, const struct nf_packet *packet,
                        const struct wanopt_payload *payload, const struct wanopt_shim *shim,
                        struct wanopt_payload *literals)
{
    uint32_t before = sizeof(*shim) + shim->count * WANOPT_REFERENCE + shim->padding, sum = 0;
    uint32_t headers = packet->length - payload->bytes;
    uint32_t bytes = __builtin_bswap16(shim->bytes);
    if (!shim->count || shim->count > wan->chunks || shim->padding > 1 || shim->zero ||
        before > payload->bytes)
        return false;
    *literals = (struct wanopt_payload){payload->at + before, payload->bytes - before};
    for (uint32_t n = 0; n < shim->count; n++) {
        struct reference reference = reference_at(payload, n);
        sum += reference.literal;
        if (!reference.name)
            return false;
    }
    return sum <= literals->bytes && literals->bytes <= bytes &&
           headers + bytes <= ETHERNET_BYTES + WANOPT_MTU && headers + bytes <= packet->capacity;
}

/* A payload in the making. */
struct restored {
    uint8_t bytes[WANOPT_MTU];
    uint32_t length;
    uint32_t room; /* what it is to be */
    bool fits;
    uint32_t missing;
    uint64_t name[WANOPT_CHUNKS];
};

static void append(struct restored *restored, const uint8_t *bytes, uint32_t length)
{
    restored->fits = restored->fits && length <= restored->room - restored->length;
    if (!restored->fits)
        return;
    memcpy(restored->bytes + restored->length, bytes, length);
    restored->length += length;
}

/* In the order in which the encoder met them, so that both caches forget the same chunks. The
 * encoder's literal bytes before a reference are whole chunks, since it cut at the reference. */
static void restore(struct wanopt_hand *hand, const struct wanopt_payload *payload, uint32_t count,
                    struct wanopt_payload literals, struct restored *restored)
{
    uint32_t most = hand->wan->chunks - count, tail = hand->wan->tail;
    for (uint32_t n = 0; n < count; n++) {
        struct reference reference = reference_at(payload, n);
        uint8_t chunk[WANOPT_CHUNK_BYTES];
        most -= wanopt_learn(hand, literals.at, reference.literal, most);
        append(restored, literals.at, reference.literal);
        literals.at += reference.literal;
        literals.bytes -= reference.literal;
        uint32_t bytes = wanopt_recall(hand, reference.name, chunk);
        if (bytes)
            append(restored, chunk, bytes);
        else
            restored->name[restored->missing++] = reference.name;
    }
    if (literals.bytes > tail)
        wanopt_learn(hand, literals.at, literals.bytes - tail, most);
    append(restored, literals.at, literals.bytes);
}

static void swap(uint8_t *a, uint8_t *b, uint32_t bytes)
{
    uint8_t spare[6];
    memcpy(spare, a, bytes);
    memcpy(a, b, bytes);
    memcpy(b, spare, bytes);
}

/* The packet goes back to where it came from, with the names of chunks that are to be sent again.
 */
static void send_back(struct wanopt_hand *hand, struct nf_packet *packet,
                      const struct packet_view *view, const struct wanopt_payload *payload,
                      const uint64_t *names, uint32_t count)
{
    uint8_t content[sizeof(struct wanopt_shim) + WANOPT_CHUNKS * sizeof(*names)];
    struct wanopt_shim shim = {.kind = WANOPT_MISSING, .count = (uint8_t)count};
    uint16_t before = packet_load16(view->ip + 8);
    memcpy(content, &shim, sizeof(shim));
    memcpy(content + sizeof(shim), names, count * sizeof(*names));
    swap(packet->data, packet->data + 6, 6);
    swap(view->ip + 12, view->ip + 16, 4);
    swap(view->l4, view->l4 + 2, 2); /* ports; no checksum minds the order */
    view->ip[8] = 64;                /* the time to live begins anew */
    checksum_patch(view->ip + 10, checksum_delta16(before, packet_load16(view->ip + 8)));
    wanopt_put(packet, view, payload, content, (uint32_t)(sizeof(shim) + count * sizeof(*names)),
               true);
    ftmb_emit(hand->ctx, packet, (enum nf_port)packet->port);
}

static void decode(struct wanopt_hand *hand, struct nf_packet *packet,
                   const struct packet_view *view, const struct wanopt_payload *payload,
                   const struct wanopt_shim *shim)
{
    struct wanopt_payload literals;
    struct restored restored;
    if (!literals_of(hand->wan, packet, payload, shim, &literals)) {
        hand->worker->counters[WANOPT_DROP_BAD]++;
        return;
    }
    restored.length = restored.missing = 0;
    restored.room = __builtin_bswap16(shim->bytes);
    restored.fits = true;
    restore(hand, payload, shim->count, literals, &restored);
    if (unlikely(restored.missing)) {
        hand->worker->counters[WANOPT_DROP_MISSING]++;
        send_back(hand, packet, view, payload, restored.name, restored.missing);
        return;
    }
    if (unlikely(!restored.fits || restored.length != restored.room ||
                 wanopt_check(hand->wan, restored.bytes, restored.length) != shim->check)) {
        /* A chunk is not what the encoder meant: all that were named are to come again. */
        for (uint32_t n = 0; n < shim->count; n++)
            restored.name[n] = reference_at(payload, n).name;
        hand->worker->counters[WANOPT_DROP_DIFFERENT]++;
        send_back(hand, packet, view, payload, restored.name, shim->count);
        return;
    }
    hand->worker->counters[WANOPT_RESTORED]++;
    wanopt_put(packet, view, payload, restored.bytes, restored.length, false);
    packet_store16(view->l4 + wanopt_checksum_at(view), shim->checksum);
    ftmb_emit(hand->ctx, packet, (enum nf_port)(1 - hand->wan->line));
}

/* The decoder on the other side lacks chunks: the next packets have them in full. */
static void missing(struct wanopt_hand *hand, const struct wanopt_payload *payload,
                    const struct wanopt_shim *shim)
{
    bool good = shim->count && shim->count <= hand->wan->chunks &&
                payload->bytes == sizeof(*shim) + shim->count * sizeof(uint64_t);
    for (uint32_t n = 0; good && n < shim->count; n++) {
        uint64_t name;
        memcpy(&name, payload->at + sizeof(*shim) + n * sizeof(name), sizeof(name));
        if (name)
            wanopt_forget(hand, name);
    }
    hand->worker->counters[good ? WANOPT_DROP_REPORT : WANOPT_DROP_BAD]++;
}

void wanopt_marked(struct wanopt_hand *hand, struct nf_packet *packet,
                   const struct packet_view *view, const struct wanopt_payload *payload)
{
    struct wanopt_shim shim;
    if (payload->bytes < sizeof(shim)) {
        hand->worker->counters[WANOPT_DROP_BAD]++;
        return;
    }
    memcpy(&shim, payload->at, sizeof(shim));
    if (shim.kind == WANOPT_ENCODED)
        decode(hand, packet, view, payload, &shim);
    else if (shim.kind == WANOPT_MISSING)
        missing(hand, payload, &shim);
    else
        hand->worker->counters[WANOPT_DROP_BAD]++;
}

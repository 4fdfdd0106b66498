/* wanopt: an encoder and a decoder with a line between them. What leaves the one end is, byte for
 * byte, what went into the other, or the loss is counted, whatever the line does to the packets; no
 * packet is longer on the line. Then odd packets, shims of any bytes, chunks that are not the same
 * at both ends. The encoded bytes themselves are for the oracle (tests/test_nf_wanopt_oracle.py).
 */
#include "nf/wanopt.h"
#include "tests/nf_harness.h"

#include <string.h>

#define WORKERS 2u
#define CONTENTS 24u
#define UNDER_WAY 16u

static uint64_t seed;

static uint32_t below(uint32_t bound)
{
    return (uint32_t)(test_random(&seed) % bound);
}

/* ---- frames -------------------------------------------------------------------------------- */

struct frame {
    uint8_t bytes[HARNESS_FRAME];
    uint32_t length;
};

/* Contents that come back: whole, from another place on, or with something new before them. */
static void fill(uint8_t *payload, uint32_t length)
{
    static uint8_t content[CONTENTS][700];
    static bool made;
    if (!made) {
        uint64_t fixed = 7;
        for (unsigned i = 0; i < CONTENTS * sizeof(content[0]); i++)
            content[i / sizeof(content[0])][i % sizeof(content[0])] = (uint8_t)test_random(&fixed);
        memset(content[1], 0x55, sizeof(content[1])); /* one chunk, again and again */
        made = true;
    }
    for (uint32_t at = 0; at < length;) {
        uint32_t bytes = (uint32_t)u64_min(length - at, 1 + below(700));
        if (below(5) == 0) {
            for (uint32_t i = 0; i < bytes; i++)
                payload[at + i] = (uint8_t)test_random(&seed);
        } else {
            const uint8_t *from = content[below(CONTENTS)];
            memcpy(payload + at, from + (below(2) ? 0 : below(701 - bytes)), bytes);
        }
        at += bytes;
    }
}

/* A packet with payload of those contents; its checksums are right, unless `wrong`. */
static void build(struct frame *frame, struct frame_spec spec, bool wrong)
{
    uint32_t l4 = spec.protocol == 6 ? 20 : 8, at = 34 + 4u * spec.option_words;
    frame->length = frame_build(frame->bytes, &spec, test_random(&seed));
    fill(frame->bytes + at + l4, spec.payload);
    uint8_t *field = frame->bytes + at + (spec.protocol == 6 ? 16 : 6);
    if (wrong) {
        field[0] = (uint8_t)test_random(&seed);
        field[1] = (uint8_t)test_random(&seed);
        frame->bytes[24] = (uint8_t)test_random(&seed); /* of IPv4 */
    } else if (spec.protocol == 6 || !spec.no_udp_checksum) {
        frame_checksum(frame->bytes);
    }
}

static struct frame_spec any_spec(void)
{
    return (struct frame_spec){.protocol = below(2) ? 6 : 17,
                               .source = 0x0a000001 + below(5),
                               .destination = 0xc0000201,
                               .source_port = (uint16_t)(1000 + below(50)),
                               .destination_port = 80,
                               .payload = (uint16_t)(below(4) ? below(1421) : below(200)),
                               .option_words = (uint8_t)(below(8) ? 0 : below(11)),
                               .tcp_flags = 16,
                               .no_udp_checksum = below(6) == 0,
                               .dont_fragment = below(8) != 0};
}

/* ---- the line ------------------------------------------------------------------------------ */

struct line {
    struct harness near, far;
    struct frame original[UNDER_WAY], sent[UNDER_WAY];
    uint32_t under_way;
    uint32_t loses; /* of 100 */
    bool reorders;
    uint32_t restored, lost, lacked;
};

static void open_line(struct line *line, const struct harness_setting *settings)
{
    memset(line, 0, sizeof(*line));
    harness_open(&line->near, "wanopt", WORKERS, settings);
    harness_open(&line->far, "wanopt", WORKERS, settings);
    line->near.capacity = line->far.capacity = HARNESS_FRAME;
}

static void close_line(struct line *line)
{
    harness_checks(&line->near);
    harness_checks(&line->far);
    harness_close(&line->near);
    harness_close(&line->far);
}

/* What every packet on the line must be: no longer, with as right checksums, its end unchanged. */
static void check_sent(const struct frame *original, const struct frame *sent, bool right)
{
    CHECK(sent->length <= original->length && (sent->length & 1) == (original->length & 1));
    if (sent->length == original->length) {
        CHECK(memcmp(sent->bytes, original->bytes, sent->length) == 0);
        return;
    }
    CHECK(sent->bytes[20] & 0x80 && sent->length >= 60);
    CHECK(original->bytes[20] & 0x40); /* the line must not fragment it */
    CHECK(memcmp(sent->bytes + sent->length - 18, original->bytes + original->length - 18, 18) ==
          0);
    CHECK(!right || frame_checksums_right(sent->bytes, sent->length));
}

/* One that is under way arrives. */
static void arrive(struct line *line)
{
    uint32_t n = line->reorders ? below(line->under_way) : 0;
    const struct frame *original = &line->original[n], *sent = &line->sent[n];
    bool twice = line->reorders && below(20) == 0;
    line->far.now += MS;
    if (below(100) < line->loses) {
        line->lost++;
    } else if (!harness_packet(&line->far, below(WORKERS), NF_OUTSIDE, sent->bytes, sent->length)) {
        CHECK(!"dropped without an answer");
    } else if (line->far.out_port == NF_INSIDE) {
        CHECK(line->far.out_length == original->length);
        CHECK(memcmp(line->far.out, original->bytes, original->length) == 0);
        line->restored++;
    } else {
        CHECK(line->far.out_length <= sent->length && line->far.out[20] & 0x80);
        line->lacked++;
        if (below(100) >= line->loses) /* the answer, which the encoder takes */
            CHECK(!harness_packet(&line->near, below(WORKERS), NF_OUTSIDE, line->far.out,
                                  line->far.out_length));
    }
    if (twice)
        return;
    line->under_way--;
    memmove(&line->original[n], &line->original[n + 1],
            (line->under_way - n) * sizeof(struct frame));
    memmove(&line->sent[n], &line->sent[n + 1], (line->under_way - n) * sizeof(struct frame));
}

static void send(struct line *line, const struct frame *frame, bool right)
{
    struct harness *near = &line->near;
    struct frame *sent = &line->sent[line->under_way];
    near->now += MS;
    CHECK(harness_packet(near, below(WORKERS), NF_INSIDE, frame->bytes, frame->length));
    CHECK(near->out_port == NF_OUTSIDE && near->pal_count == harness_writes(near));
    memcpy(sent->bytes, near->out, near->out_length);
    sent->length = near->out_length;
    check_sent(frame, sent, right);
    line->original[line->under_way++] = *frame;
    while (line->under_way == UNDER_WAY || (line->under_way && !line->reorders))
        arrive(line);
}

static void traffic(struct line *line, uint32_t packets)
{
    while (packets--) {
        struct frame frame;
        struct frame_spec spec = any_spec();
        bool wrong = below(10) == 0;
        build(&frame, spec, wrong);
        send(line, &frame, !wrong);
    }
    while (line->under_way)
        arrive(line);
}

/* In order and whole: both caches are always the same, however small, so nothing ever lacks. */
static void test_in_order(uint64_t capacity, uint64_t min_chunk)
{
    struct line line;
    open_line(&line, (struct harness_setting[]){
                         {"capacity", capacity}, {"min_chunk", min_chunk}, {NULL, 0}});
    traffic(&line, 4000);
    CHECK(line.restored == 4000 && line.lacked == 0);
    CHECK(harness_counter(&line.near, "shortened") == harness_counter(&line.far, "restored"));
    CHECK(harness_counter(&line.near, "shortened") > (capacity < 4000 ? 100 : 1000));
    CHECK(harness_counter(&line.near, "chunks") == harness_counter(&line.far, "chunks"));
    CHECK(line.near.pal_peak <= WANOPT_CHUNKS && line.near.pal_peak > 6);
    close_line(&line);
}

/* Lost, repeated, out of order, the answers too: each packet is restored or counted. Once the line
 * is good again, a chunk lacks once: it is told, and comes in full the next time. */
static void test_bad_line(uint64_t capacity)
{
    static struct frame again[2000];
    struct line line;
    open_line(&line, (struct harness_setting[]){{"capacity", capacity}, {NULL, 0}});
    line.loses = 30;
    line.reorders = true;
    traffic(&line, 5000);
    CHECK(line.lost > 500 && line.lacked > 100 && line.restored > 1500);
    CHECK(harness_counter(&line.far, "dropped_missing") == line.lacked);
    CHECK(harness_counter(&line.near, "dropped_report") > line.lacked / 3);
    CHECK(harness_counter(&line.far, "dropped_different") == 0);
    line.loses = line.lacked = 0;
    line.reorders = false;
    for (unsigned i = 0; i < 2000; i++) {
        build(&again[i], any_spec(), false);
        send(&line, &again[i], true);
    }
    uint32_t lacked = line.lacked;
    for (unsigned i = 0; i < 2000; i++)
        send(&line, &again[i], true);
    CHECK(capacity < 4000 || lacked > 50);
    CHECK(capacity < 4000 || line.lacked == lacked); /* small ones forget different chunks */
    close_line(&line);
}

/* ---- single packets ------------------------------------------------------------------------ */

static struct frame_spec udp(uint16_t payload)
{
    return (struct frame_spec){.protocol = 17,
                               .source = 0x0a000001,
                               .destination = 0xc0000201,
                               .source_port = 1000,
                               .destination_port = 53,
                               .payload = payload,
                               .dont_fragment = true};
}

/* A packet whose second sending is encoded, in its encoded form; the far end knows its chunks. */
static void learn_packet(struct line *line, struct frame *frame, struct frame *encoded)
{
    struct frame_spec spec = udp(1000);
    frame->length = frame_build(frame->bytes, &spec, 99);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(harness_packet(&line->near, 0, NF_INSIDE, frame->bytes, frame->length));
        memcpy(encoded->bytes, line->near.out, line->near.out_length);
        encoded->length = line->near.out_length;
        CHECK(harness_packet(&line->far, 0, NF_OUTSIDE, encoded->bytes, encoded->length));
        CHECK(memcmp(line->far.out, frame->bytes, frame->length) == 0);
    }
    CHECK(encoded->length < frame->length / 2);
}

static bool decode(struct line *line, const struct frame *frame)
{
    return harness_packet(&line->far, 1, NF_OUTSIDE, frame->bytes, frame->length);
}

/* ---- hashes -------------------------------------------------------------------------------- */

/* Of the vectors that its authors publish: bytes 0, 1, 2, ..., under a key likewise. */
static void test_siphash(void)
{
    const struct siphash_key key = {{0x0706050403020100, 0x0f0e0d0c0b0a0908}};
    uint8_t bytes[15];
    for (uint8_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = i;
    CHECK(siphash(&key, bytes, 0) == 0x726fdb47dd0e0e31);
    CHECK(siphash(&key, bytes, sizeof(bytes)) == 0xa129ca6149be45e5);
}

/* Chunks that no hash without a key told apart (one constant of core/hash.h wipes out what was
 * before it), of payloads with the same checksum: what one user sends is never what another gets.
 */
static void test_chosen_contents(void)
{
    struct line line;
    struct frame a, b;
    struct frame_spec spec = udp(300);
    open_line(&line, (struct harness_setting[]){{"min_chunk", 128}, {NULL, 0}});
    a.length = frame_build(a.bytes, &spec, 5);
    for (unsigned at = 72; at < 128; at += 16)
        memcpy(a.bytes + 42 + at, "\x93\xfd\x59\x66\xb8\xfe\xe8\xd6", 8);
    frame_checksum(a.bytes);
    b = a;
    memcpy(b.bytes + 42, a.bytes + 42 + 10, 2);
    memcpy(b.bytes + 42 + 10, a.bytes + 42, 2);
    CHECK(memcmp(a.bytes, b.bytes, a.length) != 0);
    send(&line, &a, true);
    line.loses = 100;
    send(&line, &b, true); /* the near end knows it now, the far one does not */
    line.loses = 0;
    send(&line, &b, true);
    CHECK(line.restored == 1 && line.lost == 1 && line.lacked == 1);
    send(&line, &b, true);
    CHECK(line.restored == 2 && harness_counter(&line.far, "dropped_different") == 0);
    close_line(&line);
}

/* Ends whose keys differ understand nothing of each other, and say so. */
static void test_other_key(void)
{
    const struct harness_setting near[] = {{"key0", 1}, {NULL, 0}},
                                 far[] = {{"key1", 1}, {NULL, 0}};
    struct harness_setting const *const sets[] = {near, far};
    for (unsigned i = 0; i < 2; i++) {
        struct line line, other;
        struct frame frame, encoded;
        open_line(&line, NULL);
        open_line(&other, sets[i]);
        learn_packet(&line, &frame, &encoded);
        learn_packet(&other, &frame, &encoded);
        CHECK(decode(&line, &encoded) && line.far.out_port == NF_OUTSIDE);
        CHECK(harness_counter(&line.far, "dropped_missing") == 1);
        close_line(&line);
        close_line(&other);
    }
}

/* A chunk whose content is another one than its name says, at the far end: noticed, told, cured. */
static void test_different(void)
{
    struct line line;
    struct frame frame, encoded;
    open_line(&line, NULL);
    learn_packet(&line, &frame, &encoded);
    const struct wanopt *wan = arena_root(line.far.arena);
    uint64_t name;
    memcpy(&name, encoded.bytes + 42 + sizeof(struct wanopt_shim) + 2, sizeof(name));
    struct wanopt_chunk *at = sets_at(line.far.arena, &wan->cache, sets_pick(&wan->cache, name));
    while (at->name != name)
        at++;
    at->content[3] ^= 1;
    CHECK(!harness_check_holds(&line.far, "cache") && harness_check_holds(&line.far, "counts"));
    CHECK(decode(&line, &encoded) && line.far.out_port == NF_OUTSIDE);
    CHECK(harness_counter(&line.far, "dropped_different") == 1);
    CHECK(!harness_packet(&line.near, 0, NF_OUTSIDE, line.far.out, line.far.out_length));
    CHECK(harness_counter(&line.near, "chunks") == 0);
    CHECK(harness_packet(&line.near, 0, NF_INSIDE, frame.bytes, frame.length));
    CHECK(line.near.out_length == frame.length); /* in full */
    CHECK(decode(&line, &frame) && harness_check_holds(&line.far, "cache"));
    CHECK(decode(&line, &encoded) && memcmp(line.far.out, frame.bytes, frame.length) == 0);
    at->used = 0, at->name = 0;
    CHECK(!harness_check_holds(&line.far, "counts"));
    harness_close(&line.near);
    harness_close(&line.far);
}

/* Whatever happens to an encoded packet: what comes out of it inside is the original, up to the
 * fields that are carried as they are. */
static void test_damaged(void)
{
    struct line line;
    struct frame frame, encoded;
    uint32_t inside = 0, back = 0, dropped = 0;
    open_line(&line, NULL);
    learn_packet(&line, &frame, &encoded);
    for (uint32_t i = 0; i < 20000; i++) {
        struct frame damaged = encoded;
        uint32_t at = 42 + below(i % 2 ? 40 : encoded.length - 42);
        damaged.bytes[at] ^= (uint8_t)(1u << below(8));
        if (!decode(&line, &damaged)) {
            dropped++;
        } else if (line.far.out_port == NF_OUTSIDE) {
            CHECK(frame_checksums_right(line.far.out, line.far.out_length) == false);
            back++;
        } else {
            inside++;
            CHECK(line.far.out_length == frame.length);
            CHECK(memcmp(line.far.out + 42, frame.bytes + 42, frame.length - 42) == 0);
            CHECK(at == 48 || at == 49 || memcmp(line.far.out, frame.bytes, 42) == 0);
        }
    }
    CHECK(inside > 100 && back > 1000 && dropped > 100);
    close_line(&line);
}

/* A buffer that is too small, a length that no packet of the line had: nothing is written. */
static void test_room(void)
{
    struct line line;
    struct frame frame, encoded;
    open_line(&line, NULL);
    learn_packet(&line, &frame, &encoded);
    line.far.capacity = frame.length - 1;
    CHECK(!decode(&line, &encoded) && line.far.pal_count == 0);
    line.far.capacity = frame.length;
    CHECK(decode(&line, &encoded) && line.far.out_length == frame.length);
    line.far.capacity = HARNESS_FRAME;
    encoded.bytes[42 + 4] = 1480 >> 8, encoded.bytes[42 + 5] = (1480 - 7) & 255;
    CHECK(!decode(&line, &encoded) && harness_counter(&line.far, "dropped_bad_shim") == 2);
    encoded.bytes[42 + 5] = (1480 - 8) & 255; /* fits, but is not it */
    CHECK(decode(&line, &encoded) && harness_counter(&line.far, "dropped_different") == 1);
    close_line(&line);
}

static bool unchanged(struct harness *h, enum nf_port port, const struct frame *frame)
{
    return harness_packet(h, 0, port, frame->bytes, frame->length) && h->pal_count == 0 &&
           h->out_port == (port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE) &&
           h->out_length == frame->length && memcmp(h->out, frame->bytes, frame->length) == 0;
}

static void test_odd_packets(void)
{
    struct line line;
    struct frame frame, encoded, odd;
    open_line(&line, NULL);
    learn_packet(&line, &frame, &encoded);
    struct harness *h = &line.near;
    CHECK(!harness_packet(h, 0, NF_INSIDE, encoded.bytes, encoded.length));
    CHECK(harness_counter(h, "dropped_marked") == 1);
    for (uint32_t cut = 0; cut < frame.length; cut++)
        CHECK(!harness_packet(h, 0, cut & 1, frame.bytes, cut));
    CHECK(harness_counter(h, "dropped_malformed") == frame.length);
    for (unsigned port = 0; port < 2; port++) {
        odd = frame, odd.length++; /* padded */
        CHECK(unchanged(h, port, &odd));
        odd = frame, odd.bytes[20] = 0x20; /* a fragment */
        CHECK(unchanged(h, port, &odd));
        odd = frame, odd.bytes[23] = 47;
        CHECK(unchanged(h, port, &odd));
        odd = frame, odd.bytes[12] = 0x86, odd.bytes[13] = 0xdd;
        CHECK(unchanged(h, port, &odd));
        odd = frame, odd.bytes[39]--; /* UDP that is shorter than its packet */
        CHECK(unchanged(h, port, &odd));
        odd.length =
            frame_build(odd.bytes, &(struct frame_spec){.protocol = 6, .payload = 1461}, 1);
        CHECK(unchanged(h, port, &odd)); /* too long for the line */
        odd.length = frame_build(odd.bytes, &(struct frame_spec){.protocol = 6}, 1);
        CHECK(unchanged(h, port, &odd)); /* nothing in it */
    }
    odd = frame, odd.bytes[24] = odd.bytes[25] = 0xff; /* stays as it is, but is known */
    CHECK(harness_packet(h, 0, NF_INSIDE, odd.bytes, odd.length) && h->pal_count > 0);
    CHECK(h->out_length == frame.length && memcmp(h->out, odd.bytes, odd.length) == 0);
    odd = frame, odd.bytes[20] = 0; /* so does what a router may fragment */
    CHECK(harness_packet(h, 0, NF_INSIDE, odd.bytes, odd.length) && h->pal_count > 0);
    CHECK(h->out_length == frame.length && memcmp(h->out, odd.bytes, odd.length) == 0);
    odd = encoded, odd.bytes[23] = 47; /* marked, but of another protocol, or without a shim */
    CHECK(!harness_packet(h, 0, NF_OUTSIDE, odd.bytes, odd.length));
    odd.length = frame_build(odd.bytes, &(struct frame_spec){.protocol = 6, .payload = 11}, 1);
    odd.bytes[20] = 0x80;
    CHECK(!harness_packet(h, 0, NF_OUTSIDE, odd.bytes, odd.length));
    CHECK(harness_counter(h, "dropped_bad_shim") == 2);
    close_line(&line);
}

static void test_refused(void)
{
    const struct nf *nf = nf_find("wanopt");
    uint64_t values[NF_MAX_PARAMS];
    struct nf_needs out;
    char why[160] = "";
    CHECK(nf);
    for (unsigned i = 0; nf->params[i].name; i++)
        values[i] = strcmp(nf->params[i].name, "min_chunk") ? nf->params[i].value : 100;
    CHECK(!nf->needs(values, 1, &out, why) && strstr(why, "power of two"));
}

int main(int argc, char **argv)
{
    seed = test_seed(argc, argv);
    test_in_order(16384, 64);
    test_in_order(40, 64);
    test_in_order(16384, 16); /* such chunks may be no longer than what names them */
    test_bad_line(200000);
    test_bad_line(100);
    test_siphash();
    test_chosen_contents();
    test_other_key();
    test_different();
    test_damaged();
    test_room();
    test_odd_packets();
    test_refused();
    return 0;
}

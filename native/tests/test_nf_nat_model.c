/* nat, and nat-pthread, against a model: random packets, good and damaged, over few flows and fewer
 * ports, with time passing in small and large steps. The model knows only what a NAT promises:
 *   - what it forwards is the packet with one endpoint replaced and every checksum right;
 *   - a mapping stays the same, and works inbound, for its timeout after an outbound packet;
 *   - no two inside endpoints share an outside endpoint while both may be alive;
 *   - a packet is dropped only for a reason that the model shares. */
#include "nf/nat.h"
#include "tests/nf_harness.h"

#define HOSTS 12u
#define PORTS 6u
#define POOL 0xc6120001u
#define ADDRESSES 3u
#define CAPACITY 60u
#define UDP_MS 40u
#define TCP_MS 160u
#define TRANSITORY_MS 24u
#define ICMP_MS 16u
#define KEYS (3u * HOSTS * PORTS)

/* An inside endpoint. */
struct entry {
    bool known;
    uint32_t address;
    uint16_t port;
    uint64_t last; /* latest outbound packet */
};

struct model {
    struct harness h;
    struct entry entries[KEYS];
    uint64_t rng;
    uint64_t forwarded, refused, damaged;
};

static const uint8_t protocols[3] = {17, 6, 1};

/* The least that the NAT promises for any state of a TCP mapping is the transitory timeout. */
static uint64_t promised(uint32_t key)
{
    const uint64_t ms[3] = {UDP_MS, TRANSITORY_MS, ICMP_MS};
    return ms[key / (HOSTS * PORTS)] * MS;
}

/* The longest that it may keep one: 9/8 of the longest timeout, a sweep round, coarse steps. */
static uint64_t longest(uint32_t key)
{
    const uint64_t ms[3] = {UDP_MS, TCP_MS, ICMP_MS};
    return ms[key / (HOSTS * PORTS)] * MS * 9 / 8 + 25 * MS;
}

static bool promised_alive(const struct model *m, uint32_t key)
{
    const struct entry *e = &m->entries[key];
    return e->known && m->h.now - e->last <= promised(key);
}

static struct frame_spec spec_of(struct model *m, uint32_t key)
{
    uint64_t r = test_random(&m->rng);
    const uint8_t flags[] = {TCP_SYN, TCP_ACK, TCP_ACK, TCP_ACK | TCP_FIN, TCP_RST, TCP_ACK};
    return (struct frame_spec){.protocol = protocols[key / (HOSTS * PORTS)],
                               .source = 0x0a000001 + key / PORTS % HOSTS,
                               .source_port = (uint16_t)(3000 + key % PORTS),
                               .destination = 0xc0000200 + (r & 3),
                               .destination_port = 80,
                               .payload = (uint16_t)((r >> 8) % 90),
                               .option_words = (r >> 16) % 8 ? 0 : (uint8_t)((r >> 20) % 11),
                               .tcp_flags = flags[(r >> 32) % 6],
                               .icmp_type = 8,
                               .no_udp_checksum = (r >> 40) % 4 == 0};
}

/* Endpoints that may be taken: each flow's until the longest life is over. */
static uint32_t possibly_taken(const struct model *m)
{
    uint32_t taken = 0;
    for (uint32_t k = 0; k < KEYS; k++)
        taken += m->entries[k].known && m->h.now - m->entries[k].last <= longest(k);
    return taken;
}

static void check_new(const struct model *m, uint32_t key, uint32_t address, uint16_t port)
{
    CHECK(address - POOL < ADDRESSES);
    CHECK(port >= 1024 && port < 1024 + CAPACITY / ADDRESSES);
    for (uint32_t k = 0; k < KEYS; k++) {
        if (k != key && promised_alive(m, k))
            CHECK(m->entries[k].address != address || m->entries[k].port != port);
    }
}

static void outbound(struct model *m, uint32_t key)
{
    uint8_t frame[HARNESS_FRAME], expected[HARNESS_FRAME];
    struct frame_spec spec = spec_of(m, key);
    uint32_t length = frame_build(frame, &spec, key);
    bool alive = promised_alive(m, key);
    uint32_t worker = (uint32_t)(test_random(&m->rng) % m->h.workers);
    if (!harness_packet(&m->h, worker, NF_INSIDE, frame, length)) {
        CHECK(!alive && possibly_taken(m) >= CAPACITY - 1);
        m->refused++;
        return;
    }
    struct entry *e = &m->entries[key];
    uint32_t address = frame_address(m->h.out, false);
    uint16_t port = frame_port(m->h.out, false);
    if (alive)
        CHECK(address == e->address && port == e->port);
    else
        check_new(m, key, address, port);
    *e = (struct entry){true, address, port, m->h.now};
    spec.source = address;
    spec.source_port = port;
    CHECK(m->h.out_length == frame_build(expected, &spec, key) && m->h.out_length == length);
    CHECK(memcmp(m->h.out, expected, length) == 0);
    CHECK(frame_checksums_right(m->h.out, length));
    m->forwarded++;
}

/* To the endpoint that `key` has or had. It may belong to another flow by now. */
static void inbound(struct model *m, uint32_t key)
{
    uint8_t frame[HARNESS_FRAME], expected[HARNESS_FRAME];
    const struct entry *e = &m->entries[key];
    struct frame_spec spec = spec_of(m, key);
    if (!e->known)
        return;
    spec.source = 0xc0000200;
    spec.destination = e->address;
    spec.destination_port = e->port;
    spec.source_port = spec.protocol == 1 ? e->port : 80;
    spec.icmp_type = 0;
    uint32_t length = frame_build(frame, &spec, key);
    uint32_t worker = (uint32_t)(test_random(&m->rng) % m->h.workers);
    if (!harness_packet(&m->h, worker, NF_OUTSIDE, frame, length)) {
        CHECK(!promised_alive(m, key));
        return;
    }
    /* Whoever got it uses this protocol and endpoint, and may still be alive. */
    uint32_t host = frame_address(m->h.out, true);
    uint32_t owner = key / (HOSTS * PORTS) * HOSTS * PORTS + (host - 0x0a000001) * PORTS +
                     frame_port(m->h.out, true) - 3000;
    CHECK(owner < KEYS && m->entries[owner].known);
    CHECK(m->entries[owner].address == e->address && m->entries[owner].port == e->port);
    CHECK(!promised_alive(m, key) || owner == key);
    CHECK(m->h.now - m->entries[owner].last <= longest(owner));
    spec.destination = host;
    spec.destination_port = frame_port(m->h.out, true);
    if (spec.protocol == 1)
        spec.source_port = spec.destination_port;
    CHECK(m->h.out_length == frame_build(expected, &spec, key));
    CHECK(memcmp(m->h.out, expected, length) == 0);
    m->forwarded++;
}

/* Bytes that are no longer what frame_build() made, for which there can be no mapping: dropped,
 * and nothing of the model's flows changes. */
static void damaged(struct model *m)
{
    uint8_t frame[HARNESS_FRAME];
    struct frame_spec spec = spec_of(m, (uint32_t)(test_random(&m->rng) % KEYS));
    enum nf_port port = test_random(&m->rng) & 1 ? NF_INSIDE : NF_OUTSIDE;
    spec.source = 0x0b000001;
    spec.destination = 0xc0000201;
    uint32_t length = frame_build(frame, &spec, 5);
    for (unsigned n = (unsigned)(test_random(&m->rng) % 4); n > 0; n--) {
        uint32_t at = (uint32_t)(test_random(&m->rng) % length);
        if (at < 26 || at >= 34) /* not the addresses */
            frame[at] = (uint8_t)test_random(&m->rng);
    }
    if (test_random(&m->rng) & 1)
        length = (uint32_t)(test_random(&m->rng) % (length + 1));
    if (port == NF_INSIDE)
        frame[23] = 99; /* no known protocol: a new mapping would take one of the model's ports */
    CHECK(!harness_packet(&m->h, 0, port, frame, length));
    m->damaged++;
}

static void step_time(struct model *m)
{
    uint64_t r = test_random(&m->rng);
    uint64_t ms = r % 100 == 0 ? (r >> 8) % 60 : 1;
    for (uint64_t i = 0; i < ms; i++) {
        m->h.now += MS;
        for (uint32_t w = 0; w < m->h.workers; w++)
            harness_tick(&m->h, w);
    }
}

static void run(const char *nf, uint64_t *rng, uint32_t workers, unsigned steps)
{
    struct model *m = calloc(1, sizeof(*m));
    CHECK(m);
    m->rng = *rng;
    harness_open(&m->h, nf, workers,
                 (struct harness_setting[]){{"addresses", ADDRESSES},
                                            {"capacity", CAPACITY},
                                            {"udp_ms", UDP_MS},
                                            {"tcp_ms", TCP_MS},
                                            {"transitory_ms", TRANSITORY_MS},
                                            {"icmp_ms", ICMP_MS},
                                            {NULL, 0}});
    for (unsigned i = 0; i < steps; i++) {
        uint64_t r = test_random(&m->rng);
        /* Phases: few flows that fit, then all of them, which do not. */
        uint32_t keys = i / 5000 % 2 ? KEYS : KEYS / 6;
        uint32_t key = (uint32_t)((r >> 16) % keys) * (KEYS / keys);
        switch (r % 8) {
        case 0:
            step_time(m);
            break;
        case 1:
            damaged(m);
            break;
        case 2:
        case 3:
            inbound(m, key);
            break;
        default:
            outbound(m, key);
        }
        if (i % 1000 == 0)
            harness_checks(&m->h);
    }
    CHECK(m->forwarded > steps / 8 && m->refused > 100 && m->damaged > steps / 10);
    CHECK(harness_counter(&m->h, "mappings_expired") > 100);
    printf("%s, %u workers: %llu forwarded, %llu refused, %llu damaged, most PALs of one input %u "
           "of %u\n",
           nf, workers, (unsigned long long)m->forwarded, (unsigned long long)m->refused,
           (unsigned long long)m->damaged, m->h.pal_peak, m->h.needs.max_pals);
    *rng = m->rng;
    harness_close(&m->h);
    free(m);
}

/* Any bytes, also as IPv4 headers: nothing but safety, and sound tables. */
static void run_garbage(const char *nf, uint64_t *rng, unsigned steps)
{
    struct harness h;
    harness_open(&h, nf, 1, (struct harness_setting[]){{"capacity", 300}, {NULL, 0}});
    uint64_t forwarded = 0;
    for (unsigned i = 0; i < steps; i++) {
        uint8_t frame[HARNESS_FRAME];
        uint32_t length = (uint32_t)(test_random(rng) % 120);
        for (uint32_t b = 0; b < length; b++)
            frame[b] = (uint8_t)test_random(rng);
        if (i % 8 && length > 34) {
            uint8_t protocol = protocols[test_random(rng) % 3];
            memcpy(frame + 12, "\x08\x00\x45", 3);
            frame[16] = 0;
            frame[17] = (uint8_t)(length - 14 - test_random(rng) % 3);
            frame[20] = frame[21] = 0;
            frame[23] = protocol;
            if (test_random(rng) & 1) /* one of our addresses, ports 1024 .. 1279 */
                memcpy(frame + 30, "\xc6\x12\x00\x01", 4), frame[36] = 4;
            if (length > 46 && (test_random(rng) & 1))
                memcpy(frame + 34 +
                           (protocol == 6    ? 12
                            : protocol == 17 ? 4
                                             : 0),
                       protocol == 6    ? "\x50"
                       : protocol == 17 ? "\x00\x0a"
                                        : "\x08\x00",
                       protocol == 6 ? 1 : 2);
        }
        forwarded += harness_packet(&h, 0, test_random(rng) & 1, frame, length);
        h.now += 10 * MS;
    }
    CHECK(forwarded > steps / 50);
    harness_checks(&h);
    harness_close(&h);
}

/* The same inputs give the same state, byte for byte, wherever the arena lies: no address, no
 * uninitialised byte and nothing of the process gets in. */
static void run_twice(uint64_t seed, const char *nf)
{
    struct harness h[2];
    for (unsigned n = 0; n < 2; n++) {
        uint64_t rng = seed;
        harness_open(&h[n], nf, 2, NULL);
        for (unsigned i = 0; i < 20000; i++) {
            uint8_t frame[HARNESS_FRAME];
            uint64_t r = test_random(&rng);
            struct frame_spec spec = {.protocol = protocols[r % 3],
                                      .source = 0x0a000000 + (uint32_t)(r >> 8) % 500,
                                      .source_port = (uint16_t)(r >> 32),
                                      .destination = 0xc0000201,
                                      .icmp_type = 8,
                                      .tcp_flags = (uint8_t)(r >> 48)};
            h[n].now += r % (50 * MS);
            harness_packet(&h[n], (r >> 56) & 1, NF_INSIDE, frame, frame_build(frame, &spec, r));
        }
    }
    CHECK(h[0].arena != h[1].arena && h[0].pal_total == h[1].pal_total);
    CHECK(memcmp(h[0].arena, h[1].arena, h[0].arena_size) == 0);
    harness_close(&h[0]);
    harness_close(&h[1]);
}

int main(int argc, char **argv)
{
    uint64_t rng = test_seed(argc, argv);
    static const char *const functions[] = {
        "nat",
#ifndef FTMB_TSAN /* its arena lies where the thread sanitizer allows no mapping */
        "nat-pthread",
#endif
    };
    for (unsigned f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
        run(functions[f], &rng, 1, 60000);
        run(functions[f], &rng, 3, 60000);
        run_garbage(functions[f], &rng, 60000);
    }
    run_twice(rng, "nat");
    run_twice(rng, "monitor");
    return 0;
}

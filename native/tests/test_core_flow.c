/* The flow hash: what a flow is, how flows spread over workers, and malformed frames. */
#include "core/flow.h"

#include <string.h>

#include "tests/core_test.h"

#define FRAME 74u

struct flow {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint8_t protocol;
    uint8_t words; /* of IP header, 5 without options */
};

static const struct flow udp = {0x0a000001, 0xc0000201, 1024, 80, 17, 5};

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)(value >> 16));
    put16(at + 2, (uint16_t)value);
}

static void build(uint8_t frame[FRAME], struct flow flow)
{
    memset(frame, 0xee, FRAME);
    put16(frame + 12, 0x0800);
    uint8_t *ip = frame + 14;
    memset(ip, 0, 20);
    ip[0] = (uint8_t)(0x40 | flow.words);
    ip[9] = flow.protocol;
    put32(ip + 12, flow.source);
    put32(ip + 16, flow.destination);
    uint8_t *l4 = ip + 4 * flow.words;
    if (flow.protocol == 1) { /* echo: type, code, checksum, identifier, sequence */
        put16(l4 + 4, flow.source_port);
    } else {
        put16(l4, flow.source_port);
        put16(l4 + 2, flow.destination_port);
    }
}

static uint32_t hash_of(struct flow flow)
{
    uint8_t frame[FRAME];
    build(frame, flow);
    return flow_hash(frame, FRAME);
}

static struct flow random_flow(uint64_t *seed)
{
    static const uint8_t protocols[] = {6, 17};
    uint64_t r = seed_next(seed);
    return (struct flow){.source = (uint32_t)r,
                         .destination = (uint32_t)(r >> 32),
                         .source_port = (uint16_t)seed_next(seed),
                         .destination_port = (uint16_t)seed_next(seed),
                         .protocol = protocols[seed_below(seed, 2)],
                         .words = (uint8_t)(5 + seed_below(seed, 4))};
}

/* Each of the five fields tells flows apart; options in the IP header do not. */
static void test_fields(uint64_t seed)
{
    unsigned same = 0;
    for (unsigned i = 0; i < 20000; i++) {
        struct flow f = random_flow(&seed);
        uint32_t h = hash_of(f);
        struct flow other[5] = {f, f, f, f, f};
        other[0].source ^= 1u << seed_below(&seed, 32);
        other[1].destination ^= 1u << seed_below(&seed, 32);
        other[2].source_port ^= (uint16_t)(1u << seed_below(&seed, 16));
        other[3].destination_port ^= (uint16_t)(1u << seed_below(&seed, 16));
        other[4].protocol ^= 6 ^ 17;
        for (unsigned k = 0; k < 5; k++)
            same += hash_of(other[k]) == h;
        f.words = (uint8_t)(5 + seed_below(&seed, 4));
        CHECK(hash_of(f) == h);
    }
    CHECK(same <= 2); /* 100,000 pairs in 32 bits */
}

/* What changes from packet to packet of a flow does not count. */
static void test_packets_of_a_flow(uint64_t seed)
{
    uint8_t frame[FRAME], changed[FRAME];
    build(frame, udp);
    for (unsigned i = 0; i < 1000; i++) {
        memcpy(changed, frame, FRAME);
        seed_fill(&seed, changed, 12);      /* MAC addresses */
        seed_fill(&seed, changed + 15, 5);  /* type of service, length, identification */
        changed[20] ^= 0x40;                /* don't fragment */
        seed_fill(&seed, changed + 22, 1);  /* time to live */
        seed_fill(&seed, changed + 24, 2);  /* checksum */
        seed_fill(&seed, changed + 38, 36); /* after the ports */
        CHECK(flow_hash(changed, FRAME) == flow_hash(frame, FRAME));
    }
}

/* Only the first fragment has ports, and all must meet at one worker. */
static void test_fragments(void)
{
    uint8_t first[FRAME], later[FRAME], others[FRAME];
    build(first, udp);
    build(later, udp);
    build(others, udp);
    first[20] = 0x20; /* more fragments */
    put16(later + 20, 185);
    memset(later + 34, 0x55, 8);
    put16(others + 20, 0x1f00); /* an offset whose low byte is 0 */
    CHECK(flow_hash(first, FRAME) == flow_hash(later, FRAME));
    CHECK(flow_hash(first, FRAME) == flow_hash(others, FRAME));
    CHECK(flow_hash(first, FRAME) != hash_of(udp));
}

static void test_icmp(void)
{
    struct flow echo = udp, other;
    echo.protocol = 1;
    other = echo;
    other.source_port++;
    CHECK(hash_of(echo) != hash_of(other));
    uint8_t frame[FRAME];
    build(frame, echo);
    uint32_t h = flow_hash(frame, FRAME);
    put16(frame + 14 + 20 + 6, 7); /* the sequence number */
    frame[14 + 20] = 0;            /* a reply */
    CHECK(flow_hash(frame, FRAME) == h);
}

static void test_malformed(uint64_t seed)
{
    uint8_t frame[FRAME];
    build(frame, udp);
    put16(frame + 12, 0x86dd);
    CHECK(flow_hash(frame, FRAME) == 0);
    build(frame, udp);
    for (uint32_t length = 0; length < 34; length++)
        CHECK(flow_hash(frame, length) == 0);
    uint32_t no_ports = flow_hash(frame, 34);
    CHECK(no_ports != 0 && no_ports != hash_of(udp));
    CHECK(flow_hash(frame, 41) == no_ports && flow_hash(frame, 42) == hash_of(udp));
    frame[14] = 0x44; /* an IP header that is too short */
    CHECK(flow_hash(frame, FRAME) == no_ports);
    /* Any bytes, any length, in a block of exactly that size. */
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t length = (uint32_t)seed_below(&seed, 80);
        uint8_t *bytes = malloc(length ? length : 1);
        seed_fill(&seed, bytes, length);
        if (length > 13 && i % 2)
            put16(bytes + 12, 0x0800);
        flow_hash(bytes, length);
        free(bytes);
    }
}

/* Hosts and ports that count up, as in reality, spread evenly over any number of workers. */
static void test_spread(void)
{
    enum { FLOWS = 64000 };
    for (uint32_t workers = 1; workers <= FTMB_MAX_WORKERS; workers++) {
        uint32_t count[FTMB_MAX_WORKERS] = {0};
        for (uint32_t i = 0; i < FLOWS; i++) {
            struct flow f = udp;
            f.source += i % 250;
            f.source_port = (uint16_t)(1024 + i / 250);
            uint32_t w = flow_worker(hash_of(f), workers);
            CHECK(w < workers);
            count[w]++;
        }
        for (uint32_t w = 0; w < workers; w++) {
            uint32_t fair = FLOWS / workers;
            CHECK(count[w] > fair - fair / 15 && count[w] < fair + fair / 15);
        }
        CHECK(flow_worker(0, workers) == 0);
        CHECK(flow_worker(UINT32_MAX, workers) == workers - 1);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_fields(seed);
    test_packets_of_a_flow(seed);
    test_fragments();
    test_icmp();
    test_malformed(seed);
    test_spread();
    return 0;
}

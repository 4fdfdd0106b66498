/* Frames from template to sink: checksums, every kind of damage, numbers, translation. */
#include "traffic_frames.h"
#include "traffic/sink.h"
#include "traffic/source.h"
#include "traffic/why.h"

#include <string.h>

#define SEED 11u

struct bed {
    struct flows flows;
    struct source source;
    struct sink sink;
    struct tally tally;
    uint64_t time;
};

static struct bed bed;

static void bed_make(const char *path, double reply_share, uint64_t fresh_per_s)
{
    char why[TRAFFIC_WHY] = "";
    struct source_options options = {
        .path = path, .reply_share = reply_share, .new_flows_per_s = fresh_per_s, .seed = SEED};
    memset(&bed, 0, sizeof(bed));
    CHECK(flows_init(&bed.flows, 50, 10000, 0x0a000000u, 8, why) == 0);
    CHECK(source_init(&bed.source, &bed.flows, &options, why) == 0);
    CHECK(sink_init(&bed.sink, &bed.flows, &bed.source.set, SEED) == 0);
    CHECK(tally_init(&bed.tally, 0, 1000000000, 0, false, false) == 0);
}

static void bed_free(void)
{
    tally_free(&bed.tally);
    sink_free(&bed.sink);
    source_free(&bed.source);
    flows_free(&bed.flows);
}

/* The next packet; returns the side it enters at. */
static enum side next_frame(uint8_t *frame, uint32_t *length)
{
    struct send send = {.intended_ns = bed.time};
    bed.time += 1000;
    source_plan(&bed.source, &send, 1);
    *length = send.length;
    bed.tally.sent++;
    return source_write(&bed.source, &send, frame, &bed.tally);
}

static void arrive(uint8_t *frame, uint32_t length, enum side side)
{
    struct arrival arrival = {frame, length, (uint8_t)side};
    sink_take(&bed.sink, &arrival, 1, bed.time, &bed.tally);
}

/* Each flow once, in the order of their numbers, as the first packet that it is; then as ever. */
static void test_fill(uint8_t protocol)
{
    const char *path = scratch_path("fill.pcap");
    uint32_t length = 90;
    uint8_t frame[1600];
    struct packet p;
    pcap_template(path, protocol, &length, 1);
    bed_make(path, 0.5, 0);
    bed.sink.filled = 50;
    for (uint32_t at = 0; at < 50; at += 10) {
        struct send sends[10];
        source_plan_fill(&bed.source, sends, 10);
        for (uint32_t i = 0; i < 10; i++) {
            sends[i].intended_ns = 1;
            CHECK(sends[i].flow == at + i);
            CHECK(source_write(&bed.source, &sends[i], frame, &bed.tally) == SIDE_INSIDE);
            CHECK(packet_parse(&p, frame, length) && packet_sums_ok(&p, false));
            CHECK(p.source == flows_inside(&bed.flows, at + i).address);
            CHECK(protocol != PROTO_TCP || p.l4[13] == 0x02);
            tally_offer_fill(&bed.tally);
            arrive(frame, length, SIDE_OUTSIDE);
            CHECK(bed.tally.delivered == at + i + 1);
        }
    }
    for (uint32_t i = 0; i < 50; i++)
        CHECK(bed.flows.table[i].sent[OUTBOUND] == 1 && bed.flows.table[i].mapped);
    CHECK(bed.tally.fill_delivered == 50 && bed.tally.latency.count == 0);
    /* Once more is once too often. */
    arrive(frame, length, SIDE_OUTSIDE);
    CHECK(bed.tally.duplicated == 1 && bed.tally.fill_delivered == 50);
    /* What follows is measured; a reply has somewhere to go from the first packet on. */
    bed.time = 1000;
    for (uint32_t i = 0; i < 500; i++) {
        enum side side = next_frame(frame, &length);
        arrive(frame, length, side == SIDE_INSIDE ? SIDE_OUTSIDE : SIDE_INSIDE);
    }
    CHECK(bed.tally.delivered == 550 && bed.tally.latency.count == 500);
    CHECK(bed.tally.replies >= 249 && bed.tally.replies_early == 0);
    CHECK(bed.tally.corrupted + bed.tally.unmatched + bed.tally.reordered == 0);
    bed_free();
    unlink(path);
}

/* Every length and protocol: right checksums, and through. */
static void test_templates(uint8_t protocol)
{
    const char *path = scratch_path("template.pcap");
    uint32_t lengths[] = {70, 71, 72, 99, 508, 1514};
    uint8_t frame[1600];
    struct packet p;
    uint32_t length, replies = 0;
    pcap_template(path, protocol, lengths, 6);
    bed_make(path, 0.3, 5000000);
    for (uint32_t i = 0; i < 6000; i++) {
        enum side side = next_frame(frame, &length);
        replies += side == SIDE_OUTSIDE;
        CHECK(length == lengths[i % 6]);
        CHECK(packet_parse(&p, frame, length) && p.protocol == protocol);
        CHECK(packet_sums_ok(&p, false));
        if (protocol == PROTO_TCP)
            CHECK(p.l4[13] == 0x18 || p.l4[13] == 0x02);
        arrive(frame, length, side == SIDE_INSIDE ? SIDE_OUTSIDE : SIDE_INSIDE);
    }
    CHECK(bed.tally.delivered == 6000 && bed.tally.mapping_shared == 0);
    CHECK(bed.tally.duplicated + bed.tally.reordered + bed.tally.corrupted == 0);
    CHECK(bed.tally.unmatched == 0 && replies == bed.tally.replies && replies > 100);
    CHECK(bed.tally.altered == 0);
    CHECK(bed.flows.lap + bed.flows.into > 5000); /* new flows came */
    bed_free();
    unlink(path);
}

/* A flip of any bit is seen, whatever else it breaks. */
static void test_damage(void)
{
    const char *path = scratch_path("template.pcap");
    uint32_t lengths[] = {60}, length;
    uint8_t frame[1600], good[1600];
    pcap_template(path, PROTO_UDP, lengths, 1);
    bed_make(path, 0, 0);
    enum side side = next_frame(good, &length);
    CHECK(side == SIDE_INSIDE);
    /* From the IPv4 header on; Ethernet addresses are not covered. */
    for (uint32_t bit = ETH_BYTES * 8; bit < 60 * 8; bit++) {
        memcpy(frame, good, 60);
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        arrive(frame, length, SIDE_OUTSIDE);
        CHECK(bed.tally.delivered == 0);
    }
    CHECK(bed.tally.corrupted + bed.tally.unmatched == (60 - ETH_BYTES) * 8);
    CHECK(bed.tally.corrupted > 300);
    for (uint32_t cut = 0; cut < 60; cut++)
        arrive(good, cut, SIDE_OUTSIDE);
    CHECK(bed.tally.delivered == 0);
    /* Whole, but where it does not belong; then where it does, then once more. */
    arrive(good, length, SIDE_INSIDE);
    CHECK(bed.tally.wrong_tuple == 1 && bed.tally.delivered == 0);
    arrive(good, length, SIDE_OUTSIDE);
    CHECK(bed.tally.delivered == 1);
    arrive(good, length, SIDE_OUTSIDE);
    CHECK(bed.tally.delivered == 1 && bed.tally.duplicated == 1);
    bed_free();
    unlink(path);
}

/* A payload that is whole by its checksums, but not what was sent. */
static void test_altered(uint8_t protocol)
{
    const char *path = scratch_path("template.pcap");
    uint32_t lengths[] = {90, 91, 90}, length;
    uint8_t frame[1600];
    pcap_template(path, protocol, lengths, 3);
    bed_make(path, 0.3, 0);
    for (uint32_t i = 0; i < 3000; i++) {
        uint64_t altered = bed.tally.altered;
        struct packet p;
        enum side side = next_frame(frame, &length);
        CHECK(packet_parse(&p, frame, length));
        uint32_t trailer = trailer_offset(p.l4_length);
        uint32_t at = p.l4_header + i % (p.l4_length - TRAILER_BYTES - p.l4_header);
        p.l4[at < trailer ? at : at + TRAILER_BYTES] ^= (uint8_t)(i % 2 << i % 8);
        packet_sums_set(&p);
        arrive(frame, length, side == SIDE_INSIDE ? SIDE_OUTSIDE : SIDE_INSIDE);
        CHECK(bed.tally.altered == altered + i % 2);
    }
    CHECK(bed.tally.delivered == 3000 && bed.tally.corrupted + bed.tally.unmatched == 0);
    bed_free();
    unlink(path);
}

static void rename_source(uint8_t *frame, uint32_t length, uint32_t address, uint16_t port)
{
    struct packet p;
    CHECK(packet_parse(&p, frame, length));
    memcpy(p.ip + 12, &address, 4);
    memcpy(p.l4, &port, 2);
    p.source = address;
    packet_sums_set(&p);
}

/* Two flows under one tuple, and a flow whose tuple changes. */
static void test_mappings(void)
{
    const char *path = scratch_path("template.pcap");
    uint32_t lengths[] = {60}, length;
    uint8_t frame[1600];
    uint32_t flows[50] = {0};
    pcap_template(path, PROTO_UDP, lengths, 1);
    bed_make(path, 0, 0);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t number;
        next_frame(frame, &length);
        memcpy(&number, frame + 44, 4);
        flows[number] = 1;
        /* Flows 0 and 1 collide; flow 2 changes once half-way. */
        uint16_t port = (uint16_t)(5000 + (number == 1 ? 0 : number));
        if (number == 2 && i >= 1000)
            port = 9000;
        rename_source(frame, length, 0x017100cbu, port);
        arrive(frame, length, SIDE_OUTSIDE);
    }
    for (uint32_t i = 0; i < 50; i++)
        CHECK(flows[i] == 1);
    CHECK(bed.tally.delivered == 2000);
    CHECK(bed.tally.mapping_shared == 1 && bed.tally.mapping_changed == 1);
    bed_free();
    unlink(path);
}

static void check_refused(const char *path, const char *says)
{
    char why[TRAFFIC_WHY] = "";
    struct template_set set;
    CHECK(template_read(&set, path, why) == -1);
    if (!strstr(why, path) || !strstr(why, says) || strchr(why, '\n')) {
        fprintf(stderr, "message: %s\n", why);
        exit(1);
    }
}

/* One line that names the file, for every way in which it can be bad. */
static void test_bad_files(void)
{
    const char *path = scratch_path("bad.pcap");
    uint8_t frame[4000] = {0};
    uint32_t lengths[] = {60};
    check_refused(path, "No such file");
    fclose(pcap_begin(path, 1));
    check_refused(path, "without frames");
    fclose(pcap_begin(path, 101));
    check_refused(path, "not Ethernet");
    pcap_template(path, PROTO_UDP, lengths, 1);
    CHECK(truncate(path, 24 + 16 + 30) == 0);
    check_refused(path, "damaged capture file");
    CHECK(truncate(path, 10) == 0);
    check_refused(path, "trunc");
    FILE *file = fopen(path, "w");
    fprintf(file, "this is no capture file, but long enough to be one");
    fclose(file);
    check_refused(path, "not a readable capture file");
    lengths[0] = 57; /* 15 bytes of payload */
    pcap_template(path, PROTO_UDP, lengths, 1);
    check_refused(path, "frame 1 has 15 bytes of payload");
    file = pcap_begin(path, 1);
    pcap_add(file, frame, 60, 60);
    fclose(file);
    check_refused(path, "frame 1 is no template");
    file = pcap_begin(path, 1);
    pcap_add(file, frame, 60, 61);
    fclose(file);
    check_refused(path, "recorded in part");
    file = pcap_begin(path, 1);
    pcap_add(file, frame, 3000, 3000);
    fclose(file);
    check_refused(path, "offload");
    unlink(path);
}

int main(void)
{
    test_templates(PROTO_UDP);
    test_templates(PROTO_TCP);
    test_templates(PROTO_ICMP);
    test_fill(PROTO_UDP);
    test_fill(PROTO_TCP);
    test_damage();
    test_altered(PROTO_UDP);
    test_altered(PROTO_TCP);
    test_altered(PROTO_ICMP);
    test_mappings();
    test_bad_files();
    return 0;
}

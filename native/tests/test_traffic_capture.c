/* Captured packets, matched without a mark in them. */
#include "traffic_frames.h"
#include "traffic/capture.h"
#include "traffic/why.h"

#include <string.h>

#define INSIDE 0x0a000000u
#define SERVER 0xc0000201u

static struct capture capture;
static struct tally tally;
static uint64_t now;

/* Questions of 4 hosts and the answers to them; questions with the same salt are equal but for
 * their addresses. */
static void make_file(const char *path, uint8_t protocol, bool equal)
{
    uint8_t frame[200];
    FILE *file = pcap_begin(path, 1);
    for (uint32_t host = 1; host <= 4; host++) {
        uint8_t salt = equal ? 0 : (uint8_t)host;
        frame_make(frame, 90, protocol, INSIDE + host, 2000, SERVER, 53, salt);
        pcap_add(file, frame, 90, 90);
        frame_make(frame, 120, protocol, SERVER, protocol == PROTO_ICMP ? 2000 : 53, INSIDE + host,
                   2000, salt);
        pcap_add(file, frame, 120, 120);
    }
    memset(frame, 0, sizeof(frame));
    pcap_add(file, frame, 60, 60); /* not IPv4: left out */
    frame_make(frame, 90, protocol, SERVER, 1, SERVER, 2, 0);
    pcap_add(file, frame, 90, 90); /* neither from nor to the inside: left out */
    CHECK(fclose(file) == 0);
}

static void begin(const char *path, uint8_t protocol, bool equal)
{
    char why[TRAFFIC_WHY] = "";
    make_file(path, protocol, equal);
    if (capture_init(&capture, path, INSIDE, 8, why)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    CHECK(tally_init(&tally, 0, 1000000000, 0, false, false) == 0);
    now = 0;
}

static void end(void)
{
    CHECK(capture.count == 8 && capture.skipped == 2 && capture.repaired == 0);
    tally_free(&tally);
    capture_free(&capture);
}

static enum side next_frame(uint8_t *frame, uint32_t *length)
{
    struct send send = {.intended_ns = now};
    now += 1000;
    capture_plan(&capture, &send, 1, &tally);
    *length = send.length;
    return capture_write(&capture, &send, frame, &tally);
}

static void arrive(uint8_t *frame, uint32_t length, enum side side)
{
    struct arrival arrival = {frame, length, (uint8_t)side};
    capture_take(&capture, &arrival, 1, now, &tally);
}

/* Host h becomes 203.0.113.1 port 7000 + h, and back. */
static void translate(uint8_t *frame, uint32_t length, enum side entered)
{
    struct packet p;
    uint32_t outside = __builtin_bswap32(0xcb007101u);
    CHECK(packet_parse(&p, frame, length));
    bool icmp = p.protocol == PROTO_ICMP;
    if (entered == SIDE_INSIDE) {
        uint32_t host = __builtin_bswap32(p.source) - INSIDE;
        uint16_t port = __builtin_bswap16((uint16_t)(7000 + host));
        memcpy(p.ip + 12, &outside, 4);
        memcpy(icmp ? p.l4 + 4 : p.l4, &port, 2);
        p.source = outside;
    } else {
        CHECK(p.destination == outside);
        CHECK(packet_sums_ok(&p, false)); /* the generator's own rewriting */
        uint32_t host = __builtin_bswap32(INSIDE + __builtin_bswap16(p.destination_port) - 7000);
        uint16_t port = __builtin_bswap16(2000);
        memcpy(p.ip + 16, &host, 4);
        memcpy(icmp ? p.l4 + 4 : p.l4 + 2, &port, 2);
        p.destination = host;
    }
    packet_sums_set(&p);
}

static void test_translated(uint8_t protocol, bool equal)
{
    const char *path = scratch_path("capture.pcap");
    uint8_t frames[32][200];
    uint32_t lengths[32];
    enum side sides[32];
    begin(path, protocol, equal);
    for (uint32_t round = 0; round < 50; round++) {
        for (uint32_t i = 0; i < 32; i++) {
            sides[i] = next_frame(frames[i], &lengths[i]);
            translate(frames[i], lengths[i], sides[i]);
        }
        for (uint32_t i = 0; i < 32; i++)
            arrive(frames[i], lengths[i], sides[i] == SIDE_INSIDE ? SIDE_OUTSIDE : SIDE_INSIDE);
    }
    CHECK(tally.delivered == 50 * 32);
    CHECK(tally.duplicated + tally.corrupted + tally.unmatched + tally.reordered == 0);
    CHECK(tally.mapping_changed + tally.mapping_shared + tally.untracked == 0);
    CHECK(tally.replies == 49 * 16 && tally.replies_early >= 16);
    end();
    unlink(path);
}

static void test_faults(void)
{
    const char *path = scratch_path("capture.pcap");
    uint8_t first[200], second[200], late[200];
    uint32_t length;
    begin(path, PROTO_UDP, false);
    next_frame(first, &length); /* all outbound: nothing has come out yet */
    next_frame(second, &length);
    next_frame(late, &length);
    next_frame(late, &length);
    arrive(first, length, SIDE_OUTSIDE);
    arrive(first, length, SIDE_OUTSIDE);
    CHECK(tally.delivered == 1 && tally.duplicated == 1);
    second[60] ^= 1;
    arrive(second, length, SIDE_OUTSIDE);
    CHECK(tally.corrupted == 1);
    second[60] ^= 1;
    arrive(second, length, SIDE_INSIDE);
    CHECK(tally.unmatched == 1);
    arrive(second, 20, SIDE_OUTSIDE);
    CHECK(tally.unmatched == 2 && tally.delivered == 1);
    arrive(second, length, SIDE_OUTSIDE);
    arrive(late, length, SIDE_OUTSIDE);
    CHECK(tally.delivered == 3 && tally.reordered == 0);
    end();
    unlink(path);
}

static void test_no_inside(void)
{
    const char *path = scratch_path("capture.pcap");
    char why[TRAFFIC_WHY] = "";
    make_file(path, PROTO_UDP, false);
    CHECK(capture_init(&capture, path, 0xac100000u, 12, why) == -1);
    CHECK(strstr(why, path) && strstr(why, "172.16.0.0/12"));
    unlink(path);
}

int main(void)
{
    test_translated(PROTO_UDP, false);
    test_translated(PROTO_UDP, true);
    test_translated(PROTO_TCP, false);
    test_translated(PROTO_ICMP, false);
    test_translated(PROTO_TCP, true);
    test_faults();
    test_no_inside();
    return 0;
}

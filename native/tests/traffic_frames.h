/* Frames and capture files for the tests of the traffic modules. */
#ifndef FTMB_TESTS_TRAFFIC_FRAMES_H
#define FTMB_TESTS_TRAFFIC_FRAMES_H

#include "check.h"
#include "traffic/packet.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A frame of `length` bytes (without check sequence) with correct checksums; addresses and ports in
 * host order; for ICMP echo requests the source port is the identifier. Payload: bytes of `salt`.
 */
static inline void frame_make(uint8_t *frame, uint32_t length, uint8_t protocol, uint32_t source,
                              uint16_t source_port, uint32_t destination, uint16_t destination_port,
                              uint8_t salt)
{
    uint32_t total = length - ETH_BYTES;
    uint32_t l4 = ETH_BYTES + IPV4_MIN;
    uint32_t header = protocol == PROTO_TCP ? 20 : 8;
    uint32_t addresses[2] = {__builtin_bswap32(source), __builtin_bswap32(destination)};
    uint16_t ports[2] = {__builtin_bswap16(source_port), __builtin_bswap16(destination_port)};
    memset(frame, 0, length);
    memset(frame, 0x02, 12);
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[16] = (uint8_t)(total >> 8);
    frame[17] = (uint8_t)total;
    frame[22] = 64;
    frame[23] = protocol;
    memcpy(frame + 26, addresses, 8);
    for (uint32_t i = l4 + header; i < length; i++)
        frame[i] = (uint8_t)(salt + i);
    if (protocol == PROTO_ICMP) {
        frame[l4] = ICMP_ECHO;
        memcpy(frame + l4 + 4, ports, 2);
    } else {
        memcpy(frame + l4, ports, 4);
    }
    if (protocol == PROTO_UDP) {
        frame[l4 + 4] = (uint8_t)((total - IPV4_MIN) >> 8);
        frame[l4 + 5] = (uint8_t)(total - IPV4_MIN);
    }
    if (protocol == PROTO_TCP) {
        frame[l4 + 12] = 5 << 4;
        frame[l4 + 13] = 0x18;
    }
    struct packet p;
    CHECK(packet_parse(&p, frame, length));
    packet_sums_set(&p);
    CHECK(packet_sums_ok(&p, false));
}

/* A path for a scratch file in the test's directory; the same name gives the same path. */
static inline const char *scratch_path(const char *name)
{
    static char path[256];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/ftmb-test-%d-%s", dir ? dir : "/tmp", (int)getpid(), name);
    return path;
}

static inline FILE *pcap_begin(const char *path, uint32_t link_type)
{
    uint32_t head[6] = {0xa1b2c3d4u, 2u | 4u << 16, 0, 0, 65535, link_type};
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(head, sizeof(head), 1, file) == 1);
    return file;
}

/* `wire` is the length on the wire, `length` what was recorded of it. */
static inline void pcap_add(FILE *file, const uint8_t *frame, uint32_t length, uint32_t wire)
{
    uint32_t head[4] = {0, 0, length, wire};
    CHECK(fwrite(head, sizeof(head), 1, file) == 1);
    CHECK(fwrite(frame, length, 1, file) == 1);
}

/* A template file with one frame of each of `count` lengths, all of `protocol`. */
static inline void pcap_template(const char *path, uint8_t protocol, const uint32_t *lengths,
                                 uint32_t count)
{
    uint8_t frame[1600];
    FILE *file = pcap_begin(path, 1);
    for (uint32_t i = 0; i < count; i++) {
        frame_make(frame, lengths[i], protocol, 0x0a000001u, 1024, 0xc0000201u, 9, (uint8_t)i);
        pcap_add(file, frame, lengths[i], lengths[i]);
    }
    CHECK(fclose(file) == 0);
}

#endif

/* Flow hash for the placement of packets on workers. */
#include "core/flow.h"

#include <string.h>

#define ETH_BYTES 14u
#define IPV4_MIN 20u

static uint32_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return (uint32_t)(x >> 32);
}

/* Ports of TCP and UDP, identifier of ICMP echo; 0 where there are none. */
static uint32_t ports_of(const uint8_t *ip, uint32_t length)
{
    uint32_t ip_header = (ip[0] & 15u) * 4u;
    bool fragment = ((ip[6] & 0x3f) | ip[7]) != 0;
    if (fragment || ip_header < IPV4_MIN || length < ip_header + 8)
        return 0;
    uint32_t ports = 0;
    if (ip[9] == 6 || ip[9] == 17)
        memcpy(&ports, ip + ip_header, 4);
    else if (ip[9] == 1)
        memcpy(&ports, ip + ip_header + 4, 2);
    return ports;
}

uint32_t flow_hash(const uint8_t *frame, uint32_t length)
{
    if (length < ETH_BYTES + IPV4_MIN || frame[12] != 0x08 || frame[13] != 0x00)
        return 0;
    const uint8_t *ip = frame + ETH_BYTES;
    uint32_t source, destination;
    memcpy(&source, ip + 12, 4);
    memcpy(&destination, ip + 16, 4);
    uint32_t ports = ports_of(ip, length - ETH_BYTES);
    uint64_t addresses = ((uint64_t)source << 32) | destination;
    return mix(addresses ^ ((uint64_t)ports * 0x9e3779b97f4a7c15ull) ^ ip[9]);
}

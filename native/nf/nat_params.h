/* The parameters that every NAT here has, first in its list: `nat` and `nat-pthread`. */
#ifndef FTMB_NF_NAT_PARAMS_H
#define FTMB_NF_NAT_PARAMS_H

#include "nf/nf.h"

enum {
    OUTSIDE,
    ADDRESSES,
    CAPACITY,
    UDP_MS,
    TCP_MS,
    TRANSITORY_MS,
    ICMP_MS,
    NAT_PARAMS /* its own follow */
};

#define DAY_MS (24ull * 3600 * 1000)
#define NAT_ADDRESS_PORTS 64512u /* from 1024 on */

/* clang-format off */
#define NAT_PARAM_ROWS(most_addresses)                                                             \
    {"outside", NF_IPV4, 0xc6120001, 1, UINT32_MAX, "first outside address"},                      \
    {"addresses", NF_UINT, 4, 1, (most_addresses), "outside addresses, one after the other"},      \
    {"capacity", NF_UINT, 65536, 1, (uint64_t)(most_addresses) * NAT_ADDRESS_PORTS,                \
     "mappings at a time, at most 64512 for each outside address"},                                \
    {"udp_ms", NF_UINT, 300000, 10, DAY_MS, "UDP timeout, milliseconds"},                          \
    {"tcp_ms", NF_UINT, 7440000, 10, DAY_MS, "timeout of established TCP, milliseconds"},          \
    {"transitory_ms", NF_UINT, 240000, 10, DAY_MS,                                                 \
     "timeout of TCP that is opening or closing, milliseconds"},                                   \
    {"icmp_ms", NF_UINT, 60000, 10, DAY_MS, "ICMP echo timeout, milliseconds"}
/* clang-format on */

/* What contradicts itself in them; NULL: nothing. */
static inline const char *nat_params_wrong(const uint64_t *values)
{
    if (values[CAPACITY] > values[ADDRESSES] * NAT_ADDRESS_PORTS)
        return "capacity exceeds 64512 ports for each of the addresses; "
               "raise addresses or lower capacity";
    if (values[CAPACITY] < values[ADDRESSES])
        return "capacity is below one mapping for each of the addresses";
    if (values[OUTSIDE] + values[ADDRESSES] - 1 > UINT32_MAX)
        return "outside addresses go beyond 255.255.255.255";
    return NULL;
}

#endif

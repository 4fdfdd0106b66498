/* Which worker a frame belongs to: a hash of the flow it is part of. */
#ifndef FTMB_CORE_FLOW_H
#define FTMB_CORE_FLOW_H

#include "core/base.h"

/* 32-bit hash over IPv4 addresses, protocol and ports (ICMP: identifier) of an Ethernet frame of
 * `length` bytes. Fragments hash by addresses only, other frames to 0. Any bytes are safe. */
uint32_t flow_hash(const uint8_t *frame, uint32_t length);

/* Worker of a hash: multiply and shift, no division. */
static inline uint32_t flow_worker(uint32_t hash, uint32_t workers)
{
    return (uint32_t)(((uint64_t)hash * workers) >> 32);
}

#endif

/* The last 16 bytes of a synthetic packet's payload: who it is and when it should have been sent.
 *
 *   flow u32 (bit 31: a reply) · number in flow and direction u32 · intended time 48 bits, ns since
 *   the start of the run · check u16, a hash of the rest and of the run's seed. Little endian. */
#ifndef FTMB_TRAFFIC_TRAILER_H
#define FTMB_TRAFFIC_TRAILER_H

#include "core/base.h"

#define TRAILER_BYTES 16u
#define TRAILER_REPLY 0x80000000u
#define TRAILER_TIME_MASK ((1ull << 48) - 1)

struct trailer {
    uint64_t words[2];
};

static inline uint64_t trailer_check(uint64_t who, uint64_t when, uint64_t seed)
{
    uint64_t x = (who ^ seed) * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 32) ^ when) * 0xd6e8feb86659fd93ull;
    return x >> 48;
}

static inline struct trailer trailer_make(uint32_t flow, uint32_t number, uint64_t time_ns,
                                          uint64_t seed)
{
    uint64_t who = flow | ((uint64_t)number << 32);
    uint64_t when = time_ns & TRAILER_TIME_MASK;
    return (struct trailer){{who, when | (trailer_check(who, when, seed) << 48)}};
}

static inline bool trailer_ok(const struct trailer *t, uint64_t seed)
{
    uint64_t when = t->words[1] & TRAILER_TIME_MASK;
    return trailer_check(t->words[0], when, seed) == t->words[1] >> 48;
}

/* Where it lies in a packet of `l4_length` bytes: at an even offset, which checksums want. */
static inline uint32_t trailer_offset(uint32_t l4_length)
{
    return (l4_length - TRAILER_BYTES) & ~1u;
}

#endif

/* Internet checksums (RFC 1071). Sums are of 16-bit words as they lie in memory: the arithmetic
 * does not care about byte order as long as the result is stored the same way. */
#ifndef FTMB_TRAFFIC_CHECKSUM_H
#define FTMB_TRAFFIC_CHECKSUM_H

#include "core/base.h"

#include <string.h>

/* Sum of 64 bits as two halves, to be folded later. */
static inline uint64_t sum_u64(uint64_t word)
{
    return (word & 0xffffffffu) + (word >> 32);
}

/* Partial sum of any number of bytes; an odd one is padded with zero. Four accumulators, since one
 * chain of dependent additions would take twice as long on large frames. */
static inline uint64_t sum_bytes(const uint8_t *bytes, uint32_t length)
{
    uint64_t a = 0, b = 0, c = 0, d = 0, word;
    while (length >= 16) {
        uint64_t next;
        memcpy(&word, bytes, 8);
        memcpy(&next, bytes + 8, 8);
        a += word & 0xffffffffu;
        b += word >> 32;
        c += next & 0xffffffffu;
        d += next >> 32;
        bytes += 16;
        length -= 16;
    }
    if (length & 8) {
        memcpy(&word, bytes, 8);
        a += sum_u64(word);
        bytes += 8;
    }
    if (length & 4) {
        uint32_t half;
        memcpy(&half, bytes, 4);
        b += half;
        bytes += 4;
    }
    if (length & 2) {
        uint16_t quarter;
        memcpy(&quarter, bytes, 2);
        c += quarter;
        bytes += 2;
    }
    if (length & 1) {
        uint16_t last = 0;
        memcpy(&last, bytes, 1);
        d += last;
    }
    return a + b + c + d;
}

/* Fold to 16 bits, with the carries. */
static inline uint16_t sum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

/* Sum of the pseudo header of TCP and UDP; addresses as on the wire, length in host order. */
static inline uint64_t sum_pseudo(uint32_t source, uint32_t destination, uint8_t protocol,
                                  uint32_t l4_length)
{
    uint16_t rest[2] = {__builtin_bswap16(protocol), __builtin_bswap16((uint16_t)l4_length)};
    return (uint64_t)source + destination + rest[0] + rest[1];
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte swaps assume little endian");

#endif

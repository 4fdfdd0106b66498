/* Internet checksums, changed without reading the data again (RFC 1624).
 *
 * With HC the checksum field and m -> m' a changed 16-bit word, equation 3 of the RFC says
 * HC' = ~(~HC + ~m + m'), in one's complement arithmetic. All changes of a packet are gathered in
 * one *delta*, the folded sum of the ~m + m'. The change back has the delta ~delta, so a NAT keeps
 * one delta per mapping for both directions. Equation 3 gives what a full computation gives, also
 * where equation 2 would give 0xffff for 0x0000.
 *
 * Words are taken as they lie in memory: the sum is the same in either byte order. A packet whose
 * checksum was wrong stays wrong by the same amount, so its receiver still finds out. */
#ifndef FTMB_NF_CHECKSUM_H
#define FTMB_NF_CHECKSUM_H

#include <stdint.h>
#include <string.h>

/* One's complement sum of up to 2^16 words, to 16 bits. */
static inline uint16_t checksum_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)(sum + (sum >> 16));
}

/* Delta of one 16-bit word. */
static inline uint16_t checksum_delta16(uint16_t before, uint16_t after)
{
    return checksum_fold((uint32_t)(uint16_t)~before + after);
}

/* Delta of a 32-bit field, such as an address. */
static inline uint16_t checksum_delta32(uint32_t before, uint32_t after)
{
    uint32_t gone = ~before;
    return checksum_fold((gone & 0xffff) + (gone >> 16) + (after & 0xffff) + (after >> 16));
}

/* Both changes. */
static inline uint16_t checksum_join(uint16_t a, uint16_t b)
{
    return checksum_fold((uint32_t)a + b);
}

/* The change back. */
static inline uint16_t checksum_reverse(uint16_t delta)
{
    return (uint16_t)~delta;
}

/* The checksum field `field` after `delta`. */
static inline uint16_t checksum_apply(uint16_t field, uint16_t delta)
{
    return (uint16_t)~checksum_fold((uint32_t)(uint16_t)~field + delta);
}

/* Apply `delta` to the two bytes at `field`, which need no alignment. */
static inline void checksum_patch(uint8_t *field, uint16_t delta)
{
    uint16_t value;
    memcpy(&value, field, sizeof(value));
    value = checksum_apply(value, delta);
    memcpy(field, &value, sizeof(value));
}

/* The same for UDP, where 0 means "no checksum": it stays 0, and a checksum that comes out as 0
 * is sent as its other representation, 0xffff (RFC 768). */
static inline void checksum_patch_udp(uint8_t *field, uint16_t delta)
{
    uint16_t value;
    memcpy(&value, field, sizeof(value));
    if (value == 0)
        return;
    value = checksum_apply(value, delta);
    if (value == 0)
        value = 0xffff;
    memcpy(field, &value, sizeof(value));
}

/* Sum of the words of `bytes`, of which there are at most 2^16: 0xffff where a right checksum is
 * among them. For what is rare, since it reads all of them. */
static inline uint16_t checksum_sum(const uint8_t *bytes, uint32_t length)
{
    uint32_t sum = 0;
    uint16_t word;
    for (; length > 1; bytes += 2, length -= 2) {
        memcpy(&word, bytes, sizeof(word));
        sum += word;
    }
    word = 0;
    memcpy(&word, bytes, length);
    return checksum_fold(sum + word);
}

#endif

/* SipHash-2-4 (Aumasson, Bernstein 2012): a 64-bit hash of bytes under a key of 128 bits. Who does
 * not know the key finds no two inputs of one hash faster than by trying them. */
#ifndef FTMB_NF_SIPHASH_H
#define FTMB_NF_SIPHASH_H

#include "core/base.h"

#include <string.h>

struct siphash_key {
    uint64_t half[2];
};

static inline uint64_t siphash_rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = siphash_rotate(v[1], 13) ^ v[0];
    v[3] = siphash_rotate(v[3], 16) ^ v[2];
    v[0] = siphash_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = siphash_rotate(v[1], 17) ^ v[2];
    v[3] = siphash_rotate(v[3], 21) ^ v[0];
    v[2] = siphash_rotate(v[2], 32);
}

static inline void siphash_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    siphash_round(v);
    siphash_round(v);
    v[0] ^= word;
}

static inline uint64_t siphash(const struct siphash_key *key, const uint8_t *bytes, uint64_t length)
{
    uint64_t v[4] = {key->half[0] ^ 0x736f6d6570736575ull, key->half[1] ^ 0x646f72616e646f6dull,
                     key->half[0] ^ 0x6c7967656e657261ull, key->half[1] ^ 0x7465646279746573ull};
    uint64_t at = 0, word, last = length << 56;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, bytes + at, sizeof(word));
        siphash_word(v, word);
    }
    for (unsigned shift = 0; at < length; at++, shift += 8)
        last |= (uint64_t)bytes[at] << shift;
    siphash_word(v, last);
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 4; i++)
        siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif

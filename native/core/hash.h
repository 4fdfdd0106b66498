/* 64-bit hashes of bytes: of outputs (compared before a duplicate is dropped) and of snapshots.
 * They find faults, not attackers: every party to them is the same user's process. */
#ifndef FTMB_CORE_HASH_H
#define FTMB_CORE_HASH_H

#include "core/base.h"

#include <string.h>

#define HASH_K0 0x9fb21c651e98df25ull
#define HASH_K1 0xd6e8feb86659fd93ull

static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)(a ^ HASH_K0) * (b ^ HASH_K1);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_load(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* Four independent lanes of 16 bytes keep the multiplier busy on long inputs. */
static inline uint64_t hash_bytes(uint64_t seed, const void *data, uint64_t length)
{
    const uint8_t *at = data;
    uint64_t left = length;
    uint64_t h = seed ^ (length * HASH_K0);
    if (left >= 64) {
        uint64_t lane[4] = {h, h ^ HASH_K1, h + HASH_K0, h - HASH_K1};
        for (; left >= 64; left -= 64, at += 64) {
            for (int i = 0; i < 4; i++)
                lane[i] = hash_mix(lane[i] ^ hash_load(at + 16 * i), hash_load(at + 16 * i + 8));
        }
        h = hash_mix(lane[0] ^ lane[1], lane[2] + lane[3]);
    }
    for (; left >= 16; left -= 16, at += 16)
        h = hash_mix(h ^ hash_load(at), hash_load(at + 8));
    uint64_t low = 0, high = 0;
    if (length >= 16) { /* the last 16 bytes, partly again: no copy of a varying length */
        low = hash_load(at + left - 16);
        high = hash_load(at + left - 8);
    } else if (left >= 8) {
        low = hash_load(at);
        high = hash_load(at + left - 8);
    } else {
        for (uint64_t i = 0; i < left; i++)
            low = (low << 8) | at[i];
    }
    return hash_mix(h ^ low, high ^ length);
}

#endif

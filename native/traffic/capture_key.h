/* The key of a captured packet: what no translator of addresses and ports changes. */
#ifndef FTMB_TRAFFIC_CAPTURE_KEY_H
#define FTMB_TRAFFIC_CAPTURE_KEY_H

#include "traffic/capture.h"

static inline uint64_t key_mix(uint64_t key, uint64_t word)
{
    key = (key ^ word) * 0x9e3779b97f4a7c15ull;
    return key ^ (key >> 29);
}

static inline uint64_t key_bytes(uint64_t key, const uint8_t *bytes, uint32_t length)
{
    uint64_t word;
    for (; length >= 8; bytes += 8, length -= 8) {
        memcpy(&word, bytes, 8);
        key = key_mix(key, word);
    }
    word = 0;
    memcpy(&word, bytes, length);
    return key_mix(key, word);
}

/* Protocol, direction, IP identification, length, the protocol's header without ports and checksum
 * (ICMP: without identifier and checksum), payload. Never 0. */
static inline uint64_t capture_key(const struct packet *p, enum direction direction)
{
    uint16_t id;
    memcpy(&id, p->ip + 4, 2);
    uint64_t key =
        key_mix((uint64_t)p->protocol << 8 | direction, ((uint64_t)id << 32) | p->l4_length);
    const uint8_t *l4 = p->l4;
    if (p->protocol == PROTO_TCP) {
        key = key_bytes(key, l4 + 4, 12);
        key = key_bytes(key, l4 + 18, p->l4_length - 18);
    } else if (p->protocol == PROTO_UDP) {
        key = key_bytes(key, l4 + 8, p->l4_length - 8);
    } else {
        key = key_bytes(key, l4, 2);
        key = key_bytes(key, l4 + 6, p->l4_length - 6);
    }
    return key ? key : 1;
}

/* The group of a key, or the empty place where it belongs. */
static inline struct capture_group *capture_group_place(struct capture *c, uint64_t key)
{
    uint32_t i = (uint32_t)(key >> 32) & c->group_mask;
    while (c->groups[i].key && c->groups[i].key != key)
        i = (i + 1) & c->group_mask;
    return &c->groups[i];
}

#endif

/* Which flow holds which outside tuple: a set of (protocol, address, port), to see two flows that
 * were given the same one. */
#ifndef FTMB_TRAFFIC_MAPPING_H
#define FTMB_TRAFFIC_MAPPING_H

#include "core/base.h"

#define MAPPING_NONE UINT32_MAX

struct mapping_entry {
    uint64_t key; /* 0: empty */
    uint32_t flow;
};

struct mapping {
    struct mapping_entry *entries;
    uint32_t mask;
};

/* Never 0, since the protocol is not. Address and port as on the wire. */
static inline uint64_t mapping_key(uint8_t protocol, uint32_t address, uint16_t port)
{
    return ((uint64_t)protocol << 48) | ((uint64_t)port << 32) | address;
}

uint64_t mapping_bytes(uint64_t flows);

/* For at most `flows` flows with one tuple each. 0 or -ENOMEM. */
int mapping_init(struct mapping *m, uint32_t flows);
void mapping_free(struct mapping *m);

/* `flow` holds `key` from now on. Returns who held it before, MAPPING_NONE if nobody. */
uint32_t mapping_set(struct mapping *m, uint64_t key, uint32_t flow);

/* `flow` no longer holds `key`; nothing happens if another flow has taken it meanwhile. */
void mapping_clear(struct mapping *m, uint64_t key, uint32_t flow);

#endif

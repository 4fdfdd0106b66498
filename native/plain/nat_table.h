/* The NAT's mappings (see nat.h). Addresses and ports are in network order. */
#ifndef NAT_TABLE_H
#define NAT_TABLE_H

#include "plain/nat.h"

#define TCP_FIN 1u
#define TCP_SYN 2u
#define TCP_RST 4u
#define TCP_ACK 16u

struct end {
    uint32_t address;
    uint16_t port;
    uint16_t protocol; /* 0: of no mapping */
};

/* What a TCP segment tells about its connection. */
struct segment {
    uint8_t flags;
    uint8_t has_data;
};

/* How far a thread has come with removing what has expired. */
struct sweeper {
    uint64_t next_ns;
    uint32_t next_stripe;
};

enum found { TABLE_FULL, TABLE_KNOWN, TABLE_NEW };

int table_open(const struct nat_config *config);

/* The outside end of an inside one that sends; a new one where there is none yet. */
enum found table_map(struct end inside, struct segment segment, struct end *outside);

/* The inside end behind an outside one; its protocol is 0 if there is none. */
struct end table_inside(struct end outside);

/* The other side ends a connection. Saying so again does not keep the mapping. */
void table_close(struct end inside);

/* Removes some of what has expired; how many. To be called again and again by each thread. */
unsigned table_sweep(struct sweeper *sweeper, unsigned thread);

void table_check(struct nat_totals *totals);

#endif

/* A source NAT for a program with several packet threads: TCP, UDP and ICMP echo, in both
 * directions. Frames come in at port 0 from inside and at port 1 from outside.
 *
 * Whatever an inside endpoint (protocol, address, port) talks to, it has one outside endpoint, and
 * whoever knows that one may answer. Packets from inside keep it alive. It is a bump in the wire:
 * MAC addresses and TTL stay as they are, IPv4 options pass. Everything else is dropped, and
 * counted. */
#ifndef NAT_H
#define NAT_H

#include <stddef.h>
#include <stdint.h>

#define NAT_MAX_THREADS 8
#define NAT_MAX_ADDRESSES 16
#define NAT_FIRST_PORT 1024u
#define NAT_PORTS (65536u - NAT_FIRST_PORT)
#define NAT_DROP (-1)

struct nat_config {
    unsigned threads;
    uint32_t outside; /* the first outside address; the others follow */
    unsigned addresses;
    unsigned capacity; /* mappings, at least one and at most NAT_PORTS for each address */
    unsigned long udp_ms;
    unsigned long tcp_ms;
    unsigned long transitory_ms; /* TCP that is opening or closing */
    unsigned long icmp_ms;
};

enum nat_count {
    NAT_OUTBOUND,
    NAT_INBOUND,
    NAT_CREATED,
    NAT_EXPIRED,
    NAT_NO_PORT,
    NAT_NO_MAPPING,
    NAT_HAIRPIN,
    NAT_NOT_IPV4,
    NAT_FRAGMENT,
    NAT_ICMP,
    NAT_PROTOCOL,
    NAT_MALFORMED,
    NAT_COUNTS
};

struct nat_totals {
    uint64_t count[NAT_COUNTS];
    uint64_t mappings;
    /* What must be true of the tables. */
    int chained;   /* every mapping is in its own bucket, once, and no other has its inside end */
    int conserved; /* every endpoint is in use or free */
    int counted;   /* created less expired is what is there */
};

/* Before any thread handles a packet. 0, or -1: out of memory. */
int nat_open(const struct nat_config *config);

/* One frame that came in at `port`; it may be changed. The port at which it leaves, or NAT_DROP. */
int nat_frame(unsigned thread, unsigned port, void *frame, size_t length);

/* When a thread has nothing to do: removes what has expired, a bit at a time. */
void nat_idle(unsigned thread);

/* Once the threads are done. */
void nat_read(struct nat_totals *totals);

#endif

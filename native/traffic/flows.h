/* The flows of a run: which are active, what belongs to each of them.
 *
 * A flow is a number. A window of `active` consecutive numbers is alive; a new flow replaces the
 * oldest one by moving the window up by one. The flow in slot i of the window is the one whose
 * number is i modulo `active`, so a flow keeps its slot, and with it its popularity, for life. */
#ifndef FTMB_TRAFFIC_FLOWS_H
#define FTMB_TRAFFIC_FLOWS_H

#include "traffic/order.h"
#include "traffic/packet.h"

/* Flows of one run, dead ones included: they are accounted for to the end. */
#define FLOWS_MAX (32u << 20)
/* Where the servers are: 16 of them, from 192.0.2.1 (TEST-NET-1). */
#define FLOWS_SERVER_BASE 0xc0000201u
#define FLOWS_SERVERS 16u

/* What the generator and the sink know of a flow: half a cache line. */
struct flow {
    uint32_t sent[2]; /* next number, by direction */
    struct order_stream seen[2];
    uint32_t mapped_address; /* the tuple that the outside sees, as on the wire */
    uint16_t mapped_port;
    bool mapped;
};

/* The inside tuple of a flow, as on the wire. */
struct endpoint {
    uint32_t address;
    uint16_t port;
};

struct flows {
    struct flow *table;
    uint32_t total;  /* numbers below this may occur */
    uint32_t active; /* size of the window */
    uint32_t lap;    /* highest multiple of `active` that is not above the window's start */
    uint32_t into;   /* the window starts at lap + into */
    uint32_t inside; /* first inside host, host order */
    uint32_t host_bits;
};

/* `active` flows at a time, `fresh` more over the run; inside hosts from the network
 * `network`/`prefix` (host order). Returns 0, or -1 with a line in `why`. */
int flows_init(struct flows *f, uint32_t active, uint64_t fresh, uint32_t network, uint32_t prefix,
               char *why);
void flows_free(struct flows *f);

/* Number of the flow in a slot of the window. */
static inline uint32_t flows_in_slot(const struct flows *f, uint32_t slot)
{
    return slot + f->lap + (slot < f->into ? f->active : 0);
}

/* One flow ends, a new one begins. Does nothing when the run's numbers are used up. */
static inline void flows_shift(struct flows *f)
{
    if (f->lap + f->into + f->active >= f->total)
        return;
    if (++f->into == f->active) {
        f->lap += f->active;
        f->into = 0;
    }
}

static inline bool flows_alive(const struct flows *f, uint32_t number)
{
    return number - (f->lap + f->into) < f->active;
}

/* 16 flows per host, then the next host; when the network is used up, further ports. */
static inline struct endpoint flows_inside(const struct flows *f, uint32_t number)
{
    uint32_t host = (number >> 4) & ((1u << f->host_bits) - 1);
    uint32_t port = 1024 + (number & 15) + ((number >> (4 + f->host_bits)) << 4);
    return (struct endpoint){.address = __builtin_bswap32(f->inside + host),
                             .port = __builtin_bswap16((uint16_t)port)};
}

static inline uint32_t flows_server(uint32_t number)
{
    return __builtin_bswap32(FLOWS_SERVER_BASE + ((number ^ (number >> 4)) & (FLOWS_SERVERS - 1)));
}

#endif

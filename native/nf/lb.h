/* Internals of the load balancer: Maglev's table, and its connections. */
#ifndef FTMB_NF_LB_H
#define FTMB_NF_LB_H

#include "nf/nf.h"
#include "nf/packet.h"
#include "nf/sets.h"

#define LB_MAX_BACKENDS 32u
#define LB_MAX_TABLE 655373u

/* Fills a table of `size` places, a prime, with the numbers of the backends that are up (`up`, a
 * bit each; at least one), as Maglev does (Eisenbud and others, NSDI 2016, section 3.4): in turns
 * each backend takes the next free place of its own permutation of all places. */
void maglev_fill(uint8_t *table, uint32_t size, uint32_t up);

enum lb_state { LB_UDP, LB_TCP, LB_CLOSING, LB_STATES };

enum lb_counter {
    LB_BALANCED,
    LB_UNTRACKED, /* balanced too, without an entry: the set was full, or it was no TCP or UDP */
    LB_PASSED,    /* not for us to balance: from outside, ARP */
    LB_OPENED,
    LB_ENDED,
    LB_DROP_NOT_VIRTUAL,
    LB_DROP_FRAGMENT,
    LB_DROP_PROTOCOL,
    LB_DROP_NOT_IPV4,
    LB_DROP_MALFORMED,
    LB_COUNTERS
};

/* A connection is a struct sets_flow, four to a line of a snapshot: its client's endpoint first,
 * `user` is its backend. */

struct lb_loads {
    CACHE_ALIGNED uint64_t connections[LB_MAX_BACKENDS];
};

struct lb_worker {
    CACHE_ALIGNED struct sets_sweep sweep;
    uint64_t counters[LB_COUNTERS];
    uint64_t to[LB_MAX_BACKENDS]; /* packets */
};

struct lb {
    struct sets connections; /* its numbers are ids of variables */
    struct sets_timeouts timeouts;
    uint64_t sweep_ns;      /* between two sets of one worker */
    uint64_t mac;           /* of backend 0; the next ones have the next addresses */
    uint32_t network, mask; /* of the virtual addresses, as on the wire */
    uint32_t table_size;
    uint32_t up; /* a bit for each backend */
    bool least;
    uint64_t table_at; /* offsets from the arena's base */
    uint64_t loads_at; /* its variable has the last id */
    uint64_t worker_at[FTMB_MAX_WORKERS];
};

static inline const uint8_t *lb_table(struct arena *arena, const struct lb *lb)
{
    return (const uint8_t *)arena + lb->table_at;
}

static inline struct lb_loads *lb_loads(struct arena *arena, const struct lb *lb)
{
    return (struct lb_loads *)((uint8_t *)arena + lb->loads_at);
}

static inline struct lb_worker *lb_worker(struct arena *arena, const struct lb *lb, uint32_t worker)
{
    return (struct lb_worker *)((uint8_t *)arena + lb->worker_at[worker]);
}

void lb_report(struct arena *arena, const struct nf_report *out);

#endif

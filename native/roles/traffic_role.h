/* The role `traffic`: open-loop generator and sink in one poll. */
#ifndef FTMB_ROLES_TRAFFIC_ROLE_H
#define FTMB_ROLES_TRAFFIC_ROLE_H

#include "io/port.h"
#include "roles/role.h"

/* View and incarnation of the role headers of mode `direct`, where there is no other. */
#define TRAFFIC_DIRECT_VIEW 1u
#define TRAFFIC_DIRECT_INCARNATION 1u

/* Make the role from the `traffic` object of a node spec (read during the call only).
 *
 * Not `direct`: tx[0] takes frames that enter a middlebox at the inside port, tx[1] at the outside
 * port; rx[p] gives frames that left at port p. `direct`: tx[w] and rx[w] are worker w's queue pair
 * of the replica's link, frames carry role headers. `pool` gives the frames that are sent: at least
 * 2,048 plus what the links hold. Starts the hiccup meter's threads on `noise_cpus`.
 *
 * Commands: "start" (the fill where one is wanted, warm-up, then the measured window), "stop" (stop
 * generating now). Events: filling (once a second) and filled {flows, sent, delivered, complete};
 * window_start {at_ns}, window_end {at_ns}, drained {sent, delivered, complete}.
 * stats() also writes the histogram, timeline and sample files; it ends the process with code 3 if
 * that fails.
 *
 * Returns 0, or after one line on stderr -EINVAL (spec or a file it names is bad) or -ENOMEM. */
int traffic_create(struct role *out, const json_t *traffic_spec, const struct io_lane *tx,
                   unsigned ntx, const struct io_lane *rx, unsigned nrx, bool direct,
                   unsigned workers, const unsigned *noise_cpus, unsigned n_noise,
                   struct rte_mempool *pool);

/* Free everything; after stats(), with no lcore polling any more. */
void traffic_destroy(struct role *role);

#endif

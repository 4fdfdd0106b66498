/* Which links a process needs, by the roles that it holds. */
#ifndef FTMB_APP_LINKS_H
#define FTMB_APP_LINKS_H

#include "core/view.h"
#include "io/port.h"
#include "io/trunk.h"
#include "roles/config.h"

struct node_links {
    /* Traffic's ends: by side, or (mode direct) by worker. */
    struct io_lane traffic_tx[FTMB_MAX_WORKERS];
    struct io_lane traffic_rx[FTMB_MAX_WORKERS];
    unsigned traffic_lanes;
    struct io_lane il_in[2];
    struct io_lane ol_out[2];
    struct io_lane il_replica[VIEW_SLOTS][FTMB_MAX_WORKERS];
    struct io_lane ol_replica[VIEW_SLOTS][FTMB_MAX_WORKERS];
    struct io_lane replica_in[FTMB_MAX_WORKERS];
    struct io_lane replica_out[FTMB_MAX_WORKERS];
    struct rte_mempool *traffic_pool;
    struct rte_mempool *il_pool; /* frames from the log, probes */
    struct rte_mempool *ol_pool; /* acknowledgements */
    struct rte_mempool *worker_pool;
    uint16_t ports[2 + 2 * VIEW_SLOTS];
    unsigned port_count;
    struct trunk *trunk[TRUNK_MAX];
    unsigned trunks;
};

struct node_roles {
    bool traffic;
    bool il;
    bool ol;
    bool replica;
};

/* Open every link of this process; blocks until the servers' peers have connected. Ends the process
 * with code 3 if a link cannot be made, 5 if its other end went away. */
void links_open(struct node_links *links, const struct node_config *config,
                struct node_roles roles);

/* Wait until every link is up. False: not within `timeout_ms`. */
bool links_wait(const struct node_links *links, unsigned timeout_ms);

#endif

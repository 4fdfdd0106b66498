/* Opening the links of a process (see links.h).
 *
 * Between processes: vhost-user, the logger as client, the replica (or the generator) as server, so
 * that a logger reconnects by itself to whoever takes a dead replica's place. Inside: a ring.
 * Between hosts: a trunk. */
#include "app/links.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/output_logger.h"
#include "roles/worker.h"

/* Frames that a link's two rings can hold, and per-thread caches; then with a ring behind it. */
#define LINK_FRAMES (2u * IO_QUEUE_SIZE + 512u)
#define LINK_AND_RING_FRAMES (LINK_FRAMES + IO_RING_SIZE)

static struct rte_mempool *pool(const char *name, unsigned mbufs)
{
    struct rte_mempool *made = io_pool(name, mbufs);
    if (!made)
        die(3, "no memory for packet buffers (%s): raise memory_mb", name);
    return made;
}

static void set_lanes(struct io_lane *lanes, unsigned count, uint16_t port)
{
    for (unsigned q = 0; q < count; q++)
        lanes[q] = (struct io_lane){.port = port, .queue = (uint16_t)q};
}

/* Between generator or sink and a logger: no link of FTMB's, so never disturbed. */
static bool traffic_link(const char *file)
{
    return strncmp(file, "traffic", strlen("traffic")) == 0;
}

/* Both ends of a link must give it the same number. */
static uint8_t number_of(const char *file)
{
    uint8_t base = strncmp(file, "il-", 3) == 0 ? 16 : strncmp(file, "ol-", 3) == 0 ? 32 : 0;
    if (base)
        return (uint8_t)(base + (file[3] - '0'));
    return strcmp(file, "traffic-il") == 0 ? 1 : 2;
}

/* A link that the node spec puts on an interface: true, and its port. */
static bool open_on_trunk(const struct node_links *links, const struct node_config *config,
                          const char *file, unsigned queues, struct rte_mempool *rx_pool,
                          uint16_t *port)
{
    for (uint32_t t = 0; t < config->hosts.trunks; t++) {
        const struct node_trunk *trunk = &config->hosts.trunk[t];
        for (uint32_t i = 0; i < trunk->links; i++) {
            if (strcmp(trunk->link[i].name, file) != 0)
                continue;
            if (trunk_add(links->trunk[t], number_of(file), trunk->link[i].peer, queues, rx_pool,
                          port))
                die(3, "cannot open the link %s on interface %s", file, trunk->interface);
            return true;
        }
    }
    return false;
}

/* One end of a link to another process. */
static void open_end(struct node_links *links, const struct node_config *config, bool server,
                     const char *file, unsigned queues, struct rte_mempool *rx_pool,
                     struct io_lane *lanes)
{
    char path[NODE_PATH_BYTES + 32];
    char name[NODE_NAME_BYTES];
    uint16_t port;
    snprintf(path, sizeof(path), "%s/%s.sock", config->dir, file);
    snprintf(name, sizeof(name), "l%u", links->port_count);
    int error = 0;
    if (!open_on_trunk(links, config, file, queues, rx_pool, &port))
        error = server ? io_open_server(name, path, queues, rx_pool, &port)
                       : io_open_client(name, path, queues, rx_pool, &port);
    if (error)
        die(error == -ENOMEM ? 3 : 5, "cannot open the link %s.sock: its other end went away",
            file);
    FTMB_ASSERT(links->port_count < sizeof(links->ports) / sizeof(links->ports[0]));
    links->ports[links->port_count++] = port;
    set_lanes(lanes, queues, port);
    if (!traffic_link(file))
        fault_attach(port, fault_link(file, server));
}

static void open_ring(const char *name, struct io_lane *from, struct io_lane *to)
{
    uint16_t ports[2];
    if (io_open_ring(name, 2, ports))
        die(3, "cannot make the ring %s", name);
    set_lanes(from, 2, ports[0]);
    set_lanes(to, 2, ports[1]);
}

static void open_replica_ends(struct node_links *links, const struct node_config *config)
{
    unsigned w = config->workers;
    char file[NODE_NAME_BYTES];
    /* Unacknowledged outputs stay in the buffers that their inputs came in. */
    struct rte_mempool *in = pool("in", w * (WORKER_WINDOW + STREAM_EARLY + LINK_FRAMES));
    struct rte_mempool *acks = pool("acks", w * LINK_FRAMES);
    links->worker_pool = pool("frames", w * (WORKER_WINDOW + LINK_FRAMES));
    snprintf(file, sizeof(file), "il-%u", config->slot);
    open_end(links, config, true, file, w, in, links->replica_in);
    snprintf(file, sizeof(file), "ol-%u", config->slot);
    open_end(links, config, true, file, w, acks, links->replica_out);
}

static void open_traffic(struct node_links *links, const struct node_config *config,
                         struct node_roles roles)
{
    links->traffic_lanes = 2;
    if (roles.traffic)
        links->traffic_pool = pool("traffic", 16384);
    if (config->mode == MODE_FLOOR) {
        open_ring("floor", links->traffic_tx, links->traffic_rx);
        /* What enters at one side leaves at the other, as through a middlebox. */
        links->traffic_rx[0].queue = 1;
        links->traffic_rx[1].queue = 0;
        return;
    }
    if (config->mode == MODE_DIRECT) {
        if (!roles.traffic)
            return;
        links->traffic_lanes = config->workers;
        open_end(links, config, false, "il-0", config->workers, pool("none", 1024),
                 links->traffic_tx);
        open_end(links, config, false, "ol-0", config->workers,
                 pool("sink", config->workers * LINK_AND_RING_FRAMES), links->traffic_rx);
        return;
    }
    bool one_il = strcmp(config->group_traffic, config->group_il) == 0;
    bool one_ol = strcmp(config->group_traffic, config->group_ol) == 0;
    if (one_il && roles.traffic)
        open_ring("traffic_il", links->traffic_tx, links->il_in);
    else if (!one_il && (roles.traffic || roles.il))
        open_end(links, config, roles.traffic, "traffic-il", 2,
                 pool("door", 2 * LINK_AND_RING_FRAMES),
                 roles.traffic ? links->traffic_tx : links->il_in);
    if (one_ol && roles.traffic)
        open_ring("traffic_ol", links->traffic_rx, links->ol_out);
    else if (!one_ol && (roles.traffic || roles.ol))
        open_end(links, config, roles.traffic, "traffic-ol", 2,
                 pool("sink", 2 * LINK_AND_RING_FRAMES),
                 roles.traffic ? links->traffic_rx : links->ol_out);
}

/* The middlebox's own interfaces: the input logger hears both, the output logger sends to both. */
static void open_interfaces(struct node_links *links, const struct node_config *config)
{
    struct rte_mempool *heard = pool("heard", 2 * LINK_AND_RING_FRAMES + 2 * FTMB_BURST +
                                                  config->replicas * config->workers * LINK_FRAMES);
    for (unsigned side = 0; side < 2; side++) {
        const char *interface = config->interface[side];
        uint16_t port;
        if (io_open_interface(side == NF_INSIDE ? "inside" : "outside", interface, heard, &port))
            die(3,
                "cannot use the interface %s: it must exist and be up, and this process needs "
                "CAP_NET_RAW",
                interface);
        links->il_in[side] = links->ol_out[side] = (struct io_lane){.port = port};
    }
}

static void open_trunks(struct node_links *links, const struct node_hosts *hosts)
{
    for (uint32_t t = 0; t < hosts->trunks; t++) {
        const struct node_trunk *trunk = &hosts->trunk[t];
        links->trunk[t] = trunk_open(trunk->interface, trunk->driver, hosts->trial);
        if (!links->trunk[t])
            die(3, "cannot use the interface %s for links to other hosts", trunk->interface);
    }
    links->trunks = hosts->trunks;
}

void links_open(struct node_links *links, const struct node_config *config, struct node_roles roles)
{
    memset(links, 0, sizeof(*links));
    unsigned w = config->workers;
    open_trunks(links, &config->hosts);
    if (roles.replica)
        open_replica_ends(links, config);
    if (!config->interface[0][0])
        open_traffic(links, config, roles);
    else if (roles.il && roles.ol)
        open_interfaces(links, config);
    struct rte_mempool *acks = NULL, *held = NULL;
    if (roles.il) {
        links->il_pool = pool("il", 8192);
        acks = pool("il_acks", 4096);
    }
    if (roles.ol) {
        links->ol_pool = pool("ol", 4096);
        held = pool("held", w * (OL_HELD + FTMB_BURST + STREAM_EARLY) + 2 * LINK_AND_RING_FRAMES);
    }
    for (uint32_t slot = 0; slot < config->replicas; slot++) {
        char file[NODE_NAME_BYTES];
        snprintf(file, sizeof(file), "il-%u", slot);
        if (roles.il)
            open_end(links, config, false, file, w, acks, links->il_replica[slot]);
        snprintf(file, sizeof(file), "ol-%u", slot);
        if (roles.ol)
            open_end(links, config, false, file, w, held, links->ol_replica[slot]);
    }
}

bool links_wait(const struct node_links *links, unsigned timeout_ms)
{
    uint64_t deadline = clock_ns() + timeout_ms * 1000000ull;
    for (unsigned i = 0; i < links->port_count; i++) {
        while (!io_link_up(links->ports[i])) {
            if (clock_ns() > deadline)
                return false;
            usleep(500);
        }
    }
    return true;
}

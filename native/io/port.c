/* Links as DPDK ports: vhost-user, virtio-user, rings (see port.h). */
#include "io/port.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <rte_bus_vdev.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_log.h>

#include "io/clock.h"
#include "io/reconnect.h"

#define NAME_MAX_LENGTH 32
#define MAX_RINGS 16
/* No role looks at a link's own address; giving one keeps the driver from warning about it. */
#define UNUSED_MAC "02:00:00:00:00:01"

/* A ring link: rings[d][q] carries queue q from ports[d] to ports[1 - d]. */
struct ring_link {
    uint16_t ports[2];
    bool open[2];
    unsigned queues;
    struct rte_ring *rings[2][IO_MAX_QUEUES];
};

static struct ring_link ring_links[MAX_RINGS];
static struct rte_mempool *ring_setup_pool;

static int complain(int error, const char *name, const char *what)
{
    fprintf(stderr, "ftmb-node: link %s: %s: %s\n", name, what, rte_strerror(error));
    return -error;
}

static int check_request(const char *name, unsigned queues)
{
    if (strlen(name) > NAME_MAX_LENGTH)
        return complain(ENAMETOOLONG, name, "name");
    if (queues == 0 || queues > IO_MAX_QUEUES)
        return complain(EINVAL, name, "number of queues");
    return 0;
}

/* Configure and start a port with `queues` pairs of the default kind, without offloads. */
static int start_port(uint16_t port, const char *name, unsigned queues, struct rte_mempool *pool)
{
    struct rte_eth_conf conf = {.rxmode = {.mq_mode = RTE_ETH_MQ_RX_NONE}};
    /* Take sent buffers back as soon as 64 of them are done. By default virtio lets its whole queue
     * fill first, and then every buffer has left the cache when it is used again: that more than
     * doubled the cost of a frame. */
    const struct rte_eth_txconf tx_conf = {.tx_free_thresh = IO_QUEUE_SIZE - 64};
    struct rte_eth_dev_info info;
    int rc = rte_eth_dev_info_get(port, &info);

    /* With link interrupts on, reading the link state only reads memory. Otherwise it makes virtio
     * itself look at its socket, reconnect and re-register it, which after a peer's death left a
     * dead descriptor behind and ended the process in the driver when the port was closed. */
    conf.intr_conf.lsc = rc == 0 && (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0;
    if (rc == 0)
        rc = rte_eth_dev_configure(port, (uint16_t)queues, (uint16_t)queues, &conf);
    for (uint16_t q = 0; rc == 0 && q < queues; q++) {
        rc = rte_eth_rx_queue_setup(port, q, IO_QUEUE_SIZE, SOCKET_ID_ANY, NULL, pool);
        if (rc == 0)
            rc = rte_eth_tx_queue_setup(port, q, IO_QUEUE_SIZE, SOCKET_ID_ANY, &tx_conf);
    }
    if (rc == 0)
        rc = rte_eth_dev_start(port);
    return rc == 0 ? 0 : complain(-rc, name, "cannot start the port");
}

int io_open_device(const char *device, const char *arguments, const char *name, unsigned queues,
                   struct rte_mempool *pool, uint16_t *port)
{
    int rc = rte_vdev_init(device, arguments);

    if (rc != 0)
        return complain(-rc, name, "cannot create the device");
    rc = rte_eth_dev_get_port_by_name(device, port);
    if (rc == 0)
        rc = start_port(*port, name, queues, pool);
    if (rc != 0) {
        rte_vdev_uninit(device);
        return rc;
    }
    /* From now on peers come and go, which the drivers report as errors. */
    rte_log_set_level_pattern("pmd.net.v*", RTE_LOG_CRIT);
    rte_log_set_level_pattern("lib.vhost*", RTE_LOG_CRIT);
    return 0;
}

int io_open_server(const char *name, const char *path, unsigned queues, struct rte_mempool *rx_pool,
                   uint16_t *port)
{
    char device[64], arguments[256];
    int rc = check_request(name, queues);

    if (rc != 0)
        return rc;
    if (unlink(path) != 0 && errno != ENOENT)
        return complain(errno, name, "cannot remove the stale socket");
    snprintf(device, sizeof(device), "net_virtio_user_%s", name);
    /* cq=1: without a control queue the driver cannot enable more than one pair. mrg_rxbuf=0: a
     * frame is always one buffer, which the roles rely on (and it is the faster path). */
    rc = snprintf(arguments, sizeof(arguments),
                  "path=%s,server=1,queues=%u,cq=1,mrg_rxbuf=0,queue_size=%u,mac=%s", path, queues,
                  IO_QUEUE_SIZE, UNUSED_MAC);
    if (rc < 0 || (size_t)rc >= sizeof(arguments))
        return complain(ENAMETOOLONG, name, path);
    return io_open_device(device, arguments, name, queues, rx_pool, port);
}

/* Wait until the server listens. Connecting to find out would use up the one connection the server
 * accepts, and a first attempt that fails is repeated by the driver only a second later. */
static int wait_for_socket(const char *name, const char *path)
{
    const struct timespec pause = {.tv_nsec = 1000000}, settle = {.tv_nsec = 5000000};
    uint64_t deadline = clock_ns() + IO_CONNECT_TIMEOUT_MS * 1000000ull;
    struct stat st;

    while (stat(path, &st) != 0) {
        if (errno != ENOENT)
            return complain(errno, name, path);
        if (clock_ns() > deadline)
            return complain(ETIMEDOUT, name, "the other end did not open its socket");
        nanosleep(&pause, NULL);
    }
    /* The file appears with bind(), the server is ready with the listen() that follows. */
    nanosleep(&settle, NULL);
    return 0;
}

int io_open_client(const char *name, const char *path, unsigned queues, struct rte_mempool *rx_pool,
                   uint16_t *port)
{
    char device[64], arguments[256];
    int rc = check_request(name, queues);

    if (rc == 0)
        rc = wait_for_socket(name, path);
    if (rc != 0)
        return rc;
    snprintf(device, sizeof(device), "net_vhost_%s", name);
    rc = snprintf(arguments, sizeof(arguments), "iface=%s,client=1,queues=%u", path, queues);
    if (rc < 0 || (size_t)rc >= sizeof(arguments))
        return complain(ENAMETOOLONG, name, path);
    rc = io_open_device(device, arguments, name, queues, rx_pool, port);
    if (rc == 0)
        reconnect_watch(*port, path);
    return rc;
}

int io_open_interface(const char *name, const char *interface, struct rte_mempool *rx_pool,
                      uint16_t *port)
{
    char device[64], arguments[256];
    int rc = check_request(name, 1);

    if (rc != 0)
        return rc;
    if (if_nametoindex(interface) == 0)
        return complain(errno, interface, "no such network interface");
    snprintf(device, sizeof(device), "net_pcap_%s", name);
    /* Two handles: one hears what comes in, and nothing that leaves; the other sends. Not
     * net_af_packet: it has the kernel put fragments together, hears what this machine sends, and
     * turns promiscuous mode off. */
    snprintf(arguments, sizeof(arguments), "rx_iface_in=%s,tx_iface=%s", interface, interface);
    return io_open_device(device, arguments, name, 1, rx_pool, port);
}

static void free_ring(struct rte_ring *ring)
{
    void *m;

    if (ring == NULL)
        return;
    while (rte_ring_dequeue(ring, &m) == 0)
        rte_pktmbuf_free(m);
    rte_ring_free(ring);
}

static void free_rings(struct ring_link *link)
{
    for (unsigned d = 0; d < 2; d++)
        for (unsigned q = 0; q < link->queues; q++)
            free_ring(link->rings[d][q]);
    memset(link, 0, sizeof(*link));
}

static int create_rings(struct ring_link *link, const char *name, unsigned queues)
{
    char ring_name[RTE_RING_NAMESIZE];

    link->queues = queues;
    for (unsigned d = 0; d < 2; d++) {
        for (unsigned q = 0; q < queues; q++) {
            snprintf(ring_name, sizeof(ring_name), "%.16s%u%u", name, d, q);
            link->rings[d][q] = rte_ring_create(ring_name, IO_RING_SIZE, SOCKET_ID_ANY,
                                                RING_F_SP_ENQ | RING_F_SC_DEQ);
            if (link->rings[d][q] == NULL)
                return complain(rte_errno, name, "cannot create a ring");
        }
    }
    return 0;
}

/* Make side `d` of the link a port: it sends into rings[d] and receives from the other side's. */
static int open_ring_side(struct ring_link *link, const char *name, unsigned d)
{
    char device[64];
    int port;

    snprintf(device, sizeof(device), "%s_%c", name, "ab"[d]);
    port = rte_eth_from_rings(device, link->rings[1 - d], link->queues, link->rings[d],
                              link->queues, SOCKET_ID_ANY);
    if (port < 0)
        return complain(rte_errno != 0 ? rte_errno : EIO, name, "cannot create the device");
    link->ports[d] = (uint16_t)port;
    link->open[d] = true;
    return start_port(link->ports[d], name, link->queues, ring_setup_pool);
}

int io_open_ring(const char *name, unsigned queues, uint16_t ports[2])
{
    struct ring_link *link = ring_links;
    int rc = check_request(name, queues);

    if (rc != 0)
        return rc;
    while (link < ring_links + MAX_RINGS && link->queues != 0)
        link++;
    if (link == ring_links + MAX_RINGS)
        return complain(EMFILE, name, "too many ring links");
    /* ethdev insists on a pool at set-up although a ring port never allocates from it. */
    if (ring_setup_pool == NULL)
        ring_setup_pool = io_pool("io_ring_setup", 1);
    if (ring_setup_pool == NULL)
        return -ENOMEM;
    rc = create_rings(link, name, queues);
    for (unsigned d = 0; rc == 0 && d < 2; d++)
        rc = open_ring_side(link, name, d);
    if (rc == 0) {
        ports[0] = link->ports[0];
        ports[1] = link->ports[1];
        return 0;
    }
    for (unsigned d = 0; d < 2; d++)
        if (link->open[d])
            io_close(link->ports[d]);
    if (link->queues != 0)
        free_rings(link);
    return rc;
}

bool io_link_up(uint16_t port)
{
    struct rte_eth_link link;

    return rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

void io_close(uint16_t port)
{
    char device[RTE_ETH_NAME_MAX_LEN];
    bool named = rte_eth_dev_get_name_by_port(port, device) == 0;

    fault_detach(port);
    reconnect_forget(port);
    rte_eth_dev_stop(port);
    if (named)
        rte_vdev_uninit(device);
    for (struct ring_link *link = ring_links; link < ring_links + MAX_RINGS; link++) {
        for (unsigned d = 0; d < 2; d++)
            if (link->open[d] && link->ports[d] == port)
                link->open[d] = false;
        if (link->queues != 0 && !link->open[0] && !link->open[1])
            free_rings(link);
    }
}

struct rte_mempool *io_pool(const char *name, unsigned mbufs)
{
    /* Half the pool at most may rest in one lcore's cache. */
    unsigned cache = RTE_MIN(256u, mbufs / 4);
    struct rte_mempool *pool;

    /* Threads share cpus here, and with the default ring one preempted in the middle of an
     * operation would stall the others until it runs again; relaxed tail sync does not. */
    pool = rte_pktmbuf_pool_create_by_ops(name, mbufs, cache, 0, IO_HEADROOM + IO_FRAME_MAX,
                                          SOCKET_ID_ANY, "ring_mt_rts");
    if (pool == NULL)
        fprintf(stderr, "ftmb-node: pool %s of %u buffers: %s (raise memory_mb)\n", name, mbufs,
                rte_strerror(rte_errno));
    return pool;
}

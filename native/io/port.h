/* Links between roles, all of them DPDK ethdev ports: vhost-user between processes of a machine, a
 * ring inside a process; and the middlebox's own interfaces. A lane is one queue pair of a link;
 * pair q of one end is pair q of the other. One thread per lane and direction: lanes have no locks.
 */
#ifndef FTMB_IO_PORT_H
#define FTMB_IO_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "io/fault.h"

/* Most queue pairs of one link: the limit of net_virtio_user. */
#define IO_MAX_QUEUES 8
/* Descriptors per queue: the largest net_virtio_user accepts. */
#define IO_QUEUE_SIZE 256u
/* Frames per queue of a ring inside the process. */
#define IO_RING_SIZE 1024u
/* Data room of the pools: headroom for role headers, then the largest frame. */
#define IO_HEADROOM 128
#define IO_FRAME_MAX 2048
/* How long io_open_client() waits for the other end's socket. */
#define IO_CONNECT_TIMEOUT_MS 30000

struct io_lane {
    uint16_t port, queue;
};

/* Receive up to n frames; returns how many (0 also while the peer is away). */
static inline uint16_t io_rx(struct io_lane lane, struct rte_mbuf **m, uint16_t n)
{
    struct fault_link *fault = atomic_load_explicit(&io_fault[lane.port], memory_order_relaxed);
    if (__builtin_expect(fault != NULL, 0))
        return fault_rx(fault, lane.port, lane.queue, m, n);
    return rte_eth_rx_burst(lane.port, lane.queue, m, n);
}

/* Send up to n frames; returns how many were taken, which is fewer when the link is full or the
 * peer is away. The caller keeps the rest. A taken frame loses one reference later, when the peer
 * has consumed it. */
static inline uint16_t io_tx(struct io_lane lane, struct rte_mbuf **m, uint16_t n)
{
    struct fault_link *fault = atomic_load_explicit(&io_fault[lane.port], memory_order_relaxed);
    if (__builtin_expect(fault != NULL, 0) && fault_tx(fault, m, n))
        return n;
    return rte_eth_tx_burst(lane.port, lane.queue, m, n);
}

/* All io_open_*(): call from one thread of the process, since io_open_server() holds a lock of DPDK
 * while it waits for its peer; two processes with several links between them open them in the same
 * order. `name` is unique in the process ([a-z0-9_], at most 32 characters); `queues` is
 * 1..IO_MAX_QUEUES; both ends of a link must ask for the same number. Return 0 (and the port
 * number), or a negative errno after one line on stderr. */

/* The replica's end of a link (net_virtio_user, server): creates the socket `path`, removing a
 * stale one first, and BLOCKS until the peer connects. */
int io_open_server(const char *name, const char *path, unsigned queues, struct rte_mempool *rx_pool,
                   uint16_t *port);

/* The logger's end (net_vhost, client): waits up to IO_CONNECT_TIMEOUT_MS for the socket to exist
 * (-ETIMEDOUT), and returns without waiting for the link to come up (see io_link_up()). If the
 * peer dies, a later server on the same path is connected to within about a second. */
int io_open_client(const char *name, const char *path, unsigned queues, struct rte_mempool *rx_pool,
                   uint16_t *port);

/* A link inside the process (net_ring): what is sent on ports[0] queue q arrives at ports[1] queue
 * q, and back. Frames pass by reference, so no pool is needed. */
int io_open_ring(const char *name, unsigned queues, uint16_t ports[2]);

/* A network interface of this machine (net_pcap), one queue pair, promiscuous. Needs CAP_NET_RAW.
 * What leaves there, from here or from elsewhere on this machine, is not received. */
int io_open_interface(const char *name, const char *interface, struct rte_mempool *rx_pool,
                      uint16_t *port);

/* Any virtual device of DPDK's, with its arguments, as a port of `queues` pairs. For io/trunk. */
int io_open_device(const char *device, const char *arguments, const char *name, unsigned queues,
                   struct rte_mempool *rx_pool, uint16_t *port);

/* Whether the peer is connected (always true for a ring). Cheap enough to poll every millisecond,
 * not per frame. */
bool io_link_up(uint16_t port);

/* Stop and remove the port; frames in flight are freed. Both lanes' threads must have stopped. */
void io_close(uint16_t port);

/* A pool of `mbufs` buffers of IO_HEADROOM + IO_FRAME_MAX bytes. NULL after one line on stderr. */
struct rte_mempool *io_pool(const char *name, unsigned mbufs);

#endif

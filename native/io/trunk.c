/* Links over network interfaces (see trunk.h). */
#include "io/trunk.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "io/port.h"

#define BURST 32u
#define POOL_FRAMES 4096u
/* Frames that the kernel keeps for us, and for the interface, while nobody polls. */
#define KERNEL_FRAMES 4096u
/* Bytes of one of them, the kernel's own header included. */
#define KERNEL_FRAME_BYTES 2048u

struct trunk_link {
    struct trunk_head head; /* of what is sent there, but for queue and length */
    struct rte_mempool *pool;
    unsigned queues;
    uint16_t inner; /* the pump's side of the ring */
};

struct trunk {
    char interface[IF_NAMESIZE];
    uint16_t port;
    uint8_t mac[TRUNK_MAC_BYTES], trial[TRUNK_TRIAL_BYTES];
    struct rte_mempool *pool;
    struct trunk_link link[TRUNK_LINKS];
    unsigned links;
    _Atomic bool busy;
    uint64_t sent, received;
    uint64_t strange;  /* not ours, or of another trial: there is other traffic */
    uint64_t lost_in;  /* a link's ring or pool was full */
    uint64_t lost_out; /* the interface took no more */
};

static struct trunk trunks[TRUNK_MAX];
static unsigned trunk_count;

static int complain(int error, const char *interface, const char *what)
{
    fprintf(stderr, "ftmb-node: interface %s: %s: %s\n", interface, what, strerror(error));
    return -error;
}

/* Frames of roles must fit. */
static int check_interface(const char *interface)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return complain(errno, interface, "cannot ask for its MTU");
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    int error = ioctl(fd, SIOCGIFMTU, &request) ? errno : 0;
    int mtu = request.ifr_mtu;
    if (!error && ioctl(fd, SIOCGIFFLAGS, &request))
        error = errno;
    close(fd);
    if (error)
        return complain(error, interface, "no such interface here");
    if (mtu < (int)TRUNK_MTU) {
        fprintf(stderr,
                "ftmb-node: interface %s: its MTU of %d is too small for the frames between roles: "
                "`ip link set %s mtu %u`, also at its other end\n",
                interface, mtu, interface, TRUNK_MTU);
        return -EMSGSIZE;
    }
    if (!(request.ifr_flags & IFF_UP)) {
        fprintf(stderr, "ftmb-node: interface %s is down: `ip link set %s up`\n", interface,
                interface);
        return -ENETDOWN;
    }
    return 0;
}

struct trunk *trunk_open(const char *interface, enum trunk_driver driver,
                         const uint8_t trial[TRUNK_TRIAL_BYTES])
{
    char device[64], arguments[256], name[32];
    struct rte_ether_addr mac;
    if (trunk_count == TRUNK_MAX) {
        (void)complain(EMFILE, interface, "too many interfaces");
        return NULL;
    }
    if (check_interface(interface))
        return NULL;
    struct trunk *trunk = &trunks[trunk_count];
    snprintf(name, sizeof(name), "trunk_%u", trunk_count);
    snprintf(trunk->interface, sizeof(trunk->interface), "%s", interface);
    if (driver == TRUNK_AF_XDP) {
        snprintf(device, sizeof(device), "net_af_xdp_%s", name);
        snprintf(arguments, sizeof(arguments), "iface=%s,start_queue=0,queue_count=1", interface);
    } else {
        snprintf(device, sizeof(device), "net_af_packet_%s", name);
        snprintf(arguments, sizeof(arguments),
                 "iface=%s,qpairs=1,blocksz=65536,framesz=%u,framecnt=%u,qdisc_bypass=1", interface,
                 KERNEL_FRAME_BYTES, KERNEL_FRAMES);
    }
    trunk->pool = io_pool(name, POOL_FRAMES);
    if (!trunk->pool ||
        io_open_device(device, arguments, interface, 1, trunk->pool, &trunk->port) ||
        rte_eth_macaddr_get(trunk->port, &mac))
        return NULL;
    memcpy(trunk->mac, mac.addr_bytes, sizeof(trunk->mac));
    memcpy(trunk->trial, trial, sizeof(trunk->trial));
    trunk_count++;
    return trunk;
}

int trunk_add(struct trunk *trunk, uint8_t link, const uint8_t peer[TRUNK_MAC_BYTES],
              unsigned queues, struct rte_mempool *pool, uint16_t *port)
{
    char name[32];
    uint16_t ports[2];
    if (trunk->links == TRUNK_LINKS)
        return complain(EMFILE, trunk->interface, "too many links");
    snprintf(name, sizeof(name), "t%u_%u", (unsigned)(trunk - trunks), link);
    int error = io_open_ring(name, queues, ports);
    if (error)
        return error;
    struct trunk_link *added = &trunk->link[trunk->links++];
    *added = (struct trunk_link){.pool = pool, .queues = queues, .inner = ports[1]};
    memcpy(added->head.to, peer, sizeof(added->head.to));
    memcpy(added->head.from, trunk->mac, sizeof(added->head.from));
    memcpy(added->head.trial, trunk->trial, sizeof(added->head.trial));
    added->head.link = link;
    *port = ports[0];
    return 0;
}

/* ---- out ---------------------------------------------------------------------------------- */

/* A frame with its head, in a buffer of the trunk's; NULL: it does not fit, or there is none. */
static struct rte_mbuf *wrapped(const struct trunk *trunk, const struct trunk_link *link,
                                unsigned queue, const struct rte_mbuf *m)
{
    uint32_t length = rte_pktmbuf_pkt_len(m);
    struct rte_mbuf *out = length <= TRUNK_FRAME_MAX ? rte_pktmbuf_alloc(trunk->pool) : NULL;
    if (!out)
        return NULL;
    struct trunk_head *head =
        (struct trunk_head *)rte_pktmbuf_append(out, (uint16_t)(sizeof(*head) + length));
    *head = link->head;
    trunk_head_put(head, (uint8_t)queue, (uint16_t)length);
    memcpy(head + 1, rte_pktmbuf_mtod(m, const void *), length);
    return out;
}

static unsigned send_lane(struct trunk *trunk, const struct trunk_link *link, unsigned queue)
{
    struct rte_mbuf *in[BURST], *out[BURST];
    uint16_t count = rte_eth_rx_burst(link->inner, (uint16_t)queue, in, BURST), ready = 0;
    if (count == 0)
        return 0;
    for (uint16_t i = 0; i < count; i++) {
        out[ready] = wrapped(trunk, link, queue, in[i]);
        ready += out[ready] != NULL;
    }
    rte_pktmbuf_free_bulk(in, count);
    uint16_t taken = rte_eth_tx_burst(trunk->port, 0, out, ready);
    rte_pktmbuf_free_bulk(out + taken, (unsigned)(ready - taken));
    trunk->sent += taken;
    trunk->lost_out += count - taken;
    return count;
}

/* ---- in ----------------------------------------------------------------------------------- */

/* The link that a frame came on; NULL: none of ours. */
static const struct trunk_link *link_of(const struct trunk *trunk, const struct trunk_head *head)
{
    for (unsigned i = 0; i < trunk->links; i++) {
        const struct trunk_link *link = &trunk->link[i];
        if (link->head.link == head->link && head->queue < link->queues &&
            memcmp(link->head.to, head->from, sizeof(head->from)) == 0)
            return link;
    }
    return NULL;
}

static void deliver(struct trunk *trunk, const struct rte_mbuf *m)
{
    const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
    const struct trunk_head *head = (const struct trunk_head *)frame;
    uint16_t length = trunk_head_length(frame, rte_pktmbuf_data_len(m), trunk->mac, trunk->trial);
    const struct trunk_link *link =
        length && length <= TRUNK_FRAME_MAX ? link_of(trunk, head) : NULL;
    if (!link) {
        trunk->strange++;
        return;
    }
    struct rte_mbuf *copy = rte_pktmbuf_alloc(link->pool);
    if (copy) {
        memcpy(rte_pktmbuf_append(copy, length), head + 1, length);
        trunk->received++;
    }
    if (!copy || rte_eth_tx_burst(link->inner, head->queue, &copy, 1) == 0) {
        rte_pktmbuf_free(copy);
        trunk->lost_in++;
    }
}

static unsigned receive(struct trunk *trunk)
{
    struct rte_mbuf *m[BURST];
    uint16_t count = rte_eth_rx_burst(trunk->port, 0, m, BURST);
    for (uint16_t i = 0; i < count; i++)
        deliver(trunk, m[i]);
    rte_pktmbuf_free_bulk(m, count);
    return count;
}

unsigned trunk_poll(void *self)
{
    struct trunk *trunk = self;
    if (atomic_load_explicit(&trunk->busy, memory_order_relaxed) ||
        atomic_exchange_explicit(&trunk->busy, true, memory_order_acquire))
        return 0;
    unsigned moved = receive(trunk);
    for (unsigned i = 0; i < trunk->links; i++)
        for (unsigned queue = 0; queue < trunk->link[i].queues; queue++)
            moved += send_lane(trunk, &trunk->link[i], queue);
    atomic_store_explicit(&trunk->busy, false, memory_order_release);
    return moved;
}

json_t *trunk_stats(void)
{
    json_t *all = trunk_count ? json_object() : NULL;
    for (const struct trunk *t = trunks; t < trunks + trunk_count; t++)
        json_object_set_new(all, t->interface,
                            json_pack("{s:I,s:I,s:I,s:I,s:I}", "sent", (json_int_t)t->sent,
                                      "received", (json_int_t)t->received, "strange",
                                      (json_int_t)t->strange, "lost_in", (json_int_t)t->lost_in,
                                      "lost_out", (json_int_t)t->lost_out));
    return all;
}

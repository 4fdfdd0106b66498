/* Ring links: frames arrive where they were sent, a full ring refuses, closing frees the rest. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_lcore.h>

#include "check.h"
#include "io/eal.h"
#include "io/port.h"

#define BUFFERS 4096

static struct rte_mempool *pool;

static struct rte_mbuf *make_frame(uint32_t value)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

    CHECK(m != NULL && rte_pktmbuf_headroom(m) == IO_HEADROOM);
    CHECK(rte_pktmbuf_tailroom(m) == IO_FRAME_MAX);
    memcpy(rte_pktmbuf_append(m, sizeof(value)), &value, sizeof(value));
    return m;
}

static void check_crossing(struct io_lane from, struct io_lane to, uint32_t value)
{
    struct rte_mbuf *m = make_frame(value), *got[2];

    CHECK(io_tx(from, &m, 1) == 1);
    CHECK(io_rx(to, got, 2) == 1 && got[0] == m);
    CHECK(memcmp(rte_pktmbuf_mtod(m, void *), &value, sizeof(value)) == 0);
    CHECK(io_rx(to, got, 2) == 0 && io_rx(from, got, 2) == 0);
    rte_pktmbuf_free(m);
}

static void fill(struct io_lane lane)
{
    unsigned sent = 0;
    struct rte_mbuf *m;

    do
        m = make_frame(sent);
    while (io_tx(lane, &m, 1) == 1 && ++sent < BUFFERS);
    CHECK(sent == IO_RING_SIZE - 1);
    rte_pktmbuf_free(m); /* refused, so still ours */
    CHECK(rte_mempool_avail_count(pool) == BUFFERS - sent);
}

static int polls;

static int on_lcore(void *arg)
{
    polls++;
    return *(int *)arg + (int)rte_lcore_id();
}

int main(void)
{
    char dir[] = "/tmp/ftmb-test-XXXXXX";
    unsigned cpus[2] = {0, 0}, nowhere = 4000;
    uint16_t a[2], b[2];
    int argument = 40;

    CHECK(mkdtemp(dir) != NULL);
    CHECK(io_eal_init("ring", dir, 64, &nowhere, 1) < 0);
    CHECK(io_eal_init("ring", dir, 64, cpus, 2) == 0);
    CHECK(rte_lcore_id() == 2);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(rte_eal_remote_launch(on_lcore, &argument, i) == 0);
        CHECK(rte_eal_wait_lcore(i) == 40 + (int)i);
    }
    CHECK(polls == 2);
    pool = io_pool("frames", BUFFERS);
    CHECK(pool != NULL);
    CHECK(io_open_ring("a", 0, a) < 0 && io_open_ring("a", IO_MAX_QUEUES + 1, a) < 0);
    CHECK(io_open_ring("a", 2, a) == 0 && io_open_ring("b", 1, b) == 0);
    CHECK(io_link_up(a[0]) && io_link_up(a[1]));
    for (uint16_t q = 0; q < 2; q++)
        for (unsigned d = 0; d < 2; d++)
            check_crossing((struct io_lane){a[d], q}, (struct io_lane){a[1 - d], q}, 7 * q + d);
    check_crossing((struct io_lane){b[1], 0}, (struct io_lane){b[0], 0}, 99);
    fill((struct io_lane){a[0], 1});
    io_close(a[0]);
    io_close(a[1]);
    CHECK(rte_mempool_avail_count(pool) == BUFFERS);
    CHECK(io_open_ring("a", 1, a) == 0); /* the name is free again */
    check_crossing((struct io_lane){a[0], 0}, (struct io_lane){a[1], 0}, 5);
    io_eal_end();
    CHECK(rmdir(dir) == 0); /* nothing of DPDK's is left in it */
    return 0;
}

/* Faults of links, made on purpose: frames and messages are lost, repeated, reordered, delayed or
 * garbled by seed, and whole links are cut and restored.
 *
 * A link has a name: `il-<slot>`, `ol-<slot>` (DPDK ports, one at each end), `state-<slot>`,
 * `ctl-<slot>` (sockets). What happens to the n-th frame that arrives on a lane (link, end, queue)
 * is a function of the seed alone. Frames are disturbed where they arrive, so each direction of a
 * link belongs to the process that receives it; a cut works at either end, both ways.
 *
 * Nothing of this costs a link without faults more than the look at io_fault[] in io_rx() and
 * io_tx(). */
#ifndef FTMB_IO_FAULT_H
#define FTMB_IO_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <rte_mbuf.h>

#define FAULT_NAME_BYTES 16
#define FAULT_LINKS 32
/* Frames of one lane that can be held back; one more is lost instead, and counted. */
#define FAULT_HELD 128u

/* How one kind of link misbehaves: probabilities for each frame or message, 0 to 0.5. */
struct fault_rates {
    double drop;
    double repeat;
    double reorder; /* delivered behind 1 to 8 later ones */
    double delay;   /* held back for `delay_us` */
    double garble;  /* a damaged copy arrives too (frames only) */
    uint32_t delay_us;
};

struct fault_link;

/* How links of kind "il", "ol" or "state" behave. Before the links are made. */
void fault_configure(uint64_t seed, const char *kind, const struct fault_rates *rates);

/* Make, or find, the link of this name. `end` tells the two ends of a link apart (0: a logger, or
 * the process that sends; 1: a replica, or the one that receives). Main thread, at set-up. */
struct fault_link *fault_link(const char *name, unsigned end);

/* Cut or restore a link of this process. False: it has none of that name. Main thread. */
bool fault_cut(const char *name, bool cut);

/* Cheap, any thread. NULL is a link without faults. */
bool fault_is_cut(const struct fault_link *link);

/* The fate of the next message of a link between sockets; one thread for each link. A held message
 * is to be delivered behind the next one, or after `hold_us` if that comes first. */
enum fault_fate { FAULT_PASS, FAULT_DROP, FAULT_REPEAT, FAULT_HOLD };
enum fault_fate fault_message(struct fault_link *link, uint32_t *hold_us);

/* Counters by link, a new object; NULL when no link was ever disturbed. Threads have stopped. */
json_t *fault_stats(void);

/* ---- for io/port only --------------------------------------------------------------------- */

/* By port: the faults of its link; NULL (nearly always): none. */
extern _Atomic(struct fault_link *) io_fault[RTE_MAX_ETHPORTS];

/* Frames of this port are those of `link`, from now on or until the port is closed. */
void fault_attach(uint16_t port, struct fault_link *link);
void fault_detach(uint16_t port);

uint16_t fault_rx(struct fault_link *link, uint16_t port, uint16_t queue, struct rte_mbuf **m,
                  uint16_t n);

/* Of a cut link: all frames are taken and lost, as by a wire. Else false. */
bool fault_tx(struct fault_link *link, struct rte_mbuf **m, uint16_t n);

#endif

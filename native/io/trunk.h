/* A trunk: a network interface that carries links of this process to other hosts.
 *
 * To the roles a link is a ring port as inside a process. Behind the rings stands the trunk's pump,
 * which puts frames of all its links and lanes on the interface and takes them from there:
 * whichever lcore of the process is free polls it, one at a time, so it needs no thread and no CPU
 * of its own.
 *
 * An interface loses frames (a full ring, a cable, a host that is gone), which the streams recover,
 * and so does a trunk: it never waits. Frames are copied on the way, into buffers of the trunk or
 * of the link that receives them; so no link keeps another one's buffers. */
#ifndef FTMB_IO_TRUNK_H
#define FTMB_IO_TRUNK_H

#include <jansson.h>
#include <rte_mempool.h>

#include "core/wire.h"
#include "io/trunk_frame.h"

/* The longest frame of a role, and what the interface's MTU must therefore be. */
#define TRUNK_FRAME_MAX WIRE_MAX_FRAME
#define TRUNK_MTU (TRUNK_FRAME_MAX + (unsigned)sizeof(struct trunk_head) - 14u)

struct trunk;

/* Open `interface`: it must be up, with an MTU of at least TRUNK_MTU; needs CAP_NET_RAW. NULL after
 * one line on stderr. Main thread. */
struct trunk *trunk_open(const char *interface, enum trunk_driver driver,
                         const uint8_t trial[TRUNK_TRIAL_BYTES]);

/* Give link number `link` (the same at both ends) its place on the trunk: `peer` is the address of
 * the interface at its other end, `pool` has the buffers of what it receives. 0 and the roles'
 * port, or a negative errno after one line on stderr. Main thread, before the first poll. */
int trunk_add(struct trunk *trunk, uint8_t link, const uint8_t peer[TRUNK_MAC_BYTES],
              unsigned queues, struct rte_mempool *pool, uint16_t *port);

/* Move a burst each way, unless another thread is at it. Returns how many frames were moved. */
unsigned trunk_poll(void *trunk);

/* Counters by interface, a new object; NULL without trunks. Lcores have stopped. */
json_t *trunk_stats(void);

#endif

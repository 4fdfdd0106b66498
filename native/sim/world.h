/* What surrounds the system: traffic, faults, and the fleet that starts processes anew. */
#ifndef FTMB_SIM_WORLD_H
#define FTMB_SIM_WORLD_H

#include "sim/sim.h"

void world_reset(void);
/* Whatever is due now: faults, restarts. Between two steps of the system. */
void world_events(void);
/* When something is due next. */
uint64_t world_next_ns(void);

/* Fetch the packet that stands at the IL's door, if one does; it was accepted. */
bool world_offer(struct packet_in *packet);
void world_accepted(void);
/* Has all traffic been offered? */
bool world_drained(void);

void world_died(const struct proc *proc);
/* Is everything done that was to be done, and quiet? */
bool world_finished(void);

/* run.c: the set of coroutines that may run has changed. */
void world_actors_changed(void);

#endif

/* Running one schedule. */
#ifndef FTMB_SIM_RUN_H
#define FTMB_SIM_RUN_H

#include "sim/sim.h"

/* True: no invariant was broken. Else sim.invariant and sim.violation say which and how. */
bool sim_run(const struct sim_config *config, bool trace);

#endif

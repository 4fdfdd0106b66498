/* The shortest schedule that still fails. */
#ifndef FTMB_SIM_SHRINK_H
#define FTMB_SIM_SHRINK_H

#include "sim/run.h"

/* Narrow `options` as far as the schedule still breaks the same invariant. Returns how many
 * schedules that took; 0: it does not fail at all. */
uint32_t shrink(uint64_t seed, struct sim_options *options);

/* The command line that runs it again. */
void shrink_command(char *out, size_t size, uint64_t seed, const struct sim_options *options);

#endif

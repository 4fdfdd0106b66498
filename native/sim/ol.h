/* The simulated output logger, between its two files. */
#ifndef FTMB_SIM_OL_H
#define FTMB_SIM_OL_H

#include "sim/sim.h"

void ol_control_start(void);
void ol_fence(void);
void ol_begin(uint32_t slot, uint32_t view, uint32_t incarnation, const struct snapshot_cut *cut);
bool ol_covers(const struct snapshot_cut *cut);
void ol_trim(const struct snapshot_cut *cut);
bool ol_release_all(void);

#endif

/* The table of planted bugs, and the search for each of them. */
#ifndef FTMB_SIM_PLANTS_H
#define FTMB_SIM_PLANTS_H

#include "sim/totals.h"

/* Number of the bug called "P07" or by its name; 0: there is none. */
unsigned plants_find(const char *name);

/* Switch on each bug in turn and run schedules until it is found, `limit` at most. Non-zero if one
 * that is this checker's to find was not found. */
int plants_run(const struct plan *plan, uint64_t limit, const char *json);

#endif

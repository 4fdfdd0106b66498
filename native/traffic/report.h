/* What a run leaves behind: the statistics of the role, and its files. */
#ifndef FTMB_TRAFFIC_REPORT_H
#define FTMB_TRAFFIC_REPORT_H

#include "traffic/config.h"
#include "traffic/hiccup.h"
#include "traffic/tally.h"

/* The counters of a run; `start_ns` is CLOCK_MONOTONIC at its start. tally_finish() came before.
 *
 * lost = sent - delivered: what a function dropped on purpose looks like loss from here. `exact` is
 * false if the sink ran out of memory for what was missing or under way. */
json_t *report_stats(const struct tally *t, uint64_t start_ns);

/* Write the files that `config` names; hiccup_stop() came before. 0, or -1 with a line in `why`. */
int report_files(const struct tally *t, const struct hiccup *h, const struct traffic_config *config,
                 char *why);

#endif

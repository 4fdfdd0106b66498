/* The machine's own stalls: a thread per cpu that wants to wake up every millisecond, and notes how
 * late it was. What it sees while nothing else changes is not the fault of what is measured. */
#ifndef FTMB_TRAFFIC_HICCUP_H
#define FTMB_TRAFFIC_HICCUP_H

#include "core/base.h"

#include <jansson.h>

#define HICCUP_MAX_CPUS 64

struct hiccup;

/* Start one thread on each of `cpus`, not recording yet. With real-time priority where the system
 * allows it (a thread of a polled cpu would otherwise measure how the scheduler shares that cpu).
 * Returns NULL after filling `why` (of TRAFFIC_WHY bytes): a cpu that does not exist, no memory. */
struct hiccup *hiccup_start(const unsigned *cpus, unsigned count, char *why);

/* Record or not from now on; cheap, any thread. */
void hiccup_record(struct hiccup *h, bool on);

/* End the threads. hiccup_json() afterwards. */
void hiccup_stop(struct hiccup *h);
void hiccup_free(struct hiccup *h);

/* Whether all threads run with real-time priority. */
bool hiccup_fifo(const struct hiccup *h);

/* {"<cpu>": {"count", "p50", "p99", "p999", "max", "over_1ms"}, ...}, nanoseconds of lateness.
 * Wakes missed during a stall are counted with the lateness each of them had: the schedule is
 * fixed. */
json_t *hiccup_json(const struct hiccup *h);

/* {"version": 1, "unit": "ns", "cpus": {"<cpu>": <histogram_json()>, ...}}: all that they saw. */
json_t *hiccup_dump(const struct hiccup *h);

#endif

/* What a role is like while it works, for whoever watches: read beside it, at the command
 * `telemetry`. Nothing is counted for it, and nobody waits: counters are read as they stand, each
 * by itself, so two of them may differ by what happened in between. */
#ifndef FTMB_ROLES_TELEMETRY_H
#define FTMB_ROLES_TELEMETRY_H

#include "roles/input_logger.h"
#include "roles/output_logger.h"
#include "roles/replica.h"

json_t *il_telemetry(const struct input_logger *il);
json_t *ol_telemetry(const struct output_logger *ol);
json_t *replica_telemetry(const struct replica *replica);

#endif

/* What a chain is told: for each stage NF_STAGE_VALUES numbers, the first of them 1 + the
 * function's place in the registry (0: no more stages), then the function's parameters in their
 * order. */
#ifndef FTMB_NF_CHAIN_H
#define FTMB_NF_CHAIN_H

#include "nf/nf.h"

/* Make `nf`, of the registry, stage number `stage`, with its defaults. Where its parameters are. */
uint64_t *chain_set(uint64_t *values, unsigned stage, const struct nf *nf);

/* The arena of a stage, for tests of its function's state. */
struct arena *chain_part(struct arena *arena, unsigned stage);

#endif

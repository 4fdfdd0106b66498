/* Random programs over shared variables, run by real threads: recorded, and replayed.
 *
 * A world is one replica without its links: an arena, W workers, and programs that are a pure
 * function of a seed and of the values they meet, so that a different order shows. */
#ifndef FTMB_TESTS_REPLAY_WORLD_H
#define FTMB_TESTS_REPLAY_WORLD_H

#include "core/replay.h"

#define WORLD_MAX_VARIABLES 16u
#define WORLD_MAX_PACKETS 256u
#define WORLD_MAX_PALS 8192u /* of one worker, in one run */

struct world_shape {
    uint64_t seed; /* of the programs */
    uint32_t workers;
    uint32_t variables;
    uint32_t packets; /* of each worker, in all */
    uint32_t steps;   /* most accesses or sections of a packet */
    bool reads_locked;
    bool exact;
};

/* What a worker did in one packet. */
struct world_output {
    uint64_t content;
    uint64_t pals;                     /* count after it, from the start */
    uint64_t vector[FTMB_MAX_WORKERS]; /* what it may depend on */
};

struct world_worker {
    struct ftmb_ctx ctx;
    struct world *world;
    uint64_t timing; /* decides where this thread yields: nothing else may depend on it */
    uint64_t noise;  /* stands for the outside world: what determinants are made of */
    uint64_t pals[WORLD_MAX_PALS]; /* appended in this run */
    struct world_output output[WORLD_MAX_PACKETS];
};

struct world {
    struct world_shape shape;
    uint64_t size;
    struct arena *arena;
    struct ctx_env env;
    struct published_count published[FTMB_MAX_WORKERS];
    uint64_t vectors[WORLD_MAX_VARIABLES * FTMB_MAX_WORKERS];
    struct world_worker worker[FTMB_MAX_WORKERS];
    uint32_t until; /* packets to run up to */
};

struct world *world_open(struct world_shape shape);
void world_close(struct world *world);

/* Take over the state of a copy of the arena, as a promoted backup: no vectors, no PALs. */
void world_restore(struct world *world, const void *arena);

/* Let all workers run until each has done `packets` packets since the start; with a replay, in its
 * order first. Threads begin together. */
void world_run(struct world *world, uint32_t packets, struct replay *replay, uint64_t timing);

/* Values of the variables and private states of the workers. */
uint64_t world_digest(const struct world *world);

#endif

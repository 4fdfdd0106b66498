/* What a network function implements, and all that it may use (docs/INTERFACE.md says why).
 *
 * A function is `init` and `process` plus its state in the arena. It may use the arena, shared
 * variables (core/shared.h), ftmb_now/ftmb_elapsed/ftmb_random, ftmb_determinant() for what only
 * the outside knows, and nothing else that is not deterministic: no clock, no random source, no
 * lock, no allocation but arena_alloc(). The build refuses the usual ones (nf_poison.h). The same
 * inputs in the same order of accesses must give the same outputs, byte for byte.
 *
 * State is what `init` takes from the arena with arena_alloc(): memory shared by all workers, or
 * one worker's. It refers to itself by offsets and indices. Which shared variable protects which
 * part of the shared memory is the function's choice; it says so at the head of its file.
 *
 * All its allocation is in init(), and of `arena` it uses what core/arena.h has functions for, with
 * cursors of arena_whole(): then it can be a stage of a chain too (nf/chain.h).
 *
 * Before it stores into the arena it says so, with ftmb_mark(): snapshots take with them what was
 * marked. `ft.check` finds a mark that was forgotten. */
#ifndef FTMB_NF_H
#define FTMB_NF_H

#include "core/shared.h"

#ifdef FTMB_PLANTS
uint64_t plant_clock(void);
uint64_t plant_random(void);
#else
static inline uint64_t plant_clock(void)
{
    return 0;
}
static inline uint64_t plant_random(void)
{
    return 0;
}
#endif

#define NF_MAX_PARAMS 48
#define NF_STAGES 4 /* of a chain (nf/chain.h) */
#define NF_STAGE_VALUES (1 + NF_MAX_PARAMS)
#define NF_MAX_VALUES (NF_STAGES * NF_STAGE_VALUES)

/* Sides of a middlebox. */
enum nf_port { NF_INSIDE = 0, NF_OUTSIDE = 1 };

/* A packet in the worker's hands. `data` may be changed in place; `length` may shrink, or grow up
 * to `capacity`. Never NULL, never shorter than what the wire delivered. */
struct nf_packet {
    uint8_t *data;
    uint32_t length;
    uint32_t capacity;
    uint8_t port; /* the side it came in at; after ftmb_emit(): the side it leaves at */
};

enum nf_param_kind { NF_UINT, NF_IPV4, NF_FLAG };

struct nf_param {
    const char *name;
    enum nf_param_kind kind;
    uint64_t value; /* default */
    uint64_t min;
    uint64_t max;
    const char *help;
};

/* Counters and checks of a function, reported after a run. */
struct nf_report {
    void *self;
    void (*counter)(void *self, const char *name, uint64_t value);
    void (*check)(void *self, const char *name, bool ok, const char *detail);
};

/* What a function needs, as a result of its parameters. */
struct nf_needs {
    uint64_t shared_bytes; /* arena memory for all workers */
    uint64_t worker_bytes; /* arena memory of each worker */
    uint32_t variables;    /* shared ones: ids are 0 .. variables - 1 */
    uint32_t max_pals;     /* per input, worst case, <= 1024 */
    uint32_t max_outputs;  /* per input: 0 or 1 */
};

struct nf {
    const char *name;
    bool placed;     /* its code names its state by address: the arena must lie at ARENA_ADDRESS */
    uint32_t stages; /* a chain: its values are those of so many stages (nf/chain.h) */
    const struct nf_param *params; /* ends with name == NULL */
    /* Parameters are given in the order of `params`. False: they contradict each other; `why`
     * (of 160 bytes) says how. */
    bool (*needs)(const uint64_t *params, uint32_t workers, struct nf_needs *needs, char *why);
    /* Build the initial state; returns the root object, in the arena. NULL: arena too small. */
    void *(*init)(struct arena *arena, const uint64_t *params);
    /* May be NULL. Ask the processor for what process() will touch: called for every packet of a
     * burst with stage 0, then with stage 1, before the first process(). A hint: it reads without
     * ordering, so it may store nothing and nothing may follow from what it saw. */
    void (*prefetch)(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage);
    /* One packet, to completion: bounded, without an open section at its end. Without ftmb_emit()
     * the packet is dropped. */
    void (*process)(struct ftmb_ctx *ctx, struct nf_packet *packet);
    /* A millisecond without input passed (ctx now is the tick's stamp). May be NULL. */
    void (*tick)(struct ftmb_ctx *ctx);
    /* At the end of a run, when no worker runs: counters, and the function's
     * invariants. It changes nothing. */
    void (*report)(struct arena *arena, const struct nf_report *report);
};

/* All functions of this build, NULL at the end (registry.c). */
extern const struct nf *const nf_registry[];
const struct nf *nf_find(const char *name);

/* Forward the packet in hand to `port`. At most once per input. */
static inline void ftmb_emit(struct ftmb_ctx *ctx, struct nf_packet *packet, enum nf_port port)
{
    FTMB_ASSERT(!ctx->emitted);
    packet->port = (uint8_t)port;
    ctx->emitted = packet;
}

/* Time of the input in hand: its stamp, in nanoseconds. Never the machine's clock. */
static inline uint64_t ftmb_now(const struct ftmb_ctx *ctx)
{
    return PLANTED(P_NF_CLOCK) ? plant_clock() : ctx->now_ns;
}

/* Nanoseconds since `since`, 0 if that lies ahead: stamps of different workers are not ordered. */
static inline uint64_t ftmb_elapsed(const struct ftmb_ctx *ctx, uint64_t since)
{
    uint64_t now = ftmb_now(ctx);
    return now > since ? now - since : 0;
}

/* Deterministic random numbers (xorshift64*), seeded in the arena, one sequence per worker. */
static inline uint64_t ftmb_random(struct ftmb_ctx *ctx)
{
    if (PLANTED(P_NF_RANDOM))
        return plant_random();
    uint64_t x = ctx->cursor->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    ctx->cursor->random = x;
    return x * 0x2545f4914f6cdd1dull;
}

#endif

/* Random programs: rich in nested sections, branches on data, variables chosen by data.
 *
 * What a packet does is a pure function of the program's seed and of the values that it meets, and
 * all values are hashes of what was seen before: whatever happens in another order leaves other
 * values, and they reach an output. */
#include <string.h>

#include "core/hash.h"
#include "sim/program.h"

#define SECTION_PALS 7u
#define STEPS 3u
#define MAX_PALS (STEPS * (SECTION_PALS + 1))
#define BLOCKS 16u /* of a worker's own memory */
#define BLOCK_BYTES 256u

enum { PARAM_VARIABLES, PARAM_SEED, PARAM_STRIDE };

/* What a worker has for itself: a word that all it saw goes into, and blocks that it allocates as
 * it goes along. */
struct own {
    uint64_t word;
    uint64_t blocks;
    uint64_t block_at[BLOCKS];
};

struct random_state {
    uint32_t variables;
    uint64_t seed;
    uint64_t own_at[SIM_WORKERS]; /* offsets */
    uint64_t values_at;
    uint64_t stride; /* between values: many to a line, or few */
};

static uint64_t foreign; /* (planted) state outside of the arena */

static struct random_state *state_of(const struct ftmb_ctx *ctx)
{
    return arena_root(ctx->arena);
}

static void *at(const struct ftmb_ctx *ctx, uint64_t offset)
{
    return (uint8_t *)ctx->arena + offset;
}

static struct own *all_own(const struct ftmb_ctx *ctx)
{
    return at(ctx, state_of(ctx)->own_at[ctx->worker]);
}

static const uint64_t *own(const struct ftmb_ctx *ctx)
{
    return &all_own(ctx)->word;
}

/* Two words a variable, so that half a write shows. */
static uint64_t *value_of(const struct ftmb_ctx *ctx, uint32_t x)
{
    return at(ctx, state_of(ctx)->values_at + x * state_of(ctx)->stride);
}

static void learn(struct ftmb_ctx *ctx, uint64_t seen)
{
    uint64_t *word = &all_own(ctx)->word;
    ftmb_mark(ctx, word, sizeof(*word));
    *word = hash_mix(*word, seen);
}

/* Private memory, also some that is new. */
static void private_step(struct ftmb_ctx *ctx, uint64_t r)
{
    struct own *mine = all_own(ctx);
    uint64_t i = r % BLOCKS;
    if (i >= mine->blocks) {
        void *block = arena_alloc(ctx->arena, 1 + ctx->worker, 8 + r / 16 % BLOCK_BYTES, 8);
        FTMB_ASSERT(block);
        ftmb_mark(ctx, mine, sizeof(*mine));
        i = mine->blocks++;
        mine->block_at[i] = (uint64_t)((uint8_t *)block - (uint8_t *)ctx->arena);
    }
    uint64_t *block = at(ctx, mine->block_at[i]);
    learn(ctx, *block);
    ftmb_mark(ctx, block, sizeof(*block));
    *block = mine->word;
}

static void change(struct ftmb_ctx *ctx, uint32_t x)
{
    uint64_t *value = value_of(ctx, x);
    if (!PLANTED(P_NF_NO_MARK))
        ftmb_mark(ctx, value, 2 * sizeof(*value));
    uint64_t before = value[0];
    SIM_POINT();
    if (value[1] != ~before && before)
        sim_fail("I3", "variable %u is half-written under its own lock", x);
    learn(ctx, before);
    uint64_t after = hash_mix(before, *own(ctx)) | 1;
    value[0] = after;
    SIM_POINT();
    value[1] = ~after;
}

static void end_section(struct ftmb_ctx *ctx)
{
    for (unsigned i = 0; i < ctx->held_count; i++)
        oracle_version(ctx, ctx->held[i], value_of(ctx, ctx->held[i])[0]);
    ftmb_section_end(ctx);
}

static void read_one(struct ftmb_ctx *ctx, uint32_t x)
{
    const uint64_t *value = value_of(ctx, x);
    uint64_t token, first, second;
    for (unsigned round = 0;; round++) {
        token = ftmb_read_begin(ctx, x);
        first = *(const volatile uint64_t *)&value[0];
        SIM_POINT();
        second = *(const volatile uint64_t *)&value[1];
        if (ftmb_read_end(ctx, x, token))
            break;
        cover(COVER_READ_AGAIN);
    }
    if (second != ~first && (first || second))
        sim_fail("I3", "a read of variable %u accepts half a write", x);
    learn(ctx, first);
}

static void determinant(struct ftmb_ctx *ctx)
{
    learn(ctx, ftmb_determinant(ctx, program_noise()));
}

/* Several variables, in the order of their ids; what comes next depends on what was seen. */
static void section(struct ftmb_ctx *ctx, uint32_t x)
{
    uint32_t variables = state_of(ctx)->variables;
    ftmb_write(ctx, x);
    change(ctx, x);
    while (ctx->section_pals + 2 <= SECTION_PALS) {
        uint64_t r = *own(ctx);
        uint32_t y = x + 1 + (uint32_t)(r / 16 % 2);
        if (r % 16 < 2)
            break;
        if (r % 16 == 2) {
            determinant(ctx);
        } else if (r % 16 < 5) {
            read_one(ctx, x); /* held: not logged */
            change(ctx, x);
        } else if (y >= variables) {
            break;
        } else if (r % 16 < 10) {
            read_one(ctx, y);
            if (ctx->held[ctx->held_count - 1] == y)
                x = y; /* reads are locked: it is held now */
            change(ctx, ctx->held[0]);
        } else {
            ftmb_write(ctx, y);
            change(ctx, y);
            x = y;
        }
    }
    end_section(ctx);
}

static void step(struct ftmb_ctx *ctx, uint64_t r)
{
    uint32_t x = (uint32_t)(r / 16 % state_of(ctx)->variables);
    switch (r % 16) {
    case 0:
    case 1:
        ftmb_write(ctx, x);
        change(ctx, x);
        end_section(ctx);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        read_one(ctx, x);
        break;
    case 6:
        learn(ctx, ftmb_random(ctx));
        break;
    case 7:
        determinant(ctx);
        break;
    case 8:
        learn(ctx, ftmb_elapsed(ctx, r % 1000000));
        break;
    case 9:
    case 10:
        private_step(ctx, r / 16);
        break;
    default:
        section(ctx, x / 2);
    }
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    learn(ctx, hash_bytes(packet->port, packet->data, packet->length));
    learn(ctx, ftmb_now(ctx));
    if (PLANTED(P_NF_STATIC_STATE))
        learn(ctx, foreign++ % 4 == 0);
    uint64_t seed = state_of(ctx)->seed;
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t r = hash_mix(*own(ctx) ^ seed, i);
        if (r % 8 == 7)
            break;
        step(ctx, r / 8);
    }
    uint64_t result[2] = {*own(ctx), hash_mix(*own(ctx), ftmb_now(ctx))};
    if (*own(ctx) % 8 == 0)
        return;
    memcpy(packet->data + packet->length - sizeof(result), result, sizeof(result));
    ftmb_emit(ctx, packet, *own(ctx) % 2 ? NF_OUTSIDE : NF_INSIDE);
}

static void tick(struct ftmb_ctx *ctx)
{
    learn(ctx, ftmb_now(ctx));
    if (*own(ctx) % 2)
        section(ctx, 0);
}

static bool needs(const uint64_t *params, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)workers;
    (void)why;
    *out = (struct nf_needs){.shared_bytes = sizeof(struct random_state) + 2 * CACHE_LINE +
                                             params[PARAM_VARIABLES] * params[PARAM_STRIDE],
                             .worker_bytes = sizeof(struct own) + BLOCKS * (BLOCK_BYTES + 16),
                             .variables = (uint32_t)params[PARAM_VARIABLES],
                             .max_pals = MAX_PALS,
                             .max_outputs = 1};
    return true;
}

static void *init(struct arena *arena, const uint64_t *params)
{
    struct random_state *state = arena_alloc(arena, 0, sizeof(*state), CACHE_LINE);
    state->variables = (uint32_t)params[PARAM_VARIABLES];
    state->seed = params[PARAM_SEED];
    state->stride = params[PARAM_STRIDE];
    void *values = arena_alloc(arena, 0, state->variables * state->stride, CACHE_LINE);
    state->values_at = (uint64_t)((uint8_t *)values - (uint8_t *)arena);
    for (uint32_t w = 0; w < arena->workers; w++) {
        uint8_t *word = arena_alloc(arena, 1 + w, sizeof(struct own), CACHE_LINE);
        state->own_at[w] = (uint64_t)(word - (uint8_t *)arena);
    }
    return state;
}

static const struct nf nf_random = {
    .name = "random", .needs = needs, .init = init, .process = process, .tick = tick};

static void params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 6);
    out[PARAM_VARIABLES] = sim.config.variables;
    out[PARAM_SEED] = rng_next(&rng);
    out[PARAM_STRIDE] = 16u << 2 * rng_below(&rng, 3);
}

static void packet(struct packet_in *packet)
{
    struct program_flow flow = {.source = 0x0a000000u + rng_below(&sim.traffic, 64),
                                .destination = 0xc0a80001u,
                                .source_port = (uint16_t)rng_between(&sim.traffic, 1000, 1100),
                                .destination_port = 80,
                                .protocol = 17};
    packet->port = (uint8_t)rng_below(&sim.traffic, 2);
    packet->length = program_frame(packet->bytes, &flow, rng_next(&sim.traffic), 0);
}

const struct program program_random = {.name = "random",
                                       .nf = &nf_random,
                                       .section_pals = SECTION_PALS,
                                       .params = params,
                                       .packet = packet};

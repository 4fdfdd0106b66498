/* chain: several functions in one replica, one after the other (nat, then firewall, then monitor).
 *
 * A packet from inside goes through the stages in their order, one from outside in the opposite
 * order; what a stage sends to the outside the next one gets from inside, and the other way round.
 * What leaves the last stage, or the first, leaves the chain. A stage may send a packet back to
 * where it came from (an answer, a hairpin): it turns round, and goes through the stages that it
 * had passed once more. One that turns a second time is dropped, dropped_turned. A tick goes to
 * all.
 *
 * Each stage has a part of the arena (arena_part()) with a root of its own, and its variables are
 * numbered from 0, as if it were alone: the context says while it runs where they begin in the
 * whole (`first_id`). So functions need not know of chains, with these exceptions: all allocation
 * is in init(), cursors are those of arena_whole(), and there is no address that a stage could ask
 * for (`placed`).
 *
 * Shared variables, accesses: those of the stages. No section spans two stages. PALs at most: twice
 * the sum, as a packet that turns meets a stage twice. Input of any kind: what the stages do with
 * it, in turn. Invariants: those of the stages, each reported under its name. */
#include "nf/chain.h"

struct stage {
    uint64_t part_at; /* offset from the arena's base */
    uint32_t nf;      /* its place in the registry */
    uint32_t first_id;
};

struct chain {
    uint32_t stages;
    struct stage stage[NF_STAGES];
    uint64_t worker_at[FTMB_MAX_WORKERS]; /* offsets from the arena's base */
};

struct worker_state {
    CACHE_ALIGNED uint64_t turned; /* dropped for that */
};

#define MAX_PALS 1024u /* nf.h */
#define NAME_BYTES 96u

static const struct nf_param params[] = {{NULL, NF_UINT, 0, 0, 0, NULL}};

/* ---- what it is told ---------------------------------------------------------------------- */

uint64_t *chain_set(uint64_t *values, unsigned stage, const struct nf *nf)
{
    uint64_t *own = values + (uint64_t)stage * NF_STAGE_VALUES;
    uint64_t number = 0;
    FTMB_ASSERT(stage < NF_STAGES);
    while (nf_registry[number] != nf) {
        FTMB_ASSERT(nf_registry[number]);
        number++;
    }
    own[0] = 1 + number;
    for (unsigned i = 0; nf->params[i].name; i++)
        own[1 + i] = nf->params[i].value;
    return own + 1;
}

static const struct nf *stage_nf(const uint64_t *values, unsigned stage)
{
    uint64_t number = values[(uint64_t)stage * NF_STAGE_VALUES];
    return number ? nf_registry[number - 1] : NULL;
}

static const uint64_t *stage_params(const uint64_t *values, unsigned stage)
{
    return values + (uint64_t)stage * NF_STAGE_VALUES + 1;
}

/* Append `text`, up to a limit; returns where the next one goes. */
static char *put(char *at, const char *end, const char *text)
{
    while (*text && at + 1 < end)
        *at++ = *text++;
    *at = 0;
    return at;
}

static bool refuse(char *why, unsigned stage, const struct nf *nf, const char *text)
{
    char number[] = {'s', 't', 'a', 'g', 'e', (char)('1' + stage), 0};
    const char *end = why + 160;
    char *at = put(why, end, number);
    if (nf) {
        at = put(at, end, ", ");
        at = put(at, end, nf->name);
    }
    at = put(at, end, ": ");
    put(at, end, text);
    return false;
}

static bool add_stage(const uint64_t *values, unsigned stage, uint32_t workers,
                      struct nf_needs *sum, char *why)
{
    const struct nf *nf = stage_nf(values, stage);
    struct nf_needs own;
    char inner[160] = "";
    if (nf->stages)
        return refuse(why, stage, nf, "a chain cannot be a stage of another");
    if (nf->placed)
        return refuse(why, stage, nf, "its code names its state by address, so it runs alone");
    if (!nf->needs(stage_params(values, stage), workers, &own, inner))
        return refuse(why, stage, nf, inner);
    sum->shared_bytes += arena_part_shared_bytes(own.shared_bytes);
    sum->worker_bytes += arena_part_worker_bytes(own.worker_bytes);
    if (own.variables > FTMB_MAX_VARIABLES - sum->variables)
        return refuse(why, stage, nf, "too many variables together with the stages before it");
    sum->variables += own.variables;
    sum->max_pals += 2 * own.max_pals;
    if (sum->max_pals > MAX_PALS)
        return refuse(why, stage, nf, "too many PALs a packet together with the stages before it");
    return true;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    *out = (struct nf_needs){
        /* Parts begin at a line. */
        .shared_bytes = sizeof(struct chain) + CACHE_LINE + ARENA_LINE,
        .worker_bytes = sizeof(struct worker_state) + CACHE_LINE + ARENA_LINE,
        .max_outputs = 1,
    };
    if (!stage_nf(values, 0))
        return refuse(why, 0, NULL, "a chain needs its first function");
    for (unsigned s = 0; s < NF_STAGES; s++) {
        const struct nf *nf = stage_nf(values, s);
        if (nf && s > 0 && !stage_nf(values, s - 1))
            return refuse(why, s, nf, "there is none before it");
        if (nf && !add_stage(values, s, workers, out, why))
            return false;
    }
    return true;
}

/* ---- stages ------------------------------------------------------------------------------- */

struct arena *chain_part(struct arena *arena, unsigned stage)
{
    const struct chain *chain = arena_root(arena);
    return (struct arena *)((uint8_t *)arena + chain->stage[stage].part_at);
}

static struct worker_state *worker_of(struct arena *arena, const struct chain *chain,
                                      uint32_t worker)
{
    return (struct worker_state *)((uint8_t *)arena + chain->worker_at[worker]);
}

static bool init_stage(struct arena *arena, struct chain *chain, const uint64_t *values,
                       uint32_t *variables)
{
    unsigned s = chain->stages++;
    const struct nf *nf = stage_nf(values, s);
    struct nf_needs own;
    char why[160];
    if (!nf->needs(stage_params(values, s), arena->workers, &own, why))
        return false;
    struct arena *part =
        arena_part(arena, own.shared_bytes, own.worker_bytes, *variables, own.variables);
    uint8_t *root = part ? nf->init(part, stage_params(values, s)) : NULL;
    if (!root)
        return false;
    part->root_offset = (uint64_t)(root - (uint8_t *)part);
    /* How much is allocated is in no cursor and no snapshot's header, so it stays as it is. */
    for (uint32_t e = 0; e <= arena->workers; e++)
        part->extents[e].limit = part->extents[e].used;
    chain->stage[s] = (struct stage){
        .part_at = (uint64_t)((uint8_t *)part - (uint8_t *)arena),
        .nf = (uint32_t)values[(uint64_t)s * NF_STAGE_VALUES] - 1,
        .first_id = *variables,
    };
    *variables += own.variables;
    return true;
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct chain *chain = arena_alloc(arena, 0, sizeof(*chain), CACHE_LINE);
    uint32_t variables = 0;
    if (!chain)
        return NULL;
    for (uint32_t w = 0; w < arena->workers; w++) {
        uint8_t *worker = arena_alloc(arena, 1 + w, sizeof(struct worker_state), CACHE_LINE);
        if (!worker)
            return NULL;
        chain->worker_at[w] = (uint64_t)(worker - (uint8_t *)arena);
    }
    for (unsigned s = 0; s < NF_STAGES && stage_nf(values, s); s++) {
        if (!init_stage(arena, chain, values, &variables))
            return NULL;
    }
    return chain;
}

/* What differs in a context between the whole and a stage. */
struct place {
    struct arena *arena;
    _Atomic uint64_t *seq;
    uint64_t *vectors;
    uint32_t variables;
    uint32_t first_id;
};

static struct place place_of(const struct ftmb_ctx *ctx)
{
    return (struct place){ctx->arena, ctx->seq, ctx->vectors, ctx->variables, ctx->first_id};
}

static void move_to(struct ftmb_ctx *ctx, const struct place *place)
{
    ctx->arena = place->arena;
    ctx->seq = place->seq;
    ctx->vectors = place->vectors;
    ctx->variables = place->variables;
    ctx->first_id = place->first_id;
}

/* The context becomes that of a stage; returns its function. */
static const struct nf *enter(struct ftmb_ctx *ctx, const struct place *whole,
                              const struct stage *stage)
{
    struct arena *part = (struct arena *)((uint8_t *)whole->arena + stage->part_at);
    struct place place = {
        .arena = part,
        .seq = whole->seq + stage->first_id,
        .vectors = ctx->exact ? whole->vectors + (uint64_t)stage->first_id * ctx->workers : NULL,
        .variables = part->variables,
        .first_id = PLANTED(P_CHAIN_ONE_NUMBERING) ? 0 : stage->first_id,
    };
    move_to(ctx, &place);
    return nf_registry[stage->nf];
}

static bool run_stage(struct ftmb_ctx *ctx, const struct place *whole, const struct stage *stage,
                      struct nf_packet *packet)
{
    enter(ctx, whole, stage)->process(ctx, packet);
    move_to(ctx, whole);
    bool emitted = ctx->emitted != NULL;
    ctx->emitted = NULL;
    return emitted;
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct place whole = place_of(ctx);
    const struct chain *chain = arena_root(whole.arena);
    uint32_t at = packet->port == NF_INSIDE ? 0 : chain->stages - 1;
    bool turned = false;
    for (;;) {
        uint8_t from = packet->port;
        if (!run_stage(ctx, &whole, &chain->stage[at], packet)) {
            if (!PLANTED(P_CHAIN_DROPPED_LEAVES))
                return;
            packet->port = 1 - from;
        }
        if (packet->port == from) {
            if (turned) {
                struct worker_state *worker = worker_of(whole.arena, chain, ctx->worker);
                ftmb_mark(ctx, worker, sizeof(*worker));
                worker->turned++;
                return;
            }
            turned = true;
        }
        if (at == (packet->port == NF_OUTSIDE ? chain->stages - 1 : 0))
            break;
        at += packet->port == NF_OUTSIDE ? 1 : UINT32_MAX;
        packet->port = packet->port == NF_OUTSIDE ? NF_INSIDE : NF_OUTSIDE;
    }
    ftmb_emit(ctx, packet, (enum nf_port)packet->port);
}

static void tick(struct ftmb_ctx *ctx)
{
    const struct place whole = place_of(ctx);
    const struct chain *chain = arena_root(whole.arena);
    for (uint32_t s = 0; s < chain->stages; s++) {
        const struct nf *nf = enter(ctx, &whole, &chain->stage[s]);
        if (nf->tick)
            nf->tick(ctx);
    }
    move_to(ctx, &whole);
}

/* Hints of the stages, as if none changed the packet for the next. */
static void prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned when)
{
    struct ftmb_ctx *own = (struct ftmb_ctx *)(uintptr_t)ctx; /* as it was when this returns */
    const struct place whole = place_of(ctx);
    const struct chain *chain = arena_root(whole.arena);
    for (uint32_t s = 0; s < chain->stages; s++) {
        const struct nf *nf = enter(own, &whole, &chain->stage[s]);
        if (nf->prefetch)
            nf->prefetch(ctx, packet, when);
    }
    move_to(own, &whole);
}

/* ---- report ------------------------------------------------------------------------------- */

/* A stage's report, under its name. */
struct named {
    const struct nf_report *out;
    const char *name;
    char number; /* of a function that is there more than once; 0: the first */
};

static void full_name(const struct named *named, const char *name, char *to)
{
    const char number[] = {named->number, 0};
    char *at = put(to, to + NAME_BYTES, named->name);
    at = put(at, to + NAME_BYTES, number);
    at = put(at, to + NAME_BYTES, ".");
    put(at, to + NAME_BYTES, name);
}

static void named_counter(void *self, const char *name, uint64_t value)
{
    const struct named *named = self;
    char full[NAME_BYTES];
    full_name(named, name, full);
    named->out->counter(named->out->self, full, value);
}

static void named_check(void *self, const char *name, bool ok, const char *detail)
{
    const struct named *named = self;
    char full[NAME_BYTES];
    full_name(named, name, full);
    named->out->check(named->out->self, full, ok, detail);
}

static void report(struct arena *arena, const struct nf_report *out)
{
    const struct chain *chain = arena_root(arena);
    uint64_t turned = 0;
    for (uint32_t w = 0; w < arena->workers; w++)
        turned += worker_of(arena, chain, w)->turned;
    out->counter(out->self, "dropped_turned", turned);
    for (uint32_t s = 0; s < chain->stages; s++) {
        const struct nf *nf = nf_registry[chain->stage[s].nf];
        struct named named = {out, nf->name, 0};
        unsigned before = 0;
        for (uint32_t other = 0; other < s; other++)
            before += chain->stage[other].nf == chain->stage[s].nf;
        if (before)
            named.number = (char)('1' + before);
        nf->report(chain_part(arena, s), &(struct nf_report){&named, named_counter, named_check});
    }
}

const struct nf nf_chain = {
    .name = "chain",
    .stages = NF_STAGES,
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = prefetch,
    .process = process,
    .tick = tick,
    .report = report,
};

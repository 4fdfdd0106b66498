/* mortal: a TEST FUNCTION, of no use in production. It forwards every frame to the other side and
 * counts them in one shared counter, like a monitor without flows; but a packet that carries the
 * mark kills its process, each time that it is processed. So it is what a poison input needs: the
 * master dies of it, and the backup dies of it again when it replays. With `forgets` it also makes
 * the mistake that `ft.check` is there to find: it stores without ftmb_mark(). With `back` packets
 * turn round in it, which a chain must bear. With `draws` some get their IPv4 identification from
 * outside, from something that differs in each process: a determinant.
 *
 * The mark is the beginning of the trailer that the generator puts into every packet: the packet's
 * flow and its number in the flow (traffic/trailer.h). */
#include "nf/checksum.h"
#include "nf/nf.h"
#include "nf/packet.h"

#define TRAILER_BYTES 16u

enum { PARAM_FLOW, PARAM_NUMBER, PARAM_ASSERTION, PARAM_FORGETS, PARAM_BACK, PARAM_DRAWS };

static const struct nf_param params[] = {
    {"flow", NF_UINT, 0, 0, UINT32_MAX, "test function: flow of the packet that kills"},
    {"number", NF_UINT, 0, 0, UINT32_MAX,
     "test function: that packet's number in its flow, from 0; 0: no packet kills"},
    {"assertion", NF_FLAG, 0, 0, 1,
     "test function: die of a broken assertion (else of a bad address)"},
    {"forgets", NF_FLAG, 0, 0, 1, "test function: change its counters without marking them"},
    {"back", NF_UINT, 0, 0, 3,
     "test function: send back what comes from 1 inside, 2 outside, 3 both; 0: nothing"},
    {"draws", NF_UINT, 0, 0, UINT32_MAX,
     "test function: how many packets of a worker for each whose identification comes from "
     "outside; "
     "0: none"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

struct mortal {
    uint32_t flow;
    uint32_t number;
    bool assertion;
    bool forgets;
    uint8_t back; /* a bit for each side */
    uint32_t draws;
    CACHE_ALIGNED uint64_t packets; /* variable 0 */
    uint64_t of_worker[FTMB_MAX_WORKERS];
};

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)workers;
    (void)why;
    *out = (struct nf_needs){.shared_bytes = sizeof(struct mortal) + 2 * CACHE_LINE,
                             .worker_bytes = CACHE_LINE,
                             .variables = 1,
                             .max_pals = values[PARAM_DRAWS] ? 3 : 1,
                             .max_outputs = 1};
    return true;
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct mortal *mortal = arena_alloc(arena, 0, sizeof(*mortal), CACHE_LINE);
    if (!mortal)
        return NULL;
    mortal->flow = (uint32_t)values[PARAM_FLOW];
    mortal->number = (uint32_t)values[PARAM_NUMBER];
    mortal->assertion = values[PARAM_ASSERTION] != 0;
    mortal->forgets = values[PARAM_FORGETS] != 0;
    mortal->back = (uint8_t)values[PARAM_BACK];
    mortal->draws = (uint32_t)values[PARAM_DRAWS];
    return mortal;
}

static bool marked(const struct mortal *mortal, struct nf_packet *packet)
{
    struct packet_view view;
    if (!mortal->number || packet_parse(&view, packet->data, packet->length) > PACKET_ECHO ||
        view.l4_bytes < UDP_BYTES + TRAILER_BYTES)
        return false;
    const uint8_t *trailer = view.l4 + ((view.l4_bytes - TRAILER_BYTES) & ~1u);
    return packet_load32(trailer) == mortal->flow && packet_load32(trailer + 4) == mortal->number;
}

/* Where this process keeps its worker is what a replay elsewhere would find different. */
static void draw(struct ftmb_ctx *ctx, const struct mortal *mortal, struct nf_packet *packet)
{
    struct packet_view view;
    if (!mortal->draws || mortal->of_worker[ctx->worker] % mortal->draws ||
        packet_parse(&view, packet->data, packet->length) >= PACKET_NOT_IPV4)
        return;
    uint64_t value = ftmb_determinant(ctx, (uintptr_t)ctx);
    uint16_t before = packet_load16(view.ip + 4), after = (uint16_t)(value >> 4);
    packet_store16(view.ip + 4, after);
    checksum_patch(view.ip + 10, checksum_delta16(before, after));
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    struct mortal *mortal = arena_root(ctx->arena);
    if (unlikely(marked(mortal, packet))) {
        bool may_live = !mortal->assertion;
        FTMB_ASSERT(may_live);
        int *volatile nowhere = NULL;
        /* cppcheck-suppress nullPointer ; the purpose */
        *nowhere = 1; /* NOLINT(clang-analyzer-core.NullDereference) */
    }
    draw(ctx, mortal, packet);
    ftmb_write(ctx, 0);
    if (!mortal->forgets)
        ftmb_mark(ctx, mortal, sizeof(*mortal));
    mortal->packets++;
    mortal->of_worker[ctx->worker]++;
    ftmb_section_end(ctx);
    bool back = mortal->back >> packet->port & 1;
    ftmb_emit(ctx, packet, (packet->port == NF_INSIDE) == back ? NF_INSIDE : NF_OUTSIDE);
}

static void report(struct arena *arena, const struct nf_report *out)
{
    const struct mortal *mortal = arena_root(arena);
    uint64_t sum = 0;
    for (uint32_t w = 0; w < arena->workers; w++)
        sum += mortal->of_worker[w];
    out->counter(out->self, "packets", mortal->packets);
    out->check(out->self, "sums", sum == mortal->packets,
               sum == mortal->packets ? "the shared counter equals its workers' packets"
                                      : "the shared counter differs from its workers' packets");
}

const struct nf nf_mortal = {
    .name = "mortal",
    .params = params,
    .needs = needs,
    .init = init,
    .process = process,
    .report = report,
};

/* A network function made of plain_odd.c (see odd_nf.h). */
#include "tests/odd_nf.h"

#include <string.h>

#include "inject/inject.h"

INJECT_IMAGE(odd);

void (*odd_wait)(unsigned thread);

enum { PARAM_HEAP };

static const struct nf_param params[] = {
    {"heap", NF_UINT, 64, 0, 1u << 30, "bytes that it asks for; it is given 256"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)values;
    (void)workers;
    return inject_needs(&image, 256, 64, out, why);
}

static void *init(struct arena *arena, const uint64_t *values)
{
    if (!inject_open(arena, &image, 256) || odd_open(values[PARAM_HEAP]))
        return NULL;
    return inject_opened();
}

static unsigned deed_of(const struct nf_packet *packet)
{
    static const unsigned allowed[] = {ODD_STORES, ODD_ATOMICS, ODD_NESTED,
                                       ODD_CLOCK,  ODD_RANDOM,  ODD_FALSE_SHARING};
    if (packet->length == 2 && packet->data[0] == ODD_MARK)
        return packet->data[1];
    unsigned sum = 0;
    for (uint32_t i = 0; i < packet->length; i++)
        sum = sum * 31 + packet->data[i];
    return allowed[(sum >> 4) % 6];
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    inject_enter(ctx);
    uint64_t result = odd_do(ctx->worker, deed_of(packet), odd_wait);
    inject_leave();
    if (packet->length >= sizeof(result))
        memcpy(packet->data + packet->length - sizeof(result), &result, sizeof(result));
    ftmb_emit(ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
}

static void report(struct arena *arena, const struct nf_report *out)
{
    (void)arena;
    out->counter(out->self, "sum", odd_sum());
    out->check(out->self, "statics", odd_read()->statics != 0, "a deed was done");
}

const struct nf nf_odd = {
    .name = "odd",
    .placed = true,
    .params = params,
    .needs = needs,
    .init = init,
    .process = process,
    .report = report,
};

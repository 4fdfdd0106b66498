/* nat-pthread: the NAT of native/plain, which knows nothing of FTMB. Here is what cannot be seen in
 * its code: its name, its parameters, and how much it allocates and accesses. */
#include "inject/inject.h"

#include <string.h>

#include "nf/nat_params.h"
#include "plain/nat.h"

_Static_assert(NAT_PORTS == NAT_ADDRESS_PORTS, "as the parameters say");

static const struct nf_param params[] = {
    NAT_PARAM_ROWS(NAT_MAX_ADDRESSES),
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

INJECT_IMAGE(nat_pthread);

/* The sweep: a look at each of four stripes, three accesses for each of eight removals. A packet:
 * a stripe and a pool for each address that is tried, and the end that is found; or one from
 * outside: the end, and its stripe. */
#define MAX_PALS (4u + 3u * 8u + 2u * NAT_MAX_ADDRESSES + 1u)

/* More than it asks for: 32 bytes a mapping, 64 for four buckets, of which there are fewer than
 * two a mapping. */
static uint64_t heap_bytes(uint64_t capacity)
{
    uint64_t buckets = 4;
    while (buckets < capacity)
        buckets *= 2;
    return 32 * capacity + 16 * buckets + 256;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    (void)workers;
    const char *wrong = nat_params_wrong(values);
    if (wrong) {
        memcpy(why, wrong, strlen(wrong) + 1);
        return false;
    }
    return inject_needs(&image, heap_bytes(values[CAPACITY]), MAX_PALS, out, why);
}

static void *init(struct arena *arena, const uint64_t *values)
{
    const struct nat_config config = {
        .threads = arena->workers,
        .outside = (uint32_t)values[OUTSIDE],
        .addresses = (unsigned)values[ADDRESSES],
        .capacity = (unsigned)values[CAPACITY],
        .udp_ms = values[UDP_MS],
        .tcp_ms = values[TCP_MS],
        .transitory_ms = values[TRANSITORY_MS],
        .icmp_ms = values[ICMP_MS],
    };
    if (!inject_open(arena, &image, heap_bytes(values[CAPACITY])))
        return NULL;
    return nat_open(&config) == 0 ? inject_opened() : NULL;
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    inject_enter(ctx);
    int port = nat_frame(ctx->worker, packet->port, packet->data, packet->length);
    inject_leave();
    if (port != NAT_DROP)
        ftmb_emit(ctx, packet, port == 0 ? NF_INSIDE : NF_OUTSIDE);
}

static void tick(struct ftmb_ctx *ctx)
{
    inject_enter(ctx);
    nat_idle(ctx->worker);
    inject_leave();
}

static const char *const names[NAT_COUNTS] = {
    [NAT_OUTBOUND] = "outbound",         [NAT_INBOUND] = "inbound",
    [NAT_CREATED] = "mappings_created",  [NAT_EXPIRED] = "mappings_expired",
    [NAT_NO_PORT] = "dropped_no_port",   [NAT_NO_MAPPING] = "dropped_no_mapping",
    [NAT_HAIRPIN] = "dropped_hairpin",   [NAT_NOT_IPV4] = "dropped_not_ipv4",
    [NAT_FRAGMENT] = "dropped_fragment", [NAT_ICMP] = "dropped_icmp",
    [NAT_PROTOCOL] = "dropped_protocol", [NAT_MALFORMED] = "dropped_malformed",
};

static void report(struct arena *arena, const struct nf_report *out)
{
    struct nat_totals t;
    (void)arena;
    nat_read(&t);
    for (unsigned c = 0; c < NAT_COUNTS; c++)
        out->counter(out->self, names[c], t.count[c]);
    out->counter(out->self, "mappings", t.mappings);
    out->check(out->self, "chains", t.chained,
               t.chained ? "every mapping is in its own bucket, once, and no other has its end"
                         : "a chain of the mapping table is broken, or an end has two mappings");
    out->check(out->self, "slots", t.conserved,
               t.conserved ? "free and used endpoints are all endpoints"
                           : "endpoints were lost or doubled");
    out->check(out->self, "counted", t.counted,
               t.counted ? "created less expired is what is there"
                         : "created less expired differs from the mappings that are there");
}

const struct nf nf_nat_pthread = {
    .name = "nat-pthread",
    .placed = true,
    .params = params,
    .needs = needs,
    .init = init,
    .process = process,
    .tick = tick,
    .report = report,
};

/* monitor-pthread: the monitor of native/plain, which knows nothing of FTMB. Here is what cannot be
 * seen in its code: its name, its parameters, and how much it allocates and accesses. */
#include "inject/inject.h"

#include "plain/monitor.h"

enum { PARAM_FLOWS, PARAM_SAMPLE };

static const struct nf_param params[] = {
    {"flows", NF_UINT, 16384, 1, 1u << 20, "flows that a worker can count one by one"},
    {"sample_every", NF_UINT, 1000, 0, UINT32_MAX,
     "packets, on average, of which the head of one is kept; 0: none"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

INJECT_IMAGE(monitor_pthread);

/* Totals; a sample: its lock and the totals; a new flow: services, twice, and its service. */
#define MAX_PALS 6u

/* More than it asks for: 48 bytes a flow in a table of up to 8/3 as many places. */
static uint64_t heap_bytes(uint64_t flows, uint32_t workers)
{
    uint64_t places = 4;
    while (places * 3 < flows * 4)
        places *= 2;
    return workers * (places * 48 + 16) + MONITOR_SAMPLES * (MONITOR_SAMPLE_BYTES + 32ull) + 16;
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    uint64_t heap = heap_bytes(values[PARAM_FLOWS], workers);
    return inject_needs(&image, heap, MAX_PALS, out, why);
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct monitor_config config = {.threads = arena->workers,
                                    .flows = (unsigned)values[PARAM_FLOWS],
                                    .sample_every = (unsigned)values[PARAM_SAMPLE]};
    if (!inject_open(arena, &image, heap_bytes(values[PARAM_FLOWS], arena->workers)))
        return NULL;
    return monitor_open(&config) == 0 ? inject_opened() : NULL;
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    inject_enter(ctx);
    unsigned port = monitor_frame(ctx->worker, packet->port, packet->data, packet->length);
    inject_leave();
    ftmb_emit(ctx, packet, port == 0 ? NF_INSIDE : NF_OUTSIDE);
}

static void report(struct arena *arena, const struct nf_report *out)
{
    struct monitor_totals t;
    (void)arena;
    monitor_read(&t);
    out->counter(out->self, "packets", t.packets);
    out->counter(out->self, "bytes", t.bytes);
    out->counter(out->self, "flows", t.flows);
    out->counter(out->self, "untracked", t.untracked);
    out->counter(out->self, "samples", t.samples);
    bool sums = t.packets == t.by_thread && t.bytes == t.bytes_thread;
    bool flows = t.by_flow == t.by_thread && t.by_service == t.flows;
    out->check(out->self, "sums", sums,
               sums ? "the totals equal the threads' packets and bytes"
                    : "the totals differ from the threads' packets or bytes");
    out->check(out->self, "flows", flows,
               flows ? "flows, untracked packets and services add up"
                     : "flows, untracked packets and services do not add up");
}

const struct nf nf_monitor_pthread = {
    .name = "monitor-pthread",
    .placed = true,
    .params = params,
    .needs = needs,
    .init = init,
    .process = process,
    .report = report,
};

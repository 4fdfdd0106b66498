/* A chain under simulation: a NAT and a monitor, in either order, and at times a firewall after
 * them, with the NAT's traffic. What must be true is what must be of the NAT alone: its functions'
 * own checks see to the rest. */
#include "nf/chain.h"
#include "sim/program.h"

extern const struct nf nf_chain, nf_firewall, nf_monitor, nf_nat;

enum { NAT_ADDRESSES = 1, NAT_CAPACITY, NAT_UDP_MS, NAT_TIMEOUTS = 4, NAT_DATAGRAMS = 7 };
enum { FIREWALL_CAPACITY, FIREWALL_WINDOW = 2, FIREWALL_UDP_MS };

static unsigned nat_stage; /* of this run */

static void params(uint64_t *out)
{
    struct rng rng = rng_stream(sim.config.seed, 12);
    memset(out, 0, NF_MAX_VALUES * sizeof(*out));
    nat_stage = rng_below(&rng, 2);
    uint64_t *nat = chain_set(out, nat_stage, &nf_nat);
    nat[NAT_ADDRESSES] = 1;
    nat[NAT_CAPACITY] = rng_between(&rng, 8, 24);
    nat[NAT_DATAGRAMS] = 8;
    nat[NAT_DATAGRAMS + 1] = 1;
    for (unsigned i = 0; i < NAT_TIMEOUTS; i++)
        nat[NAT_UDP_MS + i] = 1;
    uint64_t *monitor = chain_set(out, 1 - nat_stage, &nf_monitor);
    monitor[0] = rng_between(&rng, 1, 3);
    monitor[2] = 16;
    if (rng_below(&rng, 2))
        return;
    uint64_t *firewall = chain_set(out, 2, &nf_firewall);
    firewall[FIREWALL_CAPACITY] = 8;
    firewall[FIREWALL_WINDOW] = 0;
    for (unsigned i = 0; i < NAT_TIMEOUTS; i++)
        firewall[FIREWALL_UDP_MS + i] = 1;
}

static void processed(struct worker *worker, const struct wire_input *in,
                      const struct nf_packet *packet)
{
    program_nat_check(chain_part(worker->ctx.arena, nat_stage), worker, in, packet);
}

const struct program program_chain = {.name = "chain",
                                      .nf = &nf_chain,
                                      .section_pals = 3,
                                      .params = params,
                                      .packet = program_nat_packet,
                                      .processed = processed,
                                      .delivered = program_nat_delivered};

/* What the simulated middlebox does: real network functions and random programs, with the traffic
 * that they are to meet and what must be true of them. */
#ifndef FTMB_SIM_PROGRAM_H
#define FTMB_SIM_PROGRAM_H

#include "sim/sim.h"

/* What the oracle keeps of a function per process. */
#define SIM_FLOWS 64u
struct program_ghost {
    uint64_t latest_ns; /* greatest stamp that any worker has seen */
    struct {
        uint64_t key;
        uint64_t outside; /* endpoint it was last seen with; 0: none yet */
        uint64_t stamp_ns;
    } flow[SIM_FLOWS];
    uint32_t flows;
};

struct program {
    const char *name;
    const struct nf *nf;
    uint32_t section_pals; /* of its longest section */
    void (*params)(uint64_t *params);
    /* The next packet that is offered. */
    void (*packet)(struct packet_in *packet);
    /* A worker begins an input, in a replay too. May be NULL. */
    void (*begins)(const struct wire_input *in);
    /* A packet was processed by `worker`; `out` NULL: dropped. May be NULL. */
    void (*processed)(struct worker *worker, const struct wire_input *in,
                      const struct nf_packet *out);
    /* An output has left. May be NULL. */
    void (*delivered)(const uint8_t *bytes, uint32_t length, uint8_t port);
};

extern const struct program program_random, program_nat, program_monitor, program_ratelimit,
    program_firewall, program_lb, program_wanopt, program_ids;

/* A section of `ctx` leaves `value` in variable `id`: what was logged must leave the same again. */
void oracle_version(struct ftmb_ctx *ctx, uint32_t id, uint64_t value);

/* Values from outside the state: each call another. */
uint64_t program_noise(void);

/* A UDP or TCP frame with a payload of 16 bytes; returns its length. */
struct program_flow {
    uint32_t source, destination; /* host order, as are the ports */
    uint16_t source_port, destination_port;
    uint8_t protocol, tcp_flags;
};
struct program_flow program_flow_of(const uint8_t *bytes);
uint32_t program_frame(uint8_t *bytes, const struct program_flow *flow, uint64_t a, uint64_t b);

#endif

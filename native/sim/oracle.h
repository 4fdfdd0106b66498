/* The oracle: knows what truly happened, and checks the invariants against it.
 *
 * Its knowledge comes from hooks at the instants themselves (core/sim_point.h), never from what
 * the protocol wrote down: a *ghost vector* per variable and worker names the PALs that it truly
 * depends on. It is kept per process, since a replica's past is what that replica did. */
#ifndef FTMB_SIM_ORACLE_H
#define FTMB_SIM_ORACLE_H

#include "sim/sim.h"

struct oracle {
    uint32_t master_uid; /* whose frames count, since the present view began */
    uint32_t accepted_count[SIM_WORKERS];
    uint64_t accepted[SIM_WORKERS][SIM_INPUTS]; /* hashes of what the IL accepted, by number */
    uint64_t released_count[SIM_WORKERS];
    uint64_t released[SIM_WORKERS][SIM_OUTPUTS]; /* hashes, by number */
    uint64_t delivered[SIM_WORKERS];             /* number of the latest */
    uint64_t skippable[SIM_WORKERS]; /* released up to here were in the hands of an OL that died */
    uint64_t delivered_count;
    uint64_t lost_in_hand;
    uint64_t past[SIM_WORKERS];     /* join of the true pasts of all released outputs */
    uint64_t verified[SIM_WORKERS]; /* PALs up to here were found in the OL's store */
    /* The history behind the base that the OL committed last. */
    uint64_t base_outputs[SIM_WORKERS][SIM_OUTPUTS];
};

void oracle_reset(void);

/* At the IL: an input got its number. */
void oracle_accepted(uint32_t w, uint64_t number, const uint8_t *bytes, uint32_t length,
                     uint8_t port, uint64_t stamp_ns, bool tick);
/* At a worker: an input is begun; a packet was processed; an output was made. */
void oracle_input(struct worker *worker, const struct wire_input *in);
void oracle_packet(struct worker *worker, const struct wire_input *in, const struct nf_packet *out);
void oracle_produced(struct worker *worker, struct frame *frame);
/* At the OL. */
void oracle_taken(const struct frame *frame);
void oracle_released(uint32_t w, const struct frame *frame);
void oracle_delivered(uint32_t w, const struct frame *frame);
void oracle_committed(const struct snapshot_cut *cut);
void oracle_cut(const uint64_t *pals, const uint64_t *stored);
void oracle_view_begins(struct proc *master);
void oracle_ol_restarted(void);
/* At a replica: promoted from its base; what the function says of its state. */
void oracle_promoted(struct proc *proc);
void oracle_report(struct arena *image);
/* Cuts (oracle_cut.c): an epoch is flipped; a worker begins and ends an input, comes to shared
 * state; the master counts all as joined; a standby prepared a snapshot; the OL committed one; a
 * new master starts from one. */
void oracle_cuts_reset(void);
void oracle_begins(struct worker *worker);
void oracle_ends(struct worker *worker);
void oracle_shared(struct worker *worker);
void oracle_complete(struct proc *proc);
void oracle_prepared(const struct proc *proc);
void oracle_base(struct base_name name);
void oracle_adopted(const struct proc *proc);
void oracle_starts(const struct proc *proc, struct base_name name);
/* When all is quiet again. */
void oracle_end(struct proc *master);

#endif

/* The simulated output logger, between its files. */
#ifndef FTMB_SIM_OL_H
#define FTMB_SIM_OL_H

#include "sim/sim.h"

static inline bool ol_present(uint32_t slot)
{
    return sim.ol.state.member[slot].present;
}

void ol_control_start(void);
void ol_send(int slot, const struct message *message);
void ol_send_type(int slot, enum message_type type);
void ol_send_il(const struct message *message);
void ol_tell_backup(uint32_t slot, bool anew);
struct message ol_committed_message(void);
void ol_handover_committed(void);

/* ol_commit.c */
void ol_try_commit(void);
void ol_on_prepared(uint32_t slot, const struct message *message);
void ol_look_at_logs(void);

/* ol.c */
void ol_fence(void);
void ol_begin(uint32_t slot, uint32_t view, uint32_t incarnation, const struct snapshot_cut *cut);
bool ol_covers(const struct snapshot_cut *cut);
void ol_trim(const struct snapshot_cut *cut);
bool ol_release_all(void);

#endif

/* The output logger's control thread, between its files. */
#ifndef FTMB_ROLES_OL_CONTROL_H
#define FTMB_ROLES_OL_CONTROL_H

#include "roles/output_logger.h"

/* Let the lcore do `ol->job` as `kind`; returns its result. */
bool ol_run_job(struct output_logger *ol, enum ol_job_kind kind);

/* ol_keep.c: keep `ol->state`. Before anything is done about a decision. */
void ol_decided(struct output_logger *ol);

/* ol_hub.c: connections. Who is not there (NULL), or does not read, learns the state when it joins
 * again; nobody is waited for. */
struct ol_connection *ol_replica(struct output_logger *ol, int slot);
struct ol_connection *ol_input_logger(struct output_logger *ol);
void ol_send(struct output_logger *ol, struct ol_connection *to, enum message_type type,
             const void *body, size_t length);
void ol_fence_out(struct output_logger *ol, struct ol_connection *connection);
int ol_hub_open(struct output_logger *ol);
void ol_hub_poll(struct output_logger *ol, int ms);

/* ol_control.c */
void ol_on_message(struct output_logger *ol, struct ol_connection *from,
                   const struct control_msg *message);
void ol_tell_protection(struct output_logger *ol);
void ol_send_committed(struct output_logger *ol, struct ol_connection *to);

/* ol_members.c: who comes and goes. */
void ol_hello(struct output_logger *ol, struct ol_connection *from,
              const struct control_msg *message);
void ol_connection_lost(struct output_logger *ol, int slot, bool is_il);
void ol_member_gone(struct output_logger *ol, uint32_t slot, const char *kind);
void ol_tell_backup(struct output_logger *ol, uint32_t slot);
void ol_tell_view(struct output_logger *ol);
void ol_take_up_members(struct output_logger *ol);
void ol_look_for_silence(struct output_logger *ol, uint64_t now);

/* ol_failover.c */
void ol_promote(struct output_logger *ol);
void ol_master_failed(struct output_logger *ol, const char *kind);
void ol_cut_arrived(struct output_logger *ol, struct ol_connection *from,
                    const struct control_msg *message);
void ol_await_heir(struct output_logger *ol, uint64_t now);

/* ol_handover.c */
void ol_handover_look(struct output_logger *ol, uint64_t now);
void ol_handover_committed(struct output_logger *ol);

#endif

/* The output logger's control thread, between its files. */
#ifndef FTMB_ROLES_OL_CONTROL_H
#define FTMB_ROLES_OL_CONTROL_H

#include "roles/output_logger.h"

/* Let the lcore do `ol->job` as `kind`; returns its result. */
bool ol_run_job(struct output_logger *ol, enum ol_job_kind kind);

/* The connection of the replica in `slot`, or of the input logger; NULL: none. */
struct ol_connection *ol_replica(struct output_logger *ol, int slot);
struct ol_connection *ol_input_logger(struct output_logger *ol);

/* To nobody (NULL) is fine: who is not there learns the state when it joins. */
void ol_send(struct output_logger *ol, struct ol_connection *to, uint16_t type, const void *body,
             size_t length);

void ol_set_protected(struct output_logger *ol, bool is_protected);

/* ol_members.c: who comes and goes. */
void ol_hello(struct output_logger *ol, struct ol_connection *from,
              const struct control_msg *message);
void ol_member_gone(struct output_logger *ol, uint32_t slot, const char *kind);
void ol_tell_backup(struct output_logger *ol, uint32_t slot, bool present);
void ol_tell_view(struct output_logger *ol, const uint64_t *next_input);

/* ol_failover.c */
void ol_master_failed(struct output_logger *ol, const char *kind);
void ol_cut_arrived(struct output_logger *ol, struct ol_connection *from,
                    const struct control_msg *message);

#endif

/* A real output logger in a process of its own, of one worker and three slots; it calls nobody
 * silent. Replicas and the input logger may be the test. */
#ifndef FTMB_TESTS_OL_PEER_H
#define FTMB_TESTS_OL_PEER_H

#include "tests/replica_peer.h"

/* In the directory that peer_begin() made; ol_peer_end() removes it with DPDK's own in it. */
pid_t ol_peer_start(void);
void ol_peer_end(void);

/* One to whom its replicas stand on other hosts. */
pid_t ol_peer_start_apart(void);

/* As a replica: say hello, and what must come. */
struct peer ol_peer_hello(struct msg_hello hello);
void ol_peer_expect_welcome(struct peer *peer, uint32_t incarnation, bool active, bool rejoined);
void ol_peer_expect_backup(struct peer *peer, uint32_t slot, bool present, uint64_t base_epoch);

/* As the input logger. Credit is told whenever it changes, and left out here. */
struct peer ol_peer_hello_il(void);
const struct control_msg *ol_peer_next_of_il(struct peer *il);

#endif

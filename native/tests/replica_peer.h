/* A real replica in a process of its own, without workers' cores; its peers (the output logger, and
 * a master or backups) are the test. */
#ifndef FTMB_TESTS_REPLICA_PEER_H
#define FTMB_TESTS_REPLICA_PEER_H

#include <sys/types.h>

#include "core/standby.h"
#include "io/control.h"
#include "roles/messages.h"
#include "tests/check.h"

/* A connection's end in the test. */
struct peer {
    int fd;
    struct control_buf buffer;
};

extern char peer_dir[64];

struct node_config;
struct replica;

/* What a test wants to be otherwise; NULL: as it is. Set before anything else. */
extern void (*peer_adjust)(struct node_config *config);
/* What the replica's main thread does, for ever; NULL: it sleeps. */
extern void (*peer_run)(struct replica *replica);

/* Make the runtime directory; remove it with all that is in it. */
void peer_begin(void);
void peer_end(void);

/* Start a replica in `slot` of three; listen for it first. Its events go to the test's stdout. */
pid_t peer_start(uint32_t slot);
uint64_t peer_config_digest(void);

/* Map an arena like that replica's, in its initial state. */
struct arena *peer_arena(void);

/* Listen at `name` in the directory; accept a connection there within five seconds. */
int peer_listen(const char *name);
struct peer peer_accept(int listen_fd);
struct peer peer_connect(const char *name);
void peer_close(struct peer *peer);

void peer_send(struct peer *peer, uint16_t type, uint32_t view, uint32_t incarnation,
               const void *body, size_t length);

/* The next message that is no heart-beat; NULL when none has come within `ms`. */
const struct control_msg *peer_recv(struct peer *peer, int ms);
/* It must come, be of this type, and have this body's size at least. */
const void *peer_expect(struct peer *peer, uint16_t type);

/* As a master: a piece of a delta, and all of them. */
void peer_send_piece(struct peer *channel, const struct delta *delta, uint64_t at, uint64_t length);
void peer_send_pieces(struct peer *channel, const struct delta *delta);

/* Answer a replica's hello. */
struct msg_hello peer_welcome(struct peer *ol, uint32_t view, uint32_t incarnation, bool active,
                              bool rejoined);

/* Exit code of the process; -signal. Waits at most ten seconds. */
int peer_wait(pid_t pid);

#endif

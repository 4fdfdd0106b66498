/* The connection of a replica or an input logger to the output logger: made, and made anew when it
 * ends, since the output logger survives its own death.
 *
 * Each new connection begins with the same question, "hello", filled in at that moment; the output
 * logger repeats what still counts. One thread receives, any may send. */
#ifndef FTMB_ROLES_OL_LINK_H
#define FTMB_ROLES_OL_LINK_H

#include <pthread.h>
#include <stdatomic.h>

#include "io/control.h"
#include "io/fault.h"
#include "roles/config.h"
#include "roles/messages.h"

/* This process, among all on all hosts: 64 random bits, drawn once, never 0. */
uint64_t ol_link_process(void);

/* Longest body of a hello. */
#define OL_LINK_HELLO_BYTES 64u

struct ol_link {
    const struct node_config *config;
    uint16_t hello_type;
    size_t (*hello)(void *self, void *body); /* returns the body's length */
    void *self;
    struct fault_link *fault; /* NULL: never cut */

    pthread_mutex_t lock; /* guards fd against a sender and a new connection at once */
    int fd;               /* -1: not connected */
    struct control_buf buffer;
    uint64_t lost_ns;         /* when it ended; 0: it is there, and was answered */
    uint64_t bad;             /* messages that could not be: the connection was given up */
    _Atomic bool orderly_end; /* the OL said goodbye */
    _Atomic bool quit;        /* this process ends */
};

/* Fill in config, hello_type, hello, self (and fault, buffer.limit) first. Connects, waiting for
 * the OL to start, and says hello. 0 or a negative errno after one line on stderr. */
int ol_link_open(struct ol_link *link);

/* Wait until something can be received, or `ms` have passed. */
void ol_link_wait(struct ol_link *link, int ms);

/* The next message: true, valid until the next call. False: none now. An ended connection is made
 * anew here; when no OL has answered for `peer_ms` the process ends (exit 5). */
bool ol_link_recv(struct ol_link *link, const struct control_msg **message);

/* Send, if there is a connection: whoever made it anew tells what counts in its hello, or after it.
 * `must`: a peer that leaves no room for it for too long costs the connection; else the message is
 * dropped (a heart-beat, a reminder). */
void ol_link_send(struct ol_link *link, enum message_type type, uint32_t view, uint32_t incarnation,
                  const void *body, size_t length, bool must);

/* Say goodbye; then nothing is received any more and nothing missed. */
void ol_link_bye(struct ol_link *link);

#endif

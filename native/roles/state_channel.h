/* One connection of the state channel (deltas from a master to a backup, and acknowledgements),
 * with the faults that are made on purpose. Nothing here waits for the peer. */
#ifndef FTMB_ROLES_STATE_CHANNEL_H
#define FTMB_ROLES_STATE_CHANNEL_H

#include "io/control.h"
#include "io/fault.h"

struct state_channel {
    int fd; /* -1: none */
    struct control_buf in;
    struct control_out out;
    struct fault_link *faults; /* NULL: none */
    struct control_msg *again; /* to be delivered a second time */
    struct control_msg *held;  /* a copy: to be delivered behind the next message */
    size_t held_capacity;
    uint64_t held_until_ns; /* 0: none is held */
};

/* Longest body of a message. */
#define STATE_CHANNEL_LIMIT (128u * 1024)

void state_channel_init(struct state_channel *channel, struct fault_link *faults);
void state_channel_open(struct state_channel *channel, int fd);
void state_channel_close(struct state_channel *channel);

/* Is everything out that was sent before? 1: yes, another message may be sent; 0: the peer has to
 * read first, or a negative errno. */
int state_channel_ready(struct state_channel *channel);

/* Send one message; only while state_channel_ready(). 0 or a negative errno. */
int state_channel_send(struct state_channel *channel, uint16_t type, uint32_t view,
                       const struct iovec *body, int n);

/* As control_recv(). */
int state_channel_recv(struct state_channel *channel, struct control_msg **message);

#endif

/* The backup's end of the state channel: takes the pieces of deltas and acknowledges them. */
#ifndef FTMB_ROLES_STATE_RECEIVER_H
#define FTMB_ROLES_STATE_RECEIVER_H

#include "core/transfer.h"
#include "core/view.h"
#include "roles/state_channel.h"

struct replica;

struct state_receiver {
    int listen_fd;
    struct state_channel from[VIEW_SLOTS]; /* a master, and others that do not know better yet */
    struct transfer_rx rx;
};

/* Listen; called on the main thread. 0 or a negative errno after one line on stderr. */
int state_receiver_init(struct replica *replica);

/* Until the replica becomes active, or ends. */
void state_receiver_main(struct replica *replica);

#endif

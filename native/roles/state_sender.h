/* The master's end of the state channel: one snapshot at a time, to all backups that there are.
 *
 * What a backup gets depends on the base that it holds: the lines that changed since the master's
 * last committed image, or everything. Each backup's transfer goes on at its own pace. One that has
 * everything is not waited for; one that moves on is, so that it can catch up; one that does not
 * holds up nobody for longer than SENDER_PATIENCE_NS. */
#ifndef FTMB_ROLES_STATE_SENDER_H
#define FTMB_ROLES_STATE_SENDER_H

#include "core/standby.h"
#include "core/transfer.h"
#include "core/view.h"
#include "roles/messages.h"
#include "roles/snapshotter.h"
#include "roles/state_channel.h"

struct replica;

#define SENDER_PATIENCE_NS 100000000ull

struct backup {
    /* What the output logger said last; under the state lock. */
    struct msg_backup told;
    bool news;
    bool refused; /* it did not take the last one: begin anew */

    /* The state thread's. */
    bool present;
    uint32_t incarnation;
    struct base_name base;     /* held, or will be when what was sent is committed; epoch 0: full */
    struct base_name name;     /* of the snapshot that it was sent */
    struct base_name declined; /* the one that it was being sent when it asked for everything */
    bool receiving;            /* not everything is acknowledged yet */
    const struct delta *delta;
    struct transfer_tx tx;
    uint64_t moved_ns; /* when it last acknowledged something new */
    uint64_t full_after_ns;
    uint64_t full_pause_ns;
    uint64_t connect_after_ns;
    struct state_channel channel;
};

struct state_sender {
    struct snapshotter snapshotter;
    struct backup backup[VIEW_SLOTS];

    /* Told by the control thread, under the state lock. */
    struct base_name told_committed;
    bool told_wanted;

    /* The state thread's. */
    struct base_name committed; /* the name of the snapshotter's committed image */
    uint64_t epoch;             /* of the latest snapshot of this view */
    struct base_name pending;   /* under way; epoch 0: none */
    bool pending_full;          /* built of it: the whole state, */
    bool pending_lines;         /* and what differs from the committed image */
    bool wanted;                /* a log fills: do not wait for the period's end */
    uint64_t due_ns;
};

int state_sender_init(struct replica *replica);

/* Messages of the OL, on the control thread. */
void state_sender_backup(struct replica *replica, const struct msg_backup *backup);
void state_sender_committed(struct replica *replica, struct base_name name);
void state_sender_wanted(struct replica *replica);

/* While the replica is the master. */
void state_sender_main(struct replica *replica);

#endif

/* The master's end of the state channel: one snapshot at a time, one delta of it for all backups.
 *
 * A backup that holds the last committed snapshot is brought to the next by the delta. One that
 * does not *builds*: each delta has a slice of the state as well, and when it has had slices from
 * all round it holds everything. Each backup's transfer goes on at its own pace. One that has
 * everything is not waited for; one that moves on is, so that it can catch up; one that does not
 * holds up nobody for longer than SENDER_PATIENCE_NS, and the time that it may need for what it was
 * sent before: what is committed is applied before anything new is taken. */
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
#define SENDER_PATIENCE_NS_PER_BYTE 10u /* a slow machine on which others want the CPU as well */
#define SENDER_LOST_IN_A_ROW 3
#define STATE_FULL_PAUSE_NS 50000000ull /* before another build for a backup that refused one */

struct backup {
    /* What the output logger said last; under the state lock. */
    struct msg_backup told;
    bool news;
    bool refused; /* it did not take the last one: begin anew */

    /* The state thread's. */
    bool present;
    uint32_t incarnation;
    struct base_name base;     /* held, or will be when what was sent is committed; epoch 0: none */
    struct base_name name;     /* of the snapshot that it was sent */
    struct base_name declined; /* the one that it was being sent when it asked for everything */
    bool receiving;            /* not everything is acknowledged yet */
    bool prepared;             /* having that snapshot, it says that it holds the whole state */
    bool building;
    uint64_t built_epoch; /* of the last delta that it was sent for that */
    struct transfer_tx tx;
    uint64_t moved_ns;    /* when it last acknowledged something new */
    uint64_t patience_ns; /* for so long it may not */
    uint64_t work;        /* bytes that it may have to store for what it was sent last */
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
    bool told_asked;

    /* The state thread's. */
    struct base_name
        committed;            /* what the delta builds on, where anybody holds it; epoch 0: none */
    struct snapshot_cut cut;  /* of that */
    uint64_t cut_ns;          /* when it was made */
    uint64_t commit_ns;       /* how long its making, sending and commit took */
    uint64_t epoch;           /* of the latest snapshot of this view */
    struct base_name pending; /* under way; epoch 0: none */
    unsigned lost;            /* snapshots in a row that could not be completed */
    uint64_t sent_epoch;      /* of the last delta that was sent in this view */
    uint64_t slice_at;        /* line that the next slice begins at */
    uint64_t slice_due_ns;    /* before that the bandwidth limit allows none */
    bool wanted;              /* a log fills, or somebody asked: do not wait for the schedule */
    bool asked;               /* by command: engine `none` takes one then, and at no other time */
    uint64_t due_ns;
};

int state_sender_init(struct replica *replica);

/* Messages of the OL, on the control thread. */
void state_sender_backup(struct replica *replica, const struct msg_backup *backup);
void state_sender_committed(struct replica *replica, struct base_name name);
void state_sender_wanted(struct replica *replica);

/* The command `snapshot`. */
void state_sender_asked(struct replica *replica);

/* While the replica is the master. */
void state_sender_main(struct replica *replica);

/* state_schedule.c: does the schedule, or a full log, want a snapshot now? */
bool state_timely(const struct replica *replica, uint64_t now);

/* state_serve.c: begin to send the delta to a backup; what it was sent before is void; it holds
 * what it was sent; take in what it acknowledges; one backup's turn, returns whether there is more
 * to send at once; sleep until something is to be read, can be written, or `until`. */
void state_serve_begin(struct replica *replica, struct backup *backup, uint64_t now);
void state_serve_anew(struct backup *backup);
void state_serve_held(struct backup *backup);
void state_serve_hear(struct backup *backup, uint64_t now);
bool state_serve(struct replica *replica, struct backup *backup, uint64_t now);
void state_serve_sleep(struct replica *replica, uint64_t now, uint64_t until);

#endif

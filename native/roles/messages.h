/* Control messages between roles. Never on the packet path.
 *
 * The output logger is the hub: replicas and the input logger connect to it. Only deltas go
 * directly, from the master to the backup. A connection is a Unix stream socket between processes
 * of one machine, so a message that was sent arrives, in order, unless a process dies. */
#ifndef FTMB_ROLES_MESSAGES_H
#define FTMB_ROLES_MESSAGES_H

#include "core/snapshot.h"

enum message_type {
    MSG_HELLO = 1, /* replica -> OL: struct msg_hello */
    MSG_HELLO_IL,  /* IL -> OL: empty */
    MSG_WELCOME,   /* OL -> replica: struct msg_welcome; view and incarnation in the head */
    MSG_REFUSED,   /* OL -> replica: why (text); the replica stops */
    MSG_HEARTBEAT, /* replica -> OL: empty */
    MSG_BACKUP,    /* OL -> master: struct msg_backup, a backup came or went */
    MSG_PREPARED,  /* backup -> OL: struct msg_snapshot */
    MSG_REJECTED,  /* backup -> OL: a delta was unsound or did not follow; send a full one */
    MSG_COMMITTED, /* OL -> all: struct msg_snapshot, the base from here on */
    MSG_SNAPSHOT,  /* OL -> master: take one now (a log fills) */
    MSG_PRESSED,   /* IL -> OL: the input log fills */
    MSG_PROMOTE,   /* OL -> backup: struct msg_promote, then the PALs of each worker */
    MSG_CUT,       /* backup -> OL: struct msg_cut */
    MSG_GO,        /* OL -> backup: replay; the head's view is the new one */
    MSG_VIEW,      /* OL -> IL: struct msg_view, send inputs there from these numbers on */
    MSG_CREDIT,    /* OL -> IL: struct msg_credit */
    MSG_FENCED,    /* OL -> a replica of an ended view: stop */
    MSG_BYE,       /* replica or IL -> OL, OL -> all: an orderly end, not a failure */
    MSG_DELTA,     /* master -> backup: struct msg_delta, then bytes */
};

struct msg_hello {
    uint32_t slot;
    uint32_t pid;
    uint64_t config_digest; /* function, parameters, workers, build */
};

struct msg_welcome {
    uint32_t active;
    uint32_t reserved;
};

struct msg_backup {
    uint32_t slot;
    uint32_t present;
};

struct msg_snapshot {
    uint32_t view; /* that it was taken in */
    uint32_t reserved;
    uint64_t epoch;
    struct snapshot_cut cut;
};

struct msg_promote {
    uint32_t base_view;
    uint32_t reserved;
    uint64_t base_epoch;
    uint64_t pals[FTMB_MAX_WORKERS]; /* how many follow for each worker */
};

struct msg_cut {
    uint64_t pals[FTMB_MAX_WORKERS]; /* counts from the start */
    uint64_t next_input[FTMB_MAX_WORKERS];
};

struct msg_view {
    uint32_t slot;
    uint32_t incarnation; /* of the master */
    uint64_t next_input[FTMB_MAX_WORKERS];
};

struct msg_credit {
    uint64_t limit[FTMB_MAX_WORKERS]; /* the highest input number that may be accepted */
};

struct msg_delta {
    uint64_t offset; /* of the bytes that follow */
    uint64_t total;
};

#define MSG_DELTA_PIECE (64u * 1024)

#endif

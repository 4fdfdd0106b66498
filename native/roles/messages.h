/* Control messages between roles. Never on the packet path.
 *
 * The output logger is the hub: replicas and the input logger connect to it. Only deltas go
 * directly, from the master to its backups. A connection is a Unix stream socket between processes
 * of one machine, so a message that was sent arrives, in order, unless the connection ends. It is
 * then made anew, by whoever connected, and the output logger repeats what still counts: so every
 * message may come again, and is compared by (view, epoch) with what the receiver knows. */
#ifndef FTMB_ROLES_MESSAGES_H
#define FTMB_ROLES_MESSAGES_H

#include "core/snapshot.h"

enum message_type {
    MSG_HELLO = 1, /* replica -> OL: struct msg_hello */
    MSG_HELLO_IL,  /* IL -> OL: struct msg_hello_il */
    MSG_WELCOME,   /* OL -> replica: struct msg_welcome; view and incarnation in the head */
    MSG_REFUSED,   /* OL -> replica: why (text); the replica stops */
    MSG_HEARTBEAT, /* replica -> OL: empty */
    MSG_BACKUP,    /* OL -> master: struct msg_backup, a backup came or went */
    MSG_PREPARED,  /* backup -> OL: struct msg_snapshot; again after a rejoin, if one is staged */
    MSG_REJECTED,  /* backup -> OL: a delta was unsound or did not follow; send a full one */
    MSG_BUILDING,  /* backup -> OL: the delta went into a build; the snapshot goes on without it */
    MSG_COMMITTED, /* OL -> all: struct msg_snapshot, the base from here on */
    MSG_SNAPSHOT,  /* OL -> master: take one now (a log fills) */
    MSG_PRESSED,   /* IL -> OL: struct msg_pressed, the input log fills */
    MSG_PROMOTE,   /* OL -> backup: struct msg_promote, then the PALs of each worker */
    MSG_CUT,       /* backup -> OL: struct msg_cut */
    MSG_GO,        /* OL -> backup: replay; the head's view is the new one */
    MSG_NEW_VIEW,  /* OL -> backups that stay: the head's view has begun; what is staged is void */
    MSG_VIEW,      /* OL -> IL: struct msg_view, send inputs there from these numbers on */
    MSG_CREDIT,    /* OL -> IL: struct msg_credit */
    MSG_FENCED,    /* OL -> a replica that counts no more: struct msg_fenced; it stops (exit 6) */
    MSG_BYE,       /* replica or IL -> OL, OL -> all: an orderly end, not a failure */
    MSG_VOID, /* OL -> backup: struct msg_snapshot that it prepared, and that will never be the base
               */
    MSG_DELTA,     /* master -> backup: struct msg_delta, then bytes */
    MSG_DELTA_ACK, /* backup -> master, on the same connection: struct msg_delta_ack */
    MSG_TYPES,
};

struct msg_hello {
    uint32_t slot;
    uint32_t pid;
    uint64_t config_digest; /* function, parameters, workers, build */
    uint32_t incarnation;   /* 0: a new process; else it was admitted and its connection ended */
    uint32_t view;          /* that it believes in, 0: none */
    uint32_t active;
    uint32_t base_view;
    uint64_t base_epoch;     /* of the base that it holds, in memory or in its file; 0: none */
    uint64_t prepared_epoch; /* likewise of a prepared delta, which may be committed by now */
    uint32_t prepared_view;
    uint32_t reserved;
    uint64_t process; /* ol_link_process(): a pid may be another process's on another host */
};

struct msg_hello_il {
    uint64_t process; /* ol_link_process() */
    uint32_t view;    /* that it sends in, 0: none */
    uint32_t reserved;
};

/* A replica that comes back (`rejoined`) goes on as it was; what it missed follows. */
struct msg_welcome {
    uint32_t active;
    uint32_t rejoined;
};

/* The master builds on its committed image if that is the base named here, else it sends a full
 * snapshot. The same incarnation with the same base again: nothing new. */
struct msg_backup {
    uint32_t slot;
    uint32_t present;
    uint32_t incarnation; /* of the backup */
    uint32_t base_view;
    uint64_t base_epoch; /* 0: it holds none, or refused a delta: full */
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
    uint32_t view; /* the one that is to begin */
    uint32_t reserved;
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

struct msg_fenced {
    uint32_t view; /* the present one */
    int32_t by;    /* slot of its master, -1: none yet */
};

struct msg_delta {
    uint32_t view;
    uint32_t reserved;
    uint64_t epoch;
    uint64_t offset; /* of the bytes that follow */
    uint64_t total;
};

struct msg_delta_ack {
    uint32_t view;
    uint32_t resend; /* 1: go on from `have`, what came after it is lost */
    uint64_t epoch;
    uint64_t have;     /* bytes that are there without a gap */
    uint32_t prepared; /* 1: and with them the whole state at that cut; 0 also while it builds */
    uint32_t reserved;
};

#define MSG_DELTA_PIECE (16u * 1024)

enum log_pressure {
    LOG_CALM,
    LOG_WANTS_SNAPSHOT, /* as full as the schedule `log` says */
    LOG_HALF_FULL,      /* soon input will be refused */
};

struct msg_pressed {
    uint32_t log; /* enum log_pressure, of the fullest input log */
};

/* Bytes that the body of such a message has at least; UINT32_MAX: there is no such type. */
static inline uint32_t message_bytes(uint16_t type)
{
    switch (type) {
    case MSG_HELLO:
        return sizeof(struct msg_hello);
    case MSG_PRESSED:
        return sizeof(struct msg_pressed);
    case MSG_HELLO_IL:
        return sizeof(struct msg_hello_il);
    case MSG_WELCOME:
        return sizeof(struct msg_welcome);
    case MSG_BACKUP:
        return sizeof(struct msg_backup);
    case MSG_PREPARED:
    case MSG_COMMITTED:
    case MSG_VOID:
        return sizeof(struct msg_snapshot);
    case MSG_PROMOTE:
        return sizeof(struct msg_promote);
    case MSG_CUT:
        return sizeof(struct msg_cut);
    case MSG_VIEW:
        return sizeof(struct msg_view);
    case MSG_CREDIT:
        return sizeof(struct msg_credit);
    case MSG_FENCED:
        return sizeof(struct msg_fenced);
    case MSG_DELTA:
        return sizeof(struct msg_delta);
    case MSG_DELTA_ACK:
        return sizeof(struct msg_delta_ack);
    default:
        return type > 0 && type < MSG_TYPES ? 0 : UINT32_MAX;
    }
}

#endif

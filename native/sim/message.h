/* Control messages, and the channels that carry them: in order and reliably, until an end dies. */
#ifndef FTMB_SIM_MESSAGE_H
#define FTMB_SIM_MESSAGE_H

#include "core/standby.h"

enum message_type {
    MSG_HELLO,
    MSG_HELLO_IL,
    MSG_WELCOME,
    MSG_BACKUP,
    MSG_PREPARED,
    MSG_REJECTED,
    MSG_BUILDING,
    MSG_COMMITTED,
    MSG_SNAPSHOT,
    MSG_PRESSED,
    MSG_PROMOTE,
    MSG_CUT,
    MSG_GO,
    MSG_NEW_VIEW,
    MSG_VIEW,
    MSG_CREDIT,
    MSG_FENCED,
    MSG_VOID,
    MSG_DEATH,
};

struct message {
    enum message_type type;
    uint32_t slot;
    uint32_t view; /* of the sender */
    uint32_t incarnation;
    uint32_t pid;              /* HELLO */
    bool active;               /* WELCOME */
    bool present;              /* BACKUP */
    bool refused;              /* BACKUP: it refused a delta */
    bool rejoined;             /* WELCOME */
    struct base_name prepared; /* HELLO */
    struct base_name name;     /* HELLO, BACKUP, PREPARED, COMMITTED, PROMOTE */
    struct snapshot_cut cut;
    uint64_t limit[FTMB_MAX_WORKERS]; /* CREDIT; PROMOTE: PALs of each worker */
};

#define SIM_CHANNEL 256u /* more than are sent to one that is stopped */

struct channel {
    struct message message[SIM_CHANNEL];
    uint64_t ready_ns[SIM_CHANNEL];
    uint32_t head, tail;
    uint64_t cut_until_ns;
};

void channel_send(struct channel *channel, const struct message *message);
/* The next message that has arrived, NULL: none. Valid until the next call. */
const struct message *channel_take(struct channel *channel);
/* One end died. */
void channel_break(struct channel *channel);

/* A delta on its way from one slot to another: one at a time, and it may get lost, as may the news
 * that it has been taken. */
struct parcel {
    bool full;
    uint64_t ready_ns;
    uint64_t size;
    uint8_t *bytes;
    uint64_t capacity;
    struct base_name acked;
    bool acked_prepared;
    uint64_t acked_ns;
};

void parcel_send(struct parcel *parcel, const struct delta *delta);
bool parcel_ready(const struct parcel *parcel);
void parcel_ack(struct parcel *parcel, struct base_name name, bool prepared);
bool parcel_acked(const struct parcel *parcel, struct base_name name);

#endif

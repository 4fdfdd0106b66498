/* A backup that is the test: the real standby without its process, at the end of a master's state
 * channel. */
#ifndef FTMB_TESTS_BACKUP_PEER_H
#define FTMB_TESTS_BACKUP_PEER_H

#include "core/transfer.h"
#include "tests/replica_peer.h"

struct backup_peer {
    uint32_t slot;
    uint32_t incarnation;
    int listen_fd;
    struct peer channel;
    struct standby standby;
    struct transfer_rx rx;
    const char *wrong; /* why the last whole delta was refused; NULL: it was not */
    bool mute;         /* it does not acknowledge the last of a delta */
};

/* Listen as the backup in `slot`, holding nothing. */
void backup_open(struct backup_peer *backup, uint32_t slot);

void backup_close(struct backup_peer *backup);

/* As the output logger, tell the master of it; without a base once more: it refused a delta. */
void backup_tell(struct peer *ol, const struct backup_peer *backup, bool present,
                 struct base_name base);

/* Take one piece, if one comes within `ms`; a whole delta is prepared. `lose`: as if it had not
 * come. False: none came. */
bool backup_take(struct backup_peer *backup, int ms, bool lose);

/* The next whole delta, newer than `epoch`, on whatever connection the master makes. */
void backup_receive(struct backup_peer *backup, uint64_t epoch);

#endif

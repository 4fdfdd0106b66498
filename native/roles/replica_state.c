/* The state thread: receives snapshots as long as the replica stands by, sends them afterwards. */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "roles/replica.h"

#define BULK_NICENESS 9

void replica_state_path(const struct replica *replica, uint32_t slot, char *path, size_t size)
{
    snprintf(path, size, "%s/state-%u.sock", replica->config->dir, slot);
}

int replica_state_init(struct replica *replica)
{
    replica->state_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (replica->state_wake < 0)
        return -errno;
    int error = state_sender_init(replica);
    return error ? error : state_receiver_init(replica);
}

void replica_state_wake(struct replica *replica)
{
    uint64_t one = 1;
    (void)!write(replica->state_wake, &one, sizeof(one));
}

/* Copying, comparing and digesting do not yield, and pollers do: at the same priority these would
 * keep the core to themselves for milliseconds. */
void replica_change_niceness(int by)
{
    (void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + by);
}

void *replica_state_main(void *self)
{
    struct replica *replica = self;
    replica_change_niceness(BULK_NICENESS);
    state_receiver_main(replica); /* returns at once where the replica is active from the start */
    if (atomic_load(&replica->active))
        state_sender_main(replica);
    return NULL;
}

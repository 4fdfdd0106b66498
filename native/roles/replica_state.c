/* The state thread: receives snapshots as long as the replica stands by, sends them afterwards. */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "roles/replica.h"

void replica_state_path(const struct replica *replica, uint32_t slot, char *path, size_t size)
{
    const struct node_config *config = replica->config;
    if (config->apart)
        snprintf(path, size, "%s", config->hosts.state[slot]);
    else
        snprintf(path, size, "%s/state-%u.sock", config->dir, slot);
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

void replica_change_niceness(int by)
{
    (void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + by);
}

/* The control thread is about to wait for what the state thread has in hand. */
void replica_state_hurry(const struct replica *replica)
{
    (void)setpriority(PRIO_PROCESS, (id_t)atomic_load(&replica->state_thread_id),
                      getpriority(PRIO_PROCESS, 0));
}

void *replica_state_main(void *self)
{
    struct replica *replica = self;
    atomic_store(&replica->state_thread_id, gettid());
    if (!replica->config->yield)
        replica_change_niceness(REPLICA_BULK_NICENESS);
    int niceness = getpriority(PRIO_PROCESS, 0);
    state_receiver_main(replica); /* returns at once where the replica is active from the start */
    (void)setpriority(PRIO_PROCESS, 0, niceness);
    if (atomic_load(&replica->active))
        state_sender_main(replica);
    return NULL;
}

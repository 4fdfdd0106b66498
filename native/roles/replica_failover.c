/* A backup becomes master: cut, replay, go on (docs/ARCHITECTURE.md, section 10). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/event.h"
#include "roles/replica.h"

/* Copy the logs that follow the message's head; they are needed until the replay is done. */
static void take_logs(struct replica *replica, const struct control_msg *message)
{
    struct msg_promote promote;
    if (message->length < sizeof(promote))
        die(4, "the OL's promotion is cut off");
    memcpy(&promote, message->body, sizeof(promote));
    if (promote.base_epoch != replica->base_epoch || promote.base_view != replica->base_view)
        die(4, "divergence: the OL's base is snapshot %llu of view %u, held here: %llu of view %u",
            (unsigned long long)promote.base_epoch, promote.base_view,
            (unsigned long long)replica->base_epoch, replica->base_view);
    struct replay *replay = &replica->group.replay;
    uint64_t total = 0;
    for (uint32_t w = 0; w < replica->config->workers; w++)
        total += u64_min(promote.pals[w], message->length); /* no overflow, whatever it says */
    if (message->length != sizeof(promote) + total * sizeof(uint64_t))
        die(4, "the OL's promotion is cut off");
    uint64_t *pals = malloc((total + 1) * sizeof(uint64_t));
    if (!pals)
        die(3, "no memory for the logs (%llu PALs)", (unsigned long long)total);
    memcpy(pals, message->body + sizeof(promote), total * sizeof(uint64_t));
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        replay->log[w] = pals;
        replay->count[w] = promote.pals[w];
        pals += promote.pals[w];
    }
} /* NOLINT(clang-analyzer-unix.Malloc): kept as log[0] */

void replica_promote(struct replica *replica, const struct control_msg *message)
{
    pthread_mutex_lock(&replica->state_lock);
    if (replica->base_epoch == 0)
        die(4, "state_lost: promoted without a committed base");
    replica->staged.size = 0; /* prepared, but not the base */
    take_logs(replica, message);
    struct replay *replay = &replica->group.replay;
    int error = replay_cut(replay, arena_seq(replica->arena));
    if (error)
        die(4, "divergence: the logs contradict each other (%d)", error);
    struct msg_cut cut = {.view = message->view};
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        cut.pals[w] = replica->arena->cursors[w].pals + replay->count[w];
        cut.next_input[w] = replica->arena->cursors[w].next_input;
    }
    pthread_mutex_unlock(&replica->state_lock);
    replica_send(replica, MSG_CUT, &cut, sizeof(cut));
    /* The OL truncates its logs meanwhile. */
    error = replay_prepare(replay, arena_seq(replica->arena));
    if (error)
        die(3, "no memory to prepare the replay");
}

void replica_go(struct replica *replica, uint32_t view)
{
    struct worker_group *group = &replica->group;
    uint32_t workers = replica->config->workers;
    replica->view = view;
    group->view = view;
    group->incarnation = replica->incarnation;
    bool anything = !replay_done(&group->replay);
    atomic_store(&group->packets_replayed, 0);
    atomic_store(&group->replaying, anything ? workers : 0);
    for (uint32_t w = 0; w < workers; w++)
        worker_begin(&replica->workers[w], anything ? &group->replay : NULL);
    event_emit("replay_start", "{s:I}", "view", (json_int_t)view);
    pthread_mutex_lock(&group->lock);
    atomic_store(&group->active, 1);
    pthread_cond_broadcast(&group->wake);
    pthread_mutex_unlock(&group->lock);
    if (!anything)
        event_emit("replay_done", "{s:I,s:I,s:I}", "view", (json_int_t)view, "packets",
                   (json_int_t)0, "pals", (json_int_t)0);
    pthread_mutex_lock(&replica->state_lock);
    replica->active = true;
    replica->epoch = 0;
    pthread_cond_broadcast(&replica->state_changed);
    pthread_mutex_unlock(&replica->state_lock);
}

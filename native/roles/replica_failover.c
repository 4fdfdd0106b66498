/* A backup becomes master: cut, replay, go on (docs/ARCHITECTURE.md, section 10). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/event.h"
#include "roles/replica.h"

/* Copy the logs that follow the message's head; they are needed until the replay is done. */
static void take_logs(struct replica *replica, const struct msg_promote *promote,
                      const struct control_msg *message)
{
    struct replay *replay = &replica->group.replay;
    uint64_t total = 0;
    for (uint32_t w = 0; w < replica->config->workers; w++)
        total += u64_min(promote->pals[w], message->length); /* no overflow, whatever it says */
    if (message->length != sizeof(*promote) + total * sizeof(uint64_t))
        die(4, "the OL's promotion is cut off");
    uint64_t *pals = malloc((total + 1) * sizeof(uint64_t));
    if (!pals)
        die(3, "no memory for the logs (%llu PALs)", (unsigned long long)total);
    memcpy(pals, message->body + sizeof(*promote), total * sizeof(uint64_t));
    free(atomic_exchange(&replica->logs, pals));
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        replay->log[w] = pals;
        replay->count[w] = promote->pals[w];
        pals += promote->pals[w];
    }
}

/* The working copy becomes the base that the OL names, and stays it: nothing is prepared from here
 * on. What is prepared is that base, if the news of its commit did not come through. */
static void settle_on(struct replica *replica, struct base_name base)
{
    atomic_store(&replica->hurry, true);
    replica_state_hurry(replica);
    pthread_mutex_lock(&replica->state_lock);
    struct standby *standby = &replica->standby;
    if (!base_same(standby_base(standby), base))
        standby_commit(standby, base);
    standby_roll_back(standby);
    struct base_name held = standby_base(standby);
    if (!base.epoch || !base_same(held, base))
        die(4, "state_lost: the OL's base is snapshot %llu of view %u, held here: %llu of view %u",
            (unsigned long long)base.epoch, base.view, (unsigned long long)held.epoch, held.view);
    replica->promoting = true;
    pthread_mutex_unlock(&replica->state_lock);
}

static void compute_cut(struct replica *replica, uint32_t view)
{
    struct replay *replay = &replica->group.replay;
    int error = replay_cut(replay, arena_seq(replica->arena));
    if (error)
        die(4, "divergence: the logs contradict each other (%d)", error);
    replica->cut = (struct msg_cut){.view = view};
    for (uint32_t w = 0; w < replica->config->workers; w++) {
        replica->cut.pals[w] = replica->arena->cursors[w].pals + replay->count[w];
        replica->cut.next_input[w] = replica->arena->cursors[w].next_input;
    }
}

/* The same promotion may be told again, by an OL that does not know the answer. */
void replica_promote(struct replica *replica, const struct control_msg *message)
{
    uint32_t view = message->view;
    struct msg_promote promote;
    memcpy(&promote, message->body, sizeof(promote));
    if (atomic_load(&replica->active) || view < replica->promised_view)
        return;
    if (view == replica->promised_view) {
        replica_send(replica, MSG_CUT, &replica->cut, sizeof(replica->cut));
        return;
    }
    settle_on(replica, (struct base_name){promote.base_view, promote.base_epoch});
    take_logs(replica, &promote, message);
    compute_cut(replica, view);
    replica->promised_view = view;
    replica_send(replica, MSG_CUT, &replica->cut, sizeof(replica->cut));
    /* The OL truncates its logs meanwhile. */
    if (replay_prepare(&replica->group.replay, arena_seq(replica->arena)))
        die(3, "no memory to prepare the replay");
}

_Noreturn void replica_fenced(struct replica *replica, uint32_t view, int by)
{
    event_emit("fenced_out", "{s:I,s:I,s:i}", "view", (json_int_t)view, "own_view",
               (json_int_t)atomic_load(&replica->view), "by", by);
    fprintf(stderr, "ftmb-node: fenced out: view %u has begun without this replica\n", view);
    _exit(6);
}

void replica_go(struct replica *replica, uint32_t view)
{
    struct worker_group *group = &replica->group;
    uint32_t workers = replica->config->workers;
    bool promised = replica->promised_view == view;
    if (atomic_load(&replica->active) || (replica->promised_view && !promised))
        return; /* told again, or of a view that another promotion has overtaken */
    atomic_store(&replica->view, view);
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
    atomic_store(&replica->hurry, false);
    if (!anything)
        event_emit("replay_done", "{s:I,s:I,s:I}", "view", (json_int_t)view, "packets",
                   (json_int_t)0, "pals", (json_int_t)0);
    atomic_store(&replica->active, true);
    replica_state_wake(replica);
}

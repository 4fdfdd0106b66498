/* The replica's set-up and its control thread (see replica.h). */
#include "roles/replica.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/deathwatch.h"
#include "io/event.h"

#define POLL_MS 20
#define BEATS 5 /* in the time after which silence is suspected */

/* Rounds, about a second, after which a replay that was told to end is given up. */
#define ENDLESS_ROUNDS (1u << 20)

/* Waiting spins shortly, then gives the core away: the one that is waited for may need it. What a
 * replay waits for never comes once the input logger has stopped. */
static void relax(void *env, unsigned worker, uint64_t rounds)
{
    struct worker_group *group = env;
    (void)worker;
    rounds < 64 ? cpu_relax() : (void)sched_yield();
    if (unlikely(rounds > ENDLESS_ROUNDS) && atomic_load(&group->quit) &&
        atomic_load(&group->replaying))
        die(5, "told to stop in the middle of a replay");
}

static uint64_t now_ns(void *env)
{
    (void)env;
    return clock_ns();
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    die(4, "divergence: worker %u, variable %u: %s (logged %016llx)", worker, id, why,
        (unsigned long long)pal);
}

void replica_send(struct replica *replica, enum message_type type, const void *body, size_t length)
{
    ol_link_send(&replica->ol, type, atomic_load(&replica->view), replica->incarnation, body,
                 length, type != MSG_HEARTBEAT);
}

/* ---- what the output logger says ---------------------------------------------------------- */

/* Says who this is and what it holds; on each new connection. */
static size_t hello(void *self, void *body)
{
    struct replica *replica = self;
    pthread_mutex_lock(&replica->state_lock);
    struct base_name base = standby_base(&replica->standby);
    struct base_name prepared = standby_prepared(&replica->standby);
    pthread_mutex_unlock(&replica->state_lock);
    struct msg_hello hello = {.slot = replica->config->slot,
                              .pid = (uint32_t)getpid(),
                              .config_digest = replica->config->config_digest,
                              .incarnation = replica->incarnation,
                              .view = atomic_load(&replica->view),
                              .active = atomic_load(&replica->active),
                              .base_view = base.view,
                              .base_epoch = base.epoch,
                              .prepared_epoch = prepared.epoch,
                              .prepared_view = prepared.view,
                              .process = ol_link_process()};
    memcpy(body, &hello, sizeof(hello));
    return sizeof(hello);
}

/* Admitted: as the first master, or as a backup; or after the connection was lost. */
static void on_welcome(struct replica *replica, const struct control_msg *message)
{
    const struct msg_welcome *welcome = (const struct msg_welcome *)message->body;
    bool first = replica->incarnation == 0;
    if (!first && message->incarnation != replica->incarnation)
        replica_fenced(replica, message->view, -1);
    replica->incarnation = message->incarnation;
    if (first && welcome->active) {
        atomic_store(&replica->view, message->view);
        replica_go(replica, message->view);
        return;
    }
    /* What is prepared, by this process or the one before it, may be the base by now, even of a
     * later view: that is said next, or in the promotion, or that it is void. */
    if (first)
        atomic_store(&replica->view, message->view);
    replica_tell_staged(replica);
}

static void on_committed(struct replica *replica, const struct control_msg *message)
{
    struct msg_snapshot committed;
    memcpy(&committed, message->body, sizeof(committed));
    if (atomic_load(&replica->active))
        state_sender_committed(replica, (struct base_name){committed.view, committed.epoch});
    else
        replica_committed(replica, &committed);
}

static void on_message(struct replica *replica, const struct control_msg *message)
{
    switch (message->type) {
    case MSG_WELCOME:
        on_welcome(replica, message);
        break;
    case MSG_REFUSED:
        die(3, "the output logger refuses this replica: %.*s", (int)message->length,
            (const char *)message->body);
    case MSG_BACKUP:
        state_sender_backup(replica, (const struct msg_backup *)message->body);
        break;
    case MSG_COMMITTED:
        on_committed(replica, message);
        break;
    case MSG_VOID:
        replica_void(replica, (const struct msg_snapshot *)message->body);
        break;
    case MSG_SNAPSHOT:
        state_sender_wanted(replica);
        break;
    case MSG_PROMOTE:
        replica_promote(replica, message);
        break;
    case MSG_GO:
        replica_go(replica, message->view);
        break;
    case MSG_NEW_VIEW:
        replica_new_view(replica, message->view);
        break;
    case MSG_FENCED: {
        const struct msg_fenced *fenced = (const struct msg_fenced *)message->body;
        replica_fenced(replica, fenced->view, fenced->by);
    }
    default:
        event_emit("unknown_message", "{s:i}", "type", message->type);
    }
}

/* Nothing but heart-beats: computing a cut takes the control thread longer than a beat may. */
static void *beat_main(void *self)
{
    struct replica *replica = self;
    while (!atomic_load(&replica->quit)) {
        replica_send(replica, MSG_HEARTBEAT, NULL, 0);
        usleep((useconds_t)(replica->config->detect_ms * 1000 / BEATS));
    }
    return NULL;
}

static void receive(struct replica *replica)
{
    const struct control_msg *message;
    ol_link_wait(&replica->ol, POLL_MS);
    while (ol_link_recv(&replica->ol, &message))
        on_message(replica, message);
}

static void *control_main(void *self)
{
    struct replica *replica = self;
    while (!atomic_load(&replica->quit))
        receive(replica);
    return NULL;
}

/* ---- set-up ------------------------------------------------------------------------------- */

static int map_arena(struct replica *replica)
{
    const struct node_config *config = replica->config;
    const struct nf_needs *needs = &config->needs;
    uint64_t size =
        arena_bytes(needs->shared_bytes, needs->worker_bytes, config->workers, needs->variables);
    size = align_up(size, 2u << 20);
    void *memory = mmap(ARENA_ADDRESS, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != ARENA_ADDRESS) {
        fprintf(stderr, "ftmb-node: cannot map %llu bytes of state: %s\n", (unsigned long long)size,
                strerror(errno));
        return -ENOMEM;
    }
    madvise(memory, size, config->engine == ENGINE_PAGE ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    madvise(memory, size, MADV_POPULATE_WRITE); /* no page faults later */
    replica->arena = arena_create(memory, size, needs->shared_bytes, needs->worker_bytes,
                                  config->workers, needs->variables, config->config_digest);
    void *root = replica->arena ? config->nf->init(replica->arena, config->params) : NULL;
    if (!root) {
        fprintf(stderr, "ftmb-node: %s declares less memory than it needs\n", config->nf->name);
        return -ENOMEM;
    }
    replica->arena->root_offset = (uint64_t)((uint8_t *)root - (uint8_t *)replica->arena);
    return 0;
}

/* Say hello and learn whether this process is the first master or a backup. */
static int join(struct replica *replica)
{
    char name[FAULT_NAME_BYTES];
    snprintf(name, sizeof(name), "ctl-%u", replica->config->slot);
    replica->ol.config = replica->config;
    replica->ol.hello_type = MSG_HELLO;
    replica->ol.hello = hello;
    replica->ol.self = replica;
    replica->ol.fault = fault_link(name, 1);
    replica->ol.buffer.limit =
        replica->config->workers * replica->config->pals * sizeof(uint64_t) + CONTROL_SMALL;
    int error = ol_link_open(&replica->ol);
    while (!error && replica->incarnation == 0)
        receive(replica);
    return error;
}

static int start_threads(struct replica *replica)
{
    int error = replica_state_init(replica);
    if (!error)
        error = join(replica);
    if (error)
        return error;
    if (pthread_create(&replica->control_thread, NULL, control_main, replica) ||
        pthread_create(&replica->beat_thread, NULL, beat_main, replica) ||
        pthread_create(&replica->state_thread, NULL, replica_state_main, replica))
        return -EAGAIN;
    pthread_setname_np(replica->control_thread, "control");
    pthread_setname_np(replica->beat_thread, "beat");
    pthread_setname_np(replica->state_thread, "state");
    return 0;
}

static void init_locks(struct replica *replica)
{
    pthread_mutex_init(&replica->state_lock, NULL);
    pthread_mutex_init(&replica->group.lock, NULL);
    pthread_cond_init(&replica->group.wake, NULL);
}

int replica_create(struct replica *replica, const struct node_config *config,
                   const struct io_lane *input, const struct io_lane *output,
                   struct rte_mempool *const *pools)
{
    memset(replica, 0, sizeof(*replica));
    replica->config = config;
    replica->env = (struct ctx_env){
        .env = &replica->group, .relax = relax, .diverged = diverged, .clock = now_ns};
    init_locks(replica);
    int error = map_arena(replica);
    for (uint32_t w = 0; !error && w < config->workers; w++)
        error = worker_init(&replica->workers[w], w, config, &replica->group, replica->arena,
                            &replica->env, input[w], output[w], pools[w]);
    if (error)
        return error;
    if (config->mode != MODE_FTMB) {
        atomic_store(&replica->group.active, 1);
        return 0;
    }
    if (config->exact) {
        uint64_t bytes = (uint64_t)config->needs.variables * config->workers * sizeof(uint64_t);
        uint64_t *vectors = mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (vectors == MAP_FAILED)
            return -ENOMEM;
        for (uint32_t w = 0; w < config->workers; w++)
            replica->workers[w].ctx.vectors = vectors;
    }
    error = replay_init(&replica->group.replay, config->workers, config->needs.variables, 1u << 20);
    if (!error)
        error = replica_base_open(replica);
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/replica-%u.life", config->dir, config->slot);
    if (!error)
        error = deathwatch_hold(path);
    return error ? error : start_threads(replica);
}

struct role replica_worker_role(struct replica *replica, uint32_t index)
{
    return (struct role){.name = "worker", .self = &replica->workers[index], .poll = worker_poll};
}

void replica_stop(struct replica *replica)
{
    pthread_mutex_lock(&replica->group.lock);
    atomic_store(&replica->group.quit, 1);
    pthread_cond_broadcast(&replica->group.wake);
    pthread_mutex_unlock(&replica->group.lock);
    if (replica->config->mode != MODE_FTMB)
        return;
    ol_link_bye(&replica->ol);
    atomic_store(&replica->quit, true);
    replica_state_wake(replica);
    pthread_join(replica->control_thread, NULL);
    pthread_join(replica->beat_thread, NULL);
    pthread_join(replica->state_thread, NULL);
}

/* The replica's set-up and its control thread (see replica.h). */
#include "roles/replica.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/deathwatch.h"
#include "io/event.h"

#define OL_CONNECT_MS 10000
#define POLL_MS 20
#define BEATS 5 /* in the time after which silence is suspected */

/* Waiting spins shortly, then gives the core away: the one that is waited for may need it. */
static void relax(void *env, unsigned worker, uint64_t rounds)
{
    (void)env;
    (void)worker;
    rounds < 64 ? cpu_relax() : (void)sched_yield();
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    (void)env;
    die(4, "divergence: worker %u, variable %u: %s (logged %016llx)", worker, id, why,
        (unsigned long long)pal);
}

void replica_send(struct replica *replica, enum message_type type, const void *body, size_t length)
{
    struct iovec iov = {(void *)(uintptr_t)body, length};
    pthread_mutex_lock(&replica->ol_lock);
    int error = replica->ol_fd < 0 ? 0
                                   : control_send(replica->ol_fd, (uint16_t)type, replica->view,
                                                  replica->incarnation, &iov, length ? 1 : 0);
    pthread_mutex_unlock(&replica->ol_lock);
    if (error && !replica->orderly_end && !atomic_load(&replica->quit))
        die(5, "the output logger is gone: %s", strerror(-error));
}

/* A new backup, or a lost one: the state thread drops what was under way and begins anew. */
static void on_backup(struct replica *replica, const struct msg_backup *backup)
{
    pthread_mutex_lock(&replica->state_lock);
    replica->backup_present = backup->present;
    replica->backup_slot = backup->slot;
    replica->backup_changes++;
    pthread_cond_broadcast(&replica->state_changed);
    pthread_mutex_unlock(&replica->state_lock);
}

static void on_committed(struct replica *replica, const struct control_msg *message)
{
    struct msg_snapshot committed;
    memcpy(&committed, message->body, sizeof(committed));
    if (!replica->active) {
        replica_apply_committed(replica, committed.view, &committed);
        return;
    }
    pthread_mutex_lock(&replica->state_lock);
    if (committed.view == replica->view && committed.epoch == replica->pending_epoch) {
        snapshotter_committed(&replica->snapshotter);
        replica->pending_epoch = 0;
        replica->base_epoch = committed.epoch;
        pthread_cond_broadcast(&replica->state_changed);
    }
    pthread_mutex_unlock(&replica->state_lock);
}

static void on_message(struct replica *replica, const struct control_msg *message)
{
    uint32_t least = message_bytes(message->type);
    if (least != UINT32_MAX && message->length < least)
        die(5, "the output logger sent a message that is too short (type %u)", message->type);
    switch (message->type) {
    case MSG_BACKUP:
        on_backup(replica, (const struct msg_backup *)message->body);
        break;
    case MSG_COMMITTED:
        on_committed(replica, message);
        break;
    case MSG_SNAPSHOT:
        pthread_mutex_lock(&replica->state_lock);
        replica->snapshot_wanted = true;
        pthread_cond_broadcast(&replica->state_changed);
        pthread_mutex_unlock(&replica->state_lock);
        break;
    case MSG_PROMOTE:
        replica_promote(replica, message);
        break;
    case MSG_GO:
        replica_go(replica, message->view);
        break;
    case MSG_FENCED: {
        const struct msg_fenced *fenced = (const struct msg_fenced *)message->body;
        event_emit("fenced_out", "{s:I,s:i}", "view", (json_int_t)fenced->view, "by", fenced->by);
        die(6, "fenced: the view of this replica has ended");
    }
    case MSG_BYE:
        replica->orderly_end = true;
        break;
    default:
        event_emit("unknown_message", "{s:i}", "type", message->type);
    }
}

/* Nothing but heart-beats: computing a cut takes the control thread longer than a beat may. */
static void *beat_main(void *self)
{
    struct replica *replica = self;
    while (!atomic_load(&replica->quit)) {
        if (!atomic_load(&replica->orderly_end))
            replica_send(replica, MSG_HEARTBEAT, NULL, 0);
        usleep((useconds_t)(replica->config->detect_ms * 1000 / BEATS));
    }
    return NULL;
}

static void *control_main(void *self)
{
    struct replica *replica = self;
    while (!atomic_load(&replica->quit)) {
        struct pollfd wait = {.fd = replica->ol_fd, .events = POLLIN};
        poll(&wait, 1, POLL_MS);
        struct control_msg *message;
        int result;
        while ((result = control_recv(replica->ol_fd, &replica->ol_buffer, &message)) == 1)
            on_message(replica, message);
        if (result < 0 && !replica->orderly_end && !atomic_load(&replica->quit))
            die(5, "the output logger is gone: %s", strerror(-result));
        if (result < 0)
            usleep(1000);
    }
    return NULL;
}

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
    madvise(memory, size, MADV_HUGEPAGE);
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
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/ol.ctl", replica->config->dir);
    replica->ol_fd = control_connect(path, OL_CONNECT_MS);
    if (replica->ol_fd < 0) {
        fprintf(stderr, "ftmb-node: no output logger answers at %s: %s\n", path,
                strerror(-replica->ol_fd));
        return replica->ol_fd;
    }
    struct msg_hello hello = {.slot = replica->config->slot,
                              .pid = (uint32_t)getpid(),
                              .config_digest = replica->config->config_digest};
    replica_send(replica, MSG_HELLO, &hello, sizeof(hello));
    struct control_msg *message;
    int result;
    while ((result = control_recv(replica->ol_fd, &replica->ol_buffer, &message)) == 0) {
        struct pollfd wait = {.fd = replica->ol_fd, .events = POLLIN};
        if (poll(&wait, 1, OL_CONNECT_MS) == 0)
            return -ETIMEDOUT;
    }
    if (result == 1 && message->type == MSG_REFUSED) {
        fprintf(stderr, "ftmb-node: the output logger refuses this replica: %.*s\n",
                (int)message->length, (const char *)message->body);
        return -EPERM;
    }
    if (result != 1 || message->type != MSG_WELCOME || message->length < sizeof(struct msg_welcome))
        return result < 0 ? result : -EPROTO;
    replica->view = message->view;
    replica->incarnation = message->incarnation;
    replica->active = ((const struct msg_welcome *)message->body)->active;
    return 0;
}

static int start_threads(struct replica *replica)
{
    int error = replica_state_init(replica);
    if (!error)
        error = join(replica);
    if (error)
        return error;
    if (replica->active)
        replica_go(replica, replica->view);
    if (pthread_create(&replica->control_thread, NULL, control_main, replica) ||
        pthread_create(&replica->beat_thread, NULL, beat_main, replica) ||
        pthread_create(&replica->state_thread, NULL, replica_state_main, replica))
        return -EAGAIN;
    return 0;
}

static void init_locks(struct replica *replica)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&replica->ol_lock, NULL);
    pthread_mutex_init(&replica->state_lock, NULL);
    pthread_cond_init(&replica->state_changed, &monotonic);
    pthread_mutex_init(&replica->group.lock, NULL);
    pthread_cond_init(&replica->group.wake, NULL);
}

int replica_create(struct replica *replica, const struct node_config *config,
                   const struct io_lane *input, const struct io_lane *output,
                   struct rte_mempool *const *pools)
{
    memset(replica, 0, sizeof(*replica));
    replica->config = config;
    replica->ol_fd = -1;
    replica->env = (struct ctx_env){.relax = relax, .diverged = diverged};
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
        error = snapshotter_init(&replica->snapshotter, &snapshot_stop_copy, replica->arena,
                                 &replica->group, replica->workers, config->workers);
    replica->ol_buffer.limit = config->workers * config->pals * sizeof(uint64_t) + 4096;
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
    if (!replica->orderly_end)
        replica_send(replica, MSG_BYE, NULL, 0);
    atomic_store(&replica->quit, true);
    pthread_mutex_lock(&replica->state_lock);
    pthread_cond_broadcast(&replica->state_changed);
    pthread_mutex_unlock(&replica->state_lock);
    pthread_join(replica->control_thread, NULL);
    pthread_join(replica->beat_thread, NULL);
    pthread_join(replica->state_thread, NULL);
}

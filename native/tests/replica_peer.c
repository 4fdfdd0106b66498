/* A replica's peers (see replica_peer.h). */
#include "tests/replica_peer.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/replica.h"

char peer_dir[64];
void (*peer_adjust)(struct node_config *config);
void (*peer_run)(struct replica *replica);

void peer_begin(void)
{
    snprintf(peer_dir, sizeof(peer_dir), "/tmp/ftmb-test-XXXXXX");
    CHECK(mkdtemp(peer_dir) != NULL);
}

void peer_end(void)
{
    DIR *dir = opendir(peer_dir);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL)
        (void)!unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    CHECK(rmdir(peer_dir) == 0);
}

static void fill_config(struct node_config *config, uint32_t slot)
{
    memset(config, 0, sizeof(*config));
    memcpy(config->dir, peer_dir, sizeof(peer_dir));
    config->mode = MODE_FTMB;
    config->workers = 2;
    config->replicas = 3;
    config->slot = slot;
    config->nf = nf_find("monitor");
    for (unsigned i = 0; config->nf->params[i].name; i++)
        config->params[i] = config->nf->params[i].value;
    config->config_digest = peer_config_digest();
    config->pal_batch = true;
    config->check = true;
    config->engine = ENGINE_STOP_COPY;
    config->period_us = 5000;
    config->undo_mb = 1;
    config->full_mb_per_s = 1000;
    config->detect_ms = 50;
    config->peer_ms = 5000;
    config->pals = 4096;
    config->yield = true;
    if (peer_adjust)
        peer_adjust(config);
    char why[160];
    CHECK(config->nf->needs(config->params, config->workers, &config->needs, why));
}

uint64_t peer_config_digest(void)
{
    return 0x5eed;
}

pid_t peer_start(uint32_t slot)
{
    static struct replica replica;
    static struct node_config config;
    struct io_lane lanes[FTMB_MAX_WORKERS] = {0};
    struct rte_mempool *pools[FTMB_MAX_WORKERS] = {0};
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    event_process("replica");
    fill_config(&config, slot);
    CHECK(replica_create(&replica, &config, lanes, lanes, pools) == 0);
    if (peer_run)
        peer_run(&replica);
    for (;;)
        pause();
}

struct arena *peer_arena(void)
{
    struct node_config config;
    fill_config(&config, 0);
    uint64_t size = align_up(arena_bytes(config.needs.shared_bytes, config.needs.worker_bytes,
                                         config.workers, config.needs.variables),
                             2u << 20);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    struct arena *arena =
        arena_create(memory, size, config.needs.shared_bytes, config.needs.worker_bytes,
                     config.workers, config.needs.variables, config.config_digest);
    CHECK(arena);
    void *root = config.nf->init(arena, config.params);
    CHECK(root);
    arena->root_offset = (uint64_t)((uint8_t *)root - (uint8_t *)arena);
    return arena;
}

static void path_of(const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", peer_dir, name);
}

int peer_listen(const char *name)
{
    char path[128];
    path_of(name, path, sizeof(path));
    int fd = control_listen(path);
    CHECK(fd >= 0);
    return fd;
}

struct peer peer_accept(int listen_fd)
{
    struct pollfd wait = {.fd = listen_fd, .events = POLLIN};
    CHECK(poll(&wait, 1, 5000) == 1);
    struct peer peer = {.fd = control_accept(listen_fd)};
    CHECK(peer.fd >= 0);
    return peer;
}

struct peer peer_connect(const char *name)
{
    char path[128];
    path_of(name, path, sizeof(path));
    struct peer peer = {.fd = control_connect(path, 5000)};
    CHECK(peer.fd >= 0);
    return peer;
}

void peer_close(struct peer *peer)
{
    close(peer->fd);
    control_buf_free(&peer->buffer);
    peer->fd = -1;
}

void peer_send(struct peer *peer, uint16_t type, uint32_t view, uint32_t incarnation,
               const void *body, size_t length)
{
    struct iovec iov = {(void *)(uintptr_t)body, length};
    CHECK(control_send(peer->fd, type, view, incarnation, &iov, length ? 1 : 0) == 0);
}

const struct control_msg *peer_recv(struct peer *peer, int ms)
{
    uint64_t until = clock_ns() + (uint64_t)ms * 1000000u;
    for (;;) {
        struct control_msg *message;
        int result = control_recv(peer->fd, &peer->buffer, &message);
        if (result == 1 && message->type != MSG_HEARTBEAT)
            return message;
        uint64_t now = clock_ns();
        if (result < 0 || (result == 0 && now >= until))
            return NULL;
        if (result == 1)
            continue;
        struct pollfd wait = {.fd = peer->fd, .events = POLLIN};
        poll(&wait, 1, (int)((until - now) / 1000000u) + 1);
    }
}

const void *peer_expect(struct peer *peer, uint16_t type)
{
    const struct control_msg *message = peer_recv(peer, 5000);
    CHECK(message);
    if (message->type != type)
        fprintf(stderr, "message of type %u instead of %u\n", message->type, type);
    CHECK(message->type == type && message->length >= message_bytes(type));
    return message->body;
}

void peer_send_piece(struct peer *channel, const struct delta *delta, uint64_t at, uint64_t length)
{
    static uint8_t body[sizeof(struct msg_delta) + MSG_DELTA_PIECE];
    const struct delta_head *head = (const struct delta_head *)delta->bytes;
    struct msg_delta piece = {
        .view = head->view, .epoch = head->epoch, .offset = at, .total = delta->size};
    memcpy(body, &piece, sizeof(piece));
    memcpy(body + sizeof(piece), delta->bytes + at, length);
    peer_send(channel, MSG_DELTA, head->view, 0, body, sizeof(piece) + length);
}

void peer_send_pieces(struct peer *channel, const struct delta *delta)
{
    for (uint64_t at = 0; at < delta->size; at += MSG_DELTA_PIECE)
        peer_send_piece(channel, delta, at, u64_min(MSG_DELTA_PIECE, delta->size - at));
}

struct msg_hello peer_welcome(struct peer *ol, uint32_t view, uint32_t incarnation, bool active,
                              bool rejoined)
{
    struct msg_hello hello = *(const struct msg_hello *)peer_expect(ol, MSG_HELLO);
    struct msg_welcome welcome = {.active = active, .rejoined = rejoined};
    peer_send(ol, MSG_WELCOME, view, incarnation, &welcome, sizeof(welcome));
    return hello;
}

int peer_wait(pid_t pid)
{
    int status;
    for (unsigned i = 0; i < 10000; i++) {
        pid_t done = waitpid(pid, &status, WNOHANG);
        CHECK(done >= 0);
        if (done == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        usleep(1000);
    }
    kill(pid, SIGKILL);
    CHECK(!"the process did not end");
}

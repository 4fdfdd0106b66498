/* Connections to the output logger (see ol_link.h). */
#include "roles/ol_link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"

#define FIRST_CONNECT_MS 10000
#define RETRY_US 1000

static uint64_t process;
static pthread_once_t drawn = PTHREAD_ONCE_INIT;

/* So early, and of so few bytes, it can fail only where there is no such call. */
static void draw_process(void)
{
    if (getrandom(&process, sizeof(process), 0) != (ssize_t)sizeof(process))
        die(3, "the kernel gives no random bytes: %s", strerror(errno));
    process |= 1;
}

uint64_t ol_link_process(void)
{
    pthread_once(&drawn, draw_process);
    return process;
}

static int connect_and_greet(struct ol_link *link, unsigned timeout_ms)
{
    char path[NODE_PATH_BYTES + 32];
    uint8_t body[OL_LINK_HELLO_BYTES];
    node_ol_path(link->config, path, sizeof(path));
    int fd = control_connect(path, timeout_ms);
    if (fd < 0)
        return fd;
    struct iovec hello = {body, link->hello(link->self, body)};
    FTMB_ASSERT(hello.iov_len <= sizeof(body));
    /* Before anything else can be sent there: `fd` is not public yet. */
    int error = control_send(fd, link->hello_type, 0, 0, &hello, 1);
    if (error) {
        close(fd);
        return error;
    }
    pthread_mutex_lock(&link->lock);
    link->fd = fd;
    pthread_mutex_unlock(&link->lock);
    return 0;
}

int ol_link_open(struct ol_link *link)
{
    pthread_mutex_init(&link->lock, NULL);
    link->fd = -1;
    int error = connect_and_greet(link, FIRST_CONNECT_MS);
    if (error)
        fprintf(stderr, "ftmb-node: no output logger answers in %s: %s\n",
                link->config->apart ? link->config->hosts.ol : link->config->dir, strerror(-error));
    return error;
}

static bool over(const struct ol_link *link)
{
    return atomic_load(&link->orderly_end) || atomic_load(&link->quit);
}

static bool held_back(const struct ol_link *link)
{
    return fault_is_cut(link->fault) && !over(link);
}

/* The connection has ended, or carries what cannot be: it is given up. */
static void lose(struct ol_link *link)
{
    pthread_mutex_lock(&link->lock);
    close(link->fd);
    link->fd = -1;
    pthread_mutex_unlock(&link->lock);
    control_buf_free(&link->buffer);
    if (over(link) || link->lost_ns)
        return;
    link->lost_ns = clock_ns();
    event_emit("peer_lost", "{s:s}", "peer", "ol");
}

static void give_up_in_time(const struct ol_link *link)
{
    if (link->lost_ns && clock_ns() - link->lost_ns > link->config->peer_ms * 1000000ull)
        die(5, "the output logger is gone, and has not come back within %u ms (peer_ms)",
            link->config->peer_ms);
}

/* The first answer on a new connection: only now is anybody there. A stopped process connects. */
static void answered(struct ol_link *link)
{
    if (!link->lost_ns)
        return;
    link->lost_ns = 0;
    event_emit("peer_back", "{s:s}", "peer", "ol");
}

void ol_link_wait(struct ol_link *link, int ms)
{
    struct pollfd wait = {.fd = link->fd, .events = POLLIN};
    if (over(link) || link->fd < 0 || held_back(link))
        usleep(RETRY_US);
    else
        (void)poll(&wait, 1, ms);
}

bool ol_link_recv(struct ol_link *link, const struct control_msg **message)
{
    if (over(link) || held_back(link))
        return false;
    give_up_in_time(link);
    if (link->fd < 0 && connect_and_greet(link, 0))
        return false;
    struct control_msg *next;
    int result = control_recv(link->fd, &link->buffer, &next);
    if (result == 0)
        return false;
    if (result == 1 && next->length >= message_bytes(next->type)) {
        answered(link);
        if (next->type == MSG_BYE) {
            atomic_store(&link->orderly_end, true);
            return false;
        }
        *message = next;
        return true;
    }
    if (result == 1 || result == -EPROTO) {
        link->bad++;
        event_emit("bad_message", "{s:s}", "peer", "ol");
    }
    lose(link);
    return false;
}

void ol_link_send(struct ol_link *link, enum message_type type, uint32_t view, uint32_t incarnation,
                  const void *body, size_t length, bool must)
{
    struct iovec iov = {(void *)(uintptr_t)body, length};
    while (must && held_back(link))
        usleep(RETRY_US); /* a cut link loses nothing, it only stops */
    pthread_mutex_lock(&link->lock);
    if (link->fd >= 0 && !held_back(link)) {
        int error = control_try_send(link->fd, (uint16_t)type, view, incarnation, &iov, length > 0);
        /* The receiving thread notices, and begins anew. */
        if (error == -EAGAIN && must)
            shutdown(link->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&link->lock);
}

void ol_link_bye(struct ol_link *link)
{
    bool tell = !over(link);
    atomic_store(&link->quit, true);
    if (tell)
        ol_link_send(link, MSG_BYE, 0, 0, NULL, 0, false);
}

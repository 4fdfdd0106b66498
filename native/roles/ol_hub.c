/* The hub of control messages: its connections. A peer that is stopped must not stop the others, so
 * nothing here waits for one: a message that finds no room ends the connection, and its peer, once
 * it runs again, makes a new one and is told all that still counts. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/control_tcp.h"
#include "io/event.h"
#include "roles/ol_control.h"

struct ol_connection *ol_replica(struct output_logger *ol, int slot)
{
    for (int i = 0; slot >= 0 && i < OL_CONNECTIONS; i++) {
        struct ol_connection *c = &ol->connection[i];
        if (c->fd >= 0 && c->slot == slot)
            return c;
    }
    return NULL;
}

struct ol_connection *ol_input_logger(struct output_logger *ol)
{
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        if (ol->connection[i].fd >= 0 && ol->connection[i].is_il)
            return &ol->connection[i];
    }
    return NULL;
}

void ol_send(struct output_logger *ol, struct ol_connection *to, enum message_type type,
             const void *body, size_t length)
{
    if (!to || to->broken)
        return;
    struct iovec iov = {(void *)(uintptr_t)body, length};
    if (control_try_send(to->fd, (uint16_t)type, ol->state.view.view, to->incarnation, &iov,
                         length ? 1 : 0))
        to->broken = true;
}

/* Whoever is there counts no more. It reads this when it wakes. */
void ol_fence_out(struct output_logger *ol, struct ol_connection *connection)
{
    if (!connection)
        return;
    struct msg_fenced fenced = {.view = ol->state.view.view, .by = ol->state.view.master};
    ol_send(ol, connection, MSG_FENCED, &fenced, sizeof(fenced));
    connection->orderly = true;
    connection->slot = -1;
}

static void drop_connection(struct output_logger *ol, struct ol_connection *c)
{
    struct ol_connection gone = *c;
    close(c->fd);
    control_buf_free(&c->buffer);
    memset(c, 0, sizeof(*c));
    c->fd = -1;
    c->slot = -1;
    ol->connections_dropped += gone.broken;
    if (!gone.orderly && (gone.is_il || gone.slot >= 0))
        ol_connection_lost(ol, gone.slot, gone.is_il);
}

static void read_connection(struct output_logger *ol, struct ol_connection *c)
{
    struct control_msg *message;
    int result = 0;
    while (!c->broken && (result = control_recv(c->fd, &c->buffer, &message)) == 1) {
        if (message->length >= message_bytes(message->type)) {
            ol_on_message(ol, c, message);
            continue;
        }
        result = -EPROTO;
        break;
    }
    if (result == -EPROTO) { /* whatever it is, it does not keep to the protocol */
        ol->bad_messages++;
        event_emit("bad_message", "{s:i}", "slot", c->slot);
    }
    c->broken |= result < 0;
}

/* Nobody has much to say to the OL. */
static struct ol_connection new_connection(int fd)
{
    return (struct ol_connection){.fd = fd, .slot = -1, .buffer = {.limit = CONTROL_SMALL}};
}

static void accept_connection(struct output_logger *ol)
{
    int fd = control_accept(ol->listen_fd);
    if (fd == -EPERM && is_power_of_two(control_refused())) /* told, but not for each of many */
        event_emit("control_refused", "{s:I}", "count", (json_int_t)control_refused());
    if (fd < 0)
        return;
    struct ol_connection *fenced = NULL;
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        struct ol_connection *c = &ol->connection[i];
        if (c->fd < 0) {
            *c = new_connection(fd);
            return;
        }
        if (c->orderly && c->slot < 0)
            fenced = c; /* told that it counts no more; if it wakes, it will be told again */
    }
    if (fenced) {
        drop_connection(ol, fenced);
        *fenced = new_connection(fd);
        return;
    }
    close(fd);
}

static void read_deaths(struct output_logger *ol)
{
    struct ol_death death;
    while (read(ol->death_pipe[0], &death, sizeof(death)) == sizeof(death)) {
        const struct view_member *member = &ol->state.view.member[death.slot];
        if (member->present && member->incarnation == death.incarnation)
            ol_member_gone(ol, death.slot, "death");
    }
}

void ol_hub_poll(struct output_logger *ol, int ms)
{
    struct pollfd wait[2 + OL_CONNECTIONS] = {{.fd = ol->listen_fd, .events = POLLIN},
                                              {.fd = ol->death_pipe[0], .events = POLLIN}};
    for (int i = 0; i < OL_CONNECTIONS; i++)
        wait[2 + i] = (struct pollfd){.fd = ol->connection[i].fd, .events = POLLIN};
    poll(wait, 2 + OL_CONNECTIONS, ms);
    if (wait[1].revents)
        read_deaths(ol);
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        struct ol_connection *c = &ol->connection[i];
        if (wait[2 + i].revents && c->fd >= 0 && c->fd == wait[2 + i].fd)
            read_connection(ol, c);
    }
    for (int i = 0; i < OL_CONNECTIONS; i++) {
        if (ol->connection[i].fd >= 0 && ol->connection[i].broken)
            drop_connection(ol, &ol->connection[i]);
    }
    if (wait[0].revents)
        accept_connection(ol);
}

int ol_hub_open(struct output_logger *ol)
{
    char path[NODE_PATH_BYTES + 32];
    node_ol_path(ol->config, path, sizeof(path));
    for (int i = 0; i < OL_CONNECTIONS; i++)
        ol->connection[i] = (struct ol_connection){.fd = -1, .slot = -1};
    if (pipe2(ol->death_pipe, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    ol->listen_fd = control_listen(path);
    if (ol->listen_fd < 0)
        fprintf(stderr, "ftmb-node: cannot listen at %s: %s\n", path, strerror(-ol->listen_fd));
    return ol->listen_fd < 0 ? ol->listen_fd : 0;
}

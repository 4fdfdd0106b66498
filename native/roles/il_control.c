/* The input logger's control thread: views, commits and credit from the output logger. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/input_logger.h"

#define OL_CONNECT_MS 10000
#define ASK_INTERVAL_NS 5000000ull

/* The lcore takes orders between two polls; until it has, they must not change. */
static struct il_orders *orders_free(struct input_logger *il)
{
    for (uint64_t rounds = 0; atomic_load_explicit(&il->orders.pending, memory_order_acquire);
         rounds++) {
        if (atomic_load(&il->quit))
            break; /* the lcore has stopped */
        rounds < 64 ? cpu_relax() : (void)sched_yield();
    }
    return &il->orders;
}

static void give_orders(struct input_logger *il)
{
    atomic_store_explicit(&il->orders.pending, true, memory_order_release);
}

static void on_message(struct input_logger *il, const struct control_msg *message)
{
    struct il_orders *orders = orders_free(il);
    if (message->type == MSG_VIEW && message->length >= sizeof(struct msg_view)) {
        memcpy(&orders->view, message->body, sizeof(orders->view));
        orders->view_number = message->view;
        orders->new_view = true;
        if (orders->view.slot >= VIEW_SLOTS)
            die(5, "the output logger names a replica that cannot exist");
    } else if (message->type == MSG_COMMITTED && message->length >= sizeof(struct msg_snapshot)) {
        orders->cut = ((const struct msg_snapshot *)message->body)->cut;
        orders->commit = true;
    } else if (message->type == MSG_CREDIT && message->length >= sizeof(struct msg_credit)) {
        memcpy(&orders->limits, message->body, sizeof(orders->limits));
        orders->credit = true;
    } else if (message->type == MSG_BYE) {
        il->orderly_end = true;
        return;
    } else {
        event_emit("unknown_message", "{s:i}", "type", message->type);
        return;
    }
    give_orders(il);
}

static void ask_for_snapshot(struct input_logger *il, uint64_t *asked_ns)
{
    uint64_t now = clock_ns();
    if (!atomic_load_explicit(&il->pressed, memory_order_relaxed) ||
        now - *asked_ns < ASK_INTERVAL_NS)
        return;
    *asked_ns = now;
    il->snapshot_requests++;
    (void)control_send(il->ol_fd, MSG_PRESSED, 0, 0, NULL, 0);
}

static void *control_main(void *self)
{
    struct input_logger *il = self;
    uint64_t asked_ns = 0;
    while (!atomic_load(&il->quit)) {
        struct pollfd wait = {.fd = il->ol_fd, .events = POLLIN};
        poll(&wait, 1, 5);
        struct control_msg *message;
        int result;
        while ((result = control_recv(il->ol_fd, &il->buffer, &message)) == 1)
            on_message(il, message);
        if (result < 0 && !il->orderly_end && !atomic_load(&il->quit))
            die(5, "the output logger is gone: %s", strerror(-result));
        if (result < 0)
            usleep(1000);
        else
            ask_for_snapshot(il, &asked_ns);
    }
    return NULL;
}

int il_control_start(struct input_logger *il)
{
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/ol.ctl", il->config->dir);
    il->ol_fd = control_connect(path, OL_CONNECT_MS);
    if (il->ol_fd < 0) {
        fprintf(stderr, "ftmb-node: no output logger answers at %s: %s\n", path,
                strerror(-il->ol_fd));
        return il->ol_fd;
    }
    struct msg_hello_il hello = {.pid = (uint32_t)getpid()};
    struct iovec body = {&hello, sizeof(hello)};
    int error = control_send(il->ol_fd, MSG_HELLO_IL, 0, 0, &body, 1);
    if (error || pthread_create(&il->control_thread, NULL, control_main, il))
        return error ? error : -EAGAIN;
    return 0;
}

void input_logger_stop(struct input_logger *il)
{
    if (il->config->mode != MODE_FTMB)
        return;
    atomic_store(&il->quit, true);
    pthread_join(il->control_thread, NULL);
    (void)control_send(il->ol_fd, MSG_BYE, 0, 0, NULL, 0);
}

/* The input logger's control thread: views, commits and credit from the output logger. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/event.h"
#include "io/wait.h"
#include "roles/input_logger.h"

#define POLL_MS 5
#define ASK_INTERVAL_NS 5000000ull

/* The lcore takes orders between two polls; until it has, they must not change. */
static struct il_orders *orders_free(struct input_logger *il)
{
    for (uint64_t rounds = 0; atomic_load_explicit(&il->orders.pending, memory_order_acquire);
         rounds++) {
        if (atomic_load(&il->quit))
            break; /* the lcore has stopped */
        wait_round(rounds);
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
    switch (message->type) {
    case MSG_VIEW:
        memcpy(&orders->view, message->body, sizeof(orders->view));
        orders->view_number = message->view;
        orders->new_view = true;
        if (orders->view.slot >= VIEW_SLOTS)
            die(5, "the output logger names a replica that cannot exist");
        break;
    case MSG_COMMITTED:
        orders->cut = ((const struct msg_snapshot *)message->body)->cut;
        orders->commit = true;
        break;
    case MSG_CREDIT:
        memcpy(&orders->limits, message->body, sizeof(orders->limits));
        orders->credit = true;
        break;
    default:
        event_emit("unknown_message", "{s:i}", "type", message->type);
        return;
    }
    give_orders(il);
}

static void ask_for_snapshot(struct input_logger *il, uint64_t *asked_ns)
{
    uint64_t now = clock_ns();
    struct msg_pressed body = {.log = atomic_load_explicit(&il->pressed, memory_order_relaxed)};
    if (body.log == LOG_CALM || now - *asked_ns < ASK_INTERVAL_NS)
        return;
    *asked_ns = now;
    il->snapshot_requests++;
    ol_link_send(&il->ol, MSG_PRESSED, 0, 0, &body, sizeof(body), false);
}

static void *control_main(void *self)
{
    struct input_logger *il = self;
    uint64_t asked_ns = 0;
    while (!atomic_load(&il->quit)) {
        const struct control_msg *message;
        ol_link_wait(&il->ol, POLL_MS);
        while (ol_link_recv(&il->ol, &message))
            on_message(il, message);
        ask_for_snapshot(il, &asked_ns);
    }
    return NULL;
}

static size_t hello(void *self, void *body)
{
    const struct input_logger *il = self;
    struct msg_hello_il hello = {.process = ol_link_process(), .view = il->kept->view};
    memcpy(body, &hello, sizeof(hello));
    return sizeof(hello);
}

int il_control_start(struct input_logger *il)
{
    il->ol.config = il->config;
    il->ol.hello_type = MSG_HELLO_IL;
    il->ol.hello = hello;
    il->ol.self = il;
    int error = ol_link_open(&il->ol);
    if (error)
        return error;
    error = pthread_create(&il->control_thread, NULL, control_main, il);
    if (!error)
        pthread_setname_np(il->control_thread, "il-control");
    return -error;
}

void input_logger_stop(struct input_logger *il)
{
    if (il->config->mode != MODE_FTMB)
        return;
    atomic_store(&il->quit, true);
    pthread_join(il->control_thread, NULL);
    ol_link_bye(&il->ol);
}

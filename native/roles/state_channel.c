/* A connection of the state channel and its faults (see state_channel.h). */
#include "roles/state_channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/clock.h"

void state_channel_init(struct state_channel *channel, struct fault_link *faults)
{
    memset(channel, 0, sizeof(*channel));
    channel->fd = -1;
    channel->faults = faults;
    channel->in.limit = STATE_CHANNEL_LIMIT;
}

void state_channel_open(struct state_channel *channel, int fd)
{
    state_channel_close(channel);
    channel->fd = fd;
}

/* What was received or is held in part belongs to the connection, and goes with it. */
void state_channel_close(struct state_channel *channel)
{
    if (channel->fd >= 0)
        close(channel->fd);
    control_buf_free(&channel->in);
    channel->out.used = channel->out.done = 0;
    channel->again = NULL;
    channel->held_until_ns = 0;
    channel->fd = -1;
}

int state_channel_ready(struct state_channel *channel)
{
    return channel->fd < 0 ? -ENOTCONN : control_flush(channel->fd, &channel->out);
}

int state_channel_send(struct state_channel *channel, uint16_t type, uint32_t view,
                       const struct iovec *body, int n)
{
    if (fault_is_cut(channel->faults))
        return 0;
    int error = control_queue(&channel->out, type, view, 0, body, n);
    if (!error)
        error = control_flush(channel->fd, &channel->out);
    return error < 0 ? error : 0;
}

/* Hold a copy back; one that is held already keeps its place, and this one passes. */
static bool hold(struct state_channel *channel, const struct control_msg *message, uint32_t us)
{
    size_t bytes = sizeof(*message) + message->length;
    if (channel->held_until_ns)
        return false;
    if (channel->held_capacity < bytes) {
        void *larger = realloc(channel->held, bytes);
        if (!larger)
            return false;
        channel->held = larger;
        channel->held_capacity = bytes;
    }
    memcpy(channel->held, message, bytes);
    channel->held_until_ns = clock_ns() + us * 1000ull;
    return true;
}

static bool release_held(struct state_channel *channel, struct control_msg **message)
{
    if (!channel->held_until_ns || clock_ns() < channel->held_until_ns)
        return false;
    channel->held_until_ns = 0;
    *message = channel->held;
    return true;
}

int state_channel_recv(struct state_channel *channel, struct control_msg **message)
{
    if (channel->again) {
        *message = channel->again;
        channel->again = NULL;
        return 1;
    }
    if (release_held(channel, message))
        return 1;
    int result;
    while ((result = control_recv(channel->fd, &channel->in, message)) == 1) {
        uint32_t hold_us = 0;
        if (fault_is_cut(channel->faults))
            continue;
        enum fault_fate fate = fault_message(channel->faults, &hold_us);
        if (fate == FAULT_DROP || (fate == FAULT_HOLD && hold(channel, *message, hold_us)))
            continue;
        if (fate == FAULT_REPEAT)
            channel->again = *message;
        if (channel->held_until_ns)
            channel->held_until_ns = 1; /* behind this one */
        return 1;
    }
    return result;
}

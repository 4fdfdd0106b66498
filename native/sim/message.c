/* Control channels and parcels (see message.h). */
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

void channel_send(struct channel *channel, const struct message *message)
{
    if (channel->tail - channel->head == SIM_CHANNEL)
        sim_fail("sim", "a control channel overflows (message %d)", (int)message->type);
    uint32_t at = channel->tail++ % SIM_CHANNEL;
    channel->message[at] = *message;
    channel->ready_ns[at] = sim.now_ns + rng_below(&sim.links, 3000);
    if (rng_permille(&sim.links, 2 * sim.config.links.delay))
        channel->ready_ns[at] += rng_below(&sim.links, 200000);
}

const struct message *channel_take(struct channel *channel)
{
    uint32_t at = channel->head % SIM_CHANNEL;
    if (channel->head == channel->tail || channel->ready_ns[at] > sim.now_ns ||
        sim.now_ns < channel->cut_until_ns)
        return NULL;
    channel->head++;
    return &channel->message[at];
}

void channel_break(struct channel *channel)
{
    for (; channel->head != channel->tail; channel->head++) {
        if (channel->message[channel->head % SIM_CHANNEL].type == MSG_COMMITTED)
            cover(COVER_COMMIT_NEWS_LOST);
    }
}

void parcel_send(struct parcel *parcel, const struct delta *delta)
{
    if (rng_permille(&sim.links, sim.config.links.drop))
        return;
    if (parcel->capacity < delta->size) {
        free(parcel->bytes);
        parcel->bytes = malloc(delta->size * 2);
        FTMB_ASSERT(parcel->bytes);
        parcel->capacity = delta->size * 2;
    }
    memcpy(parcel->bytes, delta->bytes, delta->size);
    parcel->size = delta->size;
    parcel->full = true;
    parcel->ready_ns = sim.now_ns + rng_below(&sim.links, 50000);
}

bool parcel_ready(const struct parcel *parcel)
{
    return parcel->full && parcel->ready_ns <= sim.now_ns;
}

void parcel_ack(struct parcel *parcel, struct base_name name, bool prepared)
{
    if (rng_permille(&sim.links, sim.config.links.drop))
        return;
    parcel->acked = name;
    parcel->acked_prepared = prepared;
    parcel->acked_ns = sim.now_ns + rng_below(&sim.links, 3000);
}

bool parcel_acked(const struct parcel *parcel, struct base_name name)
{
    return base_same(parcel->acked, name) && parcel->acked_ns <= sim.now_ns;
}

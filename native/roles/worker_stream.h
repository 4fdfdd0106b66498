/* The worker's end of its stream to the output logger. */
#ifndef FTMB_ROLES_WORKER_STREAM_H
#define FTMB_ROLES_WORKER_STREAM_H

#include "core/room.h"
#include "roles/worker.h"

/* Inputs that a worker takes at once. Unbatched, every PAL may need a frame: fewer inputs then, so
 * that the window still holds the worst case. */
static inline uint16_t worker_burst(const struct node_config *config)
{
    return config->pal_batch ? FTMB_BURST : 4;
}

/* Stream frames that so many inputs may need, worst case. */
uint32_t worker_stream_room(const struct node_config *config, uint32_t inputs);

/* Inputs that may be taken now. */
static inline uint32_t worker_stream_inputs(const struct worker *worker)
{
    return room_inputs(stream_tx_unacked(&worker->out), WORKER_WINDOW, worker->burst,
                       worker->room_needed, worker->room_for_one, room_log_left(&worker->ctx));
}

/* Put the output header, with the vector of this instant, before the packet in `m`, and keep it
 * until the burst's PALs are in the stream. */
void worker_stream_output(struct worker *worker, struct rte_mbuf *m, uint8_t port);

/* Append the burst's PAL frames, then its outputs, to the stream. */
void worker_stream_flush(struct worker *worker);

/* Hand to the link what it takes; returns frames handed over. */
unsigned worker_stream_send(struct worker *worker);

/* Acknowledgements both ways, probes, progress. */
void worker_stream_housekeeping(struct worker *worker, bool idle);

#endif

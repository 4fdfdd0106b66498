/* A run of the role `traffic`: its state, and its poll. */
#ifndef FTMB_ROLES_TRAFFIC_RUN_H
#define FTMB_ROLES_TRAFFIC_RUN_H

#include "io/port.h"
#include "traffic/capture.h"
#include "traffic/config.h"
#include "traffic/fill.h"
#include "traffic/hiccup.h"
#include "traffic/sink.h"
#include "traffic/source.h"

/* Frames of one lane that a full link has not taken: two bursts, so that one lane that is full for
 * a moment does not stop the others. */
#define TRAFFIC_QUEUE (2 * FTMB_BURST)
#define TRAFFIC_LANES FTMB_MAX_WORKERS

enum phase {
    PHASE_IDLE,
    PHASE_FILLING,
    PHASE_FILLED, /* until told to go on: what was filled in may be on its way to a backup */
    PHASE_RUNNING,
    PHASE_DRAINING,
    PHASE_DONE,
};

struct out_lane {
    struct io_lane lane;
    unsigned count;
    unsigned waited; /* the first `waited` frames were here before this poll */
    struct rte_mbuf *frames[TRAFFIC_QUEUE];
    uint64_t intended[TRAFFIC_QUEUE]; /* PACE_NEVER: already counted as late */
    uint64_t inputs;                  /* direct: number of the last input */
};

struct traffic {
    struct traffic_config config;
    json_t *spec;
    struct out_lane out[TRAFFIC_LANES];
    struct io_lane in[TRAFFIC_LANES];
    unsigned n_out, n_in;
    bool direct, max_rate, from_capture;
    unsigned workers;
    struct rte_mempool *pool;
    /* The run. Times are relative to start_ns but for this one. */
    uint64_t start_ns; /* of the fill, then of the warm-up */
    uint64_t stop_at;  /* intended times stay below */
    enum phase phase;
    bool window_open;
    bool blocked; /* behind schedule because links were full */
    bool arrived; /* since the last burst was sent */
    uint64_t no_buffers;
    struct pace pace;
    struct fill fill;
    struct flows flows;
    struct source source;
    struct sink sink;
    struct capture capture;
    struct tally tally;
    struct hiccup *hiccup;
    _Atomic bool start_asked, run_asked, stop_asked;
};

/* A bounded piece of work: receive, then send what is due (`self` is a struct traffic). */
unsigned traffic_poll(void *self);

#endif

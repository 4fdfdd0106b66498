/* Links for frames: they lose, repeat, reorder and delay, by the schedule's seed. */
#ifndef FTMB_SIM_LANE_H
#define FTMB_SIM_LANE_H

#include "core/base.h"

#define SIM_FRAME_BYTES 720u
#define SIM_LANE 32u
#define SIM_FRAMES 8192u

struct frame {
    uint32_t refs;
    uint32_t length;
    uint32_t uid;                     /* of the process that made it (oracle) */
    uint64_t ghost[FTMB_MAX_WORKERS]; /* an output's true past (oracle) */
    _Alignas(8) uint8_t bytes[SIM_FRAME_BYTES];
};

struct lane_entry {
    struct frame *frame;
    uint64_t ready_ns;
};

struct lane {
    struct lane_entry entry[SIM_LANE];
    uint32_t head, tail;
    uint64_t cut_until_ns; /* nothing passes until then */
};

/* Frames come from one pool; a new one has one reference. */
void frames_reset(void);
struct frame *frame_new(uint32_t uid);
void frame_drop(struct frame *frame);

/* Hand a frame to the link, which takes a reference. False: the link is full, keep it. */
bool lane_send(struct lane *lane, struct frame *frame);
/* The next frame that has arrived, NULL: none. The caller gets the link's reference. */
struct frame *lane_take(struct lane *lane);
/* The sender died: what it had handed over may get through, or not. */
void lane_break(struct lane *lane);
void lane_clear(struct lane *lane);

#endif

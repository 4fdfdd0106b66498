/* Packets for the WAN optimizer, of contents that come back. */
#ifndef FTMB_TESTS_WANOPT_FRAMES_H
#define FTMB_TESTS_WANOPT_FRAMES_H

#include "tests/nf_harness.h"

#define WANOPT_FRAMES 64u

struct wanopt_frame {
    uint8_t bytes[512];
    uint32_t length;
};

struct wanopt_frames {
    struct wanopt_frame plain[WANOPT_FRAMES];   /* as hosts send them */
    struct wanopt_frame encoded[WANOPT_FRAMES]; /* the same, by an encoder that knows them all */
    struct wanopt_frame missing[WANOPT_FRAMES]; /* answers of a decoder that knows none */
};

/* For a function with these settings. */
void wanopt_frames_make(struct wanopt_frames *frames, const struct harness_setting *settings);

/* One of them, drawn with `random`, and its side; the packet's length. */
uint32_t wanopt_frames_draw(const struct wanopt_frames *frames, uint64_t random, uint8_t *frame,
                            enum nf_port *port);

#endif

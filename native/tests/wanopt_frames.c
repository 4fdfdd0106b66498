/* See wanopt_frames.h. */
#include "tests/wanopt_frames.h"

#include <string.h>

#define CONTENTS 6u
#define CONTENT_BYTES 90u

static void make_plain(struct wanopt_frame *frame, uint64_t *seed)
{
    static uint8_t content[CONTENTS][CONTENT_BYTES];
    struct frame_spec spec = {.protocol = test_random(seed) & 1 ? 6 : 17,
                              .source = 0x0a000001,
                              .destination = 0xc0000201,
                              .source_port = (uint16_t)(1000 + test_random(seed) % 99),
                              .destination_port = 80,
                              .dont_fragment = true,
                              .payload = (uint16_t)(3 * CONTENT_BYTES + test_random(seed) % 60)};
    for (unsigned i = 0; i < CONTENTS; i++) {
        uint64_t fixed = i;
        for (unsigned b = 0; b < CONTENT_BYTES; b++)
            content[i][b] = (uint8_t)test_random(&fixed);
    }
    frame->length = frame_build(frame->bytes, &spec, test_random(seed));
    for (unsigned i = 0; i < 3; i++)
        memcpy(frame->bytes + frame->length - spec.payload + i * CONTENT_BYTES,
               content[test_random(seed) % CONTENTS], CONTENT_BYTES);
    frame_checksum(frame->bytes);
}

/* What the function makes of a packet. */
static void pass(struct harness *h, enum nf_port port, const struct wanopt_frame *frame,
                 struct wanopt_frame *out)
{
    CHECK(harness_packet(h, 0, port, frame->bytes, frame->length));
    CHECK(h->out_length <= sizeof(out->bytes));
    memcpy(out->bytes, h->out, h->out_length);
    out->length = h->out_length;
}

void wanopt_frames_make(struct wanopt_frames *frames, const struct harness_setting *settings)
{
    struct harness near, far;
    uint64_t seed = 1;
    struct harness_setting large[8] = {{"capacity", 4096}};
    for (unsigned i = 0; settings[i].name; i++) {
        CHECK(i + 2 < 8);
        large[i + 1] = settings[i];
        if (strcmp(settings[i].name, "capacity") == 0)
            large[i + 1].value = 4096;
    }
    harness_open(&near, "wanopt", 1, large);
    harness_open(&far, "wanopt", 1, large);
    far.capacity = HARNESS_FRAME;
    for (unsigned i = 0; i < WANOPT_FRAMES; i++) {
        make_plain(&frames->plain[i], &seed);
        pass(&near, NF_INSIDE, &frames->plain[i], &frames->encoded[i]);
    }
    for (unsigned i = 0; i < WANOPT_FRAMES; i++) {
        pass(&near, NF_INSIDE, &frames->plain[i], &frames->encoded[i]);
        CHECK(frames->encoded[i].length < frames->plain[i].length);
        pass(&far, NF_OUTSIDE, &frames->encoded[i], &frames->missing[i]);
    }
    harness_close(&near);
    harness_close(&far);
}

uint32_t wanopt_frames_draw(const struct wanopt_frames *frames, uint64_t random, uint8_t *frame,
                            enum nf_port *port)
{
    uint32_t kind = random % 8, n = (random >> 8) % WANOPT_FRAMES;
    const struct wanopt_frame *from = kind < 4   ? &frames->plain[n]
                                      : kind < 7 ? &frames->encoded[n]
                                                 : &frames->missing[n];
    *port = kind < 3 ? NF_INSIDE : NF_OUTSIDE;
    memcpy(frame, from->bytes, from->length);
    return from->length;
}

/* Engine `stop-copy`: what suspending a virtual machine does. Everyone stands while everything is
 * copied; afterwards the copy is compared with the image of the last committed snapshot. */
#include <errno.h>
#include <string.h>

#include "io/clock.h"
#include "roles/snapshotter.h"

#define LINES_A_STEP 512u

static int init(struct snapshotter *s)
{
    for (int i = 0; i < 2; i++) {
        s->image[i] = snapshotter_map(s->arena->size, "an image of the state");
        if (!s->image[i])
            return -ENOMEM;
        /* Touch what the first copy will write: its pause is not to pay for page faults. */
        snapshot_copy(s->arena, s->image[i]);
    }
    return 0;
}

static int begin(struct snapshotter *s)
{
    s->taken_in = s->committed == 0 ? 1 : 0;
    struct arena *image = s->image[s->taken_in];
    snapshotter_stop(s);
    snapshot_copy(s->arena, image);
    snapshotter_go(s);
    return delta_begin(&s->delta, s->name, image) ? 0 : -ENOMEM;
}

/* The lines of a range that differ from the committed image, or that the slice asks for. */
static bool add_range(struct snapshotter *s, uint64_t offset, uint64_t length)
{
    const struct arena *image = s->image[s->taken_in];
    const struct arena *before =
        s->committed < 0 || s->name.slice.lines ? NULL : s->image[s->committed];
    for (uint64_t at = offset; at < offset + length; at += ARENA_LINE) {
        uint64_t bytes = u64_min(ARENA_LINE, offset + length - at);
        const uint8_t *now = (const uint8_t *)image + at;
        if ((!before || memcmp(now, (const uint8_t *)before + at, bytes) != 0) &&
            !delta_add(&s->delta, at, now, bytes))
            return false;
    }
    return true;
}

static enum snapshot_step step(struct snapshotter *s)
{
    const struct arena *image = s->image[s->taken_in];
    struct snapshot_slice part = {s->cursor, LINES_A_STEP};
    uint64_t at = 0, offset, length;
    while (snapshot_range(image, part, &at, &offset, &length)) {
        if (!add_range(s, offset, length))
            return STEP_LOST;
    }
    s->cursor += LINES_A_STEP;
    if (s->cursor < snapshot_lines(image->size))
        return STEP_MORE;
    if (s->check && !delta_hash(&s->delta, image))
        return STEP_LOST;
    return delta_finish(&s->delta) ? STEP_DONE : STEP_LOST;
}

/* The next one is compared with the last committed image, whatever came between. */
static void settle(struct snapshotter *s, bool committed)
{
    if (committed)
        s->committed = s->taken_in;
}

const struct snapshot_engine snapshot_stop_copy = {.name = "stop-copy",
                                                   .whole = true,
                                                   .init = init,
                                                   .begin = begin,
                                                   .step = step,
                                                   .settle = settle,
                                                   .start_from = snapshotter_from_image};

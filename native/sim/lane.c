/* Frames and links (see lane.h). */
#include "sim/sim.h"

/* Nothing went forward for so long: all is done but ticks, or there is a deadlock. */
#define HEAL_NS (100 * SIM_MS)

static struct frame pool[SIM_FRAMES];
static struct frame *spare[SIM_FRAMES];
static uint32_t spare_count, used;

void frames_reset(void)
{
    spare_count = used = 0;
}

struct frame *frame_new(uint32_t uid)
{
    FTMB_ASSERT(spare_count || used < SIM_FRAMES);
    struct frame *frame = spare_count ? spare[--spare_count] : &pool[used++];
    frame->refs = 1;
    frame->length = 0;
    frame->uid = uid;
    return frame;
}

void frame_drop(struct frame *frame)
{
    FTMB_ASSERT(frame->refs);
    if (--frame->refs == 0)
        spare[spare_count++] = frame;
}

static bool full(const struct lane *lane)
{
    return lane->tail - lane->head == SIM_LANE;
}

static void put(struct lane *lane, struct frame *frame, uint64_t ready_ns)
{
    frame->refs++;
    lane->entry[lane->tail++ % SIM_LANE] = (struct lane_entry){frame, ready_ns};
}

bool lane_send(struct lane *lane, struct frame *frame)
{
    /* At the end the links get well: the last tick is not to be lost for ever. */
    static const struct link_faults none;
    const struct link_faults *faults =
        sim.now_ns - sim.progress_ns > HEAL_NS ? &none : &sim.config.links;
    if (full(lane))
        return false;
    if (sim.now_ns < lane->cut_until_ns || rng_permille(&sim.links, faults->drop)) {
        cover(COVER_FRAME_LOST);
        return true;
    }
    uint64_t ready_ns = sim.now_ns + rng_below(&sim.links, 2000);
    if (rng_permille(&sim.links, faults->delay))
        ready_ns += rng_below(&sim.links, 200000);
    put(lane, frame, ready_ns);
    if (lane->tail - lane->head > 1 && rng_permille(&sim.links, faults->reorder)) {
        struct lane_entry *last = &lane->entry[(lane->tail - 1) % SIM_LANE];
        struct lane_entry *before = &lane->entry[(lane->tail - 2) % SIM_LANE];
        struct lane_entry swap = *last;
        *last = *before;
        *before = swap;
        cover(COVER_FRAME_REORDERED);
    }
    if (!full(lane) && rng_permille(&sim.links, faults->repeat)) {
        put(lane, frame, ready_ns + rng_below(&sim.links, 20000));
        cover(COVER_FRAME_REPEATED);
    }
    return true;
}

struct frame *lane_take(struct lane *lane)
{
    if (lane->head == lane->tail)
        return NULL;
    const struct lane_entry *first = &lane->entry[lane->head % SIM_LANE];
    if (first->ready_ns > sim.now_ns || sim.now_ns < lane->cut_until_ns)
        return NULL;
    lane->head++;
    return first->frame;
}

void lane_clear(struct lane *lane)
{
    for (; lane->head != lane->tail; lane->head++)
        frame_drop(lane->entry[lane->head % SIM_LANE].frame);
}

void lane_break(struct lane *lane)
{
    if (rng_below(&sim.links, 2))
        return;
    uint32_t stay = lane->head + rng_below(&sim.links, lane->tail - lane->head + 1);
    while (lane->tail != stay)
        frame_drop(lane->entry[--lane->tail % SIM_LANE].frame);
}

/* Base, working copy and prepared delta of a standby (see standby.h). */
#include "core/standby.h"

#include <stdlib.h>
#include <string.h>

#include "core/plant.h"

uint64_t standby_delta_bytes(uint64_t arena_size)
{
    uint64_t lines = snapshot_lines(arena_size) + ARENA_EXTENTS;
    return align_up(lines * (ARENA_LINE + sizeof(struct delta_run) + sizeof(uint32_t)), 4096) +
           4096;
}

_Static_assert(sizeof(struct delta_head) + sizeof(struct arena) +
                       (ARENA_EXTENTS + 2) * (sizeof(struct delta_run) + 8) <
                   4096 + ARENA_EXTENTS * (ARENA_LINE + sizeof(struct delta_run)),
               "a whole delta fits");

uint64_t standby_bytes(uint64_t arena_size)
{
    return STANDBY_HEAD_BYTES + arena_size + standby_delta_bytes(arena_size);
}

static struct base_name name_of(const struct delta_head *delta)
{
    return (struct base_name){.view = delta->view, .epoch = delta->epoch};
}

struct base_name standby_base(const struct standby *standby)
{
    return (struct base_name){.view = standby->head->view, .epoch = standby->head->epoch};
}

struct base_name standby_prepared(const struct standby *standby)
{
    if (!atomic_load_explicit(&standby->head->prepared, memory_order_acquire))
        return (struct base_name){0};
    return name_of(standby_delta(standby));
}

void standby_create(struct standby *standby, struct arena *working, void *memory)
{
    *standby = (struct standby){.working = working,
                                .head = memory,
                                .image = (struct arena *)((uint8_t *)memory + STANDBY_HEAD_BYTES),
                                .delta_capacity = standby_delta_bytes(working->size),
                                .config_digest = working->config_digest};
    standby->delta = (uint8_t *)standby->image + working->size;
    snapshot_copy(working, standby->image);
    standby->head->version = STANDBY_VERSION;
    standby->head->config_digest = working->config_digest;
    standby->head->arena_size = working->size;
    atomic_signal_fence(memory_order_release);
    standby->head->magic = STANDBY_MAGIC;
}

/* The base's bytes into the working copy. */
static void restore(struct standby *standby, uint64_t offset, uint64_t length, uint64_t *since)
{
    for (uint64_t done = 0, piece; done < length; done += piece) {
        piece = u64_min(SNAPSHOT_PIECE, length - done);
        memcpy((uint8_t *)standby->working + offset + done,
               (const uint8_t *)standby->image + offset + done, piece);
        *since += piece;
        if (*since < SNAPSHOT_PIECE)
            continue;
        breathe();
        *since = 0;
    }
}

/* ... for each run of a delta. */
static void restore_lines(struct standby *standby)
{
    struct delta_walk walk = {0};
    struct delta_run run;
    const uint8_t *content;
    uint64_t since = 0;
    while (delta_next(standby->delta, &walk, &run, &content))
        restore(standby, run.offset, run.length, &since);
}

const char standby_wrong_line[] = "a line differs from the master's";

/* The working copy after a delta has been applied to it: sound, and as the master says? */
static const char *verify(struct standby *standby)
{
    standby->differs_at = 0;
    uint64_t size = standby->head->arena_size;
    if (!arena_valid(standby->working, size) || standby->working->size != size ||
        standby->working->config_digest != standby->config_digest)
        return "describes another arena";
    standby->differs_at = delta_compare(standby->delta, standby->working);
    return standby->differs_at == UINT64_MAX ? NULL : standby_wrong_line;
}

static const char *prepare_on_base(struct standby *standby)
{
    delta_apply(standby->delta, standby->working);
    const char *wrong = verify(standby);
    if (wrong)
        restore_lines(standby);
    return wrong;
}

static void give_up_build(struct standby *standby)
{
    uint64_t since = 0;
    if (!standby->build.epoch)
        return;
    standby->build = (struct standby_build){0};
    if (!PLANTED(P_BUILD_NOT_UNDONE))
        restore(standby, 0, standby->head->arena_size, &since);
}

/* The working copy as one whole delta, in the place of the last one of the build. */
static const char *write_whole(struct standby *standby)
{
    const struct delta_head *last = standby_delta(standby);
    struct snapshot_name name = {.view = last->view, .epoch = last->epoch};
    struct delta whole = {
        .bytes = standby->delta, .capacity = standby->delta_capacity, .fixed = true};
    bool fits = delta_build(&whole, standby->working, NULL, name, last->hashes != 0);
    free(whole.hash);
    return fits ? NULL : "does not fit";
}

/* Does this slice go on where those of the build ended? */
static bool slice_follows(const struct standby_build *build, struct snapshot_slice slice,
                          uint64_t all)
{
    return slice.lines <= all && slice.first <= all - slice.lines &&
           (!slice.lines || !build->lines || (build->first + build->lines) % all == slice.first);
}

static bool gone_round(const struct standby *standby)
{
    uint64_t missing = PLANTED(P_BUILD_ENDS_EARLY) ? standby_delta(standby)->slice.lines : 0;
    return standby->build.lines + missing >= snapshot_lines(standby->head->arena_size);
}

/* One delta more for the build, or the first of another one. What is prepared when it ends is
 * whole, so it needs no base. */
static const char *build_on(struct standby *standby)
{
    const struct delta_head *delta = standby_delta(standby);
    if (!delta->previous_epoch && delta->slice.lines)
        give_up_build(standby); /* else what its master had allocated meanwhile would stay */
    struct standby_build build = standby->build;
    if (!build.epoch && !delta->slice.lines)
        return "does not follow the base held here";
    if (build.epoch && (delta->view != build.view || delta->previous_epoch != build.epoch) &&
        !PLANTED(P_BUILD_TAKES_GAP))
        return "does not follow the one before";
    if (!slice_follows(&build, delta->slice, snapshot_lines(standby->head->arena_size)) &&
        !PLANTED(P_BUILD_TAKES_GAP))
        return "its slice does not follow the one before";
    standby->build = (struct standby_build){.view = delta->view,
                                            .epoch = delta->epoch,
                                            .first = build.lines ? build.first : delta->slice.first,
                                            .lines = build.lines + delta->slice.lines};
    delta_apply(standby->delta, standby->working);
    if (!gone_round(standby))
        return NULL;
    const char *wrong = verify(standby);
    if (!wrong && !delta_is_whole(delta, standby->head->arena_size))
        wrong = write_whole(standby);
    return wrong;
}

static const char *why_not(const struct standby *standby, const struct delta_head *delta)
{
    struct base_name base = standby_base(standby);
    if (delta->epoch == 0)
        return "has no name";
    if (delta->view < base.view || (delta->view == base.view && delta->epoch <= base.epoch))
        return "older than the base held here";
    return NULL;
}

const char *standby_prepare(struct standby *standby, uint64_t bytes)
{
    FTMB_ASSERT(bytes <= standby->delta_capacity);
    FTMB_ASSERT(!atomic_load_explicit(&standby->head->prepared, memory_order_relaxed));
    const struct delta_head *delta = standby_delta(standby);
    const char *wrong =
        delta_check(standby->delta, bytes, standby->head->arena_size, standby->config_digest);
    if (!wrong)
        wrong = why_not(standby, delta);
    if (wrong) {
        give_up_build(
            standby); /* whoever refuses a delta has none of its build to be gone on with */
        return wrong;
    }
    struct base_name base = standby_base(standby);
    bool anew = standby->build.epoch || (standby->begin_anew && delta->slice.lines);
    bool follows = delta->base_epoch && !anew &&
                   base_same(base, (struct base_name){delta->base_view, delta->base_epoch});
    wrong = follows ? prepare_on_base(standby) : build_on(standby);
    bool whole = follows || gone_round(standby);
    standby->begin_anew = wrong != NULL;
    if (wrong)
        give_up_build(standby);
    if (wrong || !whole)
        return wrong;
    standby->build = (struct standby_build){0};
    atomic_store_explicit(&standby->head->prepared, standby_delta(standby)->bytes,
                          memory_order_release);
    return NULL;
}

static void apply_to_base(struct standby *standby)
{
    delta_apply(standby->delta, standby->image);
    standby->head->view = standby_delta(standby)->view;
    standby->head->epoch = standby_delta(standby)->epoch;
}

bool standby_commit(struct standby *standby, struct base_name name)
{
    struct standby_head *head = standby->head;
    if (!name.epoch || !base_same(standby_prepared(standby), name))
        return name.epoch && base_same(standby_base(standby), name);
    atomic_fetch_add(&head->applications, 1);
    apply_to_base(standby);
    atomic_fetch_add(&head->applications, 1);
    atomic_store_explicit(&head->prepared, 0, memory_order_release);
    return true;
}

void standby_roll_back(struct standby *standby)
{
    give_up_build(standby);
    if (!atomic_load_explicit(&standby->head->prepared, memory_order_relaxed))
        return;
    restore_lines(standby);
    atomic_store_explicit(&standby->head->prepared, 0, memory_order_release);
}

void standby_new_view(struct standby *standby, uint32_t view)
{
    uint32_t of = standby->build.epoch ? standby->build.view : standby_prepared(standby).view;
    if (of < view)
        standby_roll_back(standby);
}

/* ---- after another process ---------------------------------------------------------------- */

/* What was left: pointers into it, and what was read before anything else. */
struct left {
    uint64_t applications;
    uint64_t prepared;
    struct base_name base;
    const struct arena *image;
    const uint8_t *delta;
};

static bool look_at(const struct standby *standby, const void *memory, uint64_t bytes,
                    struct left *left)
{
    const struct standby_head *head = memory;
    uint64_t size = standby->working->size;
    if (bytes < standby_bytes(size) || head->magic != STANDBY_MAGIC ||
        head->version != STANDBY_VERSION || head->arena_size != size ||
        head->config_digest != standby->config_digest)
        return false;
    left->applications = atomic_load_explicit(&head->applications, memory_order_acquire);
    left->prepared = atomic_load_explicit(&head->prepared, memory_order_acquire);
    left->base = (struct base_name){.view = head->view, .epoch = head->epoch};
    left->image = (const struct arena *)((const uint8_t *)memory + STANDBY_HEAD_BYTES);
    left->delta = (const uint8_t *)left->image + size;
    return left->prepared <= standby->delta_capacity;
}

/* Copy base and delta, and finish an application that was under way. */
static bool take_over(struct standby *standby, const struct left *left)
{
    uint64_t size = standby->working->size;
    memcpy(standby->delta, left->delta, left->prepared);
    memcpy(standby->image, left->image, size);
    standby->head->view = left->base.view;
    standby->head->epoch = left->base.epoch;
    if (left->applications & 1) {
        if (delta_check(standby->delta, left->prepared, size, standby->config_digest))
            return false;
        apply_to_base(standby);
    }
    return (standby->head->epoch || left->prepared) && arena_valid(standby->image, size) &&
           standby->image->config_digest == standby->config_digest;
}

bool standby_adopt(struct standby *standby, const void *memory, uint64_t bytes)
{
    const struct standby_head *from = memory;
    struct left left;
    if (!look_at(standby, memory, bytes, &left))
        return false;
    bool sound = take_over(standby, &left);
    /* Its process may have come to life again. */
    if (!sound || atomic_load(&from->applications) != left.applications) {
        snapshot_copy(standby->working, standby->image);
        standby->head->view = 0;
        standby->head->epoch = 0;
        return false;
    }
    snapshot_copy(standby->image, standby->working);
    if (left.prepared)
        (void)standby_prepare(standby, left.prepared); /* of no use, if it is the base already */
    return standby_base(standby).epoch || standby_prepared(standby).epoch;
}

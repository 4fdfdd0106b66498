/* What a standby holds: a committed base, a working copy of it, and at most one prepared delta.
 *
 * The *working copy* is the arena itself, ready to be promoted as it stands. The *base* is an image
 * of the last committed snapshot, in memory that survives the process (in the running system a
 * file on tmpfs), so that whoever starts next in this slot can load it. A delta is *received* into
 * that memory, *prepared* by applying it to the working copy and comparing the digest, and only
 * when the output logger says so *committed*: applied to the base. Whatever is prepared can be
 * rolled back, since the base still has every line as it was. Promotion uses the working copy and
 * leaves the base alone.
 *
 * A delta that does not build on the base held here can still be of use: its slice begins, or goes
 * on with, a *build* of the whole state in the working copy. The build needs every delta of the
 * view from then on; when the slices have gone round the arena once, the working copy is written as
 * one whole delta, and that is prepared. A build that is given up leaves the base as it was.
 *
 * The memory is sound at any instruction at which its process may be killed. A delta is marked as
 * prepared only when it is whole and right; `applications` is odd while it is applied to the base;
 * since applying is only storing, whoever finds an odd number applies it once more. */
#ifndef FTMB_CORE_STANDBY_H
#define FTMB_CORE_STANDBY_H

#include "core/snapshot.h"

#define STANDBY_MAGIC 0x42534d5446455341ull
#define STANDBY_VERSION 1u
#define STANDBY_HEAD_BYTES 4096u /* the image behind it begins on a page */

/* A committed snapshot's name; epoch 0: none. */
struct base_name {
    uint32_t view;
    uint64_t epoch;
};

/* At the start of the memory; the image follows, then the delta that is received or prepared. */
struct standby_head {
    uint64_t magic; /* stored last */
    uint32_t version;
    uint32_t view; /* of the base */
    uint64_t epoch;
    uint64_t config_digest;
    uint64_t arena_size;
    _Atomic uint64_t applications; /* begun and ended, to the base */
    _Atomic uint64_t prepared;     /* bytes of the prepared delta, 0: none */
};

/* A build of the whole state from slices, under way. */
struct standby_build {
    uint32_t view;
    uint64_t epoch; /* of the last delta that went into it; 0: none is under way */
    uint64_t first; /* line at which the first slice began */
    uint64_t lines; /* that slices have covered */
};

struct standby {
    struct arena *working;
    struct standby_head *head;
    struct arena *image;
    uint8_t *delta;
    uint64_t delta_capacity;
    uint64_t config_digest;
    struct standby_build build;
    bool begin_anew;     /* the last delta was refused: rather build than trust the base */
    uint64_t differs_at; /* offset of the first line that was wrong, with standby_wrong_line */
};

/* Bytes of memory for an arena of this size. Little of it is ever touched. */
uint64_t standby_bytes(uint64_t arena_size);

/* Bytes of the largest delta: every line once, each as a run of its own. */
uint64_t standby_delta_bytes(uint64_t arena_size);

/* Hold nothing but the working copy as it is (what a function starts from). `memory` is zeroed, of
 * standby_bytes(). */
void standby_create(struct standby *standby, struct arena *working, void *memory);

/* Take over what another process left in `left`, after standby_create(): base and working copy
 * become the base there; a prepared delta stays prepared, and may be what the output logger has
 * committed meanwhile, also where there was no base before it. False, and nothing changed but the
 * memory's contents behind the head: it is not whole, of another configuration, holds neither base
 * nor delta, or somebody changed it meanwhile. */
bool standby_adopt(struct standby *standby, const void *left, uint64_t left_bytes);

/* A whole delta lies in standby->delta: check it and prepare it, or build with it. Returns NULL, or
 * why it is refused; then the base is as before. Nothing may be prepared already. After NULL
 * nothing is prepared if a build goes on. */
const char *standby_prepare(struct standby *standby, uint64_t bytes);
extern const char standby_wrong_line[]; /* the reason, where a sound delta led elsewhere */

/* Commit the prepared delta, if it is the one named. True: the base has that name now, or had it
 * already. */
bool standby_commit(struct standby *standby, struct base_name name);

/* Give up what is prepared or being built, if anything: the working copy is as the base again. */
void standby_roll_back(struct standby *standby);

/* View `view` has begun: what an earlier one left prepared or half built is void. */
void standby_new_view(struct standby *standby, uint32_t view);

/* Names of the base and of the prepared delta; epoch 0: none. */
struct base_name standby_base(const struct standby *standby);
struct base_name standby_prepared(const struct standby *standby);

/* The head of the prepared delta (there is one). */
static inline const struct delta_head *standby_delta(const struct standby *standby)
{
    return (const struct delta_head *)standby->delta;
}

static inline bool base_same(struct base_name a, struct base_name b)
{
    return a.view == b.view && a.epoch == b.epoch;
}

#endif

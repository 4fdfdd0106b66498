/* An allocator of indices: which of the numbers 0 .. size - 1 are free. For tables whose entries
 * are taken and given back one at a time.
 *
 * Which index comes next follows from what was taken and given back before, and from nothing else,
 * so a replay hands out the same ones. All of it belongs to one shared variable, which its user
 * chooses, and holds whenever it takes or gives back. A table with many users has several
 * allocators with a variable each. */
#ifndef FTMB_NF_INDICES_H
#define FTMB_NF_INDICES_H

#include "nf/nf.h"

#define INDEX_NONE UINT32_MAX
#define INDEX_TAKEN (UINT32_MAX - 1)

struct indices {
    uint64_t at; /* offset of the links from the arena's base */
    uint32_t variable;
    uint32_t size;
    uint32_t taken;
    uint32_t fresh; /* from here on none was ever taken: their links are not set */
    uint32_t first; /* of those given back, the latest first */
    uint32_t spare; /* no padding: whoever copies it copies all of it, the same at each replica */
};
_Static_assert(sizeof(struct indices) == 32, "no padding");

/* Arena memory for it, all included. */
static inline uint64_t indices_bytes(uint32_t size)
{
    return (uint64_t)size * sizeof(uint32_t) + CACHE_LINE;
}

/* All free. False: the arena is too small. */
static inline bool indices_init(struct indices *indices, struct arena *arena, uint32_t size,
                                uint32_t variable)
{
    uint8_t *at = arena_alloc(arena, 0, (uint64_t)size * sizeof(uint32_t), CACHE_LINE);
    if (!at)
        return false;
    *indices = (struct indices){.at = (uint64_t)(at - (uint8_t *)arena),
                                .variable = variable,
                                .size = size,
                                .first = INDEX_NONE};
    return true;
}

static inline uint32_t *indices_link(struct arena *arena, const struct indices *indices,
                                     uint32_t index)
{
    return (uint32_t *)((uint8_t *)arena + indices->at) + index;
}

/* For reports. */
static inline bool indices_is_taken(struct arena *arena, const struct indices *indices,
                                    uint32_t index)
{
    return index < indices->fresh && *indices_link(arena, indices, index) == INDEX_TAKEN;
}

/* A free index, the one that was given back last; INDEX_NONE: all are taken. */
static inline uint32_t indices_take(struct ftmb_ctx *ctx, struct indices *indices)
{
    FTMB_ASSERT(shared_holds(ctx, indices->variable));
    uint32_t index = indices->first;
    if (index == INDEX_NONE && indices->fresh == indices->size)
        return INDEX_NONE;
    ftmb_mark(ctx, indices, sizeof(*indices));
    if (index == INDEX_NONE)
        index = indices->fresh++;
    else
        indices->first = *indices_link(ctx->arena, indices, index);
    uint32_t *link = indices_link(ctx->arena, indices, index);
    ftmb_mark(ctx, link, sizeof(*link));
    *link = INDEX_TAKEN;
    indices->taken++;
    return index;
}

/* Nobody may give back what is free. */
static inline void indices_give(struct ftmb_ctx *ctx, struct indices *indices, uint32_t index)
{
    FTMB_ASSERT(shared_holds(ctx, indices->variable));
    FTMB_ASSERT(indices_is_taken(ctx->arena, indices, index));
    uint32_t *link = indices_link(ctx->arena, indices, index);
    ftmb_mark(ctx, indices, sizeof(*indices));
    ftmb_mark(ctx, link, sizeof(*link));
    *link = indices->first;
    indices->first = index;
    indices->taken--;
}

#endif

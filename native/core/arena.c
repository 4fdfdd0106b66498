/* The arena's layout and its per-extent bump allocators. */
#include "core/arena.h"

#include <string.h>

#define ARENA_PAGE 4096ull

static uint64_t header_bytes(void)
{
    return align_up(sizeof(struct arena), ARENA_PAGE);
}

static uint64_t shared_extent_bytes(uint64_t shared_bytes, uint32_t variables)
{
    return align_up(shared_bytes + (uint64_t)variables * sizeof(uint64_t) + ARENA_PAGE, ARENA_PAGE);
}

uint64_t arena_bytes(uint64_t shared_bytes, uint64_t worker_bytes, uint32_t workers,
                     uint32_t variables)
{
    return header_bytes() + shared_extent_bytes(shared_bytes, variables) +
           workers * align_up(worker_bytes, ARENA_PAGE);
}

struct arena *arena_create(void *memory, uint64_t size, uint64_t shared_bytes,
                           uint64_t worker_bytes, uint32_t workers, uint32_t variables,
                           uint64_t config_digest)
{
    if (workers == 0 || workers > FTMB_MAX_WORKERS || variables > FTMB_MAX_VARIABLES)
        return NULL;
    if (size < arena_bytes(shared_bytes, worker_bytes, workers, variables))
        return NULL;
    struct arena *arena = memory;
    arena->magic = ARENA_MAGIC;
    arena->size = size;
    arena->config_digest = config_digest;
    arena->workers = workers;
    arena->variables = variables;
    uint64_t at = header_bytes();
    arena->extents[0].start = at;
    arena->extents[0].limit = shared_extent_bytes(shared_bytes, variables);
    at += arena->extents[0].limit;
    for (uint32_t w = 0; w < workers; w++) {
        arena->extents[1 + w].start = at;
        arena->extents[1 + w].limit = align_up(worker_bytes, ARENA_PAGE);
        at += arena->extents[1 + w].limit;
        arena->cursors[w].next_input = 1;
        arena->cursors[w].random = 0x9e3779b97f4a7c15ull * (w + 1);
    }
    void *seq = arena_alloc(arena, 0, (uint64_t)variables * sizeof(uint64_t), CACHE_LINE);
    if (!seq)
        return NULL;
    arena->seq_offset = (uint64_t)((uint8_t *)seq - (uint8_t *)arena);
    return arena;
}

void *arena_alloc(struct arena *arena, unsigned who, uint64_t bytes, uint64_t align)
{
    FTMB_ASSERT(who <= arena->workers && is_power_of_two(align));
    FTMB_ASSERT(align <= (arena->whole_offset ? ARENA_LINE : ARENA_PAGE));
    struct arena_extent *extent = &arena->extents[who];
    uint64_t at = align_up(extent->used, align);
    if (bytes > extent->limit || at > extent->limit - bytes)
        return NULL;
    extent->used = at + bytes;
    return (uint8_t *)arena + extent->start + at;
}

void *arena_place_first(struct arena *arena, uint64_t bytes)
{
    struct arena_extent *extent = &arena->extents[0];
    uint64_t seq_bytes = (uint64_t)arena->variables * sizeof(uint64_t);
    FTMB_ASSERT(extent->used == seq_bytes && arena->seq_offset == extent->start);
    extent->used = 0;
    void *first = arena_alloc(arena, 0, bytes, CACHE_LINE);
    uint8_t *seq = first ? arena_alloc(arena, 0, seq_bytes, CACHE_LINE) : NULL;
    if (seq)
        arena->seq_offset = (uint64_t)(seq - (uint8_t *)arena);
    return seq ? first : NULL;
}

static uint64_t part_header_bytes(void)
{
    return align_up(sizeof(struct arena), ARENA_LINE);
}

uint64_t arena_part_shared_bytes(uint64_t shared_bytes)
{
    return part_header_bytes() + align_up(shared_bytes, ARENA_LINE);
}

uint64_t arena_part_worker_bytes(uint64_t worker_bytes)
{
    return align_up(worker_bytes, ARENA_LINE);
}

struct arena *arena_part(struct arena *arena, uint64_t shared_bytes, uint64_t worker_bytes,
                         uint32_t first_variable, uint32_t variables)
{
    uint64_t bytes = arena_part_shared_bytes(shared_bytes);
    uint8_t *memory = arena_alloc(arena, 0, bytes, ARENA_LINE);
    if (!memory)
        return NULL;
    uint64_t at = (uint64_t)(memory - (uint8_t *)arena);
    struct arena *part = (struct arena *)memory;
    part->magic = ARENA_MAGIC;
    part->size = arena->size - at;
    part->workers = arena->workers;
    part->variables = variables;
    part->whole_offset = at;
    /* The whole's words lie before the part: the offset is negative, and wraps. */
    part->seq_offset = arena->seq_offset + (uint64_t)first_variable * sizeof(uint64_t) - at;
    part->extents[0] =
        (struct arena_extent){.start = part_header_bytes(), .limit = bytes - part_header_bytes()};
    for (uint32_t w = 0; w < arena->workers; w++) {
        uint64_t limit = arena_part_worker_bytes(worker_bytes);
        uint8_t *own = arena_alloc(arena, 1 + w, limit, ARENA_LINE);
        if (!own)
            return NULL;
        part->extents[1 + w] =
            (struct arena_extent){.start = (uint64_t)(own - memory), .limit = limit};
    }
    return part;
}

bool arena_valid(const struct arena *arena, uint64_t size)
{
    if (arena->magic != ARENA_MAGIC || arena->size > size)
        return false;
    if (arena->workers == 0 || arena->workers > FTMB_MAX_WORKERS)
        return false;
    if (arena->variables > FTMB_MAX_VARIABLES)
        return false;
    for (uint32_t e = 0; e <= arena->workers; e++) {
        const struct arena_extent *x = &arena->extents[e];
        if (x->start > size || x->limit > size - x->start || x->used > x->limit)
            return false;
    }
    uint64_t seq_bytes = (uint64_t)arena->variables * sizeof(uint64_t);
    return arena->seq_offset <= size && seq_bytes <= size - arena->seq_offset &&
           arena->root_offset < size;
}

uint64_t arena_allocated(const struct arena *arena)
{
    uint64_t bytes = sizeof(struct arena);
    for (uint32_t e = 0; e <= arena->workers; e++)
        bytes += arena->extents[e].used;
    return bytes;
}

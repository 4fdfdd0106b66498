/* The arena: all state of a network function, at one fixed address in every replica.
 *
 * Layout: header | shared extent | one extent per worker. Each extent has its own bump allocator,
 * so which address a worker gets never depends on the timing of another worker. There are no
 * pointers out of the arena and no code pointers in it. The allocated parts of the extents are
 * what a snapshot contains; worker cursors and variable versions live in here too, so a snapshot
 * is complete by construction. */
#ifndef FTMB_CORE_ARENA_H
#define FTMB_CORE_ARENA_H

#include "core/base.h"

#define ARENA_MAGIC 0x424d5446414e4552ull

/* Granularity of snapshots, bytes. Two cache lines, which processors fetch in pairs anyway: smaller
 * ones cost more stamps and run heads, larger ones more copying at a first touch. */
#define ARENA_LINE 128u
#define ARENA_EXTENTS (FTMB_MAX_WORKERS + 1)

/* Where the arena is mapped (by the embedding process) in every replica. */
#define ARENA_ADDRESS ((void *)0x200000000000ull)

/* One worker's position: what it has done since the beginning, exact across failovers. */
struct worker_cursor {
    CACHE_ALIGNED uint64_t next_input; /* sequence number of the next input, first is 1 */
    uint64_t pals;                     /* PALs appended so far */
    uint64_t outputs;                  /* outputs produced so far */
    uint64_t packets;                  /* inputs that were packets */
    uint64_t ticks;                    /* inputs that were ticks */
    uint64_t dropped;                  /* packets without any output */
    uint64_t now_ns;                   /* stamp of the latest input */
    uint64_t random;                   /* state of ctx random numbers */
};

struct arena_extent {
    uint64_t start; /* offset from the arena's base */
    uint64_t used;  /* bytes allocated */
    uint64_t limit; /* bytes reserved */
};

struct arena {
    uint64_t magic;
    uint64_t size; /* bytes mapped, header included */
    uint64_t config_digest;
    uint32_t workers;
    uint32_t variables;
    uint64_t seq_offset;                        /* the variables' sequence words */
    uint64_t root_offset;                       /* the network function's root object */
    uint64_t whole_offset;                      /* of a part: how far behind the whole it lies */
    struct arena_extent extents[ARENA_EXTENTS]; /* [0] shared, [1 + w] worker w */
    struct worker_cursor cursors[FTMB_MAX_WORKERS];
};

/* Bytes to map for an arena with these extents. */
uint64_t arena_bytes(uint64_t shared_bytes, uint64_t worker_bytes, uint32_t workers,
                     uint32_t variables);

/* Lay out an arena over `size` zeroed bytes at `memory`. NULL if it does not fit. */
struct arena *arena_create(void *memory, uint64_t size, uint64_t shared_bytes,
                           uint64_t worker_bytes, uint32_t workers, uint32_t variables,
                           uint64_t config_digest);

/* Zeroed memory from extent `who` (0 shared, 1 + w worker w), aligned to `align` (power of two,
 * <= 4096, in a part <= ARENA_LINE); NULL when the extent is full. Only worker w may allocate from
 * its extent once workers run. There is no free: functions keep free lists. */
void *arena_alloc(struct arena *arena, unsigned who, uint64_t bytes, uint64_t align);

/* Zeroed memory at the very beginning of the shared extent: its address is the same for any number
 * of variables, whose sequence words move behind it. Before anything else is allocated; NULL when
 * it does not fit. */
void *arena_place_first(struct arena *arena, uint64_t bytes);

/* A part of `arena`, for a function that is one of several in it (nf/chain.c): a header in the
 * shared extent with a root, variables from `first_variable` on and extents of its own. Cursors are
 * the whole's. NULL when it does not fit; what a part needs of the shared extent is more than what
 * its function asks for. */
struct arena *arena_part(struct arena *arena, uint64_t shared_bytes, uint64_t worker_bytes,
                         uint32_t first_variable, uint32_t variables);
uint64_t arena_part_shared_bytes(uint64_t shared_bytes);
uint64_t arena_part_worker_bytes(uint64_t worker_bytes);

/* Does a header describe an arena that fits in `size` bytes? For data from outside. */
bool arena_valid(const struct arena *arena, uint64_t size);

/* Bytes in the allocated parts of all extents, header included. */
uint64_t arena_allocated(const struct arena *arena);

/* The arena that `arena` is a part of, or itself. */
static inline struct arena *arena_whole(const struct arena *arena)
{
    return (struct arena *)((uintptr_t)arena - arena->whole_offset);
}

static inline _Atomic uint64_t *arena_seq(struct arena *arena)
{
    return (_Atomic uint64_t *)((uint8_t *)arena + arena->seq_offset);
}

static inline void *arena_root(struct arena *arena)
{
    return (uint8_t *)arena + arena->root_offset;
}

#endif

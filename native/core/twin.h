/* A value that outlives its process whole: two copies and an index that flips. Whenever the process
 * dies, the copy that the index names is one that was stored completely. For values too large for
 * one store, in memory that survives; one writer. */
#ifndef FTMB_CORE_TWIN_H
#define FTMB_CORE_TWIN_H

#include "core/base.h"

#include <string.h>

struct twin {
    _Atomic uint32_t current;
    uint32_t bytes; /* of each copy, a multiple of 8 */
    uint64_t copies[];
};

static inline uint64_t twin_bytes(uint32_t bytes)
{
    return sizeof(struct twin) + 2 * align_up(bytes, 8);
}

static inline void twin_init(struct twin *twin, uint32_t bytes)
{
    twin->bytes = (uint32_t)align_up(bytes, 8);
    atomic_store(&twin->current, 0);
    memset(twin->copies, 0, 2 * (size_t)twin->bytes);
}

static inline const void *twin_load(const struct twin *twin)
{
    return (const uint8_t *)twin->copies +
           (atomic_load_explicit(&twin->current, memory_order_acquire) & 1) * (size_t)twin->bytes;
}

static inline void twin_store(struct twin *twin, const void *value, uint32_t bytes)
{
    uint32_t other = (atomic_load_explicit(&twin->current, memory_order_relaxed) & 1) ^ 1;
    FTMB_ASSERT(bytes <= twin->bytes);
    memcpy((uint8_t *)twin->copies + other * (size_t)twin->bytes, value, bytes);
    atomic_store_explicit(&twin->current, other, memory_order_release);
}

#endif

/* The PAL (packet access log): one record per access to a shared variable, 8 bytes.
 *
 *   bit 63     kind: 1 write, 0 read
 *   bit 62     inside: appended while the worker held a variable (part of a section)
 *   bits 38-61 variable id
 *   bits 0-37  version that the access found, modulo 2^38
 *
 * A PAL does not name its packet: that is known from its place in the worker's stream. (The
 * FTMB paper's PAL is about 16 bytes: packet, variable, sequence.) */
#ifndef FTMB_CORE_PAL_H
#define FTMB_CORE_PAL_H

#include "core/base.h"

#define PAL_WRITE (1ull << 63)
#define PAL_INSIDE (1ull << 62)
#define PAL_VERSION_BITS 38
#define PAL_VERSION_MASK ((1ull << PAL_VERSION_BITS) - 1)
#define PAL_ID_DETERMINANT FTMB_MAX_VARIABLES

static inline uint64_t pal_make(bool write, bool inside, uint32_t id, uint64_t version)
{
    return (write ? PAL_WRITE : 0) | (inside ? PAL_INSIDE : 0) |
           ((uint64_t)id << PAL_VERSION_BITS) | (version & PAL_VERSION_MASK);
}

static inline uint32_t pal_id(uint64_t pal)
{
    return (uint32_t)(pal >> PAL_VERSION_BITS) & FTMB_MAX_VARIABLES;
}

/* How far the PAL's version is beyond `base` (exact while fewer than 2^38 versions apart). */
static inline uint64_t pal_version_since(uint64_t pal, uint64_t base)
{
    return (pal - base) & PAL_VERSION_MASK;
}

#endif

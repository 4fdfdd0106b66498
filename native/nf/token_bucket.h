/* A token bucket, kept as a time: when it will be full again.
 *
 * Bytes cost time, what they take to refill at the bucket's rate. A bucket that is not full lacks
 * `full_at - now` of `depth`. So there is nothing to refill, and a bucket whose time has come is
 * the same as one that was never used: whoever keeps many may forget those.
 *
 * Times are stamps of inputs. Those of different workers are not ordered: an older one finds less
 * in the bucket, never more, so what passes up to any stamp t is at most depth + rate * (t -
 * start). Fractions of a nanosecond are kept, or small packets at high rates would cost too much.
 */
#ifndef FTMB_NF_TOKEN_BUCKET_H
#define FTMB_NF_TOKEN_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_FRACTION_BITS 20u
#define BUCKET_FRACTION_MASK ((1u << BUCKET_FRACTION_BITS) - 1)

/* Never changes. */
struct bucket_rate {
    uint64_t byte_cost; /* of a byte, in 2^-20 ns; 0: no limit */
    uint64_t depth_ns;  /* cost of all that a full bucket holds */
};

/* Copied whole into the arena, where a gap would be state of no certain value. */
struct token_bucket {
    uint64_t full_at;
    uint64_t fraction; /* of a nanosecond, in 2^-20; belongs to full_at */
};

/* `kbps` kilobits a second, at most 2^30 bytes at once. Not for the packet path: it divides. */
static inline struct bucket_rate bucket_rate_of(uint64_t kbps, uint64_t bytes)
{
    const uint64_t ns = 8000000; /* of a byte at 1 kbit/s */
    if (kbps == 0)
        return (struct bucket_rate){0};
    return (struct bucket_rate){.byte_cost = ((ns << BUCKET_FRACTION_BITS) + kbps / 2) / kbps,
                                .depth_ns = bytes * ns / kbps};
}

/* True: `bytes` (less than 2^18) may pass at `now`; then `after` is the bucket without them. */
static inline bool bucket_holds(const struct token_bucket *bucket, const struct bucket_rate *rate,
                                uint64_t now, uint32_t bytes, struct token_bucket *after)
{
    bool full = bucket->full_at <= now;
    uint64_t lacking = full ? 0 : bucket->full_at - now;
    uint64_t cost = bytes * rate->byte_cost + (full ? 0 : bucket->fraction);
    lacking += cost >> BUCKET_FRACTION_BITS;
    after->full_at = now + lacking;
    after->fraction = cost & BUCKET_FRACTION_MASK;
    return lacking + (after->fraction != 0) <= rate->depth_ns;
}

#endif

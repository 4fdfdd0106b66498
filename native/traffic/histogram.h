/* Log-linear histogram of 64-bit values: exact below 2048, then 1024 buckets per power of two, so
 * that a bucket is never wider than 1/1024 of its values (relative error below 0.1 %). Histograms
 * merge without loss, which averages of percentiles do not. */
#ifndef FTMB_TRAFFIC_HISTOGRAM_H
#define FTMB_TRAFFIC_HISTOGRAM_H

#include "core/base.h"

#include <jansson.h>

#define HISTOGRAM_BITS 10u
/* Larger values are counted in the last bucket (as nanoseconds: 18 minutes); `max` stays exact. */
#define HISTOGRAM_MAX_EXPONENT 39u
#define HISTOGRAM_BUCKETS                                                                          \
    (((HISTOGRAM_MAX_EXPONENT - HISTOGRAM_BITS) << HISTOGRAM_BITS) + (2u << HISTOGRAM_BITS))

struct histogram {
    uint64_t count;
    uint64_t min;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *h);

/* Bucket of a value, and the smallest and largest value of a bucket. */
static inline uint32_t histogram_bucket(uint64_t value)
{
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(value | 1);
    if (unlikely(exponent > HISTOGRAM_MAX_EXPONENT))
        return HISTOGRAM_BUCKETS - 1;
    uint32_t shift = exponent > HISTOGRAM_BITS ? exponent - HISTOGRAM_BITS : 0;
    return (shift << HISTOGRAM_BITS) + (uint32_t)(value >> shift);
}

uint64_t histogram_bucket_low(uint32_t bucket);
uint64_t histogram_bucket_high(uint32_t bucket);

/* For a caller that has the value's bucket already. */
static inline void histogram_add_to(struct histogram *h, uint64_t value, uint32_t bucket)
{
    h->count++;
    if (unlikely(value > h->max))
        h->max = value;
    if (unlikely(value < h->min))
        h->min = value;
    h->buckets[bucket]++;
}

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    histogram_add_to(h, value, histogram_bucket(value));
}

void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that at least `share` (0..1) of all values do not exceed: the largest of its bucket, at
 * most `max`. 0 when empty. */
uint64_t histogram_quantile(const struct histogram *h, double share);

/* How many values were above `value` (to the precision of a bucket). */
uint64_t histogram_above(const struct histogram *h, uint64_t value);

/* {"version": 1, "unit": "ns", "count", "min", "max", "buckets": [[low, high, count], ...]}: both
 * ends inclusive, empty buckets left out. */
json_t *histogram_json(const struct histogram *h);

#endif

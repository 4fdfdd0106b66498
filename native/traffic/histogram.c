/* Log-linear histogram: merging, quantiles, dump. */
#include "traffic/histogram.h"

#include <string.h>

void histogram_init(struct histogram *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

uint64_t histogram_bucket_low(uint32_t bucket)
{
    uint32_t linear = 2u << HISTOGRAM_BITS;
    if (bucket < linear)
        return bucket;
    uint32_t shift = (bucket >> HISTOGRAM_BITS) - 1;
    uint64_t mantissa = bucket - (shift << HISTOGRAM_BITS);
    return mantissa << shift;
}

uint64_t histogram_bucket_high(uint32_t bucket)
{
    if (bucket + 1 >= HISTOGRAM_BUCKETS)
        return UINT64_MAX;
    return histogram_bucket_low(bucket + 1) - 1;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->count += from->count;
    into->min = u64_min(into->min, from->min);
    into->max = u64_max(into->max, from->max);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t histogram_quantile(const struct histogram *h, double share)
{
    if (h->count == 0)
        return 0;
    /* Rounded up: the k-th smallest of n with k/n >= share. */
    double exact = share * (double)h->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact || rank == 0)
        rank++;
    rank = u64_min(rank, h->count);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            return u64_min(histogram_bucket_high(i), h->max);
    }
    return h->max;
}

uint64_t histogram_above(const struct histogram *h, uint64_t value)
{
    uint64_t above = 0;
    for (uint32_t i = histogram_bucket(value) + 1; i < HISTOGRAM_BUCKETS; i++)
        above += h->buckets[i];
    return above;
}

json_t *histogram_json(const struct histogram *h)
{
    json_t *buckets = json_array();
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (h->buckets[i] == 0)
            continue;
        uint64_t high = u64_min(histogram_bucket_high(i), INT64_MAX);
        json_array_append_new(buckets, json_pack("[I,I,I]", (json_int_t)histogram_bucket_low(i),
                                                 (json_int_t)high, (json_int_t)h->buckets[i]));
    }
    return json_pack("{s:i,s:s,s:I,s:I,s:I,s:o}", "version", 1, "unit", "ns", "count",
                     (json_int_t)h->count, "min", (json_int_t)(h->count ? h->min : 0), "max",
                     (json_int_t)h->max, "buckets", buckets);
}

/* Histogram: relative error, quantiles against a sorted list, merging, dump. */
#include "check.h"
#include "traffic/histogram.h"

#include <string.h>

#define N 20000u

static uint64_t state = 88172645463325252ull;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void check_value(uint64_t value)
{
    uint32_t bucket = histogram_bucket(value);
    uint64_t low = histogram_bucket_low(bucket), high = histogram_bucket_high(bucket);
    CHECK(low <= value && value <= high);
    if (bucket + 1 < HISTOGRAM_BUCKETS)
        CHECK((double)(high - low) <= 0.001 * (double)value);
    if (bucket)
        CHECK(histogram_bucket_high(bucket - 1) + 1 == low);
}

static void test_buckets(void)
{
    for (uint64_t value = 0; value < 10000; value++)
        check_value(value);
    for (uint32_t shift = 0; shift < 64; shift++) {
        check_value(1ull << shift);
        check_value((1ull << shift) - 1);
        check_value(draw() >> shift);
    }
    check_value(UINT64_MAX);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_quantiles(void)
{
    static uint64_t values[N];
    static struct histogram all, parts[2];
    const double shares[] = {0.0001, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0};
    histogram_init(&all);
    histogram_init(&parts[0]);
    histogram_init(&parts[1]);
    CHECK(histogram_quantile(&all, 0.5) == 0);
    for (uint32_t i = 0; i < N; i++) {
        values[i] = draw() >> (24 + draw() % 40);
        histogram_add(&all, values[i]);
        histogram_add(&parts[i % 2], values[i]);
    }
    qsort(values, N, sizeof(values[0]), by_value);
    for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        double rank = shares[i] * N;
        uint32_t k = (uint32_t)rank + ((double)(uint32_t)rank < rank);
        double exact = (double)values[(k ? k : 1) - 1];
        double got = (double)histogram_quantile(&all, shares[i]);
        CHECK(got >= exact && got <= exact * 1.001);
    }
    CHECK(histogram_quantile(&all, 1.0) == values[N - 1] && all.min == values[0]);
    histogram_merge(&parts[0], &parts[1]);
    CHECK(memcmp(&parts[0], &all, sizeof(all)) == 0);
    CHECK(histogram_above(&all, histogram_quantile(&all, 0.9)) <= N / 10);
}

static void test_dump(void)
{
    static struct histogram h;
    histogram_init(&h);
    histogram_add(&h, 5);
    histogram_add(&h, 5);
    histogram_add(&h, 1000000);
    json_t *dump = histogram_json(&h);
    json_t *buckets = json_object_get(dump, "buckets");
    CHECK(json_integer_value(json_object_get(dump, "count")) == 3);
    CHECK(json_array_size(buckets) == 2);
    json_t *first = json_array_get(buckets, 0), *second = json_array_get(buckets, 1);
    CHECK(json_integer_value(json_array_get(first, 0)) == 5);
    CHECK(json_integer_value(json_array_get(first, 1)) == 5);
    CHECK(json_integer_value(json_array_get(first, 2)) == 2);
    CHECK(json_integer_value(json_array_get(second, 0)) <= 1000000);
    CHECK(json_integer_value(json_array_get(second, 1)) >= 1000000);
    json_decref(dump);
}

int main(void)
{
    test_buckets();
    test_quantiles();
    test_dump();
    return 0;
}

/* The containers that network functions share (nf/sets.h, nf/token_bucket.h, nf/indices.h,
 * nf/timer_wheel.h), each against what it promises. */
#include "nf/indices.h"
#include "nf/sets.h"
#include "nf/timer_wheel.h"
#include "nf/token_bucket.h"
#include "tests/core_test.h"
#include "tests/marks_world.h"
#include "tests/nf_harness.h"

#include <string.h>

/* ---- token bucket: against one that is refilled, in exact arithmetic ------------------------ */

typedef unsigned __int128 wide;

/* Level and costs in 1/kbps-ths of 1/8000000 byte: a nanosecond refills kbps of them. */
struct model {
    uint64_t kbps;
    wide depth, level;
    uint64_t last; /* greatest stamp */
};

static bool model_takes(struct model *m, uint64_t now, uint32_t bytes)
{
    wide cost = (wide)bytes * 8000000, level = m->level;
    wide back = 0;
    if (now >= m->last) {
        level += (wide)(now - m->last) * m->kbps;
        level = level < m->depth ? level : m->depth;
    } else if (level < m->depth) { /* what came in since that stamp is not there yet */
        back = (wide)(m->last - now) * m->kbps;
    }
    if (level < cost + back)
        return false;
    m->level = level - cost;
    m->last = now >= m->last ? now : m->last;
    return true;
}

static void test_bucket(uint64_t *rng, uint64_t kbps, uint64_t depth)
{
    struct bucket_rate rate = bucket_rate_of(kbps, depth);
    struct token_bucket bucket = {0}, after;
    struct model m = {.kbps = kbps, .depth = (wide)depth * 8000000, .level = (wide)depth * 8000000};
    uint64_t now = 1000 * SECOND, start = now, passed = 0, refused = 0;
    uint64_t typical = 800ull * 8000000 / kbps; /* ns that 800 bytes take */
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t r = test_random(rng);
        uint32_t bytes = 60 + (uint32_t)(r >> 8) % 1455;
        now += r % 2000 == 0 ? typical * 100 : (r >> 32) % (typical + 1); /* twice the rate */
        bool holds = bucket_holds(&bucket, &rate, now, bytes, &after);
        CHECK(after.fraction <= BUCKET_FRACTION_MASK);
        CHECK(holds == model_takes(&m, now, bytes));
        if (holds) {
            bucket = after;
            passed += bytes;
            CHECK(bucket.full_at <= now + rate.depth_ns);
        }
        refused += !holds;
        CHECK((wide)passed * 8000000 <= (wide)(now - start) * kbps + (wide)depth * 8000000);
    }
    CHECK(refused > 3000 && refused < 17000);
}

/* Kept busy, it lets through its rate: nothing is lost to rounding. */
static void test_bucket_rate(uint64_t kbps, uint32_t bytes)
{
    struct bucket_rate rate = bucket_rate_of(kbps, 4096);
    struct token_bucket bucket = {0}, after;
    uint64_t now = 1000 * SECOND, passed = 0;
    for (unsigned i = 0; i < 200000; i++) {
        now += bytes * 8000000ull / kbps / 3 + 1;
        if (bucket_holds(&bucket, &rate, now, bytes, &after)) {
            bucket = after;
            passed += bytes;
        }
    }
    uint64_t due = (uint64_t)((wide)(now - 1000 * SECOND) * kbps / 8000000) + 4096;
    CHECK(passed <= due + due / 10000 && passed + due / 500 >= due - 4096);
}

/* An older stamp finds less, never more. */
static void test_bucket_disorder(uint64_t *rng)
{
    struct bucket_rate rate = bucket_rate_of(8000, 10000); /* a byte a microsecond */
    struct token_bucket bucket = {0}, after;
    uint64_t latest = SECOND, passed = 0;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t r = test_random(rng);
        latest += (r >> 8) % 1000000;
        uint64_t now = latest - (r >> 32) % 5000000;
        if (bucket_holds(&bucket, &rate, now, 500, &after)) {
            bucket = after;
            passed += 500;
        }
        CHECK(passed <= 10000 + (latest - SECOND + 5000000) / 1000);
    }
    CHECK(passed > 1000000);
}

/* ---- sets: spread, places, bounds ---------------------------------------------------------- */

/* `capacity` keys that follow one another, as addresses and ports do: how many find no place. */
static uint64_t without_place(const struct sets *sets, uint64_t first, uint64_t step,
                              uint64_t capacity)
{
    uint8_t *used = calloc(sets->count, 1);
    uint64_t without = 0;
    CHECK(used);
    for (uint64_t i = 0; i < capacity; i++) {
        uint32_t set = sets_pick(sets, sets_mix(first + i * step));
        CHECK(set < sets->count);
        if (used[set] == SETS_WAYS)
            without++;
        else
            used[set]++;
    }
    free(used);
    return without;
}

static void test_spread(void)
{
    const uint64_t capacity = 200000;
    struct sets sets = {.count = sets_for(capacity)};
    const uint64_t steps[] = {1, 2, 256, 1u << 16, 1u << 24, 0x01000001, 1ull << 32, 1ull << 48};
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        CHECK(without_place(&sets, 0x0a000001, steps[i], 60000) <= 60);
    CHECK(without_place(&sets, 0x0a000001, 1, capacity) < capacity / 4000);
    CHECK(sets_for(1) == 1 && sets_for(2) == 1 && sets_for(3) == 2);
    CHECK(sets_pick(&(struct sets){.count = 1}, UINT64_MAX) == 0);
}

/* Sets lie apart, inside the memory that was asked for. */
static void test_places(void)
{
    const uint64_t capacity = 1000;
    const uint32_t entry = 48;
    uint64_t size = arena_bytes(sets_bytes(capacity, entry), 64, 1, 1);
    void *memory = aligned_alloc(4096, align_up(size, 4096));
    CHECK(memory);
    memset(memory, 0, size);
    struct arena *arena = arena_create(memory, size, sets_bytes(capacity, entry), 64, 1, 1, 0);
    struct sets sets, more;
    CHECK(arena && sets_init(&sets, arena, capacity, entry));
    CHECK(sets.count == 500 && sets.set_bytes == SETS_WAYS * entry);
    for (uint32_t i = 0; i < sets.count; i++) {
        uint8_t *set = sets_at(arena, &sets, i);
        for (uint32_t b = 0; b < sets.set_bytes; b++)
            CHECK(set[b] == 0);
        memset(set, 1 + (int)(i % 200), sets.set_bytes);
    }
    for (uint32_t i = 0; i < sets.count; i++) {
        const uint8_t *set = sets_at(arena, &sets, i);
        CHECK(set[0] == 1 + i % 200 && set[sets.set_bytes - 1] == 1 + i % 200);
        CHECK((uint64_t)(set - (uint8_t *)arena) + sets.set_bytes <= size);
    }
    CHECK(!sets_init(&more, arena, capacity, entry));
    free(memory);
}

/* ---- flows: what sets_find() finds, in a set of entries of any size ---------------------------
 */

struct a_flow {
    struct sets_flow flow;
    uint8_t more[24];
};

/* Where the flow is, else the first free entry, else the first that may give its place; -1: none.
 * Looked for in three passes instead of one. */
static int expected_way(const struct a_flow *set, const struct sets_key *key, uint64_t now,
                        const struct sets_timeouts *t)
{
    for (int way = 0; way < (int)SETS_WAYS; way++) {
        if (memcmp(&set[way].flow.key, key, sizeof(*key)) == 0)
            return way;
    }
    for (int way = 0; way < (int)SETS_WAYS; way++) {
        if (set[way].flow.key.rest == 0)
            return way;
    }
    for (int way = 0; way < (int)SETS_WAYS; way++) {
        const struct sets_flow *flow = &set[way].flow;
        if (flow->state == 2 ||
            (now > flow->last_seen && now - flow->last_seen > t->ns[flow->state]))
            return way;
    }
    return -1;
}

static void test_flows(uint64_t *rng)
{
    const uint64_t ms[] = {3, 40, 1000};
    struct sets sets = {.count = 1, .set_bytes = SETS_WAYS * sizeof(struct a_flow)};
    struct sets_timeouts timeouts;
    struct ftmb_ctx ctx = {0};
    struct a_flow set[SETS_WAYS] = {0};
    unsigned found[3] = {0}; /* its own entry, a place, none */
    CHECK(sets_times(&timeouts, ms, 3, 2) == 3000000);
    ctx.now_ns = SECOND;
    for (unsigned i = 0; i < 50000; i++) {
        uint64_t r = test_random(rng);
        struct sets_key key = sets_key_of(r % 4, r >> 8 & 3, 17, (r >> 16) & 1, 80);
        ctx.now_ns += (r >> 24) % 8 ? (r >> 32) % 300000 : 0;
        int want = expected_way(set, &key, ctx.now_ns, &timeouts);
        struct a_flow *at = sets_find(&ctx, &timeouts, set, sizeof(*at), &key);
        CHECK(want < 0 ? at == NULL : at == &set[want]);
        bool known = at && sets_knows(&ctx, &timeouts, &at->flow, &key);
        found[want < 0 ? 2 : known ? 0 : 1]++;
        if (!at)
            continue;
        CHECK(!known || ctx.now_ns - at->flow.last_seen <= timeouts.ns[at->flow.state]);
        *at = (struct a_flow){.flow = {key, ctx.now_ns, (uint8_t)((r >> 60) % 3), 0, {0}}};
        CHECK(sets_sound(&sets, 0, set, (unsigned)(at - set)));
    }
    printf("flows: %u known, %u new, %u without a place\n", found[0], found[1], found[2]);
    CHECK(found[0] > 1000 && found[1] > 1000 && found[2] > 1000);
    set[6] = set[3];
    CHECK(!sets_sound(&sets, 0, set, 6) && sets_sound(&sets, 0, set, 3));
    CHECK(!sets_sound(&sets, 1, set, 3));
}

/* ---- indices and timers: random operations against a plain model --------------------------- */

#define OWNER 1u /* the variable that they belong to */
#define SHARED_BYTES 4096u

static struct marks_world *open_small_arena(void)
{
    struct marks_world *w = marks_world_open((struct marks_shape){
        .workers = 1, .shared_bytes = SHARED_BYTES, .worker_bytes = 64, .variables = 2});
    w->ctx[0].gate = false;
    return w;
}

static struct ftmb_ctx *begin(struct marks_world *w, uint8_t *before)
{
    memcpy(before, w->arena, w->size);
    memset((void *)w->marks.stamp, MARK_CLEAN, w->marks.lines);
    w->ctx[0].pal_count = 0;
    ftmb_write(&w->ctx[0], OWNER);
    return &w->ctx[0];
}

/* What has changed since begin() was marked; the header needs no marks. */
static void end(struct marks_world *w, const uint8_t *before)
{
    ftmb_section_end(&w->ctx[0]);
    const uint8_t *after = (const uint8_t *)w->arena;
    for (uint64_t at = align_up(sizeof(struct arena), ARENA_LINE); at < w->size; at += ARENA_LINE) {
        if (memcmp(after + at, before + at, u64_min(ARENA_LINE, w->size - at)))
            CHECK(w->marks.stamp[at / ARENA_LINE] == w->ctx[0].tag);
    }
}

/* Memory on a line that nothing else is on, so that no other mark stands in for its own. */
static void *alone(struct marks_world *w, uint64_t bytes)
{
    void *memory = arena_alloc(w->arena, 0, bytes, ARENA_LINE);
    CHECK(memory && bytes <= ARENA_LINE && arena_alloc(w->arena, 0, 1, ARENA_LINE));
    return memory;
}

static void test_indices(uint64_t *rng, uint32_t size)
{
    struct marks_world *w = open_small_arena();
    uint8_t *before = malloc(w->size);
    struct indices *indices = alone(w, sizeof(*indices));
    CHECK(before && indices && indices_init(indices, w->arena, size, OWNER));
    bool *taken = calloc(size, sizeof(*taken));
    uint32_t *given = calloc(size, sizeof(*given)); /* the latest last */
    uint32_t count = 0, given_count = 0;
    CHECK(taken && given);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t r = test_random(rng);
        uint32_t index = (uint32_t)(r >> 32) % size;
        struct ftmb_ctx *ctx = begin(w, before);
        if ((r & 7) < (i / 500 % 2 ? 3 : 5)) { /* fuller and emptier, in turn */
            uint32_t got = indices_take(ctx, indices);
            CHECK((got == INDEX_NONE) == (count == size));
            if (got != INDEX_NONE) {
                CHECK(got < size && !taken[got]);
                CHECK(!given_count || got == given[given_count - 1]);
                given_count -= given_count != 0;
                taken[got] = true;
                count++;
            }
        } else if (taken[index]) {
            indices_give(ctx, indices, index);
            taken[index] = false;
            given[given_count++] = index;
            count--;
        } else if (i < 100) {
            CHECK_PANICS(indices_give(ctx, indices, index)); /* it is free */
        }
        end(w, before);
        CHECK(indices->taken == count);
        for (uint32_t n = 0; n < size; n++)
            CHECK(indices_is_taken(w->arena, indices, n) == taken[n]);
    }
    CHECK(!indices_init(indices, w->arena, SHARED_BYTES, OWNER));
    CHECK_PANICS(indices_take(&w->ctx[0], indices)); /* its variable is not held */
    free(taken);
    free(given);
    free(before);
    marks_world_close(w);
}

#define TIMERS 40u
#define GRAIN_SHIFT 10u

/* The grain at which a timer comes out, 0: not set; and the latest one asked for. */
struct timer_model {
    uint64_t due[TIMERS];
    uint64_t latest;
    uint64_t out;
};

/* All that are due at this stamp come out, once each, and no others; unless whoever asks gives up
 * after so many times. */
static void expire(struct marks_world *w, struct timer_wheel *wheel, struct timer_model *m,
                   uint8_t *before, uint64_t now, uint64_t times)
{
    m->latest = u64_max(m->latest, now >> GRAIN_SHIFT);
    for (;; times--) {
        if (times == 0)
            return;
        struct ftmb_ctx *ctx = begin(w, before);
        uint32_t index = timer_wheel_due(ctx, wheel, now);
        end(w, before);
        if (index == TIMER_NONE) {
            if (wheel->scan == TIMER_NONE && wheel->grain == m->latest)
                break;
            continue; /* it had not enough steps */
        }
        CHECK(index < TIMERS && m->due[index] && m->due[index] <= m->latest);
        m->due[index] = 0;
        m->out++;
    }
    for (uint32_t t = 0; t < TIMERS; t++)
        CHECK(!m->due[t] || m->due[t] > m->latest);
}

static void test_timers(uint64_t *rng, uint32_t slots)
{
    struct marks_world *w = open_small_arena();
    uint8_t *before = malloc(w->size);
    struct timer_wheel *wheel = alone(w, sizeof(*wheel));
    struct timer_model m = {0};
    uint64_t now = 1000 * SECOND;
    CHECK(before && wheel && timer_wheel_init(wheel, w->arena, TIMERS, slots, GRAIN_SHIFT, OWNER));
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t r = test_random(rng);
        uint32_t index = (uint32_t)(r >> 32) % TIMERS;
        /* Mostly less than the wheel's round ahead; stamps behind the latest, and long gaps. */
        now += (r & 0xfff0) == 0 ? SECOND : (r >> 16) % (3000 + 200 * slots);
        uint64_t stamp = now - ((r >> 8) % 5 == 0 ? (r >> 40) % 9000 : 0);
        uint64_t due = stamp + (r >> 44) % ((2ull * slots) << GRAIN_SHIFT);
        if (r % 4 == 0) {
            expire(w, wheel, &m, before, stamp, (r >> 5) % 3 ? UINT64_MAX : 1 + (r >> 7) % 4);
            continue;
        }
        struct ftmb_ctx *ctx = begin(w, before);
        if (r % 4 == 1) {
            timer_wheel_clear(ctx, wheel, index);
            m.due[index] = 0;
        } else {
            timer_wheel_set(ctx, wheel, index, due);
            m.due[index] =
                u64_max((due + (1u << GRAIN_SHIFT) - 1) >> GRAIN_SHIFT, wheel->grain + 1);
        }
        end(w, before);
        uint32_t set = 0;
        for (uint32_t t = 0; t < TIMERS; t++)
            set += m.due[t] != 0;
        CHECK(wheel->set == set);
    }
    CHECK(m.out > 3000);
    CHECK(!timer_wheel_init(wheel, w->arena, SHARED_BYTES, slots, GRAIN_SHIFT, OWNER));
    CHECK_PANICS(timer_wheel_due(&w->ctx[0], wheel, now)); /* its variable is not held */
    free(before);
    marks_world_close(w);
}

/* Asked once in some rounds, always at the same place of the wheel or anywhere: a timer comes out
 * before all slots, and the timers in them, could have been looked at twice. */
static void test_rare_calls(uint64_t *rng, uint32_t slots, bool same_place)
{
    struct marks_world *w = open_small_arena();
    uint8_t *before = malloc(w->size);
    struct timer_wheel *wheel = alone(w, sizeof(*wheel));
    uint64_t grain = 1000000, rounds = 2;
    CHECK(before && wheel && timer_wheel_init(wheel, w->arena, TIMERS, slots, GRAIN_SHIFT, OWNER));
    for (uint32_t other = 1; other < TIMERS; other++) { /* those are never due */
        timer_wheel_set(begin(w, before), wheel, other, UINT64_MAX / 2 + test_random(rng) % SECOND);
        end(w, before);
    }
    for (unsigned i = 0; i < 200; i++) {
        uint64_t due = grain + test_random(rng) % slots, calls = 0;
        timer_wheel_set(begin(w, before), wheel, 0, due << GRAIN_SHIFT);
        end(w, before);
        for (uint32_t index = TIMER_NONE; index == TIMER_NONE; calls++) {
            CHECK(calls < 2 * (slots + TIMERS) / TIMER_STEPS + 4);
            grain += rounds * slots + (same_place ? 0 : test_random(rng) % (2 * slots));
            index = timer_wheel_due(begin(w, before), wheel, grain << GRAIN_SHIFT);
            end(w, before);
            CHECK(index == TIMER_NONE || (index == 0 && due <= grain));
        }
    }
    free(before);
    marks_world_close(w);
}

int main(int argc, char **argv)
{
    uint64_t rng = test_seed(argc, argv);
    test_bucket(&rng, 1000, 20000);
    test_bucket(&rng, 100000, 1514);
    test_bucket(&rng, 8000000, 1u << 20); /* costs of all of these are whole in its unit */
    test_bucket(&rng, 1, 5000);
    test_bucket_rate(1, 64);
    test_bucket_rate(100000000, 64);
    test_bucket_rate(999983, 1514); /* divides nothing */
    test_bucket_disorder(&rng);
    test_spread();
    test_places();
    test_flows(&rng);
    for (uint32_t size = 1; size <= 64; size *= 4)
        test_indices(&rng, size);
    for (uint32_t slots = 1; slots <= 256; slots *= 4)
        test_timers(&rng, slots);
    for (uint32_t slots = 16; slots <= 512; slots *= 2) {
        test_rare_calls(&rng, slots, true);
        test_rare_calls(&rng, slots, false);
    }
    return 0;
}

/* The WAN optimizer's chunks: where they end, what they are called, the cache that they are in. */
#include "nf/wanopt.h"

uint32_t wanopt_cut(const struct wanopt *wan, const uint8_t *bytes, uint32_t left)
{
    uint32_t end = left < WANOPT_CHUNK_BYTES ? left : WANOPT_CHUNK_BYTES;
    uint64_t hash = 0;
    for (uint32_t i = wan->min; i < end; i++) {
        hash = (hash << 1) + wan->gear[bytes[i]];
        if (hash >> wan->shift == 0)
            return i + 1;
    }
    return left >= WANOPT_CHUNK_BYTES ? WANOPT_CHUNK_BYTES : 0;
}

uint64_t wanopt_name(const struct wanopt *wan, const uint8_t *bytes, uint32_t length)
{
    uint64_t name = siphash(&wan->name_key, bytes, length);
    return name ? name : 1;
}

uint32_t wanopt_check(const struct wanopt *wan, const uint8_t *bytes, uint32_t length)
{
    return (uint32_t)siphash(&wan->check_key, bytes, length);
}

static struct wanopt_chunk *find(struct wanopt_chunk *set, uint64_t name)
{
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        if (set[way].name == name)
            return &set[way];
    }
    return NULL;
}

/* A free place, or that of the chunk which was not used for longest. */
static struct wanopt_chunk *place_in(struct wanopt_chunk *set)
{
    struct wanopt_chunk *place = &set[0];
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        if (!set[way].name)
            return &set[way];
        if (set[way].used < place->used)
            place = &set[way];
    }
    return place;
}

/* The set is held, and the chunk's first line marked. */
static void use(struct wanopt_hand *hand, struct wanopt_chunk *chunk)
{
    chunk->used = u64_max(chunk->used, ftmb_now(hand->ctx));
}

bool wanopt_remember(struct wanopt_hand *hand, uint64_t name, const uint8_t *bytes, uint32_t length)
{
    struct ftmb_ctx *ctx = hand->ctx;
    uint32_t number = sets_pick(&hand->wan->cache, name);
    struct wanopt_chunk *set = sets_at(ctx->arena, &hand->wan->cache, number), *at = NULL;
    if (PLANTED(P_WANOPT_TWO_ENTRIES))
        at = find(set, name);
    ftmb_write(ctx, number);
    if (!PLANTED(P_WANOPT_TWO_ENTRIES))
        at = find(set, name);
    bool found = at && at->bytes == length && memcmp(at->content, bytes, length) == 0;
    if (found) {
        ftmb_mark(ctx, at, offsetof(struct wanopt_chunk, content));
    } else {
        at = at ? at : place_in(set); /* another content of this name gives way */
        hand->worker->counters[WANOPT_REPLACED] += at->name != 0;
        ftmb_mark(ctx, at, sizeof(*at));
        *at = (struct wanopt_chunk){.name = name, .bytes = (uint16_t)length};
        memcpy(at->content, bytes, length);
    }
    use(hand, at);
    ftmb_section_end(ctx);
    hand->worker->counters[found ? WANOPT_FOUND : WANOPT_LEARNT]++;
    return found;
}

uint32_t wanopt_recall(struct wanopt_hand *hand, uint64_t name, uint8_t *out)
{
    struct ftmb_ctx *ctx = hand->ctx;
    uint32_t number = sets_pick(&hand->wan->cache, name), bytes = 0;
    ftmb_write(ctx, number);
    struct wanopt_chunk *at = find(sets_at(ctx->arena, &hand->wan->cache, number), name);
    if (likely(at)) {
        ftmb_mark(ctx, at, offsetof(struct wanopt_chunk, content));
        use(hand, at);
        bytes = at->bytes;
        memcpy(out, at->content, bytes);
    }
    ftmb_section_end(ctx);
    hand->worker->counters[WANOPT_FOUND] += bytes != 0;
    return bytes;
}

void wanopt_forget(struct wanopt_hand *hand, uint64_t name)
{
    struct ftmb_ctx *ctx = hand->ctx;
    uint32_t number = sets_pick(&hand->wan->cache, name);
    ftmb_write(ctx, number);
    struct wanopt_chunk *at = find(sets_at(ctx->arena, &hand->wan->cache, number), name);
    if (at) {
        ftmb_mark(ctx, at, sizeof(*at));
        *at = (struct wanopt_chunk){0};
        hand->worker->counters[WANOPT_FORGOTTEN]++;
    }
    ftmb_section_end(ctx);
}

uint32_t wanopt_learn(struct wanopt_hand *hand, const uint8_t *bytes, uint32_t length,
                      uint32_t most)
{
    uint32_t count = 0;
    while (count < most) {
        uint32_t chunk = wanopt_cut(hand->wan, bytes, length);
        if (!chunk)
            break;
        wanopt_remember(hand, wanopt_name(hand->wan, bytes, chunk), bytes, chunk);
        bytes += chunk;
        length -= chunk;
        count++;
    }
    return count;
}

/* ---- report -------------------------------------------------------------------------------- */

static const char *const names[WANOPT_COUNTERS] = {
    [WANOPT_PASSED] = "passed",
    [WANOPT_SHORTENED] = "shortened",
    [WANOPT_RESTORED] = "restored",
    [WANOPT_BYTES_SAVED] = "bytes_saved",
    [WANOPT_LEARNT] = "chunks_learnt",
    [WANOPT_REPLACED] = "chunks_replaced",
    [WANOPT_FORGOTTEN] = "chunks_forgotten",
    [WANOPT_FOUND] = "chunks_found",
    [WANOPT_DROP_MISSING] = "dropped_missing",
    [WANOPT_DROP_DIFFERENT] = "dropped_different",
    [WANOPT_DROP_REPORT] = "dropped_report",
    [WANOPT_DROP_BAD] = "dropped_bad_shim",
    [WANOPT_DROP_MARKED] = "dropped_marked",
    [WANOPT_DROP_MALFORMED] = "dropped_malformed",
};

/* Is this chunk in its set, once, with the name of what it holds? */
static bool chunk_sound(const struct wanopt *wan, uint32_t number, const struct wanopt_chunk *set,
                        unsigned way)
{
    const struct wanopt_chunk *at = &set[way];
    for (unsigned other = 0; other < way; other++) {
        if (set[other].name == at->name)
            return false;
    }
    return at->bytes > wan->min && at->bytes <= WANOPT_CHUNK_BYTES &&
           wanopt_name(wan, at->content, at->bytes) == at->name &&
           sets_pick(&wan->cache, at->name) == number;
}

static bool sound(struct arena *arena, const struct wanopt *wan, uint64_t *chunks)
{
    bool all = true;
    for (uint32_t number = 0; number < wan->cache.count; number++) {
        const struct wanopt_chunk *set = sets_at(arena, &wan->cache, number);
        for (unsigned way = 0; way < SETS_WAYS; way++) {
            if (!set[way].name)
                continue;
            ++*chunks;
            all = chunk_sound(wan, number, set, way) && all;
        }
    }
    return all;
}

void wanopt_report(struct arena *arena, const struct nf_report *out)
{
    const struct wanopt *wan = arena_root(arena);
    uint64_t sums[WANOPT_COUNTERS] = {0}, chunks = 0;
    for (uint32_t w = 0; w < arena->workers; w++) {
        for (unsigned c = 0; c < WANOPT_COUNTERS; c++)
            sums[c] += wanopt_worker(arena, wan, w)->counters[c];
    }
    bool whole = sound(arena, wan, &chunks);
    for (unsigned c = 0; c < WANOPT_COUNTERS; c++)
        out->counter(out->self, names[c], sums[c]);
    out->counter(out->self, "chunks", chunks);
    bool counted = sums[WANOPT_LEARNT] - sums[WANOPT_REPLACED] - sums[WANOPT_FORGOTTEN] == chunks;
    out->check(out->self, "cache", whole,
               whole
                   ? "every chunk is in its own set, once, under the name of its content"
                   : "a chunk is in a wrong set, there twice, or has not the content of its name");
    out->check(out->self, "counts", counted,
               counted ? "chunks learnt and neither replaced nor forgotten are there"
                       : "the chunks in the cache differ from those counted");
}

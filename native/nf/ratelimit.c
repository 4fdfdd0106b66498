/* ratelimit: lets through at most so many bits a second of each user, and of all users together.
 *
 * A user is an inside host: the source of a packet from inside, the destination of one from
 * outside. A frame is charged with its whole length, as it is on the wire but for the checksum. It
 * passes if the user's bucket and the one for all hold that much; else it is dropped, and neither
 * is charged. What passes goes to the other side unchanged.
 *
 * Not IPv4 (ARP, IPv6, any EtherType): no user, charged to all together only. Fragments, options,
 * other protocols, wrong checksums: like any IPv4 packet, by its addresses. Longer than a bucket is
 * deep: dropped like what comes too fast. Lengths that contradict each other, or a frame that is
 * too short for its headers: dropped, dropped_malformed.
 *
 * Shared variables, in ascending order of ids, which is the order in which the section takes them:
 *   set    one for each set of users; protects the buckets in it
 *   total  the last id; protects the bucket for all and what is counted beside it
 * Accesses per packet: a write to the user's set, then one to total, in one section. A limit that
 * is 0 takes its access away, and so does a user who is over the limit.
 *
 * A user's place is free again once the bucket is full: it says nothing then that a new one would
 * not. So nobody has to be removed, and a new user meets a full set only if eight others of it
 * are in debt: dropped, dropped_no_room. (Stamps of different workers are not ordered: a worker
 * that lags behind may see a bucket forgotten that is full only for the other. It gains at most
 * what refills in the time by which the stamps differ.)
 *
 * Invariants, which the report checks: the bucket for all has let through what the workers counted;
 * a user is in one place, which is in the user's set; no bucket lacks more than its depth. */
#include "nf/nf.h"
#include "nf/packet.h"
#include "nf/sets.h"
#include "nf/token_bucket.h"

enum { USERS, USER_KBPS, USER_BURST, TOTAL_KBPS, TOTAL_BURST };

#define MAX_KBPS 100000000u
#define MAX_BURST (1u << 30)
#define MIN_BURST 64u

static const struct nf_param params[] = {
    {"users", NF_UINT, 16384, 1, 1u << 24, "users at a time whose buckets are not full"},
    {"user_kbps", NF_UINT, 100000, 0, MAX_KBPS, "kilobits a second of a user; 0: no limit"},
    {"user_burst", NF_UINT, 65536, MIN_BURST, MAX_BURST, "bytes of a user at once"},
    {"total_kbps", NF_UINT, 10000000, 0, MAX_KBPS, "kilobits a second of all; 0: no limit"},
    {"total_burst", NF_UINT, 1u << 20, MIN_BURST, MAX_BURST, "bytes of all at once"},
    {NULL, NF_UINT, 0, 0, 0, NULL},
};

/* 16 bytes, so that a set is one line of a snapshot. A place nobody has used is all zeroes: the
 * full bucket of 0.0.0.0. */
struct user {
    uint64_t full_at;
    uint32_t fraction;
    uint32_t address;
};
_Static_assert(sizeof(struct user) * SETS_WAYS == ARENA_LINE, "a set is a line");

struct total {
    CACHE_ALIGNED struct token_bucket bucket;
    uint64_t packets; /* let through */
    uint64_t bytes;
};

enum counter {
    FORWARDED,
    FORWARDED_BYTES,
    DROP_USER,
    DROP_TOTAL,
    DROP_NO_ROOM,
    DROP_MALFORMED,
    COUNTERS
};

static const char *const counter_names[COUNTERS] = {
    [FORWARDED] = "forwarded",          [FORWARDED_BYTES] = "forwarded_bytes",
    [DROP_USER] = "dropped_user",       [DROP_TOTAL] = "dropped_total",
    [DROP_NO_ROOM] = "dropped_no_room", [DROP_MALFORMED] = "dropped_malformed",
};

struct worker_state {
    CACHE_ALIGNED uint64_t counters[COUNTERS];
};

struct ratelimit {
    struct sets users; /* its numbers are ids of variables */
    struct bucket_rate user_rate;
    struct bucket_rate total_rate;
    uint64_t total_at; /* offsets from the arena's base */
    uint64_t worker_at[FTMB_MAX_WORKERS];
};

static struct total *total_of(struct arena *arena, const struct ratelimit *limit)
{
    return (struct total *)((uint8_t *)arena + limit->total_at);
}

static struct worker_state *worker_of(struct arena *arena, const struct ratelimit *limit,
                                      uint32_t worker)
{
    return (struct worker_state *)((uint8_t *)arena + limit->worker_at[worker]);
}

static uint32_t set_of(const struct ratelimit *limit, uint32_t address)
{
    return sets_pick(&limit->users, sets_mix(address));
}

static bool needs(const uint64_t *values, uint32_t workers, struct nf_needs *out, char *why)
{
    static const char nothing[] = "user_kbps and total_kbps are both 0: there is nothing to limit";
    (void)workers;
    if (!values[USER_KBPS] && !values[TOTAL_KBPS]) {
        memcpy(why, nothing, sizeof(nothing));
        return false;
    }
    *out = (struct nf_needs){
        .shared_bytes = sizeof(struct ratelimit) + sizeof(struct total) + 3 * CACHE_LINE +
                        sets_bytes(values[USERS], sizeof(struct user)),
        .worker_bytes = sizeof(struct worker_state) + CACHE_LINE,
        .variables = sets_for(values[USERS]) + 1,
        .max_pals = (values[USER_KBPS] != 0) + (values[TOTAL_KBPS] != 0),
        .max_outputs = 1,
    };
    return true;
}

static void *init(struct arena *arena, const uint64_t *values)
{
    struct ratelimit *limit = arena_alloc(arena, 0, sizeof(*limit), CACHE_LINE);
    struct total *total = arena_alloc(arena, 0, sizeof(*total), CACHE_LINE);
    if (!limit || !total || !sets_init(&limit->users, arena, values[USERS], sizeof(struct user)))
        return NULL;
    limit->user_rate = bucket_rate_of(values[USER_KBPS], values[USER_BURST]);
    limit->total_rate = bucket_rate_of(values[TOTAL_KBPS], values[TOTAL_BURST]);
    limit->total_at = (uint64_t)((uint8_t *)total - (uint8_t *)arena);
    for (uint32_t w = 0; w < arena->workers; w++) {
        uint8_t *worker = arena_alloc(arena, 1 + w, sizeof(struct worker_state), CACHE_LINE);
        if (!worker)
            return NULL;
        limit->worker_at[w] = (uint64_t)(worker - (uint8_t *)arena);
    }
    return limit;
}

/* The user's place in a set that is held: the old one, or the one whose bucket has been full for
 * longest; NULL: none is. */
static struct user *find_user(struct user *set, uint32_t address, uint64_t now)
{
    struct user *spare = &set[0];
    for (unsigned way = 0; way < SETS_WAYS; way++) {
        if (set[way].address == address)
            return &set[way];
        if (set[way].full_at < spare->full_at)
            spare = &set[way];
    }
    return spare->full_at <= now ? spare : NULL;
}

/* Takes what a packet costs from the bucket for all; its variable is taken, and held after. */
static bool charge_total(struct ftmb_ctx *ctx, const struct ratelimit *limit, uint32_t bytes)
{
    struct total *total = total_of(ctx->arena, limit);
    struct token_bucket after;
    uint64_t before = PLANTED(P_RATELIMIT_LOST_UPDATE) ? total->packets : 0;
    ftmb_write(ctx, limit->users.count);
    if (!bucket_holds(&total->bucket, &limit->total_rate, ftmb_now(ctx), bytes, &after))
        return false;
    ftmb_mark(ctx, total, sizeof(*total));
    total->bucket = after;
    total->packets = PLANTED(P_RATELIMIT_LOST_UPDATE) ? before + 1 : total->packets + 1;
    total->bytes += bytes;
    return true;
}

/* One section: the user's bucket, then the one for all; charged both or none. */
static enum counter charge_both(struct ftmb_ctx *ctx, const struct ratelimit *limit,
                                uint32_t address, uint32_t bytes)
{
    uint64_t now = ftmb_now(ctx);
    uint32_t set = set_of(limit, address);
    struct token_bucket before = {0}, after;
    enum counter verdict = FORWARDED;
    ftmb_write(ctx, set);
    struct user *user = find_user(sets_at(ctx->arena, &limit->users, set), address, now);
    if (likely(user && user->address == address))
        before = (struct token_bucket){.full_at = user->full_at, .fraction = user->fraction};
    if (unlikely(!user))
        verdict = DROP_NO_ROOM;
    else if (!bucket_holds(&before, &limit->user_rate, now, bytes, &after))
        verdict = DROP_USER;
    else if (limit->total_rate.byte_cost && !charge_total(ctx, limit, bytes))
        verdict = DROP_TOTAL;
    if (likely(verdict == FORWARDED)) {
        ftmb_mark(ctx, user, sizeof(*user));
        *user = (struct user){
            .full_at = after.full_at, .fraction = (uint32_t)after.fraction, .address = address};
    }
    ftmb_section_end(ctx);
    return verdict;
}

static enum counter charge(struct ftmb_ctx *ctx, const struct ratelimit *limit,
                           struct nf_packet *packet)
{
    struct packet_view view;
    enum packet_kind kind = packet_parse(&view, packet->data, packet->length);
    if (unlikely(kind == PACKET_MALFORMED))
        return DROP_MALFORMED;
    if (likely(kind != PACKET_NOT_IPV4 && limit->user_rate.byte_cost))
        return charge_both(ctx, limit, packet->port == NF_INSIDE ? view.source : view.destination,
                           packet->length);
    if (!limit->total_rate.byte_cost)
        return FORWARDED;
    enum counter verdict = charge_total(ctx, limit, packet->length) ? FORWARDED : DROP_TOTAL;
    ftmb_section_end(ctx);
    return verdict;
}

static void process(struct ftmb_ctx *ctx, struct nf_packet *packet)
{
    const struct ratelimit *limit = arena_root(ctx->arena);
    struct worker_state *worker = worker_of(ctx->arena, limit, ctx->worker);
    enum counter verdict = charge(ctx, limit, packet);
    ftmb_mark(ctx, worker, sizeof(*worker));
    worker->counters[verdict]++;
    if (verdict != FORWARDED)
        return;
    worker->counters[FORWARDED_BYTES] += packet->length;
    ftmb_emit(ctx, packet, packet->port == NF_INSIDE ? NF_OUTSIDE : NF_INSIDE);
}

/* Hint for a burst (nf.h): the user's set and its variable. */
static void prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage)
{
    const struct ratelimit *limit = arena_root(ctx->arena);
    if (stage != 0 || packet->length < ETHERNET_BYTES + IPV4_MIN_BYTES)
        return;
    const uint8_t *ip = packet->data + ETHERNET_BYTES;
    uint32_t set = set_of(limit, packet_load32(ip + (packet->port == NF_INSIDE ? 12 : 16)));
    sets_prefetch(ctx, &limit->users, set);
}

/* Every user in debt is in one place, in the set where it would be looked for, and owes no more
 * than the bucket's depth at the latest stamp. */
static bool users_sound(struct arena *arena, const struct ratelimit *limit, uint64_t latest,
                        uint64_t *known)
{
    for (uint32_t number = 0; number < limit->users.count; number++) {
        const struct user *set = sets_at(arena, &limit->users, number);
        for (unsigned way = 0; way < SETS_WAYS; way++) {
            const struct user *user = &set[way];
            if (!user->full_at)
                continue;
            *known += user->full_at > latest;
            if (set_of(limit, user->address) != number || user->fraction > BUCKET_FRACTION_MASK ||
                user->full_at > latest + limit->user_rate.depth_ns)
                return false;
            for (unsigned other = 0; other < way; other++) {
                if (set[other].full_at && set[other].address == user->address)
                    return false;
            }
        }
    }
    return true;
}

static void report(struct arena *arena, const struct nf_report *out)
{
    const struct ratelimit *limit = arena_root(arena);
    const struct total *total = total_of(arena, limit);
    uint64_t sum[COUNTERS] = {0}, latest = 0, known = 0;
    for (uint32_t w = 0; w < arena->workers; w++) {
        latest = u64_max(latest, arena_whole(arena)->cursors[w].now_ns);
        for (unsigned c = 0; c < COUNTERS; c++)
            sum[c] += worker_of(arena, limit, w)->counters[c];
    }
    for (unsigned c = 0; c < COUNTERS; c++)
        out->counter(out->self, counter_names[c], sum[c]);
    bool users_ok = users_sound(arena, limit, latest, &known);
    out->counter(out->self, "users", known);
    bool counted = !limit->total_rate.byte_cost ||
                   (total->packets == sum[FORWARDED] && total->bytes == sum[FORWARDED_BYTES]);
    out->check(out->self, "sums", counted,
               counted ? "the bucket for all let through what the workers forwarded"
                       : "the bucket for all and the workers differ in packets or bytes");
    out->check(out->self, "users", users_ok,
               users_ok ? "every user is in one place, and within the limit"
                        : "a user is in a wrong place, in two, or beyond the limit");
    bool total_ok = total->bucket.full_at <= latest + limit->total_rate.depth_ns;
    out->check(out->self, "total", total_ok,
               total_ok ? "the bucket for all is within its limit"
                        : "the bucket for all lacks more than its depth");
}

const struct nf nf_ratelimit = {
    .name = "ratelimit",
    .params = params,
    .needs = needs,
    .init = init,
    .prefetch = prefetch,
    .process = process,
    .report = report,
};

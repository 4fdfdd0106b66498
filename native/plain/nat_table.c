/* The NAT's mappings. A mapping is an outside endpoint: mapping i has one address and port for
 * good, so that the way back in needs no table. Inside endpoints are found in a hash table.
 *
 * Locks, in the order in which they are taken, of each kind one at a time:
 *   stripe   four buckets of the hash table: their chains, `seen_ns` and `state` of what is there
 *   pool     one for each outside address: its free mappings, oldest first, linked by `next`
 *   outside  every n-th mapping: its inside end
 * An inside end changes under its stripe and its outside lock, so either is enough to read it. */
#include "plain/nat_table.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define NONE UINT32_MAX
#define BUCKETS 4u         /* of a stripe */
#define STRIPES_AT_ONCE 4u /* that a sweep looks at */
#define REMOVED_AT_ONCE 8u /* mappings that a sweep removes */
#define OUTSIDE_LOCKS 1024u
#define LINE ((size_t)64)
#define NS_PER_MS 1000000ull

enum state { UDP, ECHO, OPENING, ESTABLISHED, CLOSING, STATES };

struct mapping {
    struct end inside;
    uint32_t address; /* outside; never changes */
    uint16_t port;
    uint8_t pool;
    uint8_t state;
    uint32_t next; /* in its bucket, or among the free ones */
    uint64_t seen_ns;
};

struct stripe {
    pthread_mutex_t lock;
    uint32_t first[BUCKETS];
} __attribute__((aligned(64)));

struct pool {
    pthread_mutex_t lock;
    uint32_t oldest;
    uint32_t newest;
    uint32_t mappings; /* from this one on, so many are its own */
    uint32_t size;
} __attribute__((aligned(64)));

struct outside {
    pthread_rwlock_t lock;
} __attribute__((aligned(64)));

static struct nat_config config;
static unsigned bucket_bits;
static uint32_t stripe_count;
static uint64_t timeout_ns[STATES];
static uint64_t sweep_ns; /* from one stripe of a thread to its next */

static struct mapping *mappings;
static struct stripe *stripes;
static struct pool pools[NAT_MAX_ADDRESSES];
static struct outside outside_locks[OUTSIDE_LOCKS];

static unsigned bits_for(unsigned capacity)
{
    unsigned bits = 2;
    while (1ull << bits < capacity)
        bits++;
    return bits;
}

/* Zeroed, and beginning with a line of the cache. */
static void *lines(size_t count, size_t bytes)
{
    char *memory = calloc(count * bytes + LINE, 1);
    /* cppcheck-suppress memleak ; kept for good, and so is what it begins with */
    return memory ? memory + (-(uintptr_t)memory & (LINE - 1)) : NULL;
}

static void open_pools(void)
{
    uint32_t next = 0;
    for (unsigned a = 0; a < config.addresses; a++) {
        struct pool *pool = &pools[a];
        pthread_mutex_init(&pool->lock, NULL);
        pool->mappings = pool->oldest = next;
        pool->size = config.capacity / config.addresses + (a < config.capacity % config.addresses);
        for (uint32_t i = 0; i < pool->size; i++, next++) {
            mappings[next].address = htonl(config.outside + a);
            mappings[next].port = htons((uint16_t)(NAT_FIRST_PORT + i));
            mappings[next].pool = (uint8_t)a;
            mappings[next].next = i + 1 < pool->size ? next + 1 : NONE;
        }
        pool->newest = next - 1;
    }
}

static void open_times(void)
{
    timeout_ns[UDP] = config.udp_ms * NS_PER_MS;
    timeout_ns[ECHO] = config.icmp_ms * NS_PER_MS;
    timeout_ns[ESTABLISHED] = config.tcp_ms * NS_PER_MS;
    timeout_ns[OPENING] = timeout_ns[CLOSING] = config.transitory_ms * NS_PER_MS;
    uint64_t shortest = timeout_ns[UDP];
    for (unsigned s = 0; s < STATES; s++)
        shortest = timeout_ns[s] < shortest ? timeout_ns[s] : shortest;
    sweep_ns = shortest / 8 * config.threads / stripe_count + 1;
}

int table_open(const struct nat_config *wanted)
{
    config = *wanted;
    bucket_bits = bits_for(config.capacity);
    stripe_count = (1u << bucket_bits) / BUCKETS;
    mappings = lines(config.capacity, sizeof(*mappings));
    stripes = lines(stripe_count, sizeof(*stripes));
    if (!mappings || !stripes)
        return -1;
    for (uint32_t i = 0; i < stripe_count; i++) {
        pthread_mutex_init(&stripes[i].lock, NULL);
        for (unsigned b = 0; b < BUCKETS; b++)
            stripes[i].first[b] = NONE;
    }
    for (unsigned i = 0; i < OUTSIDE_LOCKS; i++)
        pthread_rwlock_init(&outside_locks[i].lock, NULL);
    open_pools();
    open_times();
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Of another thread's packet `since` may be a little later than now. */
static int longer_than(uint64_t now, uint64_t since, uint64_t ns)
{
    return now > since && now - since > ns;
}

static int expired(const struct mapping *mapping, uint64_t now)
{
    uint64_t timeout = timeout_ns[mapping->state];
    return longer_than(now, mapping->seen_ns, timeout + timeout / 8);
}

/* ---- the hash table; its stripe is locked --------------------------------------------------- */

static uint32_t bucket_of(struct end end)
{
    uint64_t h = (uint64_t)end.address << 24 ^ (uint64_t)end.port << 8 ^ end.protocol;
    h = (h ^ h >> 31) * 0x9e3779b97f4a7c15ull;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(h >> (64 - bucket_bits));
}

static struct stripe *stripe_of(uint32_t bucket)
{
    return &stripes[bucket / BUCKETS];
}

static int same(struct end a, struct end b)
{
    return a.address == b.address && a.port == b.port && a.protocol == b.protocol;
}

static struct mapping *find(uint32_t bucket, struct end inside)
{
    uint32_t i = stripe_of(bucket)->first[bucket % BUCKETS];
    while (i != NONE && !same(mappings[i].inside, inside))
        i = mappings[i].next;
    return i == NONE ? NULL : &mappings[i];
}

/* An inside end, or none, for a mapping. */
static void set_inside(struct mapping *mapping, struct end inside)
{
    pthread_rwlock_t *lock = &outside_locks[(uint32_t)(mapping - mappings) % OUTSIDE_LOCKS].lock;
    pthread_rwlock_wrlock(lock);
    mapping->inside = inside;
    pthread_rwlock_unlock(lock);
}

/* The free mapping of a pool that has been unused for longest, or NULL. */
static struct mapping *take(struct pool *pool)
{
    struct mapping *mapping = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->oldest != NONE) {
        mapping = &mappings[pool->oldest];
        pool->oldest = mapping->next;
        if (pool->oldest == NONE)
            pool->newest = NONE;
    }
    pthread_mutex_unlock(&pool->lock);
    return mapping;
}

static void give_back(struct mapping *mapping)
{
    struct pool *pool = &pools[mapping->pool];
    uint32_t i = (uint32_t)(mapping - mappings);
    pthread_mutex_lock(&pool->lock);
    set_inside(mapping, (struct end){0, 0, 0});
    mapping->next = NONE;
    if (pool->newest == NONE)
        pool->oldest = i;
    else
        mappings[pool->newest].next = i;
    pool->newest = i;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- expiry --------------------------------------------------------------------------------- */

/* Removes one expired mapping of a stripe, so that nobody waits long for it. 0: there was none. */
static unsigned remove_one(struct stripe *stripe, uint64_t now)
{
    unsigned removed = 0;
    pthread_mutex_lock(&stripe->lock);
    for (unsigned b = 0; b < BUCKETS && !removed; b++) {
        uint32_t *link = &stripe->first[b];
        while (*link != NONE && !expired(&mappings[*link], now))
            link = &mappings[*link].next;
        if (*link != NONE) {
            struct mapping *mapping = &mappings[*link];
            *link = mapping->next;
            give_back(mapping);
            removed = 1;
        }
    }
    pthread_mutex_unlock(&stripe->lock);
    return removed;
}

/* Each thread has every n-th stripe, and is round once in an eighth of the shortest timeout. */
unsigned table_sweep(struct sweeper *sweeper, unsigned thread)
{
    uint64_t now = now_ns();
    unsigned removed = 0;
    for (unsigned n = 0; n < STRIPES_AT_ONCE && sweeper->next_ns <= now; n++) {
        if (sweeper->next_stripe >= stripe_count)
            break;
        while (removed < REMOVED_AT_ONCE && remove_one(&stripes[sweeper->next_stripe], now))
            removed++;
        if (removed == REMOVED_AT_ONCE)
            return removed; /* this one again, next time */
        sweeper->next_stripe += config.threads;
        if (sweeper->next_stripe >= stripe_count)
            sweeper->next_stripe = thread;
        sweeper->next_ns += sweep_ns;
    }
    if (sweeper->next_ns < now) /* what was missed is not made up for */
        sweeper->next_ns = now;
    return removed;
}

/* ---- both ways ------------------------------------------------------------------------------ */

static enum state first_state(struct end inside, struct segment segment)
{
    if (inside.protocol == IPPROTO_UDP)
        return UDP;
    if (inside.protocol == IPPROTO_ICMP)
        return ECHO;
    return segment.flags & (TCP_FIN | TCP_RST) ? CLOSING : OPENING;
}

/* Several connections may share a mapping: after a FIN, data or a SYN tells of another one. */
static enum state next_state(enum state state, struct segment segment)
{
    if (state < OPENING)
        return state;
    if (segment.flags & (TCP_FIN | TCP_RST))
        return CLOSING;
    if (state == OPENING && (segment.flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
        return ESTABLISHED;
    if (state == CLOSING && segment.flags & TCP_SYN)
        return OPENING;
    return state == CLOSING && segment.has_data ? ESTABLISHED : state;
}

/* A packet from inside. An eighth of a timeout more or less does not matter, so the time is seldom
 * written. */
static void refresh(struct mapping *mapping, struct segment segment, uint64_t now)
{
    enum state was = mapping->state;
    enum state state =
        expired(mapping, now) ? first_state(mapping->inside, segment) : next_state(was, segment);
    if (state != was || longer_than(now, mapping->seen_ns, timeout_ns[state] / 8)) {
        mapping->state = (uint8_t)state;
        if (now > mapping->seen_ns)
            mapping->seen_ns = now;
    }
}

static void link_in(struct mapping *mapping, uint32_t bucket, enum state state, uint64_t now)
{
    uint32_t *first = &stripe_of(bucket)->first[bucket % BUCKETS];
    mapping->state = (uint8_t)state;
    mapping->seen_ns = now;
    mapping->next = *first;
    *first = (uint32_t)(mapping - mappings);
}

/* A host keeps its outside address as long as that has room. */
static unsigned home_of(struct end inside)
{
    return (unsigned)((uint64_t)(inside.address * 0x9e3779b1u) * config.addresses >> 32);
}

/* Pools are tried one after the other. The stripe is let go in between: another thread may have
 * made the mapping when it is locked again. */
enum found table_map(struct end inside, struct segment segment, struct end *outside)
{
    uint32_t bucket = bucket_of(inside);
    pthread_mutex_t *lock = &stripe_of(bucket)->lock;
    uint64_t now = now_ns();
    for (unsigned tried = 0; tried < config.addresses; tried++) {
        pthread_mutex_lock(lock);
        enum found found = TABLE_KNOWN;
        struct mapping *mapping = find(bucket, inside);
        if (mapping) {
            refresh(mapping, segment, now);
        } else if ((mapping = take(&pools[(home_of(inside) + tried) % config.addresses]))) {
            set_inside(mapping, inside);
            link_in(mapping, bucket, first_state(inside, segment), now);
            found = TABLE_NEW;
        }
        if (mapping)
            *outside = (struct end){mapping->address, mapping->port, inside.protocol};
        pthread_mutex_unlock(lock);
        if (mapping)
            return found;
    }
    return TABLE_FULL;
}

struct end table_inside(struct end outside)
{
    struct end inside = {0, 0, 0};
    uint32_t number = ntohl(outside.address) - config.outside;
    uint32_t port = ntohs(outside.port) - NAT_FIRST_PORT;
    if (number >= config.addresses || port >= pools[number].size)
        return inside;
    uint32_t i = pools[number].mappings + port;
    pthread_rwlock_t *lock = &outside_locks[i % OUTSIDE_LOCKS].lock;
    pthread_rwlock_rdlock(lock);
    inside = mappings[i].inside;
    pthread_rwlock_unlock(lock);
    return inside;
}

void table_close(struct end inside)
{
    uint32_t bucket = bucket_of(inside);
    uint64_t now = now_ns();
    pthread_mutex_lock(&stripe_of(bucket)->lock);
    struct mapping *mapping = find(bucket, inside);
    if (mapping && mapping->state != CLOSING) {
        mapping->state = CLOSING;
        if (now > mapping->seen_ns)
            mapping->seen_ns = now;
    }
    pthread_mutex_unlock(&stripe_of(bucket)->lock);
}

/* ---- what must be true ---------------------------------------------------------------------- */

static uint64_t used(void)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < config.capacity; i++)
        count += mappings[i].inside.protocol != 0;
    return count;
}

static int chained(uint64_t count)
{
    uint64_t found = 0;
    for (uint32_t b = 0; b < stripe_count * BUCKETS; b++) {
        for (uint32_t i = stripe_of(b)->first[b % BUCKETS]; i != NONE; i = mappings[i].next) {
            struct mapping *mapping = i < config.capacity ? &mappings[i] : NULL;
            if (!mapping || ++found > count || !mapping->inside.protocol)
                return 0;
            if (bucket_of(mapping->inside) != b || find(b, mapping->inside) != mapping)
                return 0;
        }
    }
    return found == count;
}

static int conserved(uint64_t count)
{
    uint64_t spare = 0;
    for (unsigned a = 0; a < config.addresses; a++) {
        uint32_t last = NONE;
        for (uint32_t i = pools[a].oldest; i != NONE; i = mappings[i].next) {
            if (i - pools[a].mappings >= pools[a].size || mappings[i].inside.protocol)
                return 0;
            if (++spare > config.capacity)
                return 0;
            last = i;
        }
        if (last != pools[a].newest)
            return 0;
    }
    return spare + count == config.capacity;
}

void table_check(struct nat_totals *totals)
{
    totals->mappings = used();
    totals->chained = chained(totals->mappings);
    totals->conserved = conserved(totals->mappings);
}

/* Faults of links (see fault.h). */
#include "io/fault.h"

#include <string.h>

#include <rte_ethdev.h>

#include "core/hash.h"
#include "core/wire.h"
#include "io/clock.h"
#include "io/port.h"

#define KINDS 3
/* A frame becomes three at most: itself, a repetition, a damaged copy. */
#define COPIES 3u
/* Reordered frames wait for others to pass, but not for ever: they may be the last. */
#define REORDER_NS 200000ull
#define REORDER_SPAN 8u

struct fault_counts {
    uint64_t seen, dropped, repeated, reordered, delayed, garbled;
    uint64_t cut;      /* lost on a cut link */
    uint64_t overflow; /* lost because too many were held */
};

struct held_frame {
    struct rte_mbuf *m;
    uint64_t due_ns;
    uint64_t due_frame;
};

struct fault_lane {
    uint64_t random;
    uint64_t frames; /* that have arrived */
    uint32_t held_count;
    uint32_t ready_first, ready_count;
    struct held_frame held[FAULT_HELD];
    struct rte_mbuf *ready[FAULT_HELD + COPIES * FTMB_BURST]; /* to be handed over next, a ring */
    struct fault_counts count;
};

#define READY (FAULT_HELD + COPIES * FTMB_BURST)

struct fault_link {
    char name[FAULT_NAME_BYTES];
    struct fault_rates rates;
    bool disturbed; /* some rate is not 0 */
    _Atomic bool cut;
    int port; /* -1: sockets */
    _Atomic uint64_t lost_sending;
    struct fault_lane lane[IO_MAX_QUEUES];
};

static const char *const kinds[KINDS] = {"il", "ol", "state"};
static struct fault_rates rates_of[KINDS];
static uint64_t seed_of_all;
static struct fault_link links[FAULT_LINKS];
static unsigned link_count;

_Atomic(struct fault_link *) io_fault[RTE_MAX_ETHPORTS];

/* ---- set-up ------------------------------------------------------------------------------- */

static int kind_of(const char *name)
{
    size_t length = strcspn(name, "-");
    for (int k = 0; k < KINDS; k++)
        if (strlen(kinds[k]) == length && strncmp(kinds[k], name, length) == 0)
            return k;
    return -1;
}

void fault_configure(uint64_t seed, const char *kind, const struct fault_rates *rates)
{
    int k = kind_of(kind);
    FTMB_ASSERT(k >= 0);
    rates_of[k] = *rates;
    seed_of_all = seed;
}

static struct fault_link *find(const char *name)
{
    for (unsigned i = 0; i < link_count; i++)
        if (strcmp(links[i].name, name) == 0)
            return &links[i];
    return NULL;
}

struct fault_link *fault_link(const char *name, unsigned end)
{
    struct fault_link *link = find(name);
    if (link)
        return link;
    FTMB_ASSERT(link_count < FAULT_LINKS && strlen(name) < FAULT_NAME_BYTES);
    link = &links[link_count++];
    strcpy(link->name, name);
    link->port = -1;
    int kind = kind_of(name);
    if (kind >= 0) {
        const struct fault_rates *r = &rates_of[kind];
        link->rates = *r;
        link->disturbed = r->drop + r->repeat + r->reorder + r->delay + r->garble > 0;
    }
    for (unsigned q = 0; q < IO_MAX_QUEUES; q++) {
        uint64_t salt = hash_bytes(seed_of_all, name, strlen(name));
        link->lane[q].random = hash_mix(salt + end, q);
    }
    return link;
}

void fault_attach(uint16_t port, struct fault_link *link)
{
    link->port = port;
    if (link->disturbed || atomic_load(&link->cut))
        atomic_store(&io_fault[port], link);
}

static void lose_all(struct fault_lane *lane)
{
    for (uint32_t i = 0; i < lane->held_count; i++)
        rte_pktmbuf_free(lane->held[i].m);
    for (uint32_t i = 0; i < lane->ready_count; i++)
        rte_pktmbuf_free(lane->ready[(lane->ready_first + i) % READY]);
    lane->held_count = lane->ready_count = 0;
}

void fault_detach(uint16_t port)
{
    for (unsigned i = 0; i < link_count; i++) {
        if (links[i].port != port)
            continue;
        links[i].port = -1;
        for (unsigned q = 0; q < IO_MAX_QUEUES; q++)
            lose_all(&links[i].lane[q]);
    }
    atomic_store(&io_fault[port], NULL);
}

bool fault_cut(const char *name, bool cut)
{
    struct fault_link *link = find(name);
    if (!link)
        return false;
    atomic_store(&link->cut, cut);
    if (link->port >= 0)
        atomic_store(&io_fault[link->port], cut || link->disturbed ? link : NULL);
    return true;
}

bool fault_is_cut(const struct fault_link *link)
{
    return link && atomic_load_explicit(&link->cut, memory_order_relaxed);
}

/* ---- chance ------------------------------------------------------------------------------- */

static uint64_t next_random(struct fault_lane *lane)
{
    lane->random += HASH_K0;
    return hash_mix(lane->random, lane->random);
}

/* Draws one number whatever the probability is: the frames' fates do not depend on other rates. */
static bool happens(struct fault_lane *lane, double probability)
{
    return (double)(next_random(lane) >> 11) < probability * 0x1p53;
}

/* ---- frames ------------------------------------------------------------------------------- */

static void make_ready(struct fault_lane *lane, struct rte_mbuf *m)
{
    FTMB_ASSERT(lane->ready_count < READY);
    lane->ready[(lane->ready_first + lane->ready_count++) % READY] = m;
}

static void hold(struct fault_lane *lane, struct rte_mbuf *m, uint64_t due_ns, uint64_t due_frame)
{
    if (lane->held_count == FAULT_HELD) {
        lane->count.overflow++;
        rte_pktmbuf_free(m);
        return;
    }
    lane->held[lane->held_count++] = (struct held_frame){m, due_ns, due_frame};
}

/* A receiver works in the buffer that it gets, so a repetition is a copy. */
static struct rte_mbuf *copy_of(const struct rte_mbuf *m)
{
    return rte_pktmbuf_copy(m, m->pool, 0, UINT32_MAX);
}

/* Damage the role header so that no receiver may take the frame for one of its stream. */
static void damage(struct rte_mbuf *m, uint64_t random)
{
    uint32_t length = rte_pktmbuf_data_len(m);
    if (length < sizeof(struct wire_head))
        return;
    struct wire_head *head = rte_pktmbuf_mtod(m, struct wire_head *);
    uint8_t bits = (uint8_t)(1 + random % 255);
    switch (random >> 60) {
    case 0:
        head->magic ^= bits;
        break;
    case 1:
        head->version ^= bits;
        break;
    case 2:
        head->type = (uint8_t)(bits | 0x80);
        break;
    case 3:
        head->worker = (uint8_t)(bits | FTMB_MAX_WORKERS);
        break;
    case 4:
        head->worker ^= 1;
        break;
    case 5:
        head->port = (uint8_t)(bits | 2);
        break;
    case 6:
        head->length = (uint16_t)(length + bits);
        break;
    case 7:
        head->length = UINT16_MAX;
        break;
    case 8:
        head->view += bits;
        break;
    case 9:
        head->view -= bits;
        break;
    case 10:
        head->incarnation += bits;
        break;
    case 11:
        head->incarnation -= bits;
        break;
    default: /* cut off anywhere, also inside the headers */
        rte_pktmbuf_trim(m, (uint16_t)(1 + (random >> 8) % length));
    }
}

/* Every number is drawn for every frame, so that the fate of the n-th depends on n only. */
static void receive_one(const struct fault_link *link, struct fault_lane *lane, struct rte_mbuf *m,
                        uint64_t now)
{
    const struct fault_rates *rates = &link->rates;
    bool drop = happens(lane, rates->drop), repeat = happens(lane, rates->repeat);
    bool reorder = happens(lane, rates->reorder), delay = happens(lane, rates->delay);
    bool garble = happens(lane, rates->garble);
    uint64_t span = 1 + next_random(lane) % REORDER_SPAN, bits = next_random(lane);
    struct rte_mbuf *again = repeat ? copy_of(m) : NULL, *bad = garble ? copy_of(m) : NULL;
    lane->frames++;
    lane->count.seen++;
    if (bad) {
        lane->count.garbled++;
        damage(bad, bits);
        make_ready(lane, bad);
    }
    if (drop) {
        lane->count.dropped++;
        rte_pktmbuf_free(m);
    } else if (delay) {
        lane->count.delayed++;
        hold(lane, m, now + rates->delay_us * 1000ull, UINT64_MAX);
    } else if (reorder) {
        lane->count.reordered++;
        hold(lane, m, now + REORDER_NS, lane->frames + span);
    } else {
        make_ready(lane, m);
    }
    if (again) {
        lane->count.repeated++;
        make_ready(lane, again);
    }
}

static void release_held(struct fault_lane *lane, uint64_t now)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < lane->held_count; i++) {
        struct held_frame *held = &lane->held[i];
        if (held->due_frame <= lane->frames || held->due_ns <= now)
            make_ready(lane, held->m);
        else
            lane->held[kept++] = *held;
    }
    lane->held_count = kept;
}

static void receive_cut(struct fault_lane *lane, uint16_t port, uint16_t queue)
{
    struct rte_mbuf *burst[FTMB_BURST];
    lane->count.cut += lane->held_count + lane->ready_count;
    lose_all(lane);
    uint16_t count = rte_eth_rx_burst(port, queue, burst, FTMB_BURST);
    lane->count.cut += count;
    rte_pktmbuf_free_bulk(burst, count);
}

uint16_t fault_rx(struct fault_link *link, uint16_t port, uint16_t queue, struct rte_mbuf **m,
                  uint16_t n)
{
    struct fault_lane *lane = &link->lane[queue];
    if (fault_is_cut(link)) {
        receive_cut(lane, port, queue);
        return 0;
    }
    if (lane->ready_count == 0) {
        struct rte_mbuf *burst[FTMB_BURST];
        uint16_t count = rte_eth_rx_burst(port, queue, burst, RTE_MIN(n, (uint16_t)FTMB_BURST));
        uint64_t now = clock_ns();
        for (uint16_t i = 0; i < count; i++)
            receive_one(link, lane, burst[i], now);
        release_held(lane, now);
    }
    uint16_t given = (uint16_t)RTE_MIN((uint32_t)n, lane->ready_count);
    for (uint16_t i = 0; i < given; i++)
        m[i] = lane->ready[(lane->ready_first + i) % READY];
    lane->ready_first = (lane->ready_first + given) % READY;
    lane->ready_count -= given;
    return given;
}

bool fault_tx(struct fault_link *link, struct rte_mbuf **m, uint16_t n)
{
    if (!fault_is_cut(link))
        return false;
    atomic_fetch_add_explicit(&link->lost_sending, n, memory_order_relaxed);
    rte_pktmbuf_free_bulk(m, n);
    return true;
}

/* ---- messages ----------------------------------------------------------------------------- */

enum fault_fate fault_message(struct fault_link *link, uint32_t *hold_us)
{
    if (!link || !link->disturbed)
        return FAULT_PASS;
    struct fault_lane *lane = &link->lane[0];
    bool drop = happens(lane, link->rates.drop), repeat = happens(lane, link->rates.repeat);
    bool reorder = happens(lane, link->rates.reorder), delay = happens(lane, link->rates.delay);
    lane->count.seen++;
    if (drop) {
        lane->count.dropped++;
        return FAULT_DROP;
    }
    if (reorder || delay) {
        *(delay ? &lane->count.delayed : &lane->count.reordered) += 1;
        *hold_us = delay ? link->rates.delay_us : (uint32_t)(REORDER_NS / 1000);
        return FAULT_HOLD;
    }
    lane->count.repeated += repeat;
    return repeat ? FAULT_REPEAT : FAULT_PASS;
}

/* ---- counters ----------------------------------------------------------------------------- */

json_t *fault_stats(void)
{
    json_t *all = NULL;
    for (unsigned i = 0; i < link_count; i++) {
        struct fault_counts sum = {.cut = atomic_load(&links[i].lost_sending)};
        for (unsigned q = 0; q < IO_MAX_QUEUES; q++) {
            const struct fault_counts *c = &links[i].lane[q].count;
            sum.seen += c->seen;
            sum.dropped += c->dropped;
            sum.repeated += c->repeated;
            sum.reordered += c->reordered;
            sum.delayed += c->delayed;
            sum.garbled += c->garbled;
            sum.cut += c->cut;
            sum.overflow += c->overflow;
        }
        if (sum.seen + sum.cut == 0)
            continue;
        if (!all)
            all = json_object();
        json_object_set_new(
            all, links[i].name,
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "fault_seen", (json_int_t)sum.seen,
                      "fault_dropped", (json_int_t)sum.dropped, "fault_repeated",
                      (json_int_t)sum.repeated, "fault_reordered", (json_int_t)sum.reordered,
                      "fault_delayed", (json_int_t)sum.delayed, "fault_garbled",
                      (json_int_t)sum.garbled, "fault_cut", (json_int_t)sum.cut, "fault_overflow",
                      (json_int_t)sum.overflow));
    }
    return all;
}

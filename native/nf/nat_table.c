/* The NAT's table: mappings by inside endpoint, by slot, and their expiry. See nat.h for what
 * each shared variable protects. */
#include "nf/nat.h"

static uint32_t group_of(uint32_t bucket)
{
    return bucket >> NAT_GROUP_BITS;
}

static uint32_t stripe_id(const struct nat *nat, uint32_t index)
{
    return nat->first_stripe + (index & nat->stripe_mask);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool expired(const struct ftmb_ctx *ctx, const struct nat *nat, uint64_t last_seen,
                    uint8_t state)
{
    return ftmb_elapsed(ctx, last_seen) > nat->expire_ns[state];
}

static uint8_t first_state(const struct nat_flow *flow)
{
    if (flow->protocol == PROTOCOL_UDP)
        return NAT_UDP;
    if (flow->protocol == PROTOCOL_ICMP)
        return NAT_ECHO;
    return flow->tcp_flags & (TCP_FIN | TCP_RST) ? NAT_CLOSING : NAT_OPENING;
}

/* State after an outbound packet. One mapping may carry several connections: after a FIN, data or
 * a new SYN shows that one is still in use, while the acknowledgement of the other side's FIN
 * does not. */
static uint8_t next_state(uint8_t state, const struct nat_flow *flow)
{
    if (state < NAT_OPENING)
        return state;
    if (flow->tcp_flags & (TCP_FIN | TCP_RST))
        return NAT_CLOSING;
    bool syn = flow->tcp_flags & TCP_SYN;
    if (state == NAT_OPENING && !syn && (flow->tcp_flags & TCP_ACK))
        return NAT_ESTABLISHED;
    if (state == NAT_CLOSING && syn)
        return NAT_OPENING;
    if (state == NAT_CLOSING && flow->tcp_payload)
        return NAT_ESTABLISHED;
    return state;
}

static void copy_binding(struct nat_binding *binding, const struct nat_slot *slot)
{
    binding->address = slot->address; /* constant */
    binding->port = slot->port;
    binding->ip_delta = NAT_LOAD(slot->ip_delta);
    binding->l4_delta = NAT_LOAD(slot->l4_delta);
}

/* One look at a chain. */
struct lookup {
    uint32_t index; /* NAT_NONE: no mapping */
    uint32_t length;
    uint64_t last_seen;
    uint8_t state;
    bool stale; /* some other mapping of the chain has expired */
};

/* Walk a bucket's chain for `key`. Stores to locals only, so it serves readers and holders of the
 * group alike. */
static struct lookup find(const struct ftmb_ctx *ctx, const struct nat *nat, uint32_t bucket,
                          uint64_t key, struct nat_binding *binding)
{
    const struct nat_slot *slots = nat_slots(ctx->arena, nat);
    struct lookup result = {.index = NAT_NONE};
    uint32_t index = NAT_LOAD(nat_heads(ctx->arena, nat)[bucket]);
    /* Torn links can point anywhere, also round in a circle. */
    while (index < nat->slots && result.length < NAT_MAX_CHAIN) {
        const struct nat_slot *slot = &slots[index];
        uint8_t state = NAT_LOAD(slot->state);
        uint64_t last_seen = NAT_LOAD(slot->last_seen);
        if (likely(NAT_LOAD(slot->key) == key)) {
            result.index = index;
            result.state = state;
            result.last_seen = last_seen;
            copy_binding(binding, slot);
            return result;
        }
        result.stale = result.stale || expired(ctx, nat, last_seen, state);
        result.length++;
        index = NAT_LOAD(slot->next);
    }
    return result;
}

/* Remove the first expired mapping of a group, in one section. False: there is none. */
static bool remove_one(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                       uint32_t group)
{
    struct nat_slot *slots = nat_slots(ctx->arena, nat);
    uint32_t *heads = nat_heads(ctx->arena, nat) + ((uint64_t)group << NAT_GROUP_BITS);
    worker->removals--;
    ftmb_write(ctx, group);
    uint32_t *link = NULL;
    for (uint32_t b = 0; b < 1u << NAT_GROUP_BITS && !link; b++) {
        uint32_t *at = &heads[b];
        while (*at != NAT_NONE && !expired(ctx, nat, slots[*at].last_seen, slots[*at].state))
            at = &slots[*at].next;
        if (*at != NAT_NONE)
            link = at;
    }
    if (!link) {
        ftmb_section_end(ctx);
        return false;
    }
    uint32_t index = *link;
    struct nat_slot *slot = &slots[index];
    uint32_t number = nat_pool_of(nat, slot);
    ftmb_write(ctx, nat->first_pool + number);
    ftmb_write(ctx, stripe_id(nat, index));
    struct nat_pool *pool = &nat_pools(ctx->arena, nat)[number];
    const struct nat_range *range = &nat->ranges[number];
    uint32_t place = pool->head + pool->spare;
    if (place >= range->size)
        place -= range->size;
    ftmb_mark(ctx, pool, sizeof(*pool));
    ftmb_mark(ctx, &nat_ring(ctx->arena, nat, number)[place], sizeof(uint16_t));
    ftmb_mark(ctx, link, sizeof(*link));
    ftmb_mark(ctx, slot, sizeof(*slot));
    nat_ring(ctx->arena, nat, number)[place] = (uint16_t)(index - range->first);
    NAT_STORE(pool->spare, pool->spare + 1);
    if (PLANTED(P_NAT_PORT_TWICE) && pool->spare < range->size) {
        nat_ring(ctx->arena, nat, number)[place + 1 < range->size ? place + 1 : 0] =
            (uint16_t)(index - range->first);
        pool->spare++;
    }
    NAT_STORE(*link, slot->next);
    NAT_STORE(slot->key, 0);
    NAT_STORE(slot->next, place);
    ftmb_section_end(ctx);
    worker->counters[NAT_EXPIRED]++;
    return true;
}

static bool pool_has_room(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t number)
{
    const struct nat_pool *pool = &nat_pools(ctx->arena, nat)[number];
    uint32_t id = nat->first_pool + number;
    uint64_t token;
    uint32_t left;
    do {
        token = ftmb_read_begin(ctx, id);
        left = NAT_LOAD(pool->spare);
    } while (!ftmb_read_end(ctx, id, token));
    return left != 0;
}

/* The oldest free slot of a pool that is held, or NAT_NONE. */
static uint32_t pool_take(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t number)
{
    struct nat_pool *pool = &nat_pools(ctx->arena, nat)[number];
    const struct nat_range *range = &nat->ranges[number];
    if (pool->spare == 0)
        return NAT_NONE;
    uint32_t index = range->first + nat_ring(ctx->arena, nat, number)[pool->head];
    if (PLANTED(P_NAT_PORT_OUTSIDE_SECTION))
        SIM_POINT();
    ftmb_mark(ctx, pool, sizeof(*pool));
    pool->head = pool->head + 1 < range->size ? pool->head + 1 : 0;
    NAT_STORE(pool->spare, pool->spare - 1);
    return index;
}

/* Fill and link a slot; its group and its stripe are held. */
static void link_slot(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t bucket, uint32_t index,
                      const struct nat_flow *flow)
{
    struct nat_slot *slot = &nat_slots(ctx->arena, nat)[index];
    uint32_t *head = &nat_heads(ctx->arena, nat)[bucket];
    uint16_t inside_port = (uint16_t)(flow->key >> 32);
    uint16_t ip_delta = checksum_delta32((uint32_t)flow->key, slot->address);
    uint16_t l4_delta = checksum_delta16(inside_port, slot->port);
    if (flow->protocol != PROTOCOL_ICMP) /* TCP and UDP sum the addresses as well */
        l4_delta = checksum_join(l4_delta, ip_delta);
    ftmb_mark(ctx, slot, sizeof(*slot));
    ftmb_mark(ctx, head, sizeof(*head));
    NAT_STORE(slot->ip_delta, ip_delta);
    NAT_STORE(slot->l4_delta, l4_delta);
    NAT_STORE(slot->last_seen, ctx->now_ns);
    NAT_STORE(slot->state, first_state(flow));
    NAT_STORE(slot->next, *head);
    NAT_STORE(slot->key, flow->key);
    NAT_STORE(*head, index);
}

/* A live mapping meets an outbound packet; its group is held. One that expired and that nobody
 * has removed yet begins anew, with the endpoint it had. */
static void touch(struct ftmb_ctx *ctx, const struct nat *nat, const struct lookup *found,
                  const struct nat_flow *flow)
{
    struct nat_slot *slot = &nat_slots(ctx->arena, nat)[found->index];
    uint8_t state = expired(ctx, nat, found->last_seen, found->state)
                        ? first_state(flow)
                        : next_state(found->state, flow);
    ftmb_mark(ctx, slot, sizeof(*slot));
    NAT_STORE(slot->state, state);
    NAT_STORE(slot->last_seen, later(found->last_seen, ctx->now_ns));
    if (PLANTED(P_NAT_MAPPING_CHANGES))
        slot->port ^= __builtin_bswap16(1);
}

/* Bind under write access: refresh, or make a mapping.
 *
 * The first pool is chosen by the inside address, so that a host keeps one outside address as long
 * as there is room (RFC 4787, "paired"). If it is dry, the others follow in a circle, each looked
 * at by a read before anything is locked, and each in a section of its own since ids only ascend.
 * The group is searched again every time: another worker may have been here in between. */
static enum nat_verdict claim(struct ftmb_ctx *ctx, const struct nat *nat,
                              struct nat_worker *worker, const struct nat_flow *flow,
                              uint32_t bucket, struct nat_binding *binding)
{
    uint32_t home = (uint32_t)((sets_mix((uint32_t)flow->key) >> 32) * nat->addresses >> 32);
    uint32_t tries = 0;
    for (uint32_t n = 0; n < nat->addresses && tries < NAT_TRIES; n++) {
        uint32_t number = home + n < nat->addresses ? home + n : home + n - nat->addresses;
        if (n > 0 && !pool_has_room(ctx, nat, number))
            continue;
        tries++;
        ftmb_write(ctx, group_of(bucket));
        struct lookup found = find(ctx, nat, bucket, flow->key, binding);
        if (PLANTED(P_NAT_NO_SECOND_LOOK))
            found.index = NAT_NONE;
        if (found.index != NAT_NONE) {
            touch(ctx, nat, &found, flow);
            ftmb_section_end(ctx);
            worker->counters[NAT_REFRESHED]++;
            return NAT_BOUND;
        }
        if (found.length >= NAT_MAX_CHAIN) {
            ftmb_section_end(ctx);
            return NAT_CROWDED;
        }
        if (!PLANTED(P_NAT_PORT_OUTSIDE_SECTION))
            ftmb_write(ctx, nat->first_pool + number);
        uint32_t index = pool_take(ctx, nat, number);
        if (index != NAT_NONE) {
            ftmb_write(ctx, stripe_id(nat, index));
            link_slot(ctx, nat, bucket, index, flow);
            copy_binding(binding, &nat_slots(ctx->arena, nat)[index]);
            ftmb_section_end(ctx);
            worker->counters[NAT_CREATED]++;
            return NAT_BOUND;
        }
        ftmb_section_end(ctx);
    }
    return NAT_EXHAUSTED;
}

/* find() as a read access. */
static inline struct lookup look_up(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t bucket,
                                    uint64_t key, struct nat_binding *binding)
{
    uint32_t group = group_of(bucket);
    struct lookup found;
    uint64_t token;
    do {
        token = ftmb_read_begin(ctx, group);
        found = find(ctx, nat, bucket, key, binding);
    } while (!ftmb_read_end(ctx, group, token));
    return found;
}

bool nat_find(struct ftmb_ctx *ctx, const struct nat *nat, uint64_t key,
              struct nat_binding *binding)
{
    return look_up(ctx, nat, nat_bucket(nat, key), key, binding).index != NAT_NONE;
}

enum nat_verdict nat_bind(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker,
                          const struct nat_flow *flow, struct nat_binding *binding)
{
    uint32_t bucket = nat_bucket(nat, flow->key);
    struct lookup found = look_up(ctx, nat, bucket, flow->key, binding);

    /* The usual case: the mapping is there and was written lately. One read, no write. */
    if (likely(found.index != NAT_NONE)) {
        bool fresh = ftmb_elapsed(ctx, found.last_seen) <= nat->refresh_ns[found.state];
        if (likely(fresh && next_state(found.state, flow) == found.state))
            return NAT_BOUND;
    } else if (found.stale) {
        while (worker->removals && remove_one(ctx, nat, worker, group_of(bucket)))
            ;
    }
    return claim(ctx, nat, worker, flow, bucket, binding);
}

uint64_t nat_inside(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t index,
                    struct nat_binding *binding)
{
    const struct nat_slot *slot = &nat_slots(ctx->arena, nat)[index];
    uint32_t id = stripe_id(nat, index);
    uint64_t token, key;
    do {
        token = PLANTED(P_NAT_INSIDE_UNLOGGED) ? 0 : ftmb_read_begin(ctx, id);
        key = NAT_LOAD(slot->key);
        copy_binding(binding, slot);
    } while (!PLANTED(P_NAT_INSIDE_UNLOGGED) && !ftmb_read_end(ctx, id, token));
    return key;
}

void nat_close(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker, uint64_t key)
{
    uint32_t bucket = nat_bucket(nat, key);
    struct nat_binding ignored;
    ftmb_write(ctx, group_of(bucket));
    struct lookup found = find(ctx, nat, bucket, key, &ignored);
    /* Only the change restarts the timer: repeated RSTs from outside cannot keep a mapping. */
    if (found.index != NAT_NONE && found.state != NAT_CLOSING) {
        struct nat_slot *slot = &nat_slots(ctx->arena, nat)[found.index];
        ftmb_mark(ctx, slot, sizeof(*slot));
        NAT_STORE(slot->state, NAT_CLOSING);
        NAT_STORE(slot->last_seen, later(found.last_seen, ctx->now_ns));
        worker->counters[NAT_REFRESHED]++;
    }
    ftmb_section_end(ctx);
}

/* Has anything in a group expired? One logged read. */
static bool group_stale(struct ftmb_ctx *ctx, const struct nat *nat, uint32_t group)
{
    struct nat_binding ignored;
    uint32_t first = group << NAT_GROUP_BITS;
    uint64_t token;
    bool stale;
    do {
        token = ftmb_read_begin(ctx, group);
        stale = false;
        for (uint32_t b = 0; b < 1u << NAT_GROUP_BITS; b++)
            stale |= find(ctx, nat, first + b, 0, &ignored).stale;
    } while (!ftmb_read_end(ctx, group, token));
    return stale;
}

/* Each worker sweeps every W-th group, at a pace that takes it round in an eighth of the shortest
 * timeout. What it cannot do at that pace it does later: a backlog is not caught up with, since
 * the work of one input is bounded. */
void nat_sweep(struct ftmb_ctx *ctx, const struct nat *nat, struct nat_worker *worker)
{
    if (likely(ctx->now_ns < worker->next_sweep) || worker->next_group >= nat->groups)
        return;
    for (uint32_t n = 0; n < NAT_SWEEP_GROUPS && ctx->now_ns >= worker->next_sweep; n++) {
        uint32_t group = worker->next_group;
        worker->counters[NAT_SWEPT]++;
        if (unlikely(group_stale(ctx, nat, group))) {
            while (worker->removals && remove_one(ctx, nat, worker, group))
                ;
            if (!worker->removals)
                break; /* this group again, with the next input */
        }
        worker->next_group = group + ctx->workers;
        if (worker->next_group >= nat->groups)
            worker->next_group = ctx->worker;
        worker->next_sweep += nat->sweep_ns;
    }
    if (worker->next_sweep <= ctx->now_ns)
        worker->next_sweep = ctx->now_ns + (worker->removals ? nat->sweep_ns : 0);
}

/* Only the usual packet: IPv4 without options. What else the bytes may be does not matter, since
 * an address that is asked for in vain costs little and changes nothing. */
void nat_prefetch(const struct ftmb_ctx *ctx, const struct nf_packet *packet, unsigned stage)
{
    const struct nat *nat = arena_root(ctx->arena);
    const uint8_t *ip = packet->data + ETHERNET_BYTES;
    if (packet->length < ETHERNET_BYTES + IPV4_MIN_BYTES + UDP_BYTES)
        return;
    if (packet->port == NF_INSIDE) {
        const uint8_t *port = ip + IPV4_MIN_BYTES + (ip[9] == PROTOCOL_ICMP ? 4 : 0);
        uint64_t key = nat_key(packet_load32(ip + 12), packet_load16(port), ip[9]);
        uint32_t bucket = nat_bucket(nat, key);
        const uint32_t *head = &nat_heads(ctx->arena, nat)[bucket];
        if (stage == 0) {
            __builtin_prefetch(head);
            __builtin_prefetch((const void *)&ctx->seq[group_of(bucket)]);
            return;
        }
        uint32_t index = NAT_LOAD(*head);
        if (index < nat->slots)
            __builtin_prefetch(&nat_slots(ctx->arena, nat)[index]);
    } else if (stage == 0) {
        const uint8_t *at = ip + IPV4_MIN_BYTES + (ip[9] == PROTOCOL_ICMP ? 4 : 2);
        uint32_t number = __builtin_bswap32(packet_load32(ip + 16)) - nat->first_address;
        uint32_t port = __builtin_bswap16(packet_load16(at)) - NAT_FIRST_PORT;
        if (number >= nat->addresses || port >= nat->ranges[number].size)
            return;
        uint32_t index = nat->ranges[number].first + port;
        __builtin_prefetch(&nat_slots(ctx->arena, nat)[index]);
        __builtin_prefetch((const void *)&ctx->seq[stripe_id(nat, index)]);
    }
}

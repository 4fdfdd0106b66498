/* The NAT's counters, and the checks of its table. Runs after the workers have stopped. */
#include "nf/nat.h"

static const char *const names[NAT_COUNTERS] = {
    [NAT_OUTBOUND] = "outbound",
    [NAT_INBOUND] = "inbound",
    [NAT_HAIRPINNED] = "hairpinned",
    [NAT_FRAGMENTS] = "fragments",
    [NAT_ICMP_ERRORS] = "icmp_errors",
    [NAT_CREATED] = "mappings_created",
    [NAT_EXPIRED] = "mappings_expired",
    [NAT_REFRESHED] = "mappings_refreshed",
    [NAT_SWEPT] = "groups_swept",
    [NAT_DATAGRAMS] = "datagrams_noted",
    [NAT_FORGOTTEN] = "datagrams_forgotten",
    [NAT_ARP_REPLIES] = "arp_replies",
    [NAT_ARP_REQUESTS] = "arp_requests",
    [NAT_ARP_LEARNT] = "arp_learnt",
    [NAT_DROP_EXHAUSTED] = "dropped_no_port",
    [NAT_DROP_CROWDED] = "dropped_full_chain",
    [NAT_DROP_UNKNOWN] = "dropped_no_mapping",
    [NAT_DROP_HAIRPIN] = "dropped_hairpin",
    [NAT_DROP_SPOOFED] = "dropped_spoofed",
    [NAT_DROP_NO_HOP] = "dropped_no_hop",
    [NAT_DROP_ARP] = "dropped_arp",
    [NAT_DROP_NOT_IPV4] = "dropped_not_ipv4",
    [NAT_DROP_FRAGMENT] = "dropped_fragment",
    [NAT_DROP_ICMP] = "dropped_icmp",
    [NAT_DROP_PROTOCOL] = "dropped_protocol",
    [NAT_DROP_MALFORMED] = "dropped_malformed",
};

/* Mappings whose slot is in use, by the slots themselves. */
static uint64_t live_slots(struct arena *arena, const struct nat *nat)
{
    uint64_t live = 0;
    for (uint32_t i = 0; i < nat->slots; i++)
        live += nat_slots(arena, nat)[i].key != 0;
    return live;
}

/* Is `key` in the chain that starts at `index`? Call it for sound chains only. */
static bool chain_has(const struct nat_slot *slots, uint32_t index, uint64_t key)
{
    for (; index != NAT_NONE; index = slots[index].next) {
        if (slots[index].key == key)
            return true;
    }
    return false;
}

/* Every mapping hangs in the chain of its own bucket, exactly once. A slot has one link and one
 * bucket, so being linked twice would be a circle, which the bound on all steps would find. */
static bool chains_sound(struct arena *arena, const struct nat *nat, uint64_t live)
{
    const struct nat_slot *slots = nat_slots(arena, nat);
    uint64_t linked = 0;
    for (uint32_t b = 0; b < nat->groups << NAT_GROUP_BITS; b++) {
        uint32_t index = nat_heads(arena, nat)[b];
        for (; index != NAT_NONE; index = slots[index].next) {
            if (index >= nat->slots || ++linked > live)
                return false;
            if (slots[index].key == 0 || nat_bucket(nat, slots[index].key) != b)
                return false;
        }
    }
    return linked == live;
}

/* No inside endpoint has two mappings: they would be in one bucket. */
static bool keys_unique(struct arena *arena, const struct nat *nat)
{
    const struct nat_slot *slots = nat_slots(arena, nat);
    for (uint32_t i = 0; i < nat->slots; i++) {
        if (slots[i].key && chain_has(slots, slots[i].next, slots[i].key))
            return false;
    }
    return true;
}

/* Used and free slots are all slots: each free one is in the ring at the place that it names. */
static bool slots_conserved(struct arena *arena, const struct nat *nat, uint64_t live)
{
    const struct nat_slot *slots = nat_slots(arena, nat);
    uint64_t unused = 0;
    for (uint32_t a = 0; a < nat->addresses; a++) {
        const struct nat_pool *pool = &nat_pools(arena, nat)[a];
        const struct nat_range *range = &nat->ranges[a];
        if (pool->spare > range->size || pool->head >= range->size)
            return false;
        for (uint32_t i = 0; i < pool->spare; i++) {
            uint32_t place = (pool->head + i) % range->size;
            uint32_t offset = nat_ring(arena, nat, a)[place];
            if (offset >= range->size)
                return false;
            const struct nat_slot *slot = &slots[range->first + offset];
            if (slot->key != 0 || slot->next != place)
                return false;
        }
        unused += pool->spare;
    }
    return unused + live == nat->slots;
}

/* The constants of the slots are what init wrote, and the deltas fit the endpoints. */
static bool endpoints_sound(struct arena *arena, const struct nat *nat)
{
    for (uint32_t a = 0; a < nat->addresses; a++) {
        for (uint32_t i = 0; i < nat->ranges[a].size; i++) {
            const struct nat_slot *slot = &nat_slots(arena, nat)[nat->ranges[a].first + i];
            if (slot->address != __builtin_bswap32(nat->first_address + a) ||
                slot->port != __builtin_bswap16((uint16_t)(NAT_FIRST_PORT + i)))
                return false;
            if (slot->key && slot->ip_delta != checksum_delta32((uint32_t)slot->key, slot->address))
                return false;
        }
    }
    return true;
}

/* Of a datagram in fragments: is it in its own set, and was one of our endpoints replaced? */
static bool datagram_sound(const struct nat *nat, uint32_t set, const struct nat_datagram *at)
{
    uint32_t source = (uint32_t)(at->addresses >> 32), destination = (uint32_t)at->addresses;
    bool to_us = nat_is_ours(nat, destination), left_as_it_was = at->destination == destination;
    if (nat_set(nat, at) != set || to_us == left_as_it_was)
        return false;
    return (at->rest >> 24 & 1) == NF_INSIDE ? nat_is_ours(nat, at->source)
                                             : to_us && at->source == source;
}

/* Datagrams that are known, or UINT64_MAX: one is wrong, or there twice. */
static uint64_t datagrams(struct arena *arena, const struct nat *nat)
{
    uint64_t count = 0;
    for (uint32_t s = 0; s < nat->datagrams.count; s++) {
        const struct nat_datagram *set = sets_at(arena, &nat->datagrams, s);
        for (unsigned a = 0; a < SETS_WAYS; a++) {
            if (!set[a].rest)
                continue;
            count++;
            if (!datagram_sound(nat, s, &set[a]))
                return UINT64_MAX;
            for (unsigned b = 0; b < a; b++) {
                if (set[a].rest == set[b].rest && set[a].addresses == set[b].addresses)
                    return UINT64_MAX;
            }
        }
    }
    return count;
}

/* Next hops are known as far as they are learnt, and have addresses that one can send to. */
static bool hops_sound(struct arena *arena, const struct nat *nat)
{
    for (unsigned side = 0; side < 2; side++) {
        const struct nat_hop *hop = nat_hop(arena, nat, side);
        bool learns = nat->mac && !nat->hop_mac[side];
        if ((hop->mac || hop->heard || hop->asked) && !learns)
            return false;
        if ((hop->mac != 0) != (hop->heard != 0) || (hop->mac && !packet_mac_of_one(hop->mac)))
            return false;
    }
    return true;
}

void nat_report(struct arena *arena, const struct nf_report *out)
{
    const struct nat *nat = arena_root(arena);
    uint64_t sums[NAT_COUNTERS] = {0};
    for (uint32_t w = 0; w < arena->workers; w++) {
        for (unsigned c = 0; c < NAT_COUNTERS; c++)
            sums[c] += nat_worker(arena, nat, w)->counters[c];
    }
    uint64_t live = live_slots(arena, nat);
    for (unsigned c = 0; c < NAT_COUNTERS; c++)
        out->counter(out->self, names[c], sums[c]);
    out->counter(out->self, "mappings", live);
    out->counter(out->self, "capacity", nat->slots);

    bool chains = chains_sound(arena, nat, live);
    bool unique = chains && keys_unique(arena, nat);
    bool conserved = slots_conserved(arena, nat, live);
    bool endpoints = endpoints_sound(arena, nat);
    bool noted = sums[NAT_DATAGRAMS] - sums[NAT_FORGOTTEN] == datagrams(arena, nat);
    bool hops = hops_sound(arena, nat);
    bool counted = sums[NAT_CREATED] - sums[NAT_EXPIRED] == live;
    out->check(out->self, "chains", chains,
               chains ? "every mapping is linked exactly once, in its own bucket"
                      : "a chain of the mapping table is broken");
    out->check(out->self, "unique", unique,
               unique ? "no inside endpoint has two mappings"
                      : "two mappings of one inside endpoint, or broken chains");
    out->check(out->self, "slots", conserved,
               conserved ? "free and used slots are all slots" : "slots were lost or doubled");
    out->check(out->self, "endpoints", endpoints,
               endpoints ? "every slot has its outside endpoint" : "an outside endpoint changed");
    out->check(out->self, "counted", counted,
               counted ? "created less expired is what is there"
                       : "created less expired differs from the mappings that are there");
    out->check(out->self, "datagrams", noted,
               noted ? "datagrams in fragments are there once, as many as were noted"
                     : "a datagram in fragments is there twice, translated wrongly, or lost");
    out->check(out->self, "hops", hops,
               hops ? "next hops are what was learnt" : "a next hop that nobody can have told");
}

/* Maglev's table, and what the load balancer reports. */
#include "nf/lb.h"

void maglev_fill(uint8_t *table, uint32_t size, uint32_t up)
{
    uint32_t place[LB_MAX_BACKENDS], skip[LB_MAX_BACKENDS], filled = 0;
    for (uint32_t b = 0; b < LB_MAX_BACKENDS; b++) { /* named by their numbers */
        place[b] = (uint32_t)(sets_mix(2 * b + 1) % size);
        skip[b] = (uint32_t)(sets_mix(2 * b + 2) % (size - 1)) + 1;
    }
    memset(table, 0xff, size);
    while (filled < size) {
        for (uint32_t b = 0; b < LB_MAX_BACKENDS && filled < size; b++) {
            if (!(up >> b & 1))
                continue;
            while (table[place[b]] != 0xff)
                place[b] = (place[b] + skip[b]) % size;
            table[place[b]] = (uint8_t)b;
            filled++;
        }
    }
}

static const char *const names[LB_COUNTERS] = {
    [LB_BALANCED] = "balanced",
    [LB_UNTRACKED] = "untracked",
    [LB_PASSED] = "passed",
    [LB_OPENED] = "opened",
    [LB_ENDED] = "ended",
    [LB_DROP_NOT_VIRTUAL] = "dropped_not_virtual",
    [LB_DROP_FRAGMENT] = "dropped_fragment",
    [LB_DROP_PROTOCOL] = "dropped_protocol",
    [LB_DROP_NOT_IPV4] = "dropped_not_ipv4",
    [LB_DROP_MALFORMED] = "dropped_malformed",
};

struct seen {
    uint64_t connections;
    uint64_t of[LB_MAX_BACKENDS];
    bool sound; /* each in its set, once, with a backend that is up */
};

static struct seen look(struct arena *arena, const struct lb *lb)
{
    struct seen seen = {.sound = true};
    for (uint32_t number = 0; number < lb->connections.count; number++) {
        const struct sets_flow *set = sets_at(arena, &lb->connections, number);
        for (unsigned way = 0; way < SETS_WAYS; way++) {
            const struct sets_flow *at = &set[way];
            if (!at->key.rest)
                continue;
            if (at->user >= LB_MAX_BACKENDS || !(lb->up >> at->user & 1) ||
                at->state >= LB_STATES || !sets_sound(&lb->connections, number, set, way)) {
                seen.sound = false;
                return seen;
            }
            seen.connections++;
            seen.of[at->user]++;
        }
    }
    return seen;
}

void lb_report(struct arena *arena, const struct nf_report *out)
{
    const struct lb *lb = arena_root(arena);
    uint64_t sums[LB_COUNTERS] = {0}, sent = 0, most = 0, fewest = UINT64_MAX;
    struct seen seen = look(arena, lb);
    bool loads = true;
    for (uint32_t w = 0; w < arena->workers; w++) {
        for (unsigned c = 0; c < LB_COUNTERS; c++)
            sums[c] += lb_worker(arena, lb, w)->counters[c];
    }
    for (unsigned b = 0; b < LB_MAX_BACKENDS; b++) {
        uint64_t to = 0;
        for (uint32_t w = 0; w < arena->workers; w++)
            to += lb_worker(arena, lb, w)->to[b];
        sent += to;
        most = u64_max(most, to);
        if (lb->up >> b & 1)
            fewest = u64_min(fewest, to);
        loads = loads && (!lb->least || lb_loads(arena, lb)->connections[b] == seen.of[b]);
    }
    for (unsigned c = 0; c < LB_COUNTERS; c++)
        out->counter(out->self, names[c], sums[c]);
    out->counter(out->self, "connections", seen.connections);
    out->counter(out->self, "most_of_a_backend", most);
    out->counter(out->self, "fewest_of_a_backend", fewest);
    bool counted = sums[LB_OPENED] - sums[LB_ENDED] == seen.connections &&
                   sums[LB_BALANCED] + sums[LB_UNTRACKED] == sent;
    out->check(out->self, "table", seen.sound,
               seen.sound ? "every connection has one entry, in its own set, and a backend"
                          : "a connection is in a wrong set, in two entries, or without a backend");
    out->check(out->self, "counts", counted,
               counted ? "connections opened and not ended are there; so are the packets sent"
                       : "the connections or packets differ from those counted");
    out->check(out->self, "loads", loads,
               loads ? "each backend's load is the number of its connections"
                     : "a backend's load differs from the number of its connections");
}

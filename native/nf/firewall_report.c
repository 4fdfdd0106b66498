/* What the firewall reports, and the checks of its table. */
#include "nf/firewall.h"

static const char *const names[FW_COUNTERS] = {
    [FW_FORWARDED] = "forwarded",
    [FW_OPENED] = "opened",
    [FW_ENDED] = "ended",
    [FW_DROP_RULE] = "dropped_rule",
    [FW_DROP_NO_CONNECTION] = "dropped_no_connection",
    [FW_DROP_STATE] = "dropped_state",
    [FW_DROP_WINDOW] = "dropped_window",
    [FW_DROP_HALF_OPEN] = "dropped_half_open",
    [FW_DROP_NO_ROOM] = "dropped_no_room",
    [FW_DROP_ICMP] = "dropped_icmp",
    [FW_DROP_FRAGMENT] = "dropped_fragment",
    [FW_DROP_PROTOCOL] = "dropped_protocol",
    [FW_DROP_NOT_IPV4] = "dropped_not_ipv4",
    [FW_DROP_MALFORMED] = "dropped_malformed",
};

struct seen {
    uint64_t connections, half_open;
    bool sound; /* each in its set, once, in a state that there is */
};

static struct seen look(struct arena *arena, const struct firewall *firewall)
{
    struct seen seen = {.sound = true};
    for (uint32_t number = 0; number < firewall->table.count; number++) {
        const struct fw_connection *set = sets_at(arena, &firewall->table, number);
        for (unsigned way = 0; way < SETS_WAYS; way++) {
            const struct fw_connection *at = &set[way];
            if (!at->flow.key.rest)
                continue;
            seen.connections++;
            seen.half_open += fw_half_open(at);
            seen.sound = seen.sound && at->flow.state < FW_STATES && at->opener <= NF_OUTSIDE &&
                         sets_sound(&firewall->table, number, set, way);
        }
    }
    return seen;
}

void fw_report(struct arena *arena, const struct nf_report *out)
{
    const struct firewall *firewall = arena_root(arena);
    uint64_t sums[FW_COUNTERS] = {0};
    for (uint32_t w = 0; w < arena->workers; w++) {
        for (unsigned c = 0; c < FW_COUNTERS; c++)
            sums[c] += fw_worker(arena, firewall, w)->counters[c];
    }
    struct seen seen = look(arena, firewall);
    for (unsigned c = 0; c < FW_COUNTERS; c++)
        out->counter(out->self, names[c], sums[c]);
    out->counter(out->self, "connections", seen.connections);
    out->counter(out->self, "half_open", seen.half_open);

    bool counted = sums[FW_OPENED] - sums[FW_ENDED] == seen.connections;
    bool half =
        !firewall->half_open_limit || (fw_half_opens(arena, firewall)->count == seen.half_open &&
                                       seen.half_open <= firewall->half_open_limit);
    out->check(out->self, "table", seen.sound,
               seen.sound ? "every connection has one entry, in its own set"
                          : "a connection is in a wrong set, in two entries, or in no known state");
    out->check(out->self, "counts", counted,
               counted ? "connections opened and not ended are in the table"
                       : "the table differs from the connections opened and not ended");
    out->check(out->self, "half_open", half,
               half ? "the half-open connections are as many as were counted, within the limit"
                    : "the half-open connections differ from their count, or are too many");
}

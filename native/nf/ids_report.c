/* What the intrusion detection reports, and whether its state is sound. */
#include "nf/ids.h"

static const char *const names[IDS_COUNTERS] = {
    [IDS_FORWARDED] = "forwarded",
    [IDS_DROP_MATCH] = "dropped_match",
    [IDS_DROP_SCAN] = "dropped_scan",
    [IDS_DROP_FLOOD] = "dropped_flood",
    [IDS_DROP_MALFORMED] = "dropped_malformed",
    [IDS_NOT_INSPECTED] = "not_inspected",
    [IDS_MALFORMED] = "malformed",
    [IDS_UNTRACKED] = "untracked",
    [IDS_OPENED] = "opened",
    [IDS_ENDED] = "ended",
    [IDS_MATCHES] = "matches",
    [IDS_MATCHED_FLOWS] = "matched_flows",
    [IDS_ATTEMPTS] = "attempts",
    [IDS_SCANNERS] = "scanners",
    [IDS_FORGOTTEN] = "forgotten",
    [IDS_HALF_OPENED] = "half_opened",
    [IDS_HALF_ENDED] = "half_ended",
    [IDS_FLOOD] = "flood",
};

struct seen {
    uint64_t flows;
    uint64_t half_open;
    bool flows_sound, counted, sources_sound;
};

static bool flow_sound(const struct ids *ids, const struct ids_flow *set, unsigned way,
                       uint32_t number)
{
    const struct ids_flow *at = &set[way];
    return at->flow.state < IDS_STATES && at->opener <= NF_OUTSIDE &&
           at->stream[0].bytes <= MATCH_TAIL && at->stream[1].bytes <= MATCH_TAIL &&
           sets_sound(&ids->flows, number, set, way);
}

static void look_at_flows(struct arena *arena, const struct ids *ids, struct seen *seen)
{
    for (uint32_t number = 0; number < ids->flows.count; number++) {
        const struct ids_flow *set = sets_at(arena, &ids->flows, number);
        for (unsigned way = 0; way < SETS_WAYS; way++) {
            if (!set[way].flow.key.rest)
                continue;
            seen->flows++;
            seen->flows_sound &= flow_sound(ids, set, way, number);
            if (!ids_half_open(&set[way]))
                continue;
            seen->half_open++;
            for (uint32_t r = 0; r < ids->rows; r++)
                seen->counted &= *ids_cell(arena, ids, r, ids_target(&set[way])) > 0;
        }
    }
    for (uint32_t r = 0; r < ids->rows; r++) {
        uint64_t sum = 0;
        for (uint32_t c = 0; c < ids->columns; c++)
            sum += ids_row(arena, ids, r)[c];
        seen->counted &= sum == seen->half_open;
    }
}

static unsigned bits_set(const uint64_t *bits)
{
    unsigned count = 0;
    for (unsigned b = 0; b < IDS_BITS; b++)
        count += bits[b / 64] >> (b % 64) & 1;
    return count;
}

static bool source_sound(const struct ids *ids, const struct ids_source *set, unsigned way,
                         uint32_t number)
{
    const struct ids_source *at = &set[way];
    for (unsigned other = 0; other < way; other++) {
        if (set[other].used && set[other].address == at->address)
            return false;
    }
    bool scans = (ids->ports_limit && at->ports_count >= ids->ports_limit) ||
                 (ids->hosts_limit && at->hosts_count >= ids->hosts_limit);
    return bits_set(at->ports) == at->ports_count && bits_set(at->hosts) == at->hosts_count &&
           at->scans == scans && ids_source_set(ids, at->address) == number;
}

static void look_at_sources(struct arena *arena, const struct ids *ids, struct seen *seen)
{
    for (uint32_t number = 0; number < ids->sources.count; number++) {
        const struct ids_source *set = sets_at(arena, &ids->sources, number);
        for (unsigned way = 0; way < SETS_WAYS; way++) {
            if (set[way].used)
                seen->sources_sound &= source_sound(ids, set, way, number);
        }
    }
}

static void tell_rules(struct arena *arena, const struct ids *ids, const struct nf_report *out)
{
    for (unsigned rule = 0; rule < MATCH_RULES; rule++) {
        char name[32] = "rule_";
        uint64_t sum = 0;
        for (uint32_t w = 0; w < arena->workers; w++)
            sum += ids_worker(arena, ids, w)->rule[rule];
        strncat(name, match_name(rule), sizeof(name) - strlen(name) - 1);
        out->counter(out->self, name, sum);
    }
}

void ids_report(struct arena *arena, const struct nf_report *out)
{
    const struct ids *ids = arena_root(arena);
    uint64_t sums[IDS_COUNTERS] = {0};
    struct seen seen = {.flows_sound = true, .counted = true, .sources_sound = true};
    look_at_flows(arena, ids, &seen);
    look_at_sources(arena, ids, &seen);
    for (uint32_t w = 0; w < arena->workers; w++) {
        for (unsigned c = 0; c < IDS_COUNTERS; c++)
            sums[c] += ids_worker(arena, ids, w)->counters[c];
    }
    for (unsigned c = 0; c < IDS_COUNTERS; c++)
        out->counter(out->self, names[c], sums[c]);
    tell_rules(arena, ids, out);
    out->counter(out->self, "flows", seen.flows);
    out->counter(out->self, "half_open", seen.half_open);
    bool counts = sums[IDS_OPENED] - sums[IDS_ENDED] == seen.flows &&
                  sums[IDS_HALF_OPENED] - sums[IDS_HALF_ENDED] == seen.half_open;
    out->check(out->self, "flows", seen.flows_sound,
               seen.flows_sound ? "every flow has one entry, in its own set"
                                : "a flow is in a wrong set, in two entries, or in no state");
    out->check(out->self, "counts", counts,
               counts ? "flows begun and not ended are there, so are the half-open ones"
                      : "the flows or the half-open ones differ from those counted");
    out->check(out->self, "sketch", seen.counted,
               seen.counted ? "each row counts every half-open connection once"
                            : "a row's sum differs from the number of half-open connections");
    out->check(out->self, "sources", seen.sources_sound,
               seen.sources_sound ? "every source is in one place, and scans if its bits say so"
                                  : "a source is in a wrong place, in two, or judged wrongly");
}

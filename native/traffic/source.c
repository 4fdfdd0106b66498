/* Synthetic packets. */
#include "traffic/source.h"

#include "traffic/why.h"

static uint32_t group_index(uint8_t protocol)
{
    return protocol == PROTO_UDP ? 0 : protocol == PROTO_TCP ? 1 : 2;
}

/* A flow has one protocol; flows share the protocols as the templates do. In turn rather than in
 * blocks, since the hashes of neighbouring flows are neighbours too. */
static void share_groups(struct source *s)
{
    int64_t owed[SOURCE_GROUPS] = {0};
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t best = 0;
        for (uint32_t g = 0; g < SOURCE_GROUPS; g++)
            owed[g] += s->groups[g].count;
        for (uint32_t g = 1; g < SOURCE_GROUPS; g++)
            if (owed[g] > owed[best])
                best = g;
        owed[best] -= s->set.count;
        s->group_of[i] = (uint8_t)best;
    }
}

int source_init(struct source *s, struct flows *flows, const struct source_options *options,
                char *why)
{
    *s = (struct source){.flows = flows, .seed = options->seed};
    if (template_read(&s->set, options->path, why))
        return -1;
    if (pick_init(&s->pick, flows->active, options->zipf, options->seed)) {
        source_free(s);
        return traffic_why(why, "no memory for the popularity of %u flows", flows->active);
    }
    s->reply_step = (uint32_t)(options->reply_share * 4294967296.0);
    pace_init(&s->fresh, options->new_flows_per_s);
    for (uint32_t i = 0; i < s->set.count; i++) {
        struct source_group *group = &s->groups[group_index(s->set.list[i].protocol)];
        group->list[group->count++] = &s->set.list[i];
    }
    share_groups(s);
    return 0;
}

void source_free(struct source *s)
{
    template_free(&s->set);
    pick_free(&s->pick);
}

/* What a packet of this flow looks like. */
static void choose_template(struct source *s, struct send *send)
{
    struct source_group *group = &s->groups[s->group_of[(send->flow * 2654435761u) >> 24]];
    __builtin_prefetch(&s->flows->table[send->flow], 1);
    send->template = group->list[group->next];
    send->length = send->template->length;
    if (++group->next == group->count)
        group->next = 0;
}

void source_plan(struct source *s, struct send *sends, unsigned n)
{
    struct pick_draw draws[SOURCE_BURST];
    FTMB_ASSERT(n <= SOURCE_BURST);
    for (unsigned i = 0; i < n; i++)
        draws[i] = pick_draw(&s->pick);
    for (unsigned i = 0; i < n; i++) {
        struct send *send = &sends[i];
        while (unlikely(s->fresh.next_ns <= send->intended_ns)) {
            flows_shift(s->flows);
            pace_advance(&s->fresh);
        }
        send->flow = flows_in_slot(s->flows, pick_take(&s->pick, draws[i]));
        uint32_t part = s->reply_part + s->reply_step;
        send->reply = part < s->reply_part;
        s->reply_part = part;
        choose_template(s, send);
    }
}

void source_plan_fill(struct source *s, struct send *sends, unsigned n)
{
    FTMB_ASSERT(n <= s->flows->active - s->opened);
    for (unsigned i = 0; i < n; i++) {
        sends[i].flow = s->opened++;
        sends[i].reply = false;
        choose_template(s, &sends[i]);
    }
}

enum side source_write(struct source *s, const struct send *send, uint8_t *frame,
                       struct tally *tally)
{
    struct flow *flow = &s->flows->table[send->flow];
    struct template_fill fill;
    if (unlikely(send->reply)) {
        if (flow->mapped) {
            tally->replies++;
            fill.source = flows_server(send->flow);
            fill.destination = flow->mapped_address;
            fill.port = flow->mapped_port;
            fill.open = false;
            fill.trailer = trailer_make(send->flow | TRAILER_REPLY, flow->sent[REPLY]++,
                                        send->intended_ns, s->seed);
            template_build(send->template, REPLY, &fill, frame);
            return SIDE_OUTSIDE;
        }
        tally->replies_early++;
    }
    struct endpoint inside = flows_inside(s->flows, send->flow);
    uint32_t number = flow->sent[OUTBOUND]++;
    fill.source = inside.address;
    fill.destination = flows_server(send->flow);
    fill.port = inside.port;
    fill.open = number == 0;
    fill.trailer = trailer_make(send->flow, number, send->intended_ns, s->seed);
    template_build(send->template, OUTBOUND, &fill, frame);
    return SIDE_INSIDE;
}

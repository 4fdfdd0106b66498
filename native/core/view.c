/* The output logger's decisions on membership, commit and failover (see view.h). */
#include "core/view.h"

#include <string.h>

#include "core/plant.h"

void view_init(struct view_state *view)
{
    memset(view, 0, sizeof(*view));
    view->master = -1;
}

uint32_t view_admit(struct view_state *view, uint32_t slot, bool *active)
{
    *active = false;
    if (slot >= VIEW_SLOTS || view->member[slot].present)
        return 0;
    struct view_member *member = &view->member[slot];
    *member = (struct view_member){
        .present = true, .holder = member->holder, .incarnation = ++view->incarnations};
    if (view->view == 0) {
        view->view = 1;
        view->master = (int)slot;
        *active = true;
    }
    return member->incarnation;
}

bool view_holds(struct view_state *view, uint32_t slot, uint32_t base_view, uint64_t base_epoch)
{
    struct view_member *member = &view->member[slot];
    bool same = base_epoch && base_epoch == view->base_epoch && base_view == view->base_view;
    if (!member->present || (int)slot == view->master)
        return false;
    member->eligible = member->holder = same;
    return same;
}

static bool has_prepared(const struct view_member *member, uint32_t of_view, uint64_t epoch)
{
    return member->present && member->prepared_view == of_view && member->prepared_epoch == epoch;
}

/* Not from before the logs were forgotten: a backup that was away meanwhile may bring such. */
static bool has_logs(const struct view_state *view, const struct snapshot_cut *cut)
{
    for (uint32_t w = 0; w < FTMB_MAX_WORKERS; w++) {
        if (cut->pals[w] < view->kept_from.pals[w] ||
            cut->next_input[w] < view->kept_from.next_input[w])
            return false;
    }
    return true;
}

enum view_prepare view_prepared(struct view_state *view, uint32_t slot, uint32_t incarnation,
                                uint32_t of_view, uint64_t epoch, const struct snapshot_cut *cut)
{
    if (slot >= VIEW_SLOTS || !view->member[slot].present)
        return VIEW_STALE;
    struct view_member *member = &view->member[slot];
    if (member->incarnation != incarnation || (int)slot == view->master || view->promoting)
        return VIEW_STALE;
    if (of_view != view->view || epoch == 0 || !has_logs(view, cut))
        return VIEW_STALE;
    if (view->base_view == of_view && epoch <= view->base_epoch) {
        if (epoch < view->base_epoch)
            return VIEW_STALE;
        member->eligible = member->holder = true;
        return VIEW_LATE;
    }
    if (view->pending.valid && epoch < view->pending.epoch)
        return VIEW_STALE;
    member->refused = false;
    member->prepared_view = of_view;
    member->prepared_epoch = epoch;
    view->pending =
        (struct view_pending){.valid = true, .view = of_view, .epoch = epoch, .cut = *cut};
    return VIEW_PENDING;
}

bool view_superseded(const struct view_state *view, uint32_t slot)
{
    const struct view_member *member = &view->member[slot];
    if (!member->present || (int)slot == view->master || !view->pending.valid ||
        member->prepared_view != view->pending.view || PLANTED(P_SUPERSEDED_UNTOLD))
        return false;
    bool base =
        view->base_view == member->prepared_view && member->prepared_epoch <= view->base_epoch;
    return !base && member->prepared_epoch < view->pending.epoch;
}

void view_refused(struct view_state *view, uint32_t slot)
{
    FTMB_ASSERT(slot < VIEW_SLOTS);
    view->member[slot].refused = view->member[slot].present && (int)slot != view->master;
}

bool view_ready(const struct view_state *view)
{
    const struct view_pending *pending = &view->pending;
    bool any = false;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        bool prepared = has_prepared(&view->member[slot], pending->view, pending->epoch);
        if (view->member[slot].eligible && !prepared && !view->member[slot].refused)
            return false;
        any |= prepared;
    }
    return pending->valid && any && pending->view == view->view;
}

void view_commit(struct view_state *view)
{
    FTMB_ASSERT(view_ready(view));
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        struct view_member *member = &view->member[slot];
        member->eligible = member->holder =
            has_prepared(member, view->pending.view, view->pending.epoch);
        member->refused = false;
    }
    view->base_view = view->pending.view;
    view->base_epoch = view->pending.epoch;
    view->pending.valid = false;
}

int view_eligible(const struct view_state *view)
{
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct view_member *member = &view->member[slot];
        if (member->present && member->eligible && (int)slot != view->master)
            return (int)slot;
    }
    return -1;
}

unsigned view_protectors(const struct view_state *view)
{
    unsigned count = 0;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++)
        count += view->member[slot].present && view->member[slot].eligible;
    return count;
}

/* Its slot's file stays as it is. */
void view_leave(struct view_state *view, uint32_t slot)
{
    FTMB_ASSERT(slot < VIEW_SLOTS);
    struct view_member *gone = &view->member[slot];
    gone->present = gone->eligible = false;
    if (view->master == (int)slot)
        view->master = -1;
    bool held = false;
    for (uint32_t other = 0; other < VIEW_SLOTS; other++)
        held |= has_prepared(&view->member[other], view->pending.view, view->pending.epoch);
    view->pending.valid &= held;
}

static void begin_next(struct view_state *view, int next)
{
    if (view->master >= 0)
        view_leave(view, (uint32_t)view->master);
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++)
        view->member[slot].refused = false;
    view->view++;
    view->master = next;
    view->member[next].eligible = false; /* its memory moves on; its file keeps the base */
    view->pending.valid = false;
    view->promoting = true;
    view->heir = false;
}

enum view_outcome view_master_failed(struct view_state *view, bool dead)
{
    int next = view_eligible(view);
    if (next < 0 && !dead && !PLANTED(P_SILENCE_FENCES_ALWAYS))
        return VIEW_GOES_ON;
    if (next >= 0) {
        begin_next(view, next);
        return VIEW_PROMOTED;
    }
    if (view->master >= 0)
        view_leave(view, (uint32_t)view->master);
    view->promoting = false;
    view->pending.valid = false;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++)
        view->heir |= view->base_epoch && view->member[slot].holder;
    return view->heir ? VIEW_HEIRLESS : VIEW_LOST;
}

bool view_inherit(struct view_state *view)
{
    int next = view_eligible(view);
    if (!view->heir || next < 0)
        return false;
    begin_next(view, next);
    return true;
}

void view_begun(struct view_state *view)
{
    view->promoting = false;
}

void view_forget(struct view_state *view)
{
    view->base_view = 0;
    view->base_epoch = 0;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++)
        view->member[slot].eligible = view->member[slot].holder = false;
}

void view_forgot(struct view_state *view, const uint64_t *pals, const uint64_t *next_input)
{
    for (uint32_t w = 0; w < FTMB_MAX_WORKERS; w++) {
        view->kept_from.pals[w] = u64_max(view->kept_from.pals[w], pals[w]);
        view->kept_from.next_input[w] = u64_max(view->kept_from.next_input[w], next_input[w]);
    }
}

/* The output logger's decisions on membership, commit and failover (see view.h). */
#include "core/view.h"

#include <string.h>

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
    view->member[slot] = (struct view_member){.present = true, .incarnation = ++view->incarnations};
    if (view->view == 0) {
        view->view = 1;
        view->master = (int)slot;
        *active = true;
    }
    return view->member[slot].incarnation;
}

bool view_prepared(struct view_state *view, uint32_t slot, uint32_t incarnation, uint32_t of_view,
                   uint64_t epoch, const struct snapshot_cut *cut)
{
    if (slot >= VIEW_SLOTS || !view->member[slot].present)
        return false;
    if (view->member[slot].incarnation != incarnation || (int)slot == view->master)
        return false;
    if (of_view != view->view || (view->base_view == of_view && epoch <= view->base_epoch))
        return false;
    view->pending = (struct view_pending){
        .valid = true, .slot = slot, .view = of_view, .epoch = epoch, .cut = *cut};
    return true;
}

void view_commit(struct view_state *view)
{
    FTMB_ASSERT(view->pending.valid && view->pending.view == view->view);
    /* With one backup at a time, whoever does not hold this base cannot take over. */
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++)
        view->member[slot].eligible = slot == view->pending.slot;
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

void view_leave(struct view_state *view, uint32_t slot)
{
    FTMB_ASSERT(slot < VIEW_SLOTS);
    view->member[slot].present = false;
    view->member[slot].eligible = false;
    if (view->pending.slot == slot)
        view->pending.valid = false;
    if (view->master == (int)slot)
        view->master = -1;
}

int view_failover(struct view_state *view)
{
    int next = view_eligible(view);
    if (next < 0)
        return -1;
    if (view->master >= 0)
        view_leave(view, (uint32_t)view->master);
    view->view++;
    view->master = next;
    view->member[next].eligible = false;
    view->pending.valid = false;
    return next;
}

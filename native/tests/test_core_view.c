/* Who is master, who may take over, what the base is. */
#include "core/view.h"

#include <string.h>

#include "tests/core_test.h"

static const struct snapshot_cut cut = {.pals = {5}};

static void prepare_and_commit(struct view_state *view, uint32_t slot, uint64_t epoch)
{
    CHECK(view_prepared(view, slot, view->member[slot].incarnation, view->view, epoch, &cut));
    view_commit(view);
}

static void test_admission(void)
{
    struct view_state view;
    bool active;
    view_init(&view);
    CHECK(view.view == 0 && view.master == -1 && view_eligible(&view) == -1);
    CHECK(view_admit(&view, VIEW_SLOTS, &active) == 0 && view.view == 0);
    CHECK(view_admit(&view, 2, &active) == 1 && active);
    CHECK(view.view == 1 && view.master == 2);
    CHECK(view_admit(&view, 0, &active) == 2 && !active && view.master == 2);
    /* The slot is taken until its process is known to be gone. */
    CHECK(view_admit(&view, 0, &active) == 0 && view.member[0].incarnation == 2);
    view_leave(&view, 0);
    CHECK(view_admit(&view, 0, &active) == 3 && !active);
    CHECK_PANICS(view_leave(&view, VIEW_SLOTS));
}

/* What is prepared counts only from a backup of today, for today's view, and if it is newer. */
static void test_prepared(void)
{
    struct view_state view;
    bool active;
    view_init(&view);
    view_admit(&view, 0, &active);
    uint32_t backup = view_admit(&view, 1, &active);
    CHECK(!view_prepared(&view, 0, view.member[0].incarnation, 1, 1, &cut)); /* the master */
    CHECK(!view_prepared(&view, 1, backup + 1, 1, 1, &cut));
    CHECK(!view_prepared(&view, 1, backup, 0, 1, &cut) &&
          !view_prepared(&view, 1, backup, 2, 1, &cut));
    CHECK(!view_prepared(&view, 2, 0, 1, 1, &cut));
    CHECK(!view_prepared(&view, VIEW_SLOTS, backup, 1, 1, &cut));
    CHECK(!view.pending.valid);
    CHECK_PANICS(view_commit(&view));
    CHECK(view_prepared(&view, 1, backup, 1, 4, &cut) && view.pending.valid);
    CHECK(view.pending.epoch == 4 && view.pending.cut.pals[0] == 5 && view_eligible(&view) == -1);
    view_commit(&view);
    CHECK(view.base_epoch == 4 && view.base_view == 1 && view_eligible(&view) == 1);
    CHECK(!view_prepared(&view, 1, backup, 1, 4, &cut));
    CHECK(!view_prepared(&view, 1, backup, 1, 3, &cut));
    CHECK(view_prepared(&view, 1, backup, 1, 5, &cut));
    /* An old process's word is worth nothing after its end, nor is what it prepared. */
    view_leave(&view, 1);
    CHECK(!view.pending.valid && view_eligible(&view) == -1);
    CHECK(!view_prepared(&view, 1, backup, 1, 6, &cut));
    uint32_t next = view_admit(&view, 1, &active);
    CHECK(!view_prepared(&view, 1, backup, 1, 6, &cut));
    CHECK(view_eligible(&view) == -1); /* the new process in the slot holds nothing */
    CHECK(view_prepared(&view, 1, next, 1, 6, &cut));
}

static void test_failover(void)
{
    struct view_state view, before;
    bool active;
    view_init(&view);
    view_admit(&view, 0, &active);
    uint32_t backup = view_admit(&view, 1, &active);
    memcpy(&before, &view, sizeof(view));
    CHECK(view_failover(&view) == -1 && memcmp(&before, &view, sizeof(view)) == 0);
    prepare_and_commit(&view, 1, 9);
    CHECK(view_prepared(&view, 1, backup, 1, 10, &cut)); /* prepared, not committed: not a base */
    CHECK(view_failover(&view) == 1);
    CHECK(view.view == 2 && view.master == 1 && !view.member[0].present && !view.pending.valid);
    CHECK(view.base_epoch == 9 && view.base_view == 1);
    CHECK(view_eligible(&view) == -1 && view_failover(&view) == -1);
    /* The first snapshot of the new view may have a number that the old view had too. */
    uint32_t fresh = view_admit(&view, 0, &active);
    CHECK(fresh && !active);
    CHECK(!view_prepared(&view, 0, fresh, 1, 11, &cut));
    CHECK(view_prepared(&view, 0, fresh, 2, 1, &cut));
    view_commit(&view);
    CHECK(view.base_view == 2 && view.base_epoch == 1 && view_failover(&view) == 0);
    CHECK(view.view == 3);
}

/* Of several backups only the one that holds the latest base may take over. */
static void test_latest_base_only(void)
{
    struct view_state view;
    bool active;
    view_init(&view);
    for (uint32_t slot = 0; slot < 3; slot++)
        view_admit(&view, slot, &active);
    prepare_and_commit(&view, 1, 1);
    CHECK(view_eligible(&view) == 1);
    prepare_and_commit(&view, 2, 2);
    CHECK(view_eligible(&view) == 2 && !view.member[1].eligible);
    view_leave(&view, 2);
    CHECK(view_eligible(&view) == -1);
}

/* The master goes without a failover: nobody is made master by joining later. */
static void test_master_left(void)
{
    struct view_state view;
    bool active;
    view_init(&view);
    view_admit(&view, 0, &active);
    view_leave(&view, 0);
    CHECK(view.master == -1 && view.view == 1);
    CHECK(view_admit(&view, 0, &active) && !active && view.master == -1);
}

static void check_state(const struct view_state *view, const struct view_state *before)
{
    CHECK(view->view >= before->view && view->incarnations >= before->incarnations);
    unsigned eligible = 0;
    for (uint32_t s = 0; s < VIEW_SLOTS; s++) {
        const struct view_member *m = &view->member[s];
        eligible += m->eligible;
        CHECK(!m->eligible || (m->present && (int)s != view->master));
        for (uint32_t t = 0; t < s; t++)
            CHECK(!m->present || !view->member[t].present ||
                  m->incarnation != view->member[t].incarnation);
    }
    CHECK(eligible <= 1);
    CHECK(view->base_view < before->view || view->base_view > before->base_view ||
          view->base_epoch >= before->base_epoch);
    CHECK(view->master < 0 || view->member[view->master].present);
    if (view->pending.valid)
        CHECK(view->pending.view == view->view && view->member[view->pending.slot].present);
}

static void test_random(uint64_t seed)
{
    struct view_state view, before;
    view_init(&view);
    for (unsigned i = 0; i < 300000; i++) {
        uint32_t slot = (uint32_t)seed_below(&seed, VIEW_SLOTS);
        bool active;
        before = view;
        switch (seed_below(&seed, 8)) {
        case 0:
        case 1:
            view_admit(&view, slot, &active);
            CHECK(!active || before.view == 0);
            break;
        case 2:
        case 3:
            view_prepared(&view, slot, view.member[slot].incarnation - (seed_below(&seed, 8) == 0),
                          view.view - (seed_below(&seed, 8) == 0),
                          view.base_epoch + seed_below(&seed, 3), &cut);
            break;
        case 4:
        case 5:
            if (view.pending.valid)
                view_commit(&view);
            break;
        case 6:
            view_leave(&view, slot);
            break;
        default: {
            int next = view_eligible(&view);
            CHECK(view_failover(&view) == next);
            CHECK(next < 0 ? memcmp(&view, &before, sizeof(view)) == 0
                           : view.view == before.view + 1 && view.master == next);
        }
        }
        check_state(&view, &before);
        if (i % 1000 == 0)
            view_init(&view);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_admission();
    test_prepared();
    test_failover();
    test_latest_base_only();
    test_master_left();
    test_random(seed);
    return 0;
}

/* Who is master, who may take over, what the base is. */
#include "core/view.h"

#include <string.h>

#include "tests/core_test.h"

static const struct snapshot_cut cut = {.pals = {5}};

static void prepare_and_commit(struct view_state *view, uint32_t slot, uint64_t epoch)
{
    CHECK(view_prepared(view, slot, view->member[slot].incarnation, view->view, epoch, &cut) ==
          VIEW_PENDING);
    CHECK(view_ready(view));
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
    CHECK(view_prepared(&view, 1, backup, 1, 4, &cut) == VIEW_LATE);
    CHECK(!view_prepared(&view, 1, backup, 1, 3, &cut));
    CHECK(view_prepared(&view, 1, backup, 1, 5, &cut));
    CHECK(!view_prepared(&view, 1, backup, 1, 0, &cut));
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
    CHECK(view_master_failed(&view, false) == VIEW_GOES_ON);
    CHECK(memcmp(&before, &view, sizeof(view)) == 0);
    prepare_and_commit(&view, 1, 9);
    CHECK(view_prepared(&view, 1, backup, 1, 10, &cut)); /* prepared, not committed: not a base */
    CHECK(view_master_failed(&view, false) == VIEW_PROMOTED);
    CHECK(view.view == 2 && view.master == 1 && !view.member[0].present && !view.pending.valid);
    CHECK(view.base_epoch == 9 && view.base_view == 1 && view.promoting);
    CHECK(view_eligible(&view) == -1 && view_master_failed(&view, false) == VIEW_GOES_ON);
    /* Until the cut is there nothing can be prepared. */
    uint32_t fresh = view_admit(&view, 0, &active);
    CHECK(fresh && !active);
    CHECK(!view_prepared(&view, 0, fresh, 2, 1, &cut));
    view_begun(&view);
    /* The first snapshot of the new view may have a number that the old view had too. */
    CHECK(!view_prepared(&view, 0, fresh, 1, 11, &cut));
    CHECK(view_prepared(&view, 0, fresh, 2, 1, &cut));
    view_commit(&view);
    CHECK(view.base_view == 2 && view.base_epoch == 1);
    CHECK(view_master_failed(&view, true) == VIEW_PROMOTED && view.master == 0 && view.view == 3);
}

/* Nobody who may take over loses that by a commit; who comes late is taken in. */
static void test_several_backups(void)
{
    struct view_state view;
    bool active;
    uint32_t backup[4];
    view_init(&view);
    for (uint32_t slot = 0; slot < 3; slot++)
        backup[slot] = view_admit(&view, slot, &active);
    prepare_and_commit(&view, 1, 1); /* the first one: whoever has it */
    CHECK(view_eligible(&view) == 1 && view_protectors(&view) == 1);
    CHECK(view_prepared(&view, 2, backup[2], 1, 1, &cut) == VIEW_LATE);
    CHECK(view_protectors(&view) == 2);
    CHECK(view_prepared(&view, 1, backup[1], 1, 2, &cut) == VIEW_PENDING && !view_ready(&view));
    CHECK_PANICS(view_commit(&view));
    CHECK(view_prepared(&view, 2, backup[2], 1, 2, &cut) == VIEW_PENDING && view_ready(&view));
    view_commit(&view);
    CHECK(view_protectors(&view) == 2);
    /* A fresh one is not waited for, and does not commit alone either. */
    backup[3] = view_admit(&view, 3, &active);
    CHECK(view_prepared(&view, 3, backup[3], 1, 3, &cut) == VIEW_PENDING && !view_ready(&view));
    CHECK(view_prepared(&view, 1, backup[1], 1, 3, &cut) && !view_ready(&view));
    view_leave(&view, 2); /* dead, or silent for too long: commits go on */
    CHECK(view_ready(&view));
    view_leave(&view, 3);
    CHECK(view_ready(&view));
    view_leave(&view, 1); /* nobody is left that holds it */
    CHECK(!view.pending.valid && !view_ready(&view));
}

/* A snapshot that one backup refuses is not waited for by the others. */
static void test_refused(void)
{
    struct view_state view;
    bool active;
    uint32_t backup[3];
    view_init(&view);
    for (uint32_t slot = 0; slot < 3; slot++)
        backup[slot] = view_admit(&view, slot, &active);
    prepare_and_commit(&view, 1, 1);
    CHECK(view_prepared(&view, 2, backup[2], 1, 1, &cut) == VIEW_LATE);
    view_refused(&view, 0); /* the master has nothing to refuse */
    CHECK(!view.member[0].refused);
    view_refused(&view, 2);
    CHECK(!view_ready(&view) && view_protectors(&view) == 2); /* nobody has it: the base stays */
    CHECK(view_prepared(&view, 1, backup[1], 1, 2, &cut) == VIEW_PENDING && view_ready(&view));
    view_commit(&view);
    CHECK(view_protectors(&view) == 1 && view_eligible(&view) == 1);
    CHECK(view_prepared(&view, 2, backup[2], 1, 2, &cut) == VIEW_LATE);
    /* Refused once and prepared then, it counts again; so it does in the next view. */
    view_refused(&view, 2);
    CHECK(view_prepared(&view, 2, backup[2], 1, 3, &cut) == VIEW_PENDING && !view_ready(&view));
    view_refused(&view, 2);
    CHECK(view_master_failed(&view, true) == VIEW_PROMOTED && view.master == 1);
    view_begun(&view);
    CHECK(!view.member[2].refused);
}

/* The other backup stays what it is when one is promoted, and is promoted after it. */
static void test_two_crashes_two_backups(void)
{
    struct view_state view;
    bool active;
    view_init(&view);
    for (uint32_t slot = 0; slot < 3; slot++)
        view_admit(&view, slot, &active);
    CHECK(view_prepared(&view, 1, view.member[1].incarnation, 1, 5, &cut));
    CHECK(view_prepared(&view, 2, view.member[2].incarnation, 1, 5, &cut));
    view_commit(&view);
    CHECK(view_master_failed(&view, true) == VIEW_PROMOTED && view.master == 1);
    CHECK(view_eligible(&view) == 2);
    CHECK(view_master_failed(&view, true) == VIEW_PROMOTED); /* before its view has begun */
    CHECK(view.master == 2 && view.view == 3 && view.base_view == 1 && view.base_epoch == 5);
}

/* The file of the promoted slot still holds the base: a new process there can take over. */
static void test_heir(void)
{
    struct view_state view;
    bool active;
    view_init(&view);
    view_admit(&view, 0, &active);
    view_admit(&view, 1, &active);
    prepare_and_commit(&view, 1, 5);
    CHECK(view_master_failed(&view, true) == VIEW_PROMOTED);
    view_admit(&view, 0, &active); /* the fresh one has nothing yet */
    CHECK(!view_holds(&view, 0, 0, 0) && !view_holds(&view, 0, 1, 4) &&
          !view_holds(&view, 0, 2, 5) && !view_holds(&view, 1, 1, 5));
    CHECK(view_master_failed(&view, true) == VIEW_HEIRLESS && view.heir && view.master == -1);
    CHECK(view.member[1].holder && !view.member[0].holder && !view_inherit(&view));
    CHECK(view_admit(&view, 1, &active) && !active && view_holds(&view, 1, 1, 5));
    CHECK(view_inherit(&view) && !view.heir && view.promoting);
    CHECK(view.master == 1 && view.view == 3);
    /* Its base was given up meanwhile: then there is no heir. */
    view_begun(&view);
    view_forget(&view);
    CHECK(!view_holds(&view, 0, 1, 5));
    CHECK(view_master_failed(&view, true) == VIEW_LOST && !view.heir);
    view_init(&view);
    view_admit(&view, 0, &active);
    CHECK(view_master_failed(&view, true) == VIEW_LOST); /* there never was one */
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
    for (uint32_t s = 0; s < VIEW_SLOTS; s++) {
        const struct view_member *m = &view->member[s];
        CHECK(!m->eligible || (m->present && m->holder && (int)s != view->master));
        CHECK(!m->holder || view->base_epoch);
        for (uint32_t t = 0; t < s; t++)
            CHECK(!m->present || !view->member[t].present ||
                  m->incarnation != view->member[t].incarnation);
    }
    CHECK(!view->base_epoch || view->base_view > before->base_view ||
          view->base_epoch >= before->base_epoch);
    CHECK(!view->heir || view->master < 0);
    CHECK(view->master < 0 || view->member[view->master].present);
    if (view->pending.valid)
        CHECK(view->pending.view == view->view && !view->promoting);
    /* Whoever could take over still can, unless it left, became the master, or the base is gone. */
    for (uint32_t s = 0; s < VIEW_SLOTS; s++)
        CHECK(!before->member[s].eligible || view->member[s].eligible || !view->member[s].present ||
              (int)s == view->master || !view->base_epoch ||
              view->member[s].incarnation != before->member[s].incarnation);
}

static void random_failure(struct view_state *view, uint64_t *seed)
{
    struct view_state before = *view;
    int next = view_eligible(view);
    if (view->master < 0) {
        uint32_t slot = (uint32_t)seed_below(seed, VIEW_SLOTS);
        if (view->heir)
            view_holds(view, slot, view->base_view, view->base_epoch);
        next = view_eligible(view);
        CHECK(view_inherit(view) == (view->view > before.view));
        CHECK(view->view == before.view + (before.heir && next >= 0));
        return;
    }
    bool dead = seed_below(seed, 2);
    switch (view_master_failed(view, dead)) {
    case VIEW_GOES_ON:
        CHECK(!dead && next < 0 && memcmp(view, &before, sizeof(before)) == 0);
        break;
    case VIEW_PROMOTED:
        CHECK(view->view == before.view + 1 && view->master == next);
        break;
    case VIEW_HEIRLESS:
        CHECK(dead && next < 0 && view->heir && view->view == before.view && view->base_epoch);
        break;
    case VIEW_LOST:
        CHECK(dead && next < 0 && !view->heir && view->master < 0);
    }
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
            if (view_ready(&view))
                view_commit(&view);
            view_begun(&view);
            break;
        case 6:
            if ((int)slot != view.master)
                view_leave(&view, slot);
            else if (seed_below(&seed, 4) == 0)
                view_forget(&view);
            break;
        default:
            random_failure(&view, &seed);
        }
        check_state(&view, &before);
        if (i % 1000 == 0)
            view_init(&view);
    }
}

/* Logs are forgotten while nobody holds a base. What was taken before cannot become one, although a
 * backup that was away may still bring it. */
static void test_forgotten(void)
{
    static const uint64_t pals[FTMB_MAX_WORKERS] = {5}, inputs[FTMB_MAX_WORKERS] = {0, 3};
    struct view_state view;
    bool active;
    view_init(&view);
    view_admit(&view, 0, &active);
    view_forget(&view);
    view_forgot(&view, pals, inputs);
    uint32_t backup = view_admit(&view, 1, &active);
    struct snapshot_cut taken = {.pals = {5}, .next_input = {0, 2}};
    CHECK(view_prepared(&view, 1, backup, 1, 1, &taken) == VIEW_STALE);
    taken = (struct snapshot_cut){.pals = {4}, .next_input = {0, 3}};
    CHECK(view_prepared(&view, 1, backup, 1, 1, &taken) == VIEW_STALE);
    CHECK(!view_ready(&view));
    taken = (struct snapshot_cut){.pals = {5}, .next_input = {0, 3}};
    CHECK(view_prepared(&view, 1, backup, 1, 2, &taken) == VIEW_PENDING && view_ready(&view));
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv);
    test_admission();
    test_prepared();
    test_failover();
    test_several_backups();
    test_refused();
    test_two_crashes_two_backups();
    test_heir();
    test_forgotten();
    test_master_left();
    test_random(seed);
    return 0;
}

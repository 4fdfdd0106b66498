/* A planned change of master: when the view ends, and what it is given up for. */
#include "core/handover.h"

#include "tests/core_test.h"

#define PATIENCE 1000u

static const struct snapshot_cut cut;

/* A master in slot 0, and a backup in slot 1 that holds the first snapshot. */
static void protect(struct view_state *view, struct handover *handover)
{
    bool active;
    view_init(view);
    *handover = (struct handover){0};
    CHECK(view_admit(view, 0, &active) && active);
    CHECK(handover_begin(handover, view, true, 10, PATIENCE) != NULL); /* no backup */
    CHECK(view_admit(view, 1, &active) && !active);
    CHECK(handover_begin(handover, view, true, 10, PATIENCE) != NULL); /* it holds nothing */
    CHECK(!handover_under_way(handover) && !handover_asks(handover, 10, 5));
    CHECK(view_prepared(view, 1, view->member[1].incarnation, 1, 1, &cut) == VIEW_PENDING);
    view_commit(view);
    CHECK(!handover_committed(handover, view)); /* none was wanted */
}

/* The commit at hand may be of a snapshot that was begun long before; the one after is fresh. */
static void test_ends_with_the_second_commit(void)
{
    struct view_state view;
    struct handover handover;
    protect(&view, &handover);
    CHECK(!handover_begin(&handover, &view, true, 10, PATIENCE) && handover_under_way(&handover));
    CHECK(handover_begin(&handover, &view, true, 10, PATIENCE) != NULL); /* one is under way */
    CHECK(handover_asks(&handover, 10, 5) && !handover_asks(&handover, 14, 5));
    CHECK(handover_asks(&handover, 15, 5));
    CHECK(!handover_asks(&handover, 14, 5)); /* by a clock that was looked at before */
    CHECK(!handover_committed(&handover, &view) && handover_under_way(&handover));
    CHECK(handover_asks(&handover, 16, 5) && !handover_asks(&handover, 17, 5));
    CHECK(!handover_given_up(&handover, &view, true, 17));
    CHECK(handover_committed(&handover, &view) && !handover_under_way(&handover));
    CHECK(view_master_failed(&view, false) == VIEW_PROMOTED && view.master == 1);
    CHECK(!handover_given_up(&handover, &view, true, 2000)); /* what follows is a failover */
    CHECK(handover_begin(&handover, &view, true, 20, PATIENCE) != NULL); /* which is under way */
}

static void test_given_up(void)
{
    struct view_state view;
    struct handover handover;
    protect(&view, &handover);
    CHECK(!handover_begin(&handover, &view, true, 10, PATIENCE));
    CHECK(!handover_given_up(&handover, &view, true, 10 + PATIENCE - 1));
    CHECK(handover_given_up(&handover, &view, true, 10 + PATIENCE) != NULL);
    CHECK(!handover_under_way(&handover) && !handover_asks(&handover, 5000, 5));
    CHECK(!handover_committed(&handover, &view));

    CHECK(!handover_begin(&handover, &view, true, 10, PATIENCE));
    view_leave(&view, 1); /* the backup dies */
    CHECK(handover_given_up(&handover, &view, true, 11) != NULL && !handover_under_way(&handover));

    protect(&view, &handover);
    CHECK(!handover_begin(&handover, &view, true, 10, PATIENCE));
    CHECK(view_master_failed(&view, true) == VIEW_PROMOTED); /* the master dies */
    CHECK(!handover_committed(&handover, &view));            /* nothing of the next view counts */
    CHECK(handover_given_up(&handover, &view, true, 11) != NULL && !handover_under_way(&handover));
}

/* Nobody could send the inputs of the replay again. */
static void test_without_an_input_logger(void)
{
    struct view_state view;
    struct handover handover;
    protect(&view, &handover);
    CHECK(handover_begin(&handover, &view, false, 10, PATIENCE) != NULL);
    CHECK(!handover_under_way(&handover));
    CHECK(!handover_begin(&handover, &view, true, 10, PATIENCE));
    CHECK(!handover_committed(&handover, &view));
    CHECK(handover_given_up(&handover, &view, false, 11) != NULL);
    CHECK(!handover_committed(&handover, &view)); /* the view goes on */
}

int main(void)
{
    test_without_an_input_logger();
    test_ends_with_the_second_commit();
    test_given_up();
    return 0;
}

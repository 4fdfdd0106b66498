/* A master at work, engine `cow`, and two backups that are the test and build the state from
 * slices: whatever becomes of the other one, of acknowledgements and of connections, the build
 * ends, and every line is what it was at the cut (the master hashes them all). */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/clock.h"
#include "roles/replica.h"
#include "tests/backup_peer.h"
#include "tests/core_test.h"

#define MS 1000000ull
#define SLICE_LINES ((4u << 20) / ARENA_LINE)
#define FULL_MB_PER_S 40u

static struct peer ol;
static enum snapshot_schedule schedule;

static void adjust(struct node_config *config)
{
    config->engine = ENGINE_COW;
    config->params[2] = 196608; /* flows: 8 MiB a worker */
    config->schedule = schedule;
    config->full_mb_per_s = FULL_MB_PER_S;
    config->undo_mb = 1;
}

static void change(struct ftmb_ctx *ctx, uint64_t offset)
{
    uint64_t *word = (uint64_t *)((uint8_t *)ctx->arena + offset);
    ftmb_mark(ctx, word, sizeof(*word));
    ++*word;
}

static void begin_packet(struct ftmb_ctx *ctx)
{
    if (!epoch_enter(ctx))
        while (!epoch_turn(ctx))
            sched_yield();
    ctx->cursor->next_input++;
}

/* Changes eight words of worker 0. */
static void packet(struct ftmb_ctx *ctx, uint64_t *random)
{
    const struct arena_extent *mine = &ctx->arena->extents[1];
    begin_packet(ctx);
    for (unsigned i = 0; i < 8; i++)
        change(ctx, mine->start + seed_below(random, mine->used / 8) * 8);
    epoch_leave(ctx);
}

/* Changes every line of worker 0, from the last one on: the snapshot under way begins at the other
 * end. Returns whether it was lost by that. */
static bool storm_packet(struct ftmb_ctx *ctx)
{
    const struct arena_extent *mine = &ctx->arena->extents[1];
    bool lost = false;
    begin_packet(ctx);
    for (uint64_t line = mine->used / ARENA_LINE; line-- > 0;) {
        change(ctx, mine->start + line * ARENA_LINE);
        lost |= atomic_load(&ctx->marks->lost) != 0;
    }
    epoch_leave(ctx);
    return lost;
}

/* Losses in a row that are still to come; shared with the master's process. */
static _Atomic unsigned *storm;

static _Noreturn void work(struct replica *replica)
{
    struct ftmb_ctx *ctx = &replica->workers[0].ctx;
    uint64_t random = 1, epoch = 0;
    unsigned lost = 0;
    for (;;) {
        usleep(200);
        if (!atomic_load(&replica->group.active))
            continue;
        if (!atomic_load(storm)) {
            packet(ctx, &random);
        } else if (epoch_open(&replica->group.epochs) != epoch) {
            lost = storm_packet(ctx) ? lost + 1 : 0;
            epoch = ctx->epoch_seen >> 1;
            if (lost == atomic_load(storm))
                atomic_store(storm, 0);
        }
    }
}

static struct delta_head last(const struct backup_peer *backup)
{
    return *standby_delta(&backup->standby);
}

/* The next delta, which must be taken. */
static void next(struct backup_peer *backup)
{
    backup_receive(backup, backup->rx.epoch);
    if (backup->wrong)
        fprintf(stderr, "refused: %s\n", backup->wrong);
    CHECK(!backup->wrong);
}

static void commit(struct backup_peer *one, struct backup_peer *two)
{
    struct base_name name = standby_prepared(&one->standby);
    struct msg_snapshot committed = {.view = name.view, .epoch = name.epoch};
    CHECK(standby_commit(&one->standby, name));
    if (two)
        CHECK(standby_commit(&two->standby, name));
    peer_send(&ol, MSG_COMMITTED, 1, 1, &committed, sizeof(committed));
}

/* Deltas until one is prepared: at most `most`. */
static void until_prepared(struct backup_peer *backup, unsigned most)
{
    for (unsigned i = 0; !standby_prepared(&backup->standby).epoch; i++) {
        CHECK(i < most);
        next(backup);
    }
}

/* Snapshot after snapshot on the one before. */
static void follow(struct backup_peer *backup, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        struct base_name base = standby_base(&backup->standby);
        if (schedule == SCHEDULE_LOG)
            peer_send(&ol, MSG_SNAPSHOT, 1, 1, NULL, 0);
        next(backup);
        CHECK(
            base_same(standby_prepared(&backup->standby), (struct base_name){1, backup->rx.epoch}));
        CHECK(last(backup).base_epoch == base.epoch);
        commit(backup, NULL);
    }
}

static bool waits(int fd, int ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, ms) == 1;
}

/* A process in the same slot, which finds the base in its file. */
static void restart(struct backup_peer *backup)
{
    if (backup->channel.fd >= 0)
        peer_close(&backup->channel);
    standby_roll_back(&backup->standby);
    backup->rx = (struct transfer_rx){0};
    backup->incarnation += 10;
}

static void come(struct backup_peer *backup)
{
    restart(backup);
    backup_tell(&ol, backup, true, standby_base(&backup->standby));
}

/* Not before it will be seen that it is gone: the next one with it may be under way. */
static void leave(struct backup_peer *backup)
{
    backup_tell(&ol, backup, false, (struct base_name){0});
    restart(backup);
}

/* `one` has prepared the snapshot that `two` was sent too, and has built on. */
static void share(struct backup_peer *one, struct backup_peer *two)
{
    for (;;) {
        next(one);
        if (two->channel.fd >= 0 || waits(two->listen_fd, 30))
            break;
        commit(one, NULL);
    }
    next(two);
    while (two->rx.epoch < one->rx.epoch)
        next(two);
    while (one->rx.epoch < two->rx.epoch) {
        commit(one, NULL);
        next(one);
    }
}

/* The first backup: slices go round once; what changes meanwhile comes with them. */
static void have_first(struct backup_peer *one)
{
    come(one);
    until_prepared(one, 12);
    commit(one, NULL);
    follow(one, 1);
}

/* What changed before there was a backup is not sent beside the slices, which bring everything. */
static void test_first(struct backup_peer *one, struct backup_peer *two)
{
    usleep(200000);
    come(one);
    next(one);
    struct delta_head head = last(one);
    CHECK(head.slice.first == 0 && head.slice.lines && head.base_epoch == 0);
    CHECK(head.lines < SLICE_LINES + 400);
    until_prepared(one, 12);
    commit(one, NULL);
    follow(one, 3);
    leave(one);
    usleep(200000);
    come(two);
    next(two);
    head = last(two);
    CHECK(head.slice.lines && head.base_epoch == 0 && head.lines < SLICE_LINES + 400);
}

/* The slices of a build are no more than the limit allows, however often snapshots are taken. */
static void test_limit(struct backup_peer *one, struct backup_peer *two)
{
    have_first(one);
    come(two);
    share(one, two);
    uint64_t begun = clock_ns(), slices = 0;
    while (!standby_prepared(&two->standby).epoch) {
        commit(one, NULL);
        next(one);
        next(two);
        CHECK(two->rx.epoch == one->rx.epoch);
        slices += last(two).slice.lines != 0 && !standby_prepared(&two->standby).epoch;
    }
    CHECK(slices >= 2);
    CHECK(clock_ns() - begun >= (slices - 1) * SLICE_LINES * ARENA_LINE * 1000 / FULL_MB_PER_S);
    commit(one, two);
}

/* While only `two`, which builds, has the latest snapshot, a process comes that holds the base:
 * what it is sent next has the lines of both. */
static void test_base_comes_back(struct backup_peer *one, struct backup_peer *two)
{
    have_first(one);
    come(two);
    share(one, two);
    usleep(20000); /* until the master has read what `two` acknowledged */
    come(one);
    next(one);
    commit(one, NULL);
    follow(one, 2);
}

/* In the middle of a build the output logger tells once more who is there. */
static void test_told_again(struct backup_peer *one, struct backup_peer *two)
{
    (void)one;
    come(two);
    next(two);
    next(two);
    backup_tell(&ol, two, true, (struct base_name){0});
    until_prepared(two, 12);
    commit(two, NULL);
    follow(two, 3);
}

/* The acknowledgement of the last delta of a build comes late; the snapshot is committed by the
 * other one, which then goes. */
static void test_late(struct backup_peer *one, struct backup_peer *two)
{
    uint64_t all = snapshot_lines(two->standby.working->size);
    have_first(one);
    come(two);
    share(one, two);
    while (two->standby.build.lines + SLICE_LINES < all) {
        commit(one, NULL);
        next(one);
        next(two);
    }
    two->mute = true;
    while (!standby_prepared(&two->standby).epoch) {
        commit(one, NULL);
        next(one);
        next(two);
    }
    commit(one, two);
    next(one); /* the master has given up waiting for `two` */
    two->mute = false;
    peer_close(&two->channel);
    next(two);
    while (two->rx.epoch < one->rx.epoch)
        next(two);
    commit(one, two);
    leave(one);
    follow(two, 3);
}

/* What the only backup has prepared is committed before its acknowledgement comes: it is busy with
 * the commit, say. It holds what was committed, and need not build again. */
static void test_commit_before_acknowledgement(struct backup_peer *one, struct backup_peer *two)
{
    (void)two;
    come(one);
    while (!standby_prepared(&one->standby).epoch) {
        one->mute =
            one->standby.build.lines + SLICE_LINES >= snapshot_lines(one->standby.working->size);
        next(one);
    }
    CHECK(one->mute);
    usleep(150000); /* longer than the master waits for one that does not move */
    commit(one, NULL);
    one->mute = false;
    follow(one, 3);
}

/* Nothing but repeated pieces for 100 ms. */
static bool quiet(struct backup_peer *backup)
{
    uint64_t epoch = backup->rx.epoch;
    while (backup_take(backup, 100, false) && backup->rx.epoch == epoch)
        continue;
    return backup->rx.epoch == epoch;
}

/* Loggers that ask while a snapshot is under way have asked for that one. */
static void test_asked_meanwhile(struct backup_peer *one, struct backup_peer *two)
{
    (void)two;
    have_first(one);
    CHECK(quiet(one));
    for (unsigned i = 0; i < 2; i++) {
        peer_send(&ol, MSG_SNAPSHOT, 1, 1, NULL, 0);
        next(one);
        peer_send(&ol, MSG_SNAPSHOT, 1, 1, NULL, 0);
        usleep(10000);
        commit(one, NULL);
        CHECK(quiet(one));
    }
}

/* Whatever is changed while a snapshot is read, its lines stay to be read: when several in a row
 * are lost to full undo logs, it goes on in slices. */
static void test_undo_full(struct backup_peer *one, struct backup_peer *two)
{
    (void)two;
    have_first(one);
    atomic_store(storm, SENDER_LOST_IN_A_ROW);
    while (atomic_load(storm)) {
        if (backup_take(one, 100, false) && standby_prepared(&one->standby).epoch)
            commit(one, NULL);
        CHECK(!one->wrong);
    }
    next(one);
    CHECK(last(one).slice.lines && last(one).base_epoch == 0);
    until_prepared(one, 12);
    commit(one, NULL);
    follow(one, 2);
}

/* Of two that build one takes nothing: the other one is not held up. */
static void test_stalled(struct backup_peer *one, struct backup_peer *two)
{
    backup_tell(&ol, one, true, (struct base_name){0});
    come(two);
    uint64_t begun = clock_ns();
    until_prepared(two, 14);
    commit(two, NULL);
    follow(two, 3);
    CHECK(clock_ns() - begun < 5000 * MS);
}

static void run(void (*test)(struct backup_peer *one, struct backup_peer *two))
{
    struct backup_peer one, two;
    peer_begin();
    int ol_listen = peer_listen("ol.ctl");
    pid_t pid = peer_start(0);
    ol = peer_accept(ol_listen);
    peer_welcome(&ol, 1, 1, true, false);
    backup_open(&one, 1);
    backup_open(&two, 2);
    test(&one, &two);
    CHECK(kill(pid, SIGKILL) == 0 && peer_wait(pid) == -SIGKILL);
    peer_close(&ol);
    close(ol_listen);
    backup_close(&one);
    backup_close(&two);
    peer_end();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*test)(struct backup_peer *one, struct backup_peer *two);
    } tests[] = {{"first", test_first},
                 {"limit", test_limit},
                 {"base_comes_back", test_base_comes_back},
                 {"told_again", test_told_again},
                 {"late", test_late},
                 {"stalled", test_stalled},
                 {"commit_before_acknowledgement", test_commit_before_acknowledgement},
                 {"asked_meanwhile", test_asked_meanwhile},
                 {"undo_full", test_undo_full}};
    signal(SIGPIPE, SIG_IGN);
    storm = mmap(NULL, sizeof(*storm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(storm != MAP_FAILED);
    peer_adjust = adjust;
    peer_run = work;
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        schedule = tests[i].test == test_asked_meanwhile ? SCHEDULE_LOG : SCHEDULE_PERIOD;
        if (argc < 2 || strcmp(argv[1], tests[i].name) == 0)
            run(tests[i].test);
    }
    return 0;
}

/* Taking snapshots and sending them (see state_sender.h). */
#include "roles/state_sender.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "io/clock.h"
#include "io/event.h"
#include "roles/replica.h"

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define POLL_NS (10 * NS_PER_MS)
#define LOOK_NS (NS_PER_MS / 2) /* between two predictions of the schedule `adaptive` */
#define STEPS_AT_ONCE 8         /* of making a snapshot, before the channels have their turn */
#define WAIT_NS 30000ull        /* for a worker that is just saving a line, for a child */

int state_sender_init(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    for (uint32_t slot = 0; slot < VIEW_SLOTS; slot++) {
        char name[FAULT_NAME_BYTES];
        snprintf(name, sizeof(name), "state-%u", slot);
        bool other = slot < replica->config->replicas && slot != replica->config->slot;
        state_channel_init(&sender->backup[slot].channel, other ? fault_link(name, 0) : NULL);
    }
    const char *why;
    const struct snapshot_engine *engine = snapshot_engine_of(replica->config->engine, &why);
    if (!engine)
        die(3, "%s", why);
    return snapshotter_init(&sender->snapshotter, engine, replica->config, replica->arena,
                            &replica->group, replica->workers);
}

/* ---- what the output logger says ---------------------------------------------------------- */

/* The same backup with the same base again is no news; without a base it asks for all of it. */
void state_sender_backup(struct replica *replica, const struct msg_backup *told)
{
    if (told->slot >= VIEW_SLOTS || told->slot == replica->config->slot)
        return;
    struct backup *backup = &replica->sender.backup[told->slot];
    pthread_mutex_lock(&replica->state_lock);
    bool same =
        backup->told.present && told->present && backup->told.incarnation == told->incarnation;
    backup->refused |= same && told->base_epoch == 0;
    backup->told = *told;
    backup->news = true;
    pthread_mutex_unlock(&replica->state_lock);
    replica_state_wake(replica);
}

void state_sender_committed(struct replica *replica, struct base_name name)
{
    struct state_sender *sender = &replica->sender;
    pthread_mutex_lock(&replica->state_lock);
    if (!base_same(sender->told_committed, name))
        sender->told_wanted = false;
    sender->told_committed = name;
    pthread_mutex_unlock(&replica->state_lock);
    replica_state_wake(replica);
}

void state_sender_wanted(struct replica *replica)
{
    pthread_mutex_lock(&replica->state_lock);
    replica->sender.told_wanted = true;
    pthread_mutex_unlock(&replica->state_lock);
    replica_state_wake(replica);
}

void state_sender_asked(struct replica *replica)
{
    pthread_mutex_lock(&replica->state_lock);
    replica->sender.told_asked = true;
    pthread_mutex_unlock(&replica->state_lock);
    state_sender_wanted(replica);
}

static void take_news(struct state_sender *sender, struct backup *backup)
{
    const struct msg_backup *told = &backup->told;
    struct base_name base = {told->base_view, told->base_epoch};
    bool fresh = told->present && (!backup->present || backup->incarnation != told->incarnation);
    if (backup->refused)
        backup->declined = backup->name;
    if (!told->present || fresh || backup->refused)
        state_serve_anew(backup);
    if (fresh) {
        backup->declined = (struct base_name){0};
        backup->base = base;
        backup->full_after_ns = 0;
        backup->full_pause_ns = STATE_FULL_PAUSE_NS;
    }
    /* It prepared late, maybe what an earlier process was sent. */
    if (base.epoch && base_same(base, sender->committed) && !backup->receiving)
        backup->base = base;
    backup->present = told->present;
    backup->incarnation = told->incarnation;
    backup->news = backup->refused = false;
}

static bool holds_image(const struct state_sender *sender, const struct backup *backup)
{
    return sender->committed.epoch && base_same(backup->base, sender->committed);
}

/* Can the snapshot under way still be committed? Only if somebody was sent it and did not refuse.
 */
static bool anybody_has(const struct state_sender *sender, struct base_name name)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        if (backup->present && base_same(backup->name, name))
            return true;
    }
    return false;
}

static bool anybody_holds(const struct state_sender *sender)
{
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (sender->backup[slot].present && holds_image(sender, &sender->backup[slot]))
            return true;
    }
    return false;
}

static bool follows(const struct backup *backup, uint64_t previous_epoch)
{
    return backup->present && backup->building && backup->built_epoch == previous_epoch;
}

/* Have builds gone on with the snapshot under way, and has nobody anything else to say of it? Then
 * it is one of those that a build consists of, and was never meant to be committed. A build that
 * does not move holds up no other one. */
static bool only_built_on(const struct state_sender *sender, uint64_t now)
{
    bool built = false;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        if (!backup->present || !base_same(backup->name, sender->pending))
            continue;
        if (backup->receiving && backup->building && now - backup->moved_ns >= backup->patience_ns)
            continue;
        if (backup->receiving || backup->prepared)
            return false;
        built = true;
    }
    return built;
}

/* Somebody has prepared what is committed. If nobody has acknowledged it yet, then those that have
 * not done so: preparing a large state takes long, and so does committing it. */
static void take_as_held(struct state_sender *sender)
{
    if (anybody_holds(sender))
        return;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        struct backup *backup = &sender->backup[slot];
        if (backup->present && backup->receiving && base_same(backup->name, sender->committed))
            state_serve_held(backup);
    }
}

static void committed(struct state_sender *sender)
{
    sender->committed = sender->pending;
    sender->wanted = sender->asked; /* whoever pressed until now, pressed for this one */
    take_as_held(sender);
    sender->cut = ((const struct delta_head *)sender->snapshotter.delta.bytes)->cut;
    sender->cut_ns = sender->snapshotter.begun_ns;
    sender->commit_ns = clock_ns() - sender->cut_ns;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (holds_image(sender, &sender->backup[slot]))
            sender->backup[slot].full_pause_ns = STATE_FULL_PAUSE_NS;
    }
}

/* What became of the snapshot that was sent. */
static void settle(struct state_sender *sender, struct base_name told, uint64_t now)
{
    struct snapshotter *snapshotter = &sender->snapshotter;
    if (!sender->pending.epoch || snapshotter->making)
        return;
    if (base_same(told, sender->pending)) {
        snapshotter->engine->settle(snapshotter, true);
        committed(sender);
    } else if (!anybody_has(sender, sender->pending)) {
        snapshotter->engine->settle(snapshotter, false);
        snapshotter->abandoned++;
        event_emit("snapshot_abandoned", "{s:I,s:s}", "epoch", (json_int_t)sender->pending.epoch,
                   "why", "nobody_has_it");
    } else if (only_built_on(sender, now)) {
        /* Whoever held what it builds on has gone, and may come again. */
        snapshotter->engine->settle(snapshotter, !sender->committed.epoch);
    } else {
        return;
    }
    sender->pending.epoch = 0;
}

static void look_at_news(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    pthread_mutex_lock(&replica->state_lock);
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (sender->backup[slot].news)
            take_news(sender, &sender->backup[slot]);
    }
    struct base_name told = sender->told_committed;
    bool wanted = sender->told_wanted, asked = sender->told_asked;
    sender->told_wanted = sender->told_asked = false;
    pthread_mutex_unlock(&replica->state_lock);
    /* Whoever prepared it has acknowledged it before: that comes first. */
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        state_serve_hear(&sender->backup[slot], now);
    settle(sender, told, now);
    sender->wanted |= wanted || asked;
    sender->asked |= asked;
}

/* ---- when --------------------------------------------------------------------------------- */

static bool wants_full(const struct state_sender *sender, const struct backup *backup, uint64_t now)
{
    return backup->present && !holds_image(sender, backup) &&
           (backup->building || now >= backup->full_after_ns);
}

/* A promoted replica has its base in its file. It is of use if a backup that stayed holds it too.
 * Not while a snapshot is under way: what that is committed as replaces it. */
static void take_up_base(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    struct base_name base = standby_base(&replica->standby);
    if (sender->committed.epoch || sender->epoch || !base.epoch)
        return;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        if (!backup->present || !base_same(backup->base, base))
            continue;
        if (sender->snapshotter.engine->start_from(&sender->snapshotter, replica->standby.image))
            sender->committed = base;
        return;
    }
}

/* With engine `none` only a backup without a base gets one, or whoever asks. */
static bool snapshot_due(const struct replica *replica, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    bool present = false, full = false, busy = false;
    if (sender->pending.epoch || atomic_load(&replica->group.replaying))
        return false;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        const struct backup *backup = &sender->backup[slot];
        full |= wants_full(sender, backup, now);
        present |= holds_image(sender, backup) && backup->present;
        busy |= backup->receiving && now - backup->moved_ns < backup->patience_ns;
    }
    return !busy &&
           ((full && now >= sender->slice_due_ns) || (present && state_timely(replica, now)));
}

/* ---- taking a snapshot -------------------------------------------------------------------- */

static void report(const struct state_sender *sender)
{
    const struct snapshotter *s = &sender->snapshotter;
    const struct delta_head *head = (const struct delta_head *)s->delta.bytes;
    uint64_t slice = 0, at = 0, offset, length;
    while (snapshot_range(s->arena, head->slice, &at, &offset, &length))
        slice += length;
    event_routine("snapshot", "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:I}", "epoch",
                  (json_int_t)head->epoch, "pause_ns", (json_int_t)s->pause_ns, "copy_ns",
                  (json_int_t)s->make_ns, "fork_ns", (json_int_t)s->fork_ns, "bytes",
                  (json_int_t)head->bytes, "lines", (json_int_t)head->lines, "slice",
                  (json_int_t)slice, "full", head->slice.lines != 0, "undo",
                  (json_int_t)s->undo_used);
}

/* The slice of a build, as large as the bandwidth limit allows; the next one not before it would be
 * through. */
static struct snapshot_slice next_slice(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    const struct snapshotter *snapshotter = &sender->snapshotter;
    struct snapshot_slice slice =
        snapshotter_slice(snapshotter, sender->slice_at, snapshotter->engine->slice_bytes);
    uint64_t bytes = u64_min(slice.lines * ARENA_LINE, snapshotter->engine->slice_bytes);
    sender->slice_due_ns = now + bytes * 1000 / replica->config->full_mb_per_s;
    return slice;
}

/* No catching up on periods that were missed. */
static void set_due(struct state_sender *sender, uint64_t period, uint64_t now)
{
    if (now >= sender->due_ns)
        sender->due_ns = now - sender->due_ns < period ? sender->due_ns + period : now + period;
}

/* Nobody holds or builds anything: what has changed so far is of no use, builds begin anew. */
static void forget(struct state_sender *sender, struct snapshot_name *name)
{
    name->previous_epoch = 0;
    if (sender->snapshotter.engine->forget)
        sender->snapshotter.engine->forget(&sender->snapshotter);
}

static void begin_snapshot(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    bool slice = false, follow = false;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        struct backup *backup = &sender->backup[slot];
        if (backup->receiving) /* what it was being sent will be overwritten */
            state_serve_anew(backup);
        slice |= wants_full(sender, backup, now) && now >= sender->slice_due_ns;
        follow |= follows(backup, sender->sent_epoch);
    }
    if (!anybody_holds(sender)) /* what changed since then is not kept apart any longer */
        sender->committed = (struct base_name){0};
    if (!sender->committed.epoch && !slice)
        return; /* it would be for nobody */
    set_due(sender, replica->config->period_us * NS_PER_US, now);
    sender->wanted = sender->asked = false;
    sender->pending = (struct base_name){atomic_load(&replica->view), ++sender->epoch};
    struct snapshot_name name = {.view = sender->pending.view,
                                 .epoch = sender->pending.epoch,
                                 .base_view = sender->committed.view,
                                 .base_epoch = sender->committed.epoch,
                                 .previous_epoch = sender->sent_epoch};
    if (slice)
        name.slice = next_slice(replica, now);
    if (!sender->committed.epoch && !follow)
        forget(sender, &name);
    int error = snapshotter_begin(&sender->snapshotter, name);
    if (error)
        die(3, "cannot take a snapshot: %s", strerror(-error));
}

/* Is the snapshot that was made of use to this backup? */
static bool is_for(const struct state_sender *sender, const struct backup *backup, uint64_t now)
{
    const struct snapshot_name *name = &sender->snapshotter.name;
    if (backup->present && holds_image(sender, backup))
        return name->base_epoch != 0;
    return follows(backup, name->previous_epoch) ||
           (name->slice.lines && wants_full(sender, backup, now));
}

static void send_snapshot(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    const struct snapshot_name *name = &sender->snapshotter.name;
    report(sender);
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        struct backup *backup = &sender->backup[slot];
        if (is_for(sender, backup, now))
            state_serve_begin(replica, backup, now);
    }
    sender->sent_epoch = name->epoch;
    sender->slice_at += name->slice.lines;
    if (sender->slice_at >= snapshot_lines(replica->arena->size))
        sender->slice_at = 0;
}

/* More changes while the lines of a snapshot are read than the undo logs take: one that was lost
 * leaves all of its lines to the next, so it would be lost for ever. Slices are smaller: everybody
 * builds.
 */
static void begin_anew(struct state_sender *sender)
{
    sender->lost = 0;
    sender->committed = (struct base_name){0};
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        state_serve_anew(&sender->backup[slot]);
}

/* Go on with the snapshot that is being made. Nothing is in flight meanwhile, so the channels are
 * only looked at between several steps: a system call each time would double what a step costs. */
static enum snapshot_step make_snapshot(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    enum snapshot_step step = STEP_MORE;
    for (int i = 0; i < STEPS_AT_ONCE && step == STEP_MORE; i++) {
        step = snapshotter_step(&sender->snapshotter);
        breathe();
    }
    if (step == STEP_DONE) {
        sender->lost = 0;
        send_snapshot(replica, clock_ns());
    }
    if (step != STEP_LOST)
        return step;
    event_emit("snapshot_abandoned", "{s:I,s:s}", "epoch", (json_int_t)sender->pending.epoch, "why",
               replica->config->engine == ENGINE_COW ? "undo_full" : "failed");
    sender->pending.epoch = 0;
    if (++sender->lost >= SENDER_LOST_IN_A_ROW)
        begin_anew(sender);
    return step;
}

/* A backup that came while a snapshot is under way gets that one too. The OL may wait for it: one
 * that joins with the present base counts from then on. */
static void catch_up(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    if (!sender->pending.epoch || sender->snapshotter.making)
        return;
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        struct backup *backup = &sender->backup[slot];
        if (!backup->present || base_same(backup->name, sender->pending) ||
            base_same(backup->declined, sender->pending))
            continue; /* what it declined it would not look at again, whatever it acknowledges */
        if (is_for(sender, backup, now))
            state_serve_begin(replica, backup, now);
    }
}

/* ---- the state thread --------------------------------------------------------------------- */

static uint64_t sleep_until(const struct replica *replica, uint64_t now)
{
    const struct state_sender *sender = &replica->sender;
    bool looks = replica->config->schedule == SCHEDULE_ADAPTIVE && !sender->pending.epoch;
    uint64_t until = now + (looks ? LOOK_NS : POLL_NS);
    if (sender->due_ns > now && replica->config->schedule == SCHEDULE_PERIOD)
        until = u64_min(until, sender->due_ns);
    for (int slot = 0; slot < VIEW_SLOTS; slot++) {
        if (sender->slice_due_ns > now && sender->backup[slot].building)
            until = u64_min(until, sender->slice_due_ns);
    }
    return until;
}

/* The logs of the replay are of no use once it is over. */
static void free_logs(struct replica *replica)
{
    if (!atomic_load(&replica->group.replaying))
        free(atomic_exchange(&replica->logs, NULL));
}

/* One that is still under way when the next is due. */
static void count_skipped(struct replica *replica, uint64_t now)
{
    struct state_sender *sender = &replica->sender;
    if (!sender->pending.epoch || now < sender->due_ns ||
        replica->config->schedule != SCHEDULE_PERIOD || replica->config->engine == ENGINE_NONE)
        return;
    sender->snapshotter.skipped++;
    event_routine("snapshot_skipped", "{s:I}", "pending", (json_int_t)sender->pending.epoch);
    sender->due_ns += replica->config->period_us * NS_PER_US;
}

static void turn(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    uint64_t now = clock_ns();
    look_at_news(replica, now);
    free_logs(replica);
    event_flush();
    take_up_base(replica);
    catch_up(replica, now);
    count_skipped(replica, now);
    if (snapshot_due(replica, now))
        begin_snapshot(replica, now);
    bool more = false;
    if (sender->snapshotter.making) {
        enum snapshot_step step = make_snapshot(replica);
        more = step != STEP_WAIT;
    }
    now = clock_ns();
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        more |= state_serve(replica, &sender->backup[slot], now);
    if (!more)
        state_serve_sleep(replica, now,
                          sender->snapshotter.making ? now + WAIT_NS : sleep_until(replica, now));
}

void state_sender_main(struct replica *replica)
{
    struct state_sender *sender = &replica->sender;
    sender->due_ns = clock_ns() + replica->config->period_us * NS_PER_US;
    (void)prctl(PR_SET_TIMERSLACK, 1000); /* it sleeps for tens of microseconds */
    while (!atomic_load(&replica->quit))
        turn(replica);
    for (int slot = 0; slot < VIEW_SLOTS; slot++)
        state_channel_close(&sender->backup[slot].channel);
}

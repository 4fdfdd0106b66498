/* The standby's base, prepared delta and working copy in the running system (core/standby.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/event.h"
#include "roles/replica.h"

/* ---- the file ----------------------------------------------------------------------------- */

/* All of it is reserved now: a store must not find the file system full later. The first
 * `populated` bytes are fetched too; the rest is for deltas, and the master never needs it. */
static void *make_file(const char *path, uint64_t bytes, uint64_t populated)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return NULL;
    void *memory = MAP_FAILED;
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (!error)
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED) {
        madvise(memory, populated, MADV_POPULATE_WRITE);
        return memory;
    }
    errno = error ? error : errno;
    unlink(path);
    return NULL;
}

/* What the slot's last process left; it is not written to: that process may not be dead. */
static bool adopt(struct standby *standby, const char *path)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    void *left = MAP_FAILED;
    if (fstat(fd, &info) == 0 && info.st_size > 0)
        left = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (left == MAP_FAILED)
        return false;
    bool adopted = standby_adopt(standby, left, (uint64_t)info.st_size);
    munmap(left, (size_t)info.st_size);
    return adopted;
}

/* Of the delta that was just looked at: NULL, or what is wrong. Said before anybody hears that it
 * is prepared: nothing is committed that was not compared, which the trial checks, and this process
 * may not live to report at its end. */
static void tell_compared(const struct standby *standby, const char *wrong)
{
    const struct delta_head *head = standby_delta(standby);
    char where[48];
    if (!wrong && head->hashes)
        event_emit("digest_match", "{s:I,s:I}", "view", (json_int_t)head->view, "epoch",
                   (json_int_t)head->epoch);
    if (wrong != standby_wrong_line)
        return;
    snapshot_where(standby->working, standby->differs_at, where);
    event_emit("digest_mismatch", "{s:I,s:I,s:I,s:s}", "view", (json_int_t)head->view, "epoch",
               (json_int_t)head->epoch, "offset", (json_int_t)standby->differs_at, "where", where);
}

/* A file of this process's own takes the place of the one that was there only when it is whole. */
int replica_base_open(struct replica *replica)
{
    char path[NODE_PATH_BYTES + 32], fresh[NODE_PATH_BYTES + 40];
    snprintf(path, sizeof(path), "%s/base-%u", replica->config->dir, replica->config->slot);
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    unlink(fresh); /* of a process that did not come so far */
    uint64_t bytes = standby_bytes(replica->arena->size);
    void *memory = make_file(fresh, bytes, STANDBY_HEAD_BYTES + replica->arena->size);
    if (!memory) {
        fprintf(stderr,
                "ftmb-node: cannot make %s of %llu bytes: %s; a smaller state (parameters of the "
                "function), or more memory\n",
                fresh, (unsigned long long)bytes, strerror(errno));
        return -ENOMEM;
    }
    standby_create(&replica->standby, replica->arena, memory);
    bool loaded = adopt(&replica->standby, path);
    if (rename(fresh, path) != 0)
        return -errno;
    if (loaded) {
        struct base_name base = standby_base(&replica->standby);
        event_emit("base_loaded", "{s:I,s:I}", "view", (json_int_t)base.view, "epoch",
                   (json_int_t)base.epoch);
        if (standby_prepared(&replica->standby).epoch)
            tell_compared(&replica->standby, NULL);
    }
    return 0;
}

/* ---- prepare, commit, roll back ----------------------------------------------------------- */

/* Checking and applying do not yield, and pollers do. Only a process with the right could take the
 * step back afterwards. */
static bool step_back(void)
{
    bool may = getpriority(PRIO_PROCESS, 0) < 0;
    replica_change_niceness(may ? REPLICA_BULK_NICENESS : 0);
    return may;
}

static struct msg_snapshot prepared_message(const struct standby *standby)
{
    const struct delta_head *head = standby_delta(standby);
    return (struct msg_snapshot){.view = head->view, .epoch = head->epoch, .cut = head->cut};
}

struct staged replica_stage(struct replica *replica, uint64_t bytes)
{
    struct standby *standby = &replica->standby;
    struct staged staged = {0};
    const char *wrong = NULL;
    bool ready = false, builds;
    pthread_mutex_lock(&replica->state_lock);
    const struct delta_head *head = standby_delta(standby);
    /* The view may have ended since the last piece came: then it is void, not wrong. Or the process
     * before this one left it here, and it was committed meanwhile. */
    bool dropped =
        replica->promoting || standby_prepared(standby).epoch ||
        (bytes >= sizeof(*head) &&
         (head->view != atomic_load(&replica->view) ||
          base_same(standby_base(standby), (struct base_name){head->view, head->epoch})));
    if (!dropped) {
        wrong = standby_prepare(standby, bytes);
        ready = standby_prepared(standby).epoch != 0;
        if (ready || wrong)
            tell_compared(standby, wrong);
        replica->refused += wrong != NULL;
        replica->refused_last = wrong != NULL;
    }
    if (ready)
        staged.message = prepared_message(standby);
    builds = standby->build.epoch != 0;
    pthread_mutex_unlock(&replica->state_lock);
    if (wrong)
        event_emit("snapshot_refused", "{s:s}", "why", wrong);
    if (wrong || ready)
        staged.type = wrong ? MSG_REJECTED : MSG_PREPARED;
    else if (builds && !dropped)
        staged.type = MSG_BUILDING;
    return staged;
}

bool replica_holds(struct replica *replica, struct base_name name)
{
    pthread_mutex_lock(&replica->state_lock);
    bool holds = base_same(standby_prepared(&replica->standby), name) ||
                 base_same(standby_base(&replica->standby), name);
    pthread_mutex_unlock(&replica->state_lock);
    return holds;
}

/* The OL may not have heard of it. Told of a refusal twice, it only has a full one sent twice. */
void replica_tell_staged(struct replica *replica)
{
    struct msg_snapshot message = {0};
    pthread_mutex_lock(&replica->state_lock);
    struct base_name prepared = standby_prepared(&replica->standby);
    if (prepared.epoch)
        message = prepared_message(&replica->standby);
    bool refused = replica->refused_last, builds = replica->standby.build.epoch != 0;
    pthread_mutex_unlock(&replica->state_lock);
    if (atomic_load(&replica->active))
        return;
    if (builds)
        replica_send(replica, MSG_BUILDING, NULL, 0);
    else if (prepared.epoch || refused)
        replica_send(replica, refused ? MSG_REJECTED : MSG_PREPARED, &message, sizeof(message));
}

/* The OL has a new base. What is prepared is that one, or still under way, or never will be it. */
void replica_committed(struct replica *replica, const struct msg_snapshot *message)
{
    struct base_name base = {message->view, message->epoch};
    struct standby *standby = &replica->standby;
    bool stepped_back = step_back();
    pthread_mutex_lock(&replica->state_lock);
    struct base_name prepared = standby_prepared(standby);
    if (base.epoch && !standby_commit(standby, base) && prepared.epoch && !replica->promoting &&
        (prepared.view < base.view || (prepared.view == base.view && prepared.epoch < base.epoch)))
        standby_roll_back(standby);
    pthread_mutex_unlock(&replica->state_lock);
    replica_change_niceness(stepped_back ? -REPLICA_BULK_NICENESS : 0);
}

/* What is prepared will never be the base. */
void replica_void(struct replica *replica, const struct msg_snapshot *message)
{
    pthread_mutex_lock(&replica->state_lock);
    if (base_same(standby_prepared(&replica->standby),
                  (struct base_name){message->view, message->epoch}) &&
        !replica->promoting)
        standby_roll_back(&replica->standby);
    pthread_mutex_unlock(&replica->state_lock);
}

/* What a view that has ended left prepared is void. */
void replica_new_view(struct replica *replica, uint32_t view)
{
    pthread_mutex_lock(&replica->state_lock);
    if (view > atomic_load(&replica->view))
        atomic_store(&replica->view, view);
    standby_new_view(&replica->standby, view);
    pthread_mutex_unlock(&replica->state_lock);
}

/* The state of an injected function, its locks and its sections (see inject.h). */
#include "inject/state.h"

#include <string.h>

#include "inject/served.h"

struct inject_state inject_state;
_Thread_local struct inject_worker *inject_self;

void inject_die(const char *what)
{
    ftmb_panic(__FILE__, __LINE__, what);
    __builtin_trap();
}

/* ---- memory --------------------------------------------------------------------------------- */

static uint64_t data_bytes(const struct inject_image *image)
{
    return align_up((uint64_t)(image->data_end - image->data), ARENA_LINE);
}

static uint64_t state_bytes(const struct inject_image *image, uint64_t heap)
{
    uint64_t bss = align_up((uint64_t)(image->bss_end - image->bss), ARENA_LINE);
    return data_bytes(image) + bss + align_up(heap, ARENA_LINE);
}

bool inject_needs(const struct inject_image *image, uint64_t heap, uint32_t max_pals,
                  struct nf_needs *out, char *why)
{
    uint64_t bytes = state_bytes(image, heap);
    if (bytes / INJECT_GRANULE > FTMB_MAX_VARIABLES) {
        memcpy(why, "the state is larger than 256 MiB", 33);
        return false;
    }
    *out = (struct nf_needs){.shared_bytes = bytes + sizeof(struct inject_root) + ARENA_LINE,
                             .worker_bytes = CACHE_LINE,
                             .variables = (uint32_t)(bytes / INJECT_GRANULE),
                             .max_pals = max_pals,
                             .max_outputs = 1};
    return true;
}

bool inject_open(struct arena *arena, const struct inject_image *image, uint64_t heap)
{
    uint64_t bytes = state_bytes(image, heap);
    uint8_t *first = arena_place_first(arena, bytes);
    struct inject_root *root = arena_alloc(arena, 0, sizeof(*root), ARENA_LINE);
    if (!first || !root)
        return false;
    FTMB_ASSERT((uintptr_t)first == INJECT_BASE);
    memcpy(first, image->data, (size_t)(image->data_end - image->data));
    memset(&inject_state, 0, sizeof(inject_state));
    inject_state.bytes = bytes;
    inject_state.heap = state_bytes(image, 0);
    inject_state.root = root;
    inject_state.opening = true;
    inject_self = NULL;
    return true;
}

void *inject_opened(void)
{
    inject_state.opening = false;
    return inject_state.exhausted ? NULL : inject_state.root;
}

void *inject_malloc(size_t bytes)
{
    if (!inject_state.opening)
        inject_die("malloc() after the first packet: memory is given out at the start");
    uint64_t at = align_up(inject_state.heap, 16);
    if (bytes > inject_state.bytes || at > inject_state.bytes - bytes) {
        inject_state.exhausted = true;
        return NULL;
    }
    inject_state.heap = at + bytes;
    return (void *)(INJECT_BASE + at); /* zeroed, as all of the arena */
}

void *inject_calloc(size_t count, size_t bytes)
{
    size_t all;
    return __builtin_mul_overflow(count, bytes, &all) ? NULL : inject_malloc(all);
}

void inject_free(void *memory)
{
    if (memory && !inject_state.opening)
        inject_die("free() after the first packet: keep what is unused in a list");
}

/* ---- waiting -------------------------------------------------------------------------------- */

static bool holds(const struct inject_worker *worker, uint64_t id)
{
    for (uint32_t i = 0; i < worker->held_count; i++) {
        if (worker->held[i] == id)
            return true;
    }
    return false;
}

/* Who waits, for long, and holds `id`? */
static const struct inject_worker *waiting_holder(uint64_t id)
{
    for (uint32_t w = 0; w < FTMB_MAX_WORKERS; w++) {
        const struct inject_worker *worker = &inject_state.worker[w];
        if (atomic_load_explicit(&worker->waits_for, memory_order_acquire) && holds(worker, id))
            return worker;
    }
    return NULL;
}

/* Workers wait for each other in a circle: none of them will ever go on. Each has said what it
 * holds while it waited, and takes that back before it releases anything. */
static bool in_circle(const struct inject_worker *self)
{
    const struct inject_worker *worker = self;
    for (uint32_t steps = 0; steps < FTMB_MAX_WORKERS && worker; steps++) {
        worker = waiting_holder(atomic_load(&worker->waits_for) - 1);
        if (worker == self)
            return true;
    }
    return false;
}

#define LONG_WAIT 4096u /* rounds; then also how often it looks */

static void relax(void *env, unsigned worker, uint64_t rounds)
{
    struct inject_worker *self = env;
    if (unlikely(rounds % LONG_WAIT == LONG_WAIT - 1) && self->wanted) {
        memcpy(self->held, self->ctx->held, sizeof(self->held));
        self->held_count = self->ctx->held_count;
        atomic_store_explicit(&self->waits_for, self->wanted, memory_order_release);
        if (in_circle(self))
            inject_die("workers wait for each other's locks: the order in which sections take them "
                       "has a cycle");
    }
    self->outer->relax(self->outer->env, worker, rounds);
}

static void diverged(void *env, unsigned worker, const char *why, uint64_t pal, uint32_t id)
{
    const struct ctx_env *outer = ((struct inject_worker *)env)->outer;
    outer->diverged(outer->env, worker, why, pal, id);
}

static uint64_t clock_of(void *env)
{
    const struct ctx_env *outer = ((struct inject_worker *)env)->outer;
    return outer->clock(outer->env);
}

static void got_it(struct inject_worker *self)
{
    self->wanted = 0;
    if (unlikely(atomic_load_explicit(&self->waits_for, memory_order_relaxed)))
        atomic_store_explicit(&self->waits_for, 0, memory_order_release);
}

/* ---- packets -------------------------------------------------------------------------------- */

void inject_enter(struct ftmb_ctx *ctx)
{
    struct inject_worker *self = &inject_state.worker[ctx->worker];
    if (unlikely(self->ctx != ctx)) {
        self->ctx = ctx;
        self->outer = ctx->env;
        self->env = (struct ctx_env){.env = self,
                                     .relax = relax,
                                     .diverged = diverged,
                                     .clock = ctx->env->clock ? clock_of : NULL};
        ctx->env = &self->env;
        ctx->any_order = true;
    }
    self->time = 0;
    inject_self = self;
}

void inject_leave(void)
{
    if (unlikely(inject_self->locked))
        inject_die("a packet ends while a lock is held");
    inject_self = NULL;
}

/* ---- locks ---------------------------------------------------------------------------------- */

static uint32_t variable_of(const volatile void *object)
{
    uint64_t at = (uintptr_t)object - INJECT_BASE;
    if (at >= inject_state.bytes)
        inject_die("a lock or an atomic object that is not in the state: it is on a stack");
    return (uint32_t)(at / INJECT_GRANULE);
}

/* Until the section ends; what it has let go meanwhile it still has. */
static void hold(struct inject_worker *self, uint32_t id)
{
    if (self->ctx->held_count && shared_holds(self->ctx, id))
        return;
    self->wanted = id + 1u;
    ftmb_write(self->ctx, id);
    got_it(self);
}

static void end_if_outermost(struct inject_worker *self)
{
    if (!self->locked && self->ctx->held_count)
        ftmb_section_end(self->ctx);
}

/* Stamps of two workers are not in step, but whoever takes a lock finds it later than whoever let
 * it go. So a lock carries the latest time on. */
static void meet_time(struct inject_worker *self, const struct inject_lock *lock)
{
    if (likely(lock->time <= self->time))
        return;
    self->time = lock->time;
    uint64_t *floor = &inject_state.root->clock[self->ctx->worker].floor;
    if (unlikely(self->time > self->ctx->now_ns && self->time > *floor)) {
        ftmb_mark(self->ctx, floor, sizeof(*floor));
        *floor = self->time;
    }
}

static unsigned place_of(const struct inject_worker *self, const struct inject_lock *lock)
{
    unsigned i = self->locked;
    while (i && self->lock[i - 1] != lock)
        i--;
    return i;
}

static int take(void *object, bool again)
{
    struct inject_worker *self = inject_self;
    struct inject_lock *lock = object;
    if (!self)
        return 0; /* before the first packet, or after the last: there is one thread */
    hold(self, variable_of(lock));
    if (unlikely(self->locked && !again && place_of(self, lock)))
        inject_die("a thread takes a lock that it holds");
    if (unlikely(self->locked == FTMB_MAX_HELD))
        inject_die("a section takes more than 32 locks");
    self->lock[self->locked++] = lock;
    meet_time(self, lock);
    return 0;
}

static int let_go(void *object)
{
    struct inject_worker *self = inject_self;
    struct inject_lock *lock = object;
    if (!self)
        return 0;
    unsigned place = place_of(self, lock);
    if (unlikely(!place))
        inject_die("a thread lets a lock go that it does not hold");
    if (self->time > lock->time) {
        inject_mark(lock, sizeof(*lock));
        lock->time = self->time;
    }
    self->lock[place - 1] = self->lock[--self->locked];
    end_if_outermost(self);
    return 0;
}

int inject_mutex_init(void *lock, const void *attributes)
{
    if (attributes)
        inject_die("attributes of a lock: a plain one is served");
    inject_memset(lock, 0, sizeof(struct inject_lock));
    return 0;
}

int inject_mutex_destroy(void *lock)
{
    (void)lock;
    return 0;
}

int inject_mutex_lock(void *lock)
{
    return take(lock, false);
}

int inject_mutex_unlock(void *lock)
{
    return let_go(lock);
}

/* Readers are as exclusive as writers: what they do between is the function's own code, which
 * cannot be done again as an optimistic read is. */
int inject_rwlock_init(void *lock, const void *attributes)
{
    return inject_mutex_init(lock, attributes);
}

int inject_rwlock_destroy(void *lock)
{
    return inject_mutex_destroy(lock);
}

int inject_rwlock_rdlock(void *lock)
{
    return take(lock, true);
}

int inject_rwlock_wrlock(void *lock)
{
    return take(lock, false);
}

int inject_rwlock_unlock(void *lock)
{
    return let_go(lock);
}

/* ---- atomics (atomics.c) -------------------------------------------------------------------- */

struct inject_worker *inject_atomic_begin(const volatile void *object, uint64_t bytes)
{
    struct inject_worker *self = inject_self;
    if (self) {
        hold(self, variable_of(object));
        inject_mark((const void *)(uintptr_t)object, bytes);
    }
    return self;
}

void inject_atomic_end(struct inject_worker *self)
{
    if (self)
        end_if_outermost(self);
}

uint64_t inject_atomic_read_begin(struct inject_worker *self, uint32_t *id,
                                  const volatile void *object)
{
    *id = variable_of(object);
    self->wanted = *id + 1u;
    uint64_t token = ftmb_read_begin(self->ctx, *id);
    got_it(self);
    return token;
}

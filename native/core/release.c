/* Storing PALs, holding outputs, releasing them (see release.h). */
#include "core/release.h"

#include "core/plant.h"

#include <string.h>

uint64_t release_bytes(uint32_t workers, uint64_t pals, uint64_t outputs, uint64_t held)
{
    return workers * (pals * sizeof(uint64_t) + outputs * sizeof(uint64_t) +
                      held * sizeof(struct held_output));
}

/* Where the rings lie; the same for a new memory and one that was found. */
static void place(struct release *release, void *memory, uint64_t pals, uint64_t outputs,
                  uint64_t held)
{
    uint8_t *at = memory;
    for (uint32_t w = 0; w < release->workers; w++) {
        struct release_worker *x = &release->worker[w];
        x->pals = (uint64_t *)at;
        x->pal_mask = pals - 1;
        at += pals * sizeof(uint64_t);
        x->hashes = (uint64_t *)at;
        x->hash_mask = outputs - 1;
        at += outputs * sizeof(uint64_t);
        x->held = (struct held_output *)at;
        x->held_mask = held - 1;
        at += held * sizeof(struct held_output);
    }
}

void release_init(struct release *release, uint32_t workers, void *memory, uint64_t pals,
                  uint64_t outputs, uint64_t held)
{
    FTMB_ASSERT(is_power_of_two(pals) && is_power_of_two(outputs) && is_power_of_two(held));
    FTMB_ASSERT(workers > 0 && workers <= FTMB_MAX_WORKERS);
    memset(release, 0, sizeof(*release));
    release->workers = workers;
    place(release, memory, pals, outputs, held);
}

static bool sound(const struct release_worker *x)
{
    uint64_t stored = atomic_load_explicit(&x->stored, memory_order_relaxed);
    return x->pal_base <= stored && stored - x->pal_base <= x->pal_mask + 1 &&
           x->out_base <= x->released && x->released - x->out_base <= x->hash_mask + 1;
}

bool release_attach(struct release *release, uint32_t workers, void *memory, uint64_t pals,
                    uint64_t outputs, uint64_t held)
{
    if (release->workers != workers)
        return false;
    place(release, memory, pals, outputs, held);
    uint64_t released = 0;
    for (uint32_t w = 0; w < workers; w++) {
        struct release_worker *x = &release->worker[w];
        if (!sound(x))
            return false;
        /* What had arrived and was held is gone; what was released has arrived, except in a replay,
         * which comes back to it. */
        uint64_t arrived = atomic_load_explicit(&x->arrived, memory_order_relaxed);
        atomic_store_explicit(&x->arrived, u64_min(arrived, x->released), memory_order_release);
        x->held_head = x->held_tail = 0;
        released += x->released;
    }
    uint64_t handed = atomic_load_explicit(&release->handed, memory_order_relaxed);
    if (handed > released)
        return false;
    release->lost_in_hand += released - handed;
    atomic_store_explicit(&release->handed, released, memory_order_release);
    return true;
}

/* Of `count` PALs from `first` on, how many are stored already; UINT32_MAX: as something else. */
static uint32_t known_pals(const struct release_worker *x, uint64_t first, const uint64_t *pals,
                           uint32_t count)
{
    uint64_t stored = atomic_load_explicit(&x->stored, memory_order_relaxed);
    uint32_t known = (uint32_t)u64_min(count, stored + 1 - first);
    for (uint32_t i = 0; i < known; i++) {
        if (first + i > x->pal_base && x->pals[(first + i) & x->pal_mask] != pals[i])
            return UINT32_MAX;
    }
    return known;
}

enum release_verdict release_pals(struct release *release, uint32_t w, uint64_t first,
                                  const uint64_t *pals, uint32_t count)
{
    struct release_worker *x = &release->worker[w];
    uint64_t stored = atomic_load_explicit(&x->stored, memory_order_relaxed);
    if (PLANTED(P_NO_CONTIGUITY) && first > stored + 1)
        stored = first - 1;
    if (unlikely(first != stored + 1)) {
        if (first == 0 || first > stored)
            return RELEASE_BAD;
        uint32_t known = known_pals(x, first, pals, count);
        if (known == UINT32_MAX)
            return RELEASE_DIVERGED;
        release->repeated += known;
        if (known == count)
            return RELEASE_DUPLICATE;
        first += known;
        pals += known;
        count -= known;
    }
    if (count > release_pal_room(x))
        return RELEASE_BAD;
    for (uint32_t i = 0; i < count; i++)
        x->pals[(first + i) & x->pal_mask] = pals[i];
    x->pal_peak = u64_max(x->pal_peak, stored + count - x->pal_base);
    atomic_store_explicit(&x->stored, stored + count, memory_order_release);
    return RELEASE_OK;
}

/* In a replay, or because it came again after a restart. What a snapshot covers has no hash. */
static enum release_verdict released_before(struct release *release, struct release_worker *x,
                                            uint64_t number, uint64_t hash)
{
    if (number <= atomic_load_explicit(&x->arrived, memory_order_relaxed)) {
        release->repeated++;
    } else {
        release->duplicates++;
        atomic_store_explicit(&x->arrived, number, memory_order_release);
    }
    if (number <= x->out_base || x->hashes[number & x->hash_mask] == hash)
        return RELEASE_DUPLICATE;
    release->hash_mismatches++;
    return RELEASE_DIVERGED;
}

enum release_verdict release_output(struct release *release, uint32_t w, uint64_t number,
                                    const uint64_t *vector, void *frame, uint64_t hash,
                                    uint64_t seq)
{
    struct release_worker *x = &release->worker[w];
    uint64_t arrived = atomic_load_explicit(&x->arrived, memory_order_relaxed);
    bool gap = number > arrived + 1 && !PLANTED(P_NO_CONTIGUITY);
    if (gap || (number <= arrived && number > x->released) || number == 0)
        return RELEASE_BAD;
    if (unlikely(number <= x->released)) {
        return released_before(release, x, number, hash);
    }
    if (!release_has_room(x) || release_output_room(x) == 0)
        return RELEASE_BAD;
    atomic_store_explicit(&x->arrived, number, memory_order_release);
    x->held[x->held_tail & x->held_mask] = (struct held_output){
        .frame = frame, .vector = vector, .number = number, .hash = hash, .seq = seq};
    x->held_tail++;
    x->held_peak = u64_max(x->held_peak, x->held_tail - x->held_head);
    return RELEASE_OK;
}

void *release_next(struct release *release, uint32_t w)
{
    struct release_worker *x = &release->worker[w];
    if (x->held_head == x->held_tail)
        return NULL;
    const struct held_output *out = &x->held[x->held_head & x->held_mask];
    for (uint32_t j = 0; j < release->workers; j++) {
        if (atomic_load_explicit(&release->worker[j].stored, memory_order_acquire) < out->vector[j])
            return NULL;
    }
    FTMB_ASSERT(out->number == x->released + 1 || PLANTED(P_NO_CONTIGUITY));
    x->hashes[out->number & x->hash_mask] = out->hash;
    x->out_peak = u64_max(x->out_peak, out->number - x->out_base);
    for (uint32_t j = 0; j < release->workers; j++) {
        if (j == w || release->exact)
            release->joined[j] = u64_max(release->joined[j], out->vector[j]);
    }
    atomic_signal_fence(memory_order_release); /* hash and join first (see release.h) */
    x->released = out->number;
    atomic_signal_fence(memory_order_release);
    x->held_head++;
    return out->frame;
}

void release_commit(struct release *release, const uint64_t *pals, const uint64_t *outputs)
{
    FTMB_ASSERT(release_covers(release, pals, outputs));
    for (uint32_t w = 0; w < release->workers; w++) {
        struct release_worker *x = &release->worker[w];
        FTMB_ASSERT(pals[w] >= x->pal_base);
        FTMB_ASSERT(x->released >= outputs[w] || PLANTED(P_COMMIT_PALS_ONLY));
        x->pal_base = pals[w];
        /* Forgotten outputs may lie beyond the first cut after a replay: they left before it. */
        x->out_base = u64_max(x->out_base, outputs[w]);
    }
}

void release_forget(struct release *release, uint64_t *pals, uint64_t *outputs)
{
    for (uint32_t w = 0; w < release->workers; w++) {
        struct release_worker *x = &release->worker[w];
        x->pal_base = pals[w] = atomic_load_explicit(&x->stored, memory_order_relaxed);
        x->out_base = outputs[w] = x->released;
    }
}

bool release_covers(const struct release *release, const uint64_t *pals, const uint64_t *outputs)
{
    for (uint32_t w = 0; w < release->workers; w++) {
        const struct release_worker *x = &release->worker[w];
        if (pals[w] < x->pal_base)
            return false;
        if (PLANTED(P_COMMIT_PALS_ONLY)) {
            if (atomic_load(&x->stored) < pals[w])
                return false;
            continue;
        }
        if (atomic_load_explicit(&x->stored, memory_order_acquire) < pals[w] ||
            atomic_load_explicit(&x->arrived, memory_order_acquire) < outputs[w] ||
            x->released < outputs[w])
            return false;
    }
    return true;
}

void release_fence(struct release *release, void (*discard)(void *self, void *frame), void *self)
{
    for (uint32_t w = 0; w < release->workers && !PLANTED(P_KEEP_HELD); w++) {
        struct release_worker *x = &release->worker[w];
        for (; x->held_head != x->held_tail; x->held_head++)
            discard(self, x->held[x->held_head & x->held_mask].frame);
    }
}

bool release_truncate(struct release *release, const uint64_t *cut)
{
    for (uint32_t w = 0; w < release->workers; w++) {
        struct release_worker *x = &release->worker[w];
        uint64_t stored = atomic_load_explicit(&x->stored, memory_order_relaxed);
        FTMB_ASSERT(x->held_head == x->held_tail || PLANTED(P_KEEP_HELD));
        if (cut[w] < x->pal_base || cut[w] > stored || cut[w] < release->joined[w])
            return false;
    }
    for (uint32_t w = 0; w < release->workers; w++) {
        struct release_worker *x = &release->worker[w];
        if (!PLANTED(P_KEEP_LOG))
            atomic_store_explicit(&x->stored, cut[w], memory_order_release);
        atomic_store_explicit(&x->arrived, x->out_base, memory_order_release);
        x->settled = 0; /* the new view's streams begin at 1 */
    }
    return true;
}

/* The largest consistent cut of the logs (see replay.h). */
#include "core/replay.h"

#include <stdlib.h>
#include <string.h>

/* Zeroes whose pages are there: a compiler makes calloc() of malloc() and memset(), which leaves
 * fetching them to the failover. */
static void *fetched(uint64_t count, size_t size)
{
    volatile uint8_t *memory = calloc(count, size);
    for (uint64_t at = 0; memory && at < count * size; at += 4096)
        memory[at] = 0;
    return (void *)(uintptr_t)memory;
}

int replay_init(struct replay *replay, uint32_t workers, uint32_t variables, uint64_t slots)
{
    memset(replay, 0, sizeof(*replay));
    replay->workers = workers;
    replay->variables = variables;
    replay->slot_capacity = slots + variables;
    replay->variable = fetched((uint64_t)variables + 1, sizeof(*replay->variable));
    replay->touched = fetched((uint64_t)variables + 1, sizeof(*replay->touched));
    replay->slots = fetched(replay->slot_capacity, sizeof(*replay->slots));
    if (!replay->variable || !replay->touched || !replay->slots) {
        replay_free(replay);
        return REPLAY_NO_MEMORY;
    }
    return REPLAY_OK;
}

void replay_free(struct replay *replay)
{
    free(replay->variable);
    free(replay->touched);
    free(replay->slots);
    memset(replay, 0, sizeof(*replay));
}

static void forget_touched(struct replay *replay)
{
    for (uint32_t i = 0; i < replay->touched_count; i++)
        memset(&replay->variable[replay->touched[i]], 0, sizeof(struct replay_variable));
    replay->touched_count = 0;
}

/* Ask the processor for what the PAL so many places on will need. In a process that has just been
 * promoted nearly each access is a miss, of the TLB too, and no packet flows meanwhile. */
static inline void prefetch_variable(const struct replay *replay, uint32_t worker, uint64_t at,
                                     const _Atomic uint64_t *base_seq)
{
    enum { AHEAD = 24 };
    if (at + AHEAD >= replay->count[worker])
        return;
    uint32_t id = pal_id(replay->log[worker][at + AHEAD]);
    if (id >= replay->variables)
        return;
    __builtin_prefetch(&replay->variable[id], 1);
    __builtin_prefetch(&base_seq[id]);
}

/* Only one thread is here. */
static void count_access(struct replay *replay, uint32_t id, bool write,
                         const _Atomic uint64_t *base_seq)
{
    struct replay_variable *x = &replay->variable[id];
    uint32_t left = atomic_load_explicit(&x->left, memory_order_relaxed);
    if (left == 0) {
        replay->touched[replay->touched_count++] = id;
        x->base = atomic_load_explicit(&base_seq[id], memory_order_relaxed) >> 1;
    }
    x->writes += write;
    atomic_store_explicit(&x->left, left + 1, memory_order_relaxed);
}

/* Give each variable its slots, one per version that a logged access may name (base .. base +
 * writes). */
static int place_slots(struct replay *replay)
{
    uint64_t offset = 0;
    for (uint32_t i = 0; i < replay->touched_count; i++) {
        struct replay_variable *x = &replay->variable[replay->touched[i]];
        x->offset = (uint32_t)offset;
        offset += x->writes + 1;
    }
    if (offset > replay->slot_capacity) {
        uint32_t *slots = realloc(replay->slots, offset * sizeof(*slots));
        if (!slots)
            return REPLAY_NO_MEMORY;
        replay->slots = slots;
        replay->slot_capacity = offset;
    }
    memset(replay->slots, 0, offset * sizeof(*replay->slots));
    return REPLAY_OK;
}

/* Count writes and accesses of every variable in log/count, and place its slots. */
static int index_variables(struct replay *replay, const _Atomic uint64_t *base_seq)
{
    forget_touched(replay);
    for (uint32_t w = 0; w < replay->workers; w++) {
        for (uint64_t i = 0; i < replay->count[w]; i++) {
            uint64_t pal = replay->log[w][i];
            uint32_t id = pal_id(pal);
            prefetch_variable(replay, w, i, base_seq);
            if (id == PAL_ID_DETERMINANT && !(pal & PAL_WRITE))
                continue;
            if (id >= replay->variables)
                return REPLAY_BAD_LOG;
            count_access(replay, id, pal & PAL_WRITE, base_seq);
        }
    }
    return place_slots(replay);
}

/* Mark which versions are written in the logs. A version beyond base + writes can never have all
 * its predecessors, so it needs no mark. */
static int mark_present(struct replay *replay)
{
    for (uint32_t w = 0; w < replay->workers; w++) {
        for (uint64_t i = 0; i < replay->count[w]; i++) {
            uint64_t pal = replay->log[w][i];
            if (!(pal & PAL_WRITE))
                continue;
            struct replay_variable *x = &replay->variable[pal_id(pal)];
            uint64_t k = pal_version_since(pal, x->base);
            if (k >= x->writes)
                continue;
            if (replay->slots[x->offset + k]++)
                return REPLAY_BAD_LOG;
        }
    }
    return REPLAY_OK;
}

/* First version (as a distance from the base) whose write is missing. Kept in `reads_done`, which
 * has no other use before the replay. */
static void find_reach(struct replay *replay)
{
    for (uint32_t i = 0; i < replay->touched_count; i++) {
        struct replay_variable *x = &replay->variable[replay->touched[i]];
        uint32_t reach = 0;
        while (reach < x->writes && replay->slots[x->offset + reach])
            reach++;
        atomic_store_explicit(&x->reads_done, reach, memory_order_relaxed);
    }
}

static bool presupposed(const struct replay *replay, uint64_t pal)
{
    if (pal_id(pal) == PAL_ID_DETERMINANT)
        return true;
    const struct replay_variable *x = &replay->variable[pal_id(pal)];
    if (PLANTED(P_READER_NEEDS_WRITER) && !(pal & PAL_WRITE) &&
        pal_version_since(pal, x->base) ==
            atomic_load_explicit(&x->reads_done, memory_order_relaxed))
        return false;
    return pal_version_since(pal, x->base) <=
           atomic_load_explicit(&x->reads_done, memory_order_relaxed);
}

/* Drop the PALs of worker w from `at` on; writes among them end the reach of their variables. */
static void truncate_log(struct replay *replay, uint32_t w, uint64_t at)
{
    for (uint64_t i = at; i < replay->count[w]; i++) {
        uint64_t pal = replay->log[w][i];
        if (!(pal & PAL_WRITE))
            continue;
        struct replay_variable *x = &replay->variable[pal_id(pal)];
        uint64_t k = pal_version_since(pal, x->base);
        if (k < atomic_load_explicit(&x->reads_done, memory_order_relaxed))
            atomic_store_explicit(&x->reads_done, (uint32_t)k, memory_order_relaxed);
    }
    replay->count[w] = at;
}

/* Truncate worker w's log at its first PAL that lacks a predecessor, sections whole. */
static bool truncate_worker(struct replay *replay, uint32_t w)
{
    uint64_t at = 0;
    while (at < replay->count[w] && presupposed(replay, replay->log[w][at]))
        at++;
    if (at == replay->count[w])
        return false;
    while (!PLANTED(P_CUT_SPLITS_SECTIONS) && at > 0 && (replay->log[w][at] & PAL_INSIDE))
        at--;
    truncate_log(replay, w, at);
    return true;
}

/* (Planted.) Take the oldest version in the logs for the base's. */
static inline void guess_bases(struct replay *replay)
{
    for (uint32_t i = 0; i < replay->touched_count; i++) {
        uint32_t id = replay->touched[i];
        uint64_t oldest = UINT64_MAX;
        for (uint32_t w = 0; w < replay->workers; w++) {
            for (uint64_t at = 0; at < replay->count[w]; at++) {
                uint64_t pal = replay->log[w][at];
                if (pal_id(pal) == id)
                    oldest = u64_min(oldest, pal_version_since(pal, replay->variable[id].base));
            }
        }
        replay->variable[id].base += oldest;
    }
}

/* The end of a log is always the end of a section, because frames never end inside one. */
int replay_cut(struct replay *replay, const _Atomic uint64_t *base_seq)
{
    if (PLANTED(P_NO_CUT))
        return REPLAY_OK;
    int error = index_variables(replay, base_seq);
    if (PLANTED(P_CUT_WITHOUT_BASE))
        guess_bases(replay);
    if (!error)
        error = mark_present(replay);
    if (error)
        return error;
    find_reach(replay);
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t w = 0; w < replay->workers; w++)
            changed |= truncate_worker(replay, w);
    }
    return REPLAY_OK;
}

/* slots[offset + k] = logged reads of versions base .. base + k: what a write of version base + k
 * has to wait for, since reads of later versions cannot have happened before it. */
static void count_reads(struct replay *replay)
{
    for (uint32_t w = 0; w < replay->workers; w++) {
        for (uint64_t i = 0; i < replay->count[w]; i++) {
            uint64_t pal = replay->log[w][i];
            if ((pal & PAL_WRITE) || pal_id(pal) == PAL_ID_DETERMINANT)
                continue;
            struct replay_variable *x = &replay->variable[pal_id(pal)];
            uint64_t k = pal_version_since(pal, x->base);
            FTMB_ASSERT(k <= x->writes);
            replay->slots[x->offset + k]++;
        }
    }
    for (uint32_t i = 0; i < replay->touched_count; i++) {
        struct replay_variable *x = &replay->variable[replay->touched[i]];
        for (uint32_t k = 1; k <= x->writes; k++)
            replay->slots[x->offset + k] += replay->slots[x->offset + k - 1];
    }
}

int replay_prepare(struct replay *replay, const _Atomic uint64_t *base_seq)
{
    int error = index_variables(replay, base_seq);
    if (error)
        return error;
    count_reads(replay);
    uint32_t left = 0;
    for (uint32_t w = 0; w < replay->workers; w++) {
        replay->cursor[w] = (struct replay_cursor){.finished = replay->count[w] == 0};
        left += replay->count[w] != 0;
    }
    atomic_store_explicit(&replay->workers_left, left, memory_order_release);
    return REPLAY_OK;
}

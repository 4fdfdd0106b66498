/* The barrier of a cut: every worker stands between two packets.
 *
 * A worker stores BUSY before it looks at the stop flag, and whoever wants a cut stores the flag
 * before it looks at the states: so a worker that is counted as idle cannot be inside a packet.
 * The other way round, one that found no flag could begin just after it was counted. */
#ifndef FTMB_CORE_BARRIER_H
#define FTMB_CORE_BARRIER_H

#include "core/base.h"
#include "core/plant.h"
#include "core/sim_point.h"

enum barrier_state { BARRIER_IDLE, BARRIER_BUSY, BARRIER_PARKED };

/* Before a packet. False: a cut is wanted, park instead. */
static inline bool barrier_enter(_Atomic uint32_t *state, const _Atomic uint32_t *stop)
{
    if (PLANTED(P_STOP_BEFORE_BUSY)) {
        bool wanted = atomic_load(stop) != 0;
        SIM_POINT();
        atomic_store(state, BARRIER_BUSY);
        return !wanted;
    }
    atomic_store(state, BARRIER_BUSY);
    SIM_POINT();
    return !atomic_load(stop);
}

/* While parked: has the cut been taken? Then it must enter again. */
static inline bool barrier_lifted(const _Atomic uint32_t *stop)
{
    return !atomic_load(stop);
}

static inline void barrier_park(_Atomic uint32_t *state)
{
    atomic_store(state, BARRIER_PARKED);
}

static inline void barrier_leave(_Atomic uint32_t *state)
{
    atomic_store_explicit(state, BARRIER_IDLE, memory_order_release);
}

/* Once the flag is stored: does this worker stand? */
static inline bool barrier_stands(const _Atomic uint32_t *state)
{
    return PLANTED(P_NO_BARRIER) || atomic_load(state) != BARRIER_BUSY;
}

#endif

/* The stop handshake of a cut: when may a worker that is not BUSY be counted as stopped?
 *
 * Code: core/epoch.h and core/epoch.c, an epoch with `stop` (epoch_enter(), epoch_turn(),
 * epoch_complete(), epoch_release()); an epoch without one makes the same handshake, and nobody
 * parks. Not here: cursors that are handed over, the gate, an epoch that is wanted and not yet
 * begun (the simulator has those). A store and a load are a step each. Everything runs for
 * ever (the state space is finite), so every end state is a deadlock.
 *
 * Property: while the snapshotter copies, no worker is inside a packet (I3: a cut is an instant at
 * which all stand between two packets). */
#ifndef WORKERS
#define WORKERS 3
#endif
#define BURST 2

mtype = { IDLE, BUSY, PARKED };
mtype state[WORKERS] = IDLE;
bool stop;
bool inside[WORKERS];
bool copying;

/* M03: a parked worker that goes on without a second look at the flag. */
inline park()
{
    do
    :: state[w] = PARKED;
       stop == 0;
       state[w] = BUSY;
#ifdef M03
       break
#else
       if
       :: stop
       :: else -> break
       fi
#endif
    od
}

proctype worker(byte w)
{
    byte left;
    bool seen;
    do
    :: /* a burst came in */
#ifdef M01 /* the flag is looked at before BUSY is stored */
       seen = stop;
       if
       :: seen -> goto next
       :: else
       fi;
       state[w] = BUSY;
#else
       state[w] = BUSY;
       if
       :: stop -> park()
       :: else
       fi;
#endif
       left = BURST;
       do
       :: left > 0 ->
          inside[w] = true; /* the packet begins */
          assert(!copying);
          inside[w] = false;
          left--;
          if
          :: left && stop -> park()
          :: else
          fi
       :: else -> break
       od;
       state[w] = IDLE;
next:  skip
    od
}

proctype snapshotter()
{
    byte w;
    do
    :: /* M02: the states are read before the flag is stored */
#ifndef M02
       stop = true;
#endif
       for (w : 0 .. WORKERS - 1) {
           state[w] != BUSY
       }
#ifdef M02
       stop = true;
#endif
       copying = true;
       for (w : 0 .. WORKERS - 1) {
           assert(!inside[w])
       }
       copying = false;
       stop = false
    od
}

init {
    byte i;
    atomic {
        for (i : 0 .. WORKERS - 1) {
            run worker(i)
        }
        run snapshotter()
    }
}

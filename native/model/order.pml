/* Ordered logging, parallel release, snapshots, fencing, the largest consistent cut, replay, and
 * a restarted output logger. docs/MODEL.md says which C code each part stands for, what is left
 * out, and what the broken variants (M12 ...) are.
 *
 * One step of a process is one `d_step`, whose first expression is its guard. What is one step:
 * - An access: taking the variable, or reading it, together with appending its PAL. The PAL goes to
 *   the worker's own burst, which nobody else sees before the packet has ended. That a read is one
 *   whole version is the business of seq.pml.
 * - The end of a section: publishing the count, then releasing every variable. A release only
 *   enables others, so it can be moved back to the publication (a left mover).
 * - The end of a packet belongs to its last access for the same reason: it only makes frames
 *   available. So frames may arrive section by section as soon as their packet has ended.
 * - The death of the master, fence, cut and promotion. From the fence on the output logger takes no
 *   frame and releases nothing, and the dead master's state is gone: nothing else can happen
 *   between them, but a second death, which finds the same logs and the same base.
 * Frames of a stream arrive in order (core/stream.h); frames that never arrive are lost. */

#ifndef W
#define W 2 /* workers */
#endif
#ifndef V
#define V 2 /* variables */
#endif
#ifndef P
#define P 1 /* packets per worker */
#endif
#ifndef L
#define L 4 /* most PALs per worker */
#endif
#ifndef N
#define N 1 /* most outputs per worker */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SNAPS
#define SNAPS 0
#endif
#ifndef RESTARTS
#define RESTARTS 0 /* of the output logger */
#endif

/* ---- programs: up to 8 operations a packet, 4 bits each ----------------------------------- */

#define END 0
#define W0 1
#define W1 2
#define W2 3
#define R0 4
#define R1 5
#define R2 6
#define EE 7  /* end of the section */
#define OO 8  /* output */
#define RB 9  /* read of variable 0 or 1, by the data seen so far */
#define WB 10 /* write of variable 0 or 1, by the data */
#define OB 11 /* output or none, by the data */
#define PP 15 /* only M13: the count is published */
#define PK(a, b, c, d, e, f, g)                                                                    \
    ((a) | (b) << 4 | (c) << 8 | (d) << 12 | (e) << 16 | (f) << 20 | (g) << 24)

/* An order-sensitive mix: whoever reads, writes or outputs anything else shows it. */
#define MIX(a, b) (((a) * 29 + (b) * 7 + 1) & 255)

/* ---- state -------------------------------------------------------------------------------- */

int code[W * P]; /* chosen in init, then constant */

/* The master: shared variables (data, version, holder), then per worker its place in the packet,
 * what it has seen, and its cursor: next packet, PALs, outputs. */
byte data[V], ver[V], held[V];
byte pc[W], op[W], seen[W];
byte pk[W], np[W], no[W];
byte published[W];
byte sent_pals[W], sent_outs[W]; /* handed to the stream */
byte upto[W];                    /* replay: the cut; 0 when all of it is done */

/* The output logger. PALs and outputs are counted from the start, and stay in one array from their
 * making on: what has arrived is what is counted by stored and arrived. */
byte pal[W * L]; /* write << 7 | inside << 6 | variable << 4 | version */
byte stored[W], arrived[W], released[W];
byte out_hash[W * N], out_dep[W * N * W];
byte released_hash[W * N];
byte joined[W]; /* of the vectors of all released outputs */

/* The committed base, and the snapshot that is prepared. */
byte b_data[V], b_ver[V], b_pk[W], b_np[W], b_no[W];
byte s_data[V], s_ver[V], s_pk[W], s_np[W], s_no[W];
bool stop, staged;
byte crashes, snaps, restarts;
bool done;

/* Ghosts: the true past of each variable, worker and output, as PALs of each worker. They are what
 * `exact` computes; so with EXACT they are its vectors, but in the variants that break those. */
byte past_of_var[V * W], past_of_worker[W * W], past_of_out[W * N * W];

#ifdef GATE
bool in_epoch[W]; /* has joined the epoch that begins */
#endif
#if defined(M15) || defined(M16)
byte vec_of_var[V * W], vec_of_worker[W * W];
#endif
#ifdef M12
byte gapless[W];
#endif
#ifdef M14
byte early[W * W];
#endif
#ifdef M23
byte kept[W], kept_hash[W], kept_dep[W * W];
#endif
#ifdef M25
short old_pal[W];
byte old_at[W];
#endif
#ifdef M32
bool unlocked[W];
#endif
#ifdef M34
byte acked[W];
#endif
#ifdef M35
byte delivered[W];
#endif
#ifdef M36
bool logs_lost;
#endif

hidden byte i, j, x, y, k, c[W], reach[V];
hidden byte changed, found;

#if W == 2
#define ALL(f) (f(0) && f(1))
#define ANY(f) (f(0) || f(1))
#else
#define ALL(f) (f(0) && f(1) && f(2))
#define ANY(f) (f(0) || f(1) || f(2))
#endif
#define REPLAYED(j) (np[j] >= upto[j])

/* With -DREACH=n the search must fail here: proof that the models come to such places. */
#ifndef REACH
#define REACH 0
#endif
#define REACHED(n, what) assert(REACH != n || !(what))

#include "snapshot.pml"
#include "worker.pml"
#include "failover.pml"
#include "logger.pml"
#include "programs.pml"

init {
    atomic {
        choose_programs();
        for (i : 0 .. W - 1) {
            run worker(i);
            run frames(i)
        }
        run control()
    }
}

/* The workers of order.pml: accesses in normal running and in a replay, outputs, vectors. */

/* ---- logged accesses that are still to come ------------------------------------------------ */

#define EACH_PAL(f, j, x, v)                                                                       \
    (f(j, 0, x, v) || f(j, 1, x, v) || f(j, 2, x, v) || f(j, 3, x, v) MORE_PALS(f, j, x, v))
#if L == 4
#define MORE_PALS(f, j, x, v)
#elif L == 6
#define MORE_PALS(f, j, x, v) || f(j, 4, x, v) || f(j, 5, x, v)
#endif
#if W == 2
#define EACH_WORKER(f, x, v) (EACH_PAL(f, 0, x, v) || EACH_PAL(f, 1, x, v))
#elif W == 3
#define EACH_WORKER(f, x, v)                                                                       \
    (EACH_PAL(f, 0, x, v) || EACH_PAL(f, 1, x, v) || EACH_PAL(f, 2, x, v))
#endif
#define COMING(j, i) (np[j] <= i && i < upto[j])
#define IS_ACCESS(j, i, x, v) (COMING(j, i) && ((pal[(j) * L + i] >> 4) & 3) == (x))
#define IS_READ(j, i, x, v)                                                                        \
    (COMING(j, i) && (pal[(j) * L + i] & 176) == (x) << 4 && (pal[(j) * L + i] & 15) <= (v))
#define LEFT(x) EACH_WORKER(IS_ACCESS, x, 0)
#define READS_LEFT(x, v) EACH_WORKER(IS_READ, x, v)

/* ---- a worker ------------------------------------------------------------------------------ */

#define IS_W(w) (op[w] >= W0 && op[w] <= W2)
#define IS_R(w) (op[w] >= R0 && op[w] <= R2)
#define VAR(w) ((op[w] - 1) % 3)
#define LOGGED(w) (np[w] < upto[w])
#define NEXT_PAL(w) pal[(w) * L + np[w]]
#if V == 2
#define HOLDS(w) (held[0] == w + 1 || held[1] == w + 1)
#else
#define HOLDS(w) (held[0] == w + 1 || held[1] == w + 1 || held[2] == w + 1)
#endif
/* Another variable, kind or place in a section than was logged, or its version has passed. */
#ifdef M32
#define INSIDE(w) (HOLDS(w) || unlocked[w])
#else
#define INSIDE(w) HOLDS(w)
#endif
#define EXPECTED(w, write) ((write) << 7 | INSIDE(w) << 6 | VAR(w) << 4)
#define DIVERGES(w, write)                                                                         \
    ((NEXT_PAL(w) & 240) != EXPECTED(w, write) || ver[VAR(w)] > (NEXT_PAL(w) & 15))
#define AT_VERSION(w) (ver[VAR(w)] == (NEXT_PAL(w) & 15))

#ifdef M17 /* past its log a worker does not wait for logged accesses */
#define MAY_RUN_FREELY(w) true
#else
#define MAY_RUN_FREELY(w) (!LEFT(VAR(w)))
#endif
#ifdef M18 /* a logged write does not wait for the logged reads of its version */
#define READERS_GONE(w) true
#else
#define READERS_GONE(w) (!READS_LEFT(VAR(w), ver[VAR(w)]))
#endif
#define FREE(w) (held[VAR(w)] == 0)
#ifdef M32
#define HAS_LET_GO(w) (!HOLDS(w))
#else
#define HAS_LET_GO(w) true
#endif
#define MAY_WRITE(w)                                                                               \
    (LOGGED(w) -> (DIVERGES(w, 1) || (FREE(w) && AT_VERSION(w) && READERS_GONE(w)))                \
                : (FREE(w) && MAY_RUN_FREELY(w)))
#ifdef M19 /* reads are not logged */
#define MAY_READ(w) FREE(w)
#else
#define MAY_READ(w)                                                                                \
    (LOGGED(w) -> (DIVERGES(w, 0) || (FREE(w) && AT_VERSION(w))) : (FREE(w) && MAY_RUN_FREELY(w)))
#endif
#ifdef GATE /* who has joined the new epoch waits for the rest at its first shared access */
#define GATE_OPEN(w) (!(stop && in_epoch[w]))
#define MAY_BEGIN(w) (!stop || in_epoch[w])
#else
#define GATE_OPEN(w) true
#define MAY_BEGIN(w) !stop
#endif
#ifdef M33 /* only writes wait */
#define GATE_OPEN_FOR_READS(w) true
#else
#define GATE_OPEN_FOR_READS(w) GATE_OPEN(w)
#endif

/* The next operation, branches resolved; the end of a packet hands its frames to the stream. */
inline advance()
{
    do
    :: pc[w]++;
       op[w] = (code[w * P + pk[w]] >> (4 * (pc[w] - 1))) & 15;
       if
       :: op[w] == OB && !(seen[w] & 1) -> skip
       :: else -> break
       fi
    od;
    if
    :: op[w] == OB -> op[w] = OO
    :: op[w] == RB -> op[w] = R0 + (seen[w] & 1)
    :: op[w] == WB -> op[w] = W0 + (seen[w] & 1)
    :: op[w] == END ->
       pk[w]++;
       pc[w] = 0;
       seen[w] = 0;
       sent_pals[w] = np[w];
       sent_outs[w] = no[w]
    :: else
    fi
}

/* Take the next logged PAL, or append one. A number that is already stored ends in a stop. */
inline log_access(write)
{
    if
    :: LOGGED(w) -> assert(!DIVERGES(w, write)) /* I3, I6 */
    :: else ->
       assert(np[w] < L);
       assert(np[w] >= stored[w]);
       REACHED(5, !ALL(REPLAYED));
       NEXT_PAL(w) = EXPECTED(w, write) | ver[x]
    fi;
    np[w]++;
    if
    :: ALL(REPLAYED) ->
       for (j : 0 .. W - 1) {
           upto[j] = 0
       }
    :: else
    fi
}

#define LARGER(a, b) ((a) > (b) -> (a) : (b))

inline see_variable()
{
    seen[w] = MIX(seen[w], data[x]);
    for (j : 0 .. W - 1) {
        past_of_worker[w * W + j] = LARGER(past_of_worker[w * W + j], past_of_var[x * W + j]);
#if defined(M15) || defined(M16)
        vec_of_worker[w * W + j] = LARGER(vec_of_worker[w * W + j], vec_of_var[x * W + j])
#endif
    }
    past_of_worker[w * W + w] = np[w];
#if defined(M15) || defined(M16)
    vec_of_worker[w * W + w] = np[w]
#endif
}

inline release_variable(y)
{
    held[y] = 0;
    ver[y]++;
    data[y] = MIX(seen[w], y);
    for (j : 0 .. W - 1) {
        past_of_var[y * W + j] = past_of_worker[w * W + j];
#ifdef M16
        vec_of_var[y * W + j] = vec_of_worker[w * W + j]
#endif
    }
}

inline release_held()
{
    for (y : 0 .. V - 1) {
        if
        :: held[y] == w + 1 -> release_variable(y)
        :: else
        fi
    }
}

inline output()
{
    k = w * N + no[w];
    assert(no[w] < N);
    out_hash[k] = seen[w];
    for (j : 0 .. W - 1) {
        past_of_out[k * W + j] = past_of_worker[w * W + j];
#if defined(M15) || defined(M16)
        out_dep[k * W + j] = vec_of_worker[w * W + j];
#elif defined(EXACT)
        out_dep[k * W + j] = past_of_worker[w * W + j];
#elif defined(M14)
        out_dep[k * W + j] = early[w * W + j];
#else
        out_dep[k * W + j] = published[j];
#endif
    }
    past_of_out[k * W + w] = np[w];
    out_dep[k * W + w] = np[w];
    no[w]++
}

proctype worker(byte w)
{
    do
    :: d_step {
           pc[w] == 0 && pk[w] < P && MAY_BEGIN(w) ->
           seen[w] = MIX(w + 1, pk[w]);
#ifdef M14 /* D is read before the last access */
           for (j : 0 .. W - 1) {
               early[w * W + j] = published[j]
           }
#endif
#ifdef M16 /* `exact` vectors of the packet only, not cumulative */
           for (j : 0 .. W - 1) {
               vec_of_worker[w * W + j] = 0
           }
#endif
           advance()
       }
    :: d_step {
           IS_W(w) && GATE_OPEN(w) && MAY_WRITE(w) && HAS_LET_GO(w) ->
           x = VAR(w);
           log_access(1);
           held[x] = w + 1;
           see_variable();
#ifdef M15 /* the vector is copied to the variable when it is taken */
           for (j : 0 .. W - 1) {
               vec_of_var[x * W + j] = vec_of_worker[w * W + j]
           }
#endif
           advance()
       }
#ifdef M32 /* a variable is unlocked before the next one of the section is taken */
    :: d_step {
           IS_W(w) && HOLDS(w) ->
           published[w] = np[w];
           release_held();
           unlocked[w] = true
       }
#endif
    :: d_step {
           IS_R(w) && GATE_OPEN_FOR_READS(w) && MAY_READ(w) ->
           x = VAR(w);
#ifndef M19
           log_access(0);
#endif
           see_variable();
           advance()
       }
    :: d_step {
           op[w] == EE ->
#ifndef M13 /* M13: published after the release */
           published[w] = np[w];
#endif
           release_held();
#ifdef M32
           unlocked[w] = false;
#endif
#ifdef M13
           op[w] = PP
#else
           advance()
#endif
       }
#ifdef M13
    :: d_step { op[w] == PP -> published[w] = np[w]; advance() }
#endif
    :: d_step { op[w] == OO -> output(); advance() }
#ifdef GATE
    :: d_step { stop && pc[w] == 0 && !in_epoch[w] -> join_epoch() }
#endif
#if REACH == 6
    :: IS_W(w) && LOGGED(w) && FREE(w) && AT_VERSION(w) && !READERS_GONE(w) -> REACHED(6, true)
#elif REACH == 11
    :: IS_R(w) && !GATE_OPEN(w) -> REACHED(11, true)
#endif
    :: done -> break
    od
}

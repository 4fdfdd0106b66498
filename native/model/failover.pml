/* The end of a view in order.pml: the largest consistent cut, fence, promotion. */

#define PAL_VAR ((pal[i * L + k] >> 4) & 3)
#define PAL_VER (pal[i * L + k] & 15)

/* How far each variable's writes reach without a gap, from the base's version on. */
inline find_reach()
{
    for (x : 0 .. V - 1) {
        reach[x] = b_ver[x];
#ifdef M21 /* without the base's versions: the oldest that is logged */
        reach[x] = 15;
        for (i : 0 .. W - 1) {
            for (k : 0 .. L - 1) {
                if
                :: b_np[i] <= k && k < c[i] && PAL_VAR == x && PAL_VER < reach[x] ->
                   reach[x] = PAL_VER
                :: else
                fi
            }
        }
#endif
        do
        :: found = false;
           for (i : 0 .. W - 1) {
               for (k : 0 .. L - 1) {
                   found = found || (b_np[i] <= k && k < c[i] &&
                                     pal[i * L + k] >> 7 && PAL_VAR == x && PAL_VER == reach[x])
               }
           }
           if
           :: found -> reach[x]++
           :: else -> break
           fi
        od
    }
}

#ifdef M22 /* a read needs the write of its own version too */
#define PRESUPPOSED (PAL_VER + !(pal[i * L + k] >> 7) <= reach[PAL_VAR])
#else
#define PRESUPPOSED (PAL_VER <= reach[PAL_VAR])
#endif

inline truncate_worker()
{
    k = b_np[i];
    do
    :: k < c[i] && PRESUPPOSED -> k++
    :: else -> break
    od;
    if
    :: k < c[i] ->
#ifndef M30 /* M30: a section may be cut in two */
       do
       :: k > b_np[i] && pal[i * L + k] & 64 -> k--; REACHED(10, true)
       :: else -> break
       od;
#endif
       c[i] = k;
       changed = true
    :: else
    fi
}

inline consistent_cut()
{
    for (i : 0 .. W - 1) {
        c[i] = stored[i]
    }
#ifndef M20 /* M20: all that is stored is replayed */
    do
    :: changed = false;
       find_reach();
       for (i : 0 .. W - 1) {
           truncate_worker()
       }
       if
       :: changed
       :: else -> break
       fi
    od
#endif
}

/* Held outputs go, logs end at the cut, released counts stay. */
inline fence_logs()
{
    for (i : 0 .. W - 1) {
        assert(released[i] >= b_no[i] && stored[i] >= b_np[i]); /* I2: nothing before the base */
        assert(c[i] >= joined[i]);                               /* I1 */
#ifdef M25 /* a frame of the old view is still under way */
        if
        :: c[i] == stored[i] && stored[i] < sent_pals[i] ->
           old_pal[i] = pal[i * L + stored[i]] + 1;
           old_at[i] = stored[i]
        :: else
        fi;
#endif
#ifdef M23 /* held outputs are kept */
        if
        :: released[i] < arrived[i] ->
           kept[i] = released[i] + 1;
           kept_hash[i] = out_hash[i * N + released[i]];
           for (j : 0 .. W - 1) {
               kept_dep[i * W + j] = out_dep[(i * N + released[i]) * W + j]
           }
        :: else
        fi;
#endif
#ifndef M24 /* M24: logs are not truncated */
        for (k : 0 .. L - 1) {
            if
            :: k >= c[i] -> pal[i * L + k] = 0
            :: else
            fi
        }
        stored[i] = c[i];
#endif
#ifdef M12
        gapless[i] = stored[i];
#endif
        arrived[i] = b_no[i];
        for (k : 0 .. N - 1) {
            out_hash[i * N + k] = 0;
            for (j : 0 .. W - 1) {
                out_dep[(i * N + k) * W + j] = 0;
                past_of_out[(i * N + k) * W + j] = 0
            }
        }
    }
}

inline promote()
{
    for (x : 0 .. V - 1) {
        data[x] = b_data[x];
        ver[x] = b_ver[x];
        held[x] = 0;
        for (j : 0 .. W - 1) {
            past_of_var[x * W + j] = 0;
#if defined(M15) || defined(M16)
            vec_of_var[x * W + j] = 0
#endif
        }
    }
    for (i : 0 .. W - 1) {
        pk[i] = b_pk[i];
        np[i] = b_np[i];
        no[i] = b_no[i];
        published[i] = b_np[i];
        sent_pals[i] = b_np[i];
        sent_outs[i] = b_no[i];
        pc[i] = 0;
        op[i] = 0;
        seen[i] = 0;
        upto[i] = c[i];
#ifdef M32
        unlocked[i] = false;
#endif
        for (j : 0 .. W - 1) {
            past_of_worker[i * W + j] = 0;
#if defined(M15) || defined(M16)
            vec_of_worker[i * W + j] = 0
#endif
        }
    }
    if
    :: ALL(REPLAYED) ->
       for (i : 0 .. W - 1) {
           upto[i] = 0
       }
    :: else
    fi
}

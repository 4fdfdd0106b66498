/* The output logger of order.pml: frames, release, restart; and who causes the faults. */

/* A frame ends where a section ends. */
inline store_frame()
{
    do
    :: stored[w]++;
#ifdef M31 /* frames may end inside a section */
       break
#else
       if
       :: stored[w] < sent_pals[w] && pal[w * L + stored[w]] & 64
       :: else -> break
       fi
#endif
    od
}

#ifdef M34 /* acknowledged when it arrived, and gone with the restarted process */
#define AT_HAND(w) (released[w] >= acked[w])
#else
#define AT_HAND(w) true
#endif
#define KEPT_DEP(j) (kept_dep[w * W + j] <= stored[j])
#define OUT (w * N + released[w])
#define DEP(j) (out_dep[OUT * W + j] <= stored[j])
#ifdef M12
#define TRULY_STORED(j) gapless[j]
#else
#define TRULY_STORED(j) stored[j]
#endif

inline release_output()
{
    for (j : 0 .. W - 1) {
        assert(past_of_out[OUT * W + j] <= TRULY_STORED(j)); /* I1 */
        joined[j] = LARGER(joined[j], out_dep[OUT * W + j]);
        out_dep[OUT * W + j] = 0;
        past_of_out[OUT * W + j] = 0
    }
#ifdef M35
    assert(released[w] == delivered[w]); /* I2 */
    delivered[w]++;
#endif
    released_hash[OUT] = out_hash[OUT];
    released[w]++
}

/* Held outputs are not in the file of the output logger: since it acknowledges them only when
 * they are settled, the master sends them again. PALs and counts are in the file. */
inline restart_output_logger()
{
    for (i : 0 .. W - 1) {
#if defined(M34) /* acknowledged when they arrive: the master has them no more */
        acked[i] = arrived[i];
#elif defined(M35) /* released counts are not in the file */
        released[i] = b_no[i];
        arrived[i] = b_no[i];
#else
        if
        :: arrived[i] > released[i] -> arrived[i] = released[i]
        :: else
        fi;
#endif
#ifdef M36 /* the logs are not in the file, and nothing is held until a snapshot covers them */
        joined[i] = 0;
        logs_lost = true;
#endif
    }
}

/* I2: every input has run and all outputs have left, once; and no log is left over. */
#define AT_REST(w)                                                                                 \
    (pk[w] == P && pc[w] == 0 && upto[w] == 0 && stored[w] >= sent_pals[w] &&                      \
     arrived[w] >= sent_outs[w] && released[w] >= arrived[w])

proctype frames(byte w) /* of worker w, at the output logger */
{
    do
    :: d_step {
           stored[w] < sent_pals[w] ->
           store_frame();
           skip;
#ifdef M12
           if
           :: gapless[w] < stored[w] && stored[w] - gapless[w] == 1 -> gapless[w] = stored[w]
           :: else
           fi
#endif
       }
#ifdef M12 /* a frame is lost, the next one is taken: counted by its number */
    :: d_step { stored[w] + 1 < sent_pals[w] -> stored[w] = stored[w] + 2 }
#endif
    :: d_step {
           arrived[w] < sent_outs[w] && stored[w] >= out_dep[(w * N + arrived[w]) * W + w] ->
           if
           :: arrived[w] < released[w] -> /* again: compared and dropped (I3) */
              REACHED(7, true);
              assert(out_hash[w * N + arrived[w]] == released_hash[w * N + arrived[w]]);
              for (j : 0 .. W - 1) {
                  out_dep[(w * N + arrived[w]) * W + j] = 0;
                  past_of_out[(w * N + arrived[w]) * W + j] = 0
              }
           :: else
           fi;
           arrived[w]++
       }
    :: d_step {
           released[w] < arrived[w] && ALL(DEP) && AT_HAND(w) ->
           release_output()
       }
#ifdef M23
    :: d_step {
           kept[w] > 0 && ALL(KEPT_DEP) ->
           assert(kept[w] == released[w] + 1); /* I2 */
           released_hash[OUT] = kept_hash[w];
           released[w]++;
           kept[w] = 0
       }
#endif
#ifdef M25
    :: d_step {
           old_pal[w] > 0 && stored[w] == old_at[w] ->
           pal[w * L + stored[w]] = old_pal[w] - 1;
           stored[w]++;
           old_pal[w] = 0
       }
#endif
    :: done -> break
    od
}

#define CUT_BEHIND(w) (c[w] < stored[w])
#define HOLDS_OUTPUT(w) (released[w] < arrived[w])
#define BASE_AND_LOG(w) (b_np[w] > 0 && c[w] > b_np[w])

proctype control()
{
    do
    :: d_step {
           snaps < SNAPS && !stop && !staged && MAY_FLIP ->
           snaps++;
           stop = true
       }
#ifndef GATE
    :: d_step {
           stop && ALL(STANDS) ->
           for (i : 0 .. W - 1) {
               copy_cursor(i)
           }
           copy_data()
       }
#endif
    :: d_step { staged && ALL(ARRIVED) -> REACHED(8, crashes > 0); commit() }
    :: d_step {
           crashes < CRASHES ->
           crashes++;
           REACHED(3, crashes == 2 && !ALL(REPLAYED));
           REACHED(9, staged);
           consistent_cut();
           REACHED(1, ANY(CUT_BEHIND));
           REACHED(2, ANY(HOLDS_OUTPUT));
           REACHED(4, ANY(BASE_AND_LOG));
#ifdef M36
           for (i : 0 .. W - 1) {
               c[i] = (logs_lost -> b_np[i] : c[i])
           }
#endif
           fence_logs();
           promote();
#ifndef M37 /* M37: a snapshot of the ended view may still be committed */
           forget_staged()
#endif
       }
    :: d_step { restarts < RESTARTS -> restarts++; REACHED(12, ANY(HOLDS_OUTPUT)); restart_output_logger(); skip }
    :: d_step {
           ALL(AT_REST) && !stop && !staged ->
           for (i : 0 .. W - 1) {
               assert(released[i] == no[i])
           }
           done = true
       }
    :: done -> break
    od
}

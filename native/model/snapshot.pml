/* Snapshots in order.pml: the cut that is copied, its commit by the output logger. */

inline copy_cursor(w)
{
    s_pk[w] = pk[w];
    s_np[w] = np[w];
    s_no[w] = no[w]
}

inline copy_data()
{
    for (x : 0 .. V - 1) {
        s_data[x] = data[x];
        s_ver[x] = ver[x]
    }
    stop = false;
    staged = true
}

inline forget_staged()
{
    for (x : 0 .. V - 1) {
        s_data[x] = 0;
        s_ver[x] = 0
    }
    for (i : 0 .. W - 1) {
        s_pk[i] = 0;
        s_np[i] = 0;
        s_no[i] = 0;
#ifdef GATE
        in_epoch[i] = false;
#endif
    }
    stop = false;
    staged = false
}

#ifdef GATE
#define HAS_JOINED(w) in_epoch[w]
inline join_epoch()
{
    copy_cursor(w);
    in_epoch[w] = true;
    if
    :: ALL(HAS_JOINED) ->
       copy_data();
       for (j : 0 .. W - 1) {
           in_epoch[j] = false
       }
    :: else
    fi
}
#endif

#ifdef M29 /* also while a worker replays */
#define MAY_FLIP true
#else
#define MAY_FLIP ALL(REPLAYED)
#endif
#ifdef M28 /* copied without waiting for the workers */
#define STANDS(w) true
#else
#define STANDS(w) (pc[w] == 0)
#endif
#ifdef M26 /* committed as soon as the backup has it */
#define ARRIVED(w) true
#elif defined(M27) /* ... when the PALs have arrived */
#define ARRIVED(w) (stored[w] >= s_np[w])
#else
#define ARRIVED(w) (stored[w] >= s_np[w] && arrived[w] >= s_no[w] && released[w] >= s_no[w])
#endif

/* The output logger names the base; whoever needs it acts on that. What it covers is forgotten. */
inline commit()
{
    for (x : 0 .. V - 1) {
        b_data[x] = s_data[x];
        b_ver[x] = s_ver[x]
    }
    for (i : 0 .. W - 1) {
        b_pk[i] = s_pk[i];
        b_np[i] = s_np[i];
        b_no[i] = s_no[i];
        for (k : 0 .. L - 1) {
            if
            :: k < b_np[i] && k < stored[i] -> pal[i * L + k] = 0
            :: else
            fi
        }
        for (k : 0 .. N - 1) {
            if
            :: k < b_no[i] && k < released[i] -> released_hash[i * N + k] = 0
            :: else
            fi
        }
    }
    forget_staged()
}

/* The claim of a line by the first write in an epoch, and the streamer of the epoch just closed.
 *
 * Design: the engine `cow` (design, section 6). Two writers change different words of one line,
 * for ever; the streamer flips the epoch, streams the line as it was at the flip, and goes on. The
 * flip happens when no writer is inside a packet (join.pml has that handshake); each load, store
 * and compare-and-swap of the claim is a step.
 *
 * Property: what is streamed is the line as it was at the flip (I3: the base is one instant).
 *
 * WINNER_APPENDS is the other right order: copy, compare-and-swap, only the winner appends, and
 * the streamer waits for the entry. */
#define BUSY 255
#define WORDS 2

byte line[WORDS];
byte stamp;
byte epoch;
byte at_flip[WORDS]; /* what the streamer has to send: ghost */
byte entries;        /* of the undo log of this epoch; the newest is kept */
byte undo[WORDS];
byte inside;

/* Copy the line and append the copy: the append is one step, it is a store of a count. */
inline copy()
{
    saved[0] = line[0];
    saved[1] = line[1];
}

inline append()
{
    atomic {
        undo[0] = saved[0];
        undo[1] = saved[1];
        entries++;
    }
}

inline swap(new)
{
    atomic {
        won = (stamp == seen);
        if
        :: won -> stamp = new
        :: else
        fi
    }
}

inline claim()
{
    seen = stamp;
    if
    :: seen == epoch && seen != BUSY
    :: else ->
#if defined(M04) /* appended before the compare-and-swap, and left there by the loser */
       copy();
       append();
       swap(epoch);
#elif defined(M05) /* no BUSY: the new stamp is there before the line is saved */
       swap(epoch);
       if
       :: won -> copy(); append()
       :: else
       fi
#elif defined(WINNER_APPENDS) || defined(M06)
       copy();
       swap(epoch);
       if
       :: won -> append()
       :: else
       fi
#else
       won = false;
       if
       :: seen != BUSY -> swap(BUSY)
       :: else
       fi;
       if
       :: won ->
          copy();
          append();
          stamp = epoch
       :: else ->
#ifndef M07 /* M07: the others write while the winner still saves */
          stamp == epoch
#endif
       fi
#endif
    fi
}

proctype writer(byte w)
{
    byte seen, saved[WORDS];
    bool won;
    do
    :: inside++;
       claim();
       line[w] = (line[w] + 1) % 3;
       d_step { inside--; seen = 0; won = false; saved[0] = 0; saved[1] = 0 }
    od
}

proctype streamer()
{
    byte got[WORDS], seen;
    do
    :: d_step {
           inside == 0 -> /* the cut */
           epoch = 1 - epoch; /* two values are enough: every line is claimed or clean by now */
           stamp = 1 - epoch;
           entries = 0;
           at_flip[0] = line[0];
           at_flip[1] = line[1];
           undo[0] = 0;
           undo[1] = 0
       }
#ifdef M08 /* the stamp is read before the line */
       seen = stamp;
       got[0] = line[0];
       got[1] = line[1];
#else
       got[0] = line[0];
       got[1] = line[1];
       seen = stamp;
#endif
       if
       :: seen == BUSY -> stamp != BUSY; seen = stamp
       :: else
       fi;
       if
       :: seen == epoch -> /* claimed: the undo log has the old content */
#ifdef WINNER_APPENDS
          entries > 0;
#endif
#if defined(M05) || defined(M06)
          if
          :: entries > 0
          :: else -> goto compare /* no entry: takes what it read */
          fi;
#endif
          atomic { got[0] = undo[0]; got[1] = undo[1] }
       :: else
       fi;
compare:
       atomic {
           assert(got[0] == at_flip[0] && got[1] == at_flip[1]);
           got[0] = 0;
           got[1] = 0;
           seen = 0
       }
    od
}

init {
    atomic {
        stamp = 1;
        run writer(0);
        run writer(1);
        run streamer()
    }
}

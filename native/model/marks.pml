/* Marks of lines and the snapshot of the epoch just closed, epoch after epoch.
 *
 * Code: core/marks.c (marks_claim(), collect_line(), marks_collect(), marks_give_up(),
 * marks_again()), and the engine `cow` in roles/snapshot_cow.c. Two workers and the
 * thread that makes snapshots. Line 0 is shared: a word of each worker, behind the gate. Line 1 is
 * worker 0's own: it is written before the others have joined, and one that lags behind still marks
 * for the epoch before. Each load, store and compare-and-swap of a stamp is a step, and each word
 * that is read.
 *
 * How workers join is epoch.pml's; here one that is not inside a packet counts as joined.
 *
 * Property: what the backup holds after each committed delta is the state at that delta's cut, also
 * when others before it were lost (undo log full) or abandoned; and no entry is left in an undo log
 * when the next epoch opens. */
#define CLEAN 0
#define TAG(e) (1 + ((e) % 2))
#define BUSY 3
#define EPOCHS 4 /* numbers go round */
#define NEXT(e) (((e) + 1) % EPOCHS)
#define LINES 2
#ifndef PACKETS
#define PACKETS 2 /* of each worker */
#endif
#ifndef FLIPS
#define FLIPS 3
#endif
#ifndef UNDO
#define UNDO 1 /* entries of a worker's undo log */
#endif
#if UNDO == 0
#define SLOTS 1
#else
#define SLOTS UNDO
#endif

byte word[3]; /* line 0: words 0 and 1; line 1: word 2 */
byte stamp[LINES];
bool map[2]; /* by parity; one chunk */
byte epoch;  /* the group's number */
byte open;   /* the one that is open for the marks */
byte in_epoch[2];
bool inside[2];
bool lost;
byte entries[2];
byte undo_line[2 * SLOTS];
byte undo_word[4 * SLOTS]; /* two for each entry */

byte cut[3]; /* ghost: the state at the cut under way */
bool cut_made, own_taken;

#define ACROSS(w) (!inside[w] || in_epoch[w] == epoch)

/* Ghost: all are across, so this instant is the cut (the gate is what keeps shared words). */
inline note_cut()
{
    if
    :: !cut_made && ACROSS(0) && ACROSS(1) ->
       cut_made = true;
       cut[0] = word[0];
       cut[1] = word[1];
       if
       :: !own_taken -> cut[2] = word[2]; own_taken = true
       :: else
       fi
    :: else
    fi
}

inline swap(line, old, new)
{
    atomic {
        won = (stamp[line] == old);
        if
        :: won -> stamp[line] = new
        :: else -> seen = stamp[line]
        fi
    }
}

inline save(line)
{
    copy[0] = word[2 * line];
    if
    :: line == 0 -> copy[1] = word[1]
    :: else
    fi;
    if
    :: entries[w] < UNDO ->
       atomic {
           undo_line[w * SLOTS + entries[w]] = line;
           undo_word[2 * (w * SLOTS + entries[w])] = copy[0];
           undo_word[2 * (w * SLOTS + entries[w]) + 1] = copy[1]
       };
       entries[w]++
    :: else ->
#ifndef M39 /* a full undo log goes unnoticed */
       lost = true
#endif
       skip
    fi;
    d_step { copy[0] = 0; copy[1] = 0 }
}

/* ftmb_mark() and marks_claim(). */
inline mark(line)
{
    do
    :: seen = stamp[line];
       if
       :: seen == TAG(in_epoch[w]) -> break
       :: seen == BUSY ->
#ifdef M07 /* others write while one still saves */
          break
#else
          stamp[line] != BUSY
#endif
       :: seen == CLEAN -> /* a plain store: whoever else finds it clean stores the same */
          stamp[line] = TAG(in_epoch[w]);
          break
       :: else ->
          was = seen;
#ifdef M44 /* the check of what was seen, before the line is its own */
          assert(in_epoch[w] == open);
#endif
#if defined(M04) /* appended before the compare-and-swap, and left there by the loser */
          save(line);
          swap(line, was, TAG(in_epoch[w]));
#elif defined(M05) /* no BUSY: the new stamp is there before the line is saved */
          swap(line, was, TAG(in_epoch[w]));
          if
          :: won -> save(line)
          :: else
          fi;
#else
          swap(line, was, BUSY);
          if
          :: won -> assert(in_epoch[w] == open); save(line); stamp[line] = TAG(in_epoch[w])
          :: else
          fi;
#endif
          if
          :: won -> break
          :: else
          fi
       fi
    od;
    map[in_epoch[w] % 2] = true;
    d_step { seen = 0; was = 0; won = false }
}

proctype worker(byte w)
{
    byte seen, was, copy[2];
    bool won;
    byte left = PACKETS;
    do
    :: left == 0 -> break
    :: left > 0 ->
       left--;
       atomic { /* join, and begin a packet */
           if
           :: w == 0 && !own_taken ->
              cut[2] = word[2];
              own_taken = true
           :: else
           fi;
           in_epoch[w] = epoch;
           inside[w] = true
       };
       if
       :: w == 0 -> mark(1); word[2] = 1 - word[2]
       :: true ->
#ifndef M40 /* no gate */
          !inside[1 - w] || NEXT(in_epoch[1 - w]) != in_epoch[w];
#endif
          mark(0);
          word[w] = 1 - word[w]
       fi;
       atomic { inside[w] = false; note_cut() }
    od
}

inline mark_again(line)
{
    seen = stamp[line];
    do
    :: seen == TAG(open) || seen == BUSY -> break
    :: else ->
       atomic {
           if
           :: stamp[line] == seen -> stamp[line] = TAG(open); seen = TAG(open)
           :: else -> seen = stamp[line]
           fi
       }
    od;
    map[open % 2] = true
}

inline drop_undo()
{
    atomic { entries[0] = 0; entries[1] = 0 }
}

proctype snapshots()
{
    byte held[3]; /* by the backup */
    byte got[3];
    bool has[LINES]; /* lines of the delta */
    byte line, seen, w;
    bool waits, gives_up;
    byte left = FLIPS;
    do
    :: left == 0 -> break
    :: left > 0 ->
       left--;
       assert(entries[0] == 0 && entries[1] == 0);
       atomic { lost = false; open = NEXT(epoch) };
       atomic {
           epoch = open;
           for (w : 0 .. 1) {
               if
               :: !inside[w] -> in_epoch[w] = epoch /* it will look before it begins */
               :: else
               fi
           }
           w = 0;
           cut_made = false;
           own_taken = false;
           note_cut()
       };
       cut_made; /* and so all have joined: epoch.pml */
       gives_up = false;
       /* Collect. */
       do
       :: !map[1 - open % 2] -> break
       :: lost -> break
       :: else ->
          waits = false;
          for (line : 0 .. LINES - 1) {
              seen = stamp[line];
              if
              :: seen == TAG(open + 1) ->
#ifdef M08 /* the stamp is reset before the line is read */
                 stamp[line] = CLEAN;
#endif
                 got[2 * line] = word[2 * line];
                 if
                 :: line == 0 -> got[1] = word[1]
                 :: else
                 fi;
#ifdef M08
                 has[line] = true;
#else
                 atomic {
                     if
                     :: stamp[line] == seen ->
                        stamp[line] = CLEAN;
                        has[line] = true
                     :: else -> seen = stamp[line]
                     fi
                 };
#endif
                 waits = waits || seen == BUSY
              :: seen == BUSY -> waits = true
              :: else
              fi
          };
#ifdef M06 /* it does not wait for the entry */
          waits = false;
#endif
          if
          :: waits
          :: else -> map[1 - open % 2] = false
          fi
       od;
       line = 0;
       if
#ifdef M42 /* the next epoch opens while lines of the closing one are left */
       :: lost -> gives_up = true; goto again
#else
       :: lost -> gives_up = true
#endif
       :: else
       fi;
       if
       :: gives_up ->
          /* What the closing epoch has left goes into the open one. */
          do
          :: !map[1 - open % 2] -> break
          :: else ->
             waits = false;
             for (line : 0 .. LINES - 1) {
                 seen = stamp[line];
                 if
                 :: seen == BUSY -> waits = true
                 :: seen == TAG(open + 1) ->
                    mark_again(line);
#ifndef M43 /* a line that became BUSY meanwhile is not waited for */
                    waits = waits || seen == BUSY
#endif
                 :: else
                 fi
             };
             if
             :: waits
             :: else -> map[1 - open % 2] = false
             fi
          od;
          line = 0;
          drop_undo()
       :: else ->
          for (w : 0 .. 1) {
              do
              :: entries[w] > 0 ->
                 atomic {
                     entries[w]--;
                     line = undo_line[w * SLOTS + entries[w]];
                     got[2 * line] = undo_word[2 * (w * SLOTS + entries[w])];
                     if
                     :: line == 0 -> got[1] = undo_word[2 * (w * SLOTS + entries[w]) + 1]
                     :: else
                     fi;
                     has[line] = true;
                     line = 0
                 }
              :: else -> break
              od
          }
       fi;
again: skip;
       /* Committed, or never: then its lines are marked again. */
       if
       :: !gives_up ->
          atomic {
              if
              :: has[0] -> held[0] = got[0]; held[1] = got[1]
              :: else
              fi;
              if
              :: has[1] -> held[2] = got[2]
              :: else
              fi;
              assert(held[0] == cut[0] && held[1] == cut[1] && held[2] == cut[2])
          }
#ifndef M41 /* lines of a delta that nobody will have are forgotten */
       :: true ->
          for (line : 0 .. LINES - 1) {
              if
              :: has[line] -> mark_again(line)
              :: else
              fi
          }
#else
       :: true
#endif
       fi;
#ifdef REACH
       assert(!(REACH == 13 && gives_up));
       assert(!(REACH == 14 && !gives_up && has[0] && has[1]));
#endif
       atomic {
           got[0] = 0;
           got[1] = 0;
           got[2] = 0;
           has[0] = false;
           has[1] = false;
           line = 0;
           w = 0;
           seen = 0;
           waits = false
       }
    od
}

init {
    atomic {
        run worker(0);
        run worker(1);
        run snapshots()
    }
}

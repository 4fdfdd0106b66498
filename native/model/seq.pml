/* The sequence word of a shared variable: seq = 2 * version + writing.
 *
 * Code: ftmb_write(), ftmb_section_end(), ftmb_read_begin() and ftmb_read_end() in core/shared.h.
 * Writers change two words of data one after the other; optimistic readers read both. Each load,
 * store and compare-and-swap is a step.
 *
 * Properties: what a reader accepts is exactly what the version it logs has left (I3), and by then
 * the writer's PAL count is published (I1). */
#ifndef WRITERS
#define WRITERS 2
#endif
#define WRITES 2 /* per writer */
#define READERS 2

byte seq;
byte data[2];
byte published[WRITERS];
byte writer_of[WRITERS * WRITES + 1]; /* ghost: who left version v, with how many PALs */
byte pals_of[WRITERS * WRITES + 1];
bool lock; /* only of the broken variants: the word itself is the lock */

proctype writer(byte w)
{
    byte pals;
    do
    :: pals < WRITES ->
#ifdef M09 /* the version is bumped once, then the work is done */
       atomic { !lock -> lock = true };
       atomic { seq = seq + 2; writer_of[seq / 2] = w; pals_of[seq / 2] = pals + 1 };
#elif defined(M10) /* ... or the work is done, then it is bumped */
       atomic { !lock -> lock = true };
       atomic { writer_of[seq / 2 + 1] = w; pals_of[seq / 2 + 1] = pals + 1 };
#else
       atomic {
           seq % 2 == 0 ->
           seq++;
           writer_of[seq / 2 + 1] = w;
           pals_of[seq / 2 + 1] = pals + 1
       };
#endif
       pals++;
       data[0] = data[0] + 1;
       data[1] = data[1] + 1;
#ifndef M11 /* M11: the count is published after the release */
       published[w] = pals;
#endif
#if defined(M09)
       lock = false;
#elif defined(M10)
       atomic { seq = seq + 2; lock = false };
#else
       seq++;
#endif
#ifdef M11
       published[w] = pals
#endif
    :: else -> break
    od
}

proctype reader()
{
    byte token, a, b;
    do
    :: atomic { seq % 2 == 0 -> token = seq };
       a = data[0];
       b = data[1];
       atomic {
           if
           :: seq == token ->
              assert(a == token / 2 && b == token / 2);
              if
              :: token > 0 -> assert(published[writer_of[token / 2]] >= pals_of[token / 2])
              :: else
              fi;
           :: else
           fi;
           a = 0;
           b = 0;
           token = 0
       }
    :: seq == 2 * WRITERS * WRITES -> break
    od
}

init {
    byte i;
    atomic {
        for (i : 0 .. WRITERS - 1) {
            run writer(i)
        }
        for (i : 1 .. READERS) {
            run reader()
        }
    }
}

/* The programs that the workers of order.pml run; -DSET=n chooses the set. A packet is at most seven
 * operations; what a set leaves open is chosen in every way. */
#ifndef SET
#define SET 1
#endif

#define ONE(a) PK(a, END, END, END, END, END, END)
#define TWO(a, b) PK(a, b, END, END, END, END, END)
#define THREE(a, b, c) PK(a, b, c, END, END, END, END)
#define FOUR(a, b, c, d) PK(a, b, c, d, END, END, END)
#define FIVE(a, b, c, d, e) PK(a, b, c, d, e, END, END)

/* A worker chooses at or after the choice of the worker before it in the list: workers differ only
 * in their number, so the other assignments show nothing new. */
byte least;
#define PICK(n) least <= n -> least = n

#if SET == 1 /* one packet each: sections, nested reads, branches on data */
inline any_packets(w)
{
    if
    :: PICK(0); code[w] = THREE(W0, EE, OO)
    :: PICK(1); code[w] = TWO(R0, OO)
    :: PICK(2); code[w] = FOUR(W0, W1, EE, OO)
    :: PICK(3); code[w] = FOUR(W0, R1, EE, OO)
    :: PICK(4); code[w] = FOUR(R1, W0, EE, OO)
    :: PICK(5); code[w] = THREE(R0, R1, OO)
    :: PICK(6); code[w] = FOUR(R0, WB, EE, OB)
    :: PICK(7); code[w] = FIVE(W1, EE, W0, EE, OO)
    :: PICK(8); code[w] = FOUR(W0, EE, RB, OO)
    :: PICK(9); code[w] = FIVE(R1, W0, EE, R1, OO)
    fi
}
#elif SET == 2 /* two packets each: reads without output, writes that follow them, nested ones */
inline any_packets(w)
{
    if
    :: PICK(0); code[w * P] = THREE(W0, EE, OO); code[w * P + 1] = TWO(R1, OO)
    :: PICK(1); code[w * P] = FOUR(R0, WB, EE, OB); code[w * P + 1] = THREE(W0, EE, OO)
    :: PICK(2); code[w * P] = FOUR(W0, R1, EE, OO); code[w * P + 1] = TWO(R0, OO)
    :: PICK(3); code[w * P] = TWO(W1, EE); code[w * P + 1] = FOUR(W0, W1, EE, OO)
    :: PICK(4); code[w * P] = ONE(R0); code[w * P + 1] = THREE(W1, EE, OO)
    fi
}
#elif SET == 3 /* for three workers: one nests, one writes what is nested, one reads and branches */
inline any_packets(w)
{
    if
    :: PICK(0); code[w] = TWO(W1, EE)
    :: PICK(1); code[w] = FOUR(W0, R1, EE, OO)
    :: PICK(2); code[w] = THREE(R0, RB, OO)
    :: PICK(3); code[w] = FOUR(W0, W1, EE, OO)
    :: PICK(4); code[w] = TWO(R0, OO)
    fi
}
#elif SET == 4 /* three variables: sections that cross */
inline any_packets(w)
{
    if
    :: PICK(0); code[w] = FOUR(W0, W1, EE, OO)
    :: PICK(1); code[w] = FOUR(W1, R2, EE, OO)
    :: PICK(2); code[w] = THREE(W2, EE, OB)
    :: PICK(3); code[w] = FOUR(R2, W0, EE, OO)
    fi
}
#elif SET == 5 /* M38: two sections that do not keep the order of ids */
inline any_packets(w)
{
    if
    :: w == 0 -> code[w] = FOUR(W0, R1, EE, OO)
    :: else -> code[w] = FOUR(W1, R0, EE, OO)
    fi
}
#elif SET == 6 /* the smallest program that shows M32: a nested write, a reader, another writer */
inline any_packets(w)
{
    if
    :: w == 0 -> code[w] = FOUR(W0, W1, EE, OO)
    :: w == 1 -> code[w] = TWO(R0, OO)
    :: else -> code[w] = TWO(W1, EE)
    fi
}
#endif

inline choose_programs()
{
    for (i : 0 .. W - 1) {
        any_packets(i)
    }
    least = 0
}

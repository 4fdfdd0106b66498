/* The plain program of plain_odd.h as a network function. A frame of two bytes, the first of them
 * ODD_MARK, asks for the deed that the second one names; others ask for any that is allowed. What
 * the deed came by is written over the frame's last bytes. */
#ifndef FTMB_TESTS_ODD_NF_H
#define FTMB_TESTS_ODD_NF_H

#include "nf/nf.h"
#include "tests/plain_odd.h"

#define ODD_MARK 0xddu

extern const struct nf nf_odd;
extern void (*odd_wait)(unsigned thread); /* of ODD_MEET */

#endif

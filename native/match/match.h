/* Looking for many patterns at once in the bytes of a flow: a fixed list of rules and one pass, by
 * Hyperscan.
 *
 * Not part of nf/, since the library has its database and its scratch memory on the heap. Neither
 * is state: the one is made of the rules alone, the other says nothing once a scan is over. So
 * they are not in the arena, and a replay in any process finds the same.
 *
 * No match is longer than MATCH_WIDTH (match_open() refuses a rule that could be), and no rule
 * looks beyond its match. So whoever keeps the last MATCH_TAIL bytes of a flow finds what is split,
 * over any number of packets, and needs none of the library's own stream states. */
#ifndef FTMB_MATCH_MATCH_H
#define FTMB_MATCH_MATCH_H

#include <stdbool.h>
#include <stdint.h>

#define MATCH_WIDTH 32u
#define MATCH_TAIL (MATCH_WIDTH - 1)
#define MATCH_RULES 12u

/* Before the first scan of these workers, in one thread; again is allowed, and cheap. False: the
 * library refuses a rule, or there is no memory. */
bool match_open(uint32_t workers);

/* The rules, a bit each, with a match that ends in `bytes` at `data`; it may begin in the
 * `tail_bytes` at `tail` that were before. Each worker has scratch memory of its own. */
uint32_t match_scan(uint32_t worker, const uint8_t *tail, uint32_t tail_bytes, const uint8_t *data,
                    uint32_t bytes);

const char *match_name(unsigned rule);

#endif

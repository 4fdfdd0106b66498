/* Runs one network function in one thread, as any number of workers, with logging on: what the
 * tests of nf/ use in place of a replica. Also builds frames and checks their checksums from
 * scratch, by code that shares nothing with nf/. */
#ifndef FTMB_TESTS_NF_HARNESS_H
#define FTMB_TESTS_NF_HARNESS_H

#include "nf/nf.h"
#include "tests/check.h"

#define HARNESS_FRAME 2048u
#define MS 1000000ull
#define SECOND (1000 * MS)

/* A parameter that differs from its default; a list of them ends with a NULL name. Of a chain: the
 * name of a function begins the next stage, what follows are parameters of it. */
struct harness_setting {
    const char *name;
    uint64_t value;
};

struct harness {
    const struct nf *nf;
    uint64_t params[NF_MAX_VALUES];
    struct nf_needs needs;
    uint32_t workers;
    uint64_t now; /* stamp of the next input, nanoseconds */
    struct arena *arena;
    uint64_t arena_size;
    struct published_count *published;
    struct ftmb_ctx ctx[FTMB_MAX_WORKERS];
    uint64_t *pals; /* of the latest input */
    uint32_t pal_count;
    uint32_t pal_peak; /* most PALs of one input so far */
    uint64_t pal_total;
    uint32_t capacity;          /* of a packet's buffer; 0: its length */
    uint8_t out[HARNESS_FRAME]; /* the latest packet, if it was forwarded */
    uint32_t out_length;
    uint8_t out_port;
};

void harness_open(struct harness *h, const char *nf, uint32_t workers,
                  const struct harness_setting *settings);
/* The same with a function that is in no registry. */
void harness_open_nf(struct harness *h, const struct nf *nf, uint32_t workers,
                     const struct harness_setting *settings);
/* The run is over: its arena, if it lies at ARENA_ADDRESS, becomes a copy, to be compared. */
void harness_retire(struct harness *h);
void harness_close(struct harness *h);

/* One packet; true if it was forwarded (h->out, out_length, out_port). The function gets a copy
 * in a heap block of exactly `length` bytes (or h->capacity, if that is more), so that the address
 * sanitizer sees any overrun. */
bool harness_packet(struct harness *h, uint32_t worker, enum nf_port port, const uint8_t *frame,
                    uint32_t length);
void harness_tick(struct harness *h, uint32_t worker);

/* A counter of the report; the test fails if there is none of that name. */
uint64_t harness_counter(struct harness *h, const char *name);
/* Fails the test if any check of the report is false. */
void harness_checks(struct harness *h);
/* The verdict of the check with this name, either. */
bool harness_check_holds(struct harness *h, const char *name);
/* The same for an arena that something else ran. */
void harness_check_arena(const struct nf *nf, struct arena *arena);
/* PALs of the latest input that are writes. */
uint32_t harness_writes(const struct harness *h);

/* Test randomness; the seed is printed, and can be given as the first argument. */
uint64_t test_seed(int argc, char **argv);
uint64_t test_random(uint64_t *state);

struct frame_spec {
    uint8_t protocol; /* 1 (echo), 6, 17 */
    uint32_t source;  /* host order, as are all numbers here */
    uint32_t destination;
    uint16_t source_port; /* ICMP: identifier */
    uint16_t destination_port;
    uint16_t payload;
    uint8_t option_words; /* IPv4 options, 32-bit words */
    uint8_t tcp_flags;
    uint8_t icmp_type;
    bool no_udp_checksum;
    bool dont_fragment;
};

/* Build an Ethernet frame (of HARNESS_FRAME bytes at most); returns its length. The payload's
 * bytes depend on `salt`. */
uint32_t frame_build(uint8_t *frame, const struct frame_spec *spec, uint64_t salt);
/* Computes the checksum of its TCP, UDP or ICMP anew, from all bytes. */
void frame_checksum(uint8_t *frame);
/* Are all checksums of a well-formed frame right? Computed from all its bytes. */
bool frame_checksums_right(const uint8_t *frame, uint32_t length);
/* Endpoint fields of a frame that frame_build() could have built. */
uint32_t frame_address(const uint8_t *frame, bool destination);
uint16_t frame_port(const uint8_t *frame, bool destination);

#endif

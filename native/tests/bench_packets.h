/* Workers fed from memory: what the benchmarks of snapshots share. Packets of a network function
 * over a table of a given size, already filled, flows drawn by Zipf's law; with marks and epochs.
 */
#ifndef FTMB_TESTS_BENCH_PACKETS_H
#define FTMB_TESTS_BENCH_PACKETS_H

#include "core/epoch.h"
#include "core/marks.h"
#include "core/snapshot.h"
#include "tests/nf_harness.h"

#define BENCH_FRAME 128u

struct bench_worker {
    struct ftmb_ctx *ctx;
    uint32_t *flow; /* drawn beforehand, over and over */
    uint64_t next;
    uint64_t now;
    uint8_t frame[FTMB_BURST][BENCH_FRAME];
};

struct bench_packets {
    struct harness h;
    uint32_t flows;
    uint32_t length;
    uint8_t template[HARNESS_FRAME];
    struct ctx_env env;
    struct marks marks;
    void *marks_memory;
    uint64_t marks_bytes;
    struct epoch_group group;
    struct bench_worker worker[FTMB_MAX_WORKERS];
};

/* `nf` with about `megabytes` of state, every flow seen once. */
void bench_open(struct bench_packets *b, const char *nf, uint32_t workers, uint64_t megabytes,
                double zipf);
void bench_close(struct bench_packets *b);

/* A burst through a worker, as the role does it: joins an epoch between any two packets. */
void bench_burst(struct bench_packets *b, uint32_t worker);

/* The same without a look at epochs: what there would be without FTMB's snapshots. */
void bench_burst_alone(struct bench_packets *b, uint32_t worker);

void bench_pin(unsigned core);
uint64_t bench_now(void);

#endif

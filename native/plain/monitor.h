/* A traffic monitor for a program with several packet threads. It counts flows and packets, and
 * keeps a sample of the packets it has seen; every frame goes on to the other port, unchanged. */
#ifndef MONITOR_H
#define MONITOR_H

#include <stddef.h>
#include <stdint.h>

#define MONITOR_MAX_THREADS 8
#define MONITOR_SERVICES 8
#define MONITOR_SAMPLES 64
#define MONITOR_SAMPLE_BYTES 64

struct monitor_config {
    unsigned threads;
    unsigned flows;        /* that a thread can count one by one */
    unsigned sample_every; /* packets, on average; 0: no samples */
};

struct monitor_totals {
    uint64_t packets;
    uint64_t bytes;
    uint64_t flows;
    uint64_t untracked;    /* packets of flows that found the table full */
    uint64_t samples;      /* taken so far */
    uint64_t by_thread;    /* packets, as the threads counted them */
    uint64_t by_flow;      /* packets, as the flows counted them */
    uint64_t bytes_thread; /* bytes, as the threads counted them */
    uint64_t by_service;   /* flows, as the services counted them */
};

/* Before any thread handles a packet. 0, or -1: out of memory. */
int monitor_open(const struct monitor_config *config);

/* One frame that came in at `port`, 0 or 1; returns the port at which it leaves. */
unsigned monitor_frame(unsigned thread, unsigned port, const void *frame, size_t length);

/* Once the threads are done. */
void monitor_read(struct monitor_totals *totals);

#endif

/* The monitor of native/plain as it was written: with the C library's locks, in threads of its own,
 * without FTMB. Under the thread sanitizer it must be free of data races, which is what FTMB asks
 * of a program. */
#include "plain/monitor.h"

#include <pthread.h>
#include <string.h>

#include "tests/check.h"

#define THREADS 4u
#define PACKETS 30000u

static pthread_barrier_t start;

/* An IPv4 frame with ports: a few services, many clients, and now and then something else. */
static size_t frame_of(uint8_t *frame, unsigned thread, unsigned i)
{
    memset(frame, 0, 60);
    if (i % 50 == 0)
        return i % 60;
    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = i % 3 ? 17 : 6;
    frame[29] = (uint8_t)thread;
    frame[33] = 1;
    frame[34] = (uint8_t)(i % 700 >> 8);
    frame[35] = (uint8_t)(i % 700);
    frame[37] = (uint8_t)(1 + i % 23);
    return 60;
}

static void *work(void *self)
{
    unsigned thread = (unsigned)(uintptr_t)self;
    uint64_t bytes = 0;
    uint8_t frame[60];
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < PACKETS; i++) {
        size_t length = frame_of(frame, thread, i);
        CHECK(monitor_frame(thread, i & 1, frame, length) == 1 - (i & 1));
        bytes += length;
    }
    return (void *)(uintptr_t)bytes;
}

int main(void)
{
    struct monitor_config config = {.threads = THREADS, .flows = 500, .sample_every = 20};
    struct monitor_totals totals;
    pthread_t threads[THREADS];
    uint64_t bytes = 0;
    CHECK(monitor_open(&config) == 0);
    pthread_barrier_init(&start, NULL, THREADS);
    for (unsigned t = 0; t < THREADS; t++)
        CHECK(!pthread_create(&threads[t], NULL, work, (void *)(uintptr_t)t));
    for (unsigned t = 0; t < THREADS; t++) {
        void *of_thread;
        CHECK(!pthread_join(threads[t], &of_thread));
        bytes += (uintptr_t)of_thread;
    }
    monitor_read(&totals);
    CHECK(totals.packets == THREADS * PACKETS && totals.by_thread == totals.packets);
    CHECK(totals.bytes == bytes && totals.bytes_thread == bytes);
    CHECK(totals.by_flow == totals.packets && totals.flows == THREADS * config.flows);
    CHECK(totals.untracked > 0 && totals.by_service == totals.flows && totals.samples > 1000);
    return 0;
}

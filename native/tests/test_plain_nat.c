/* The NAT of native/plain as it was written: with the C library's locks, in threads of its own,
 * without FTMB. Under the thread sanitizer it must be free of data races, which is what FTMB asks
 * of a program. Endpoints are few, and change, and expire soon, so that threads meet in all that
 * they can meet in. */
#include "plain/nat.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "tests/check.h"

#define THREADS 4u
#define PACKETS 40000u /* of a thread, at least */
#define TIMEOUT_MS 10u
#define RUN_MS 60u /* at least */
#define OUTSIDE 0xc6120001u
#define CAPACITY 60u

static pthread_barrier_t start;

static void put32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint32_t random_of(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* From one of 96 inside endpoints, which are others after some time, or to one of the first 32
 * ports of an outside address. */
static size_t frame_of(uint8_t *frame, unsigned port, unsigned i, uint32_t r)
{
    static const uint8_t protocols[4] = {17, 6, 1, 6};
    static const uint8_t flags[4] = {2, 16, 17, 4};
    uint8_t protocol = protocols[r % 4];
    memset(frame, 0, 60);
    if (r % 97 == 0)
        return r % 60;
    frame[12] = 8;
    frame[14] = 0x45;
    frame[17] = 46;
    frame[23] = protocol;
    put32(frame + 26, port == 0 ? 0x0a000001 + (r >> 4) % 8 : 0xc0000201);
    put32(frame + 30, port == 0 ? 0xc0000201 : OUTSIDE + (r >> 4) % 2);
    uint16_t number = (uint16_t)(port == 0 ? 3000 + i / 4096 % 64 * 4 + (r >> 8) % 4
                                           : NAT_FIRST_PORT + (r >> 8) % 32);
    unsigned at = 34 + (protocol == 1 ? 4 : port == 0 ? 0 : 2);
    if (protocol == 1)
        frame[34] = port == 0 ? 8 : 0;
    frame[at] = (uint8_t)(number >> 8);
    frame[at + 1] = (uint8_t)number;
    if (protocol == 17)
        frame[39] = 26;
    if (protocol == 6) {
        frame[46] = 0x50;
        frame[47] = flags[(r >> 16) % 4];
    }
    return 60;
}

struct worker {
    pthread_t thread;
    uint64_t packets;
    uint64_t forwarded;
};
static struct worker workers[THREADS];

static void *work(void *self)
{
    struct worker *worker = self;
    unsigned thread = (unsigned)(worker - workers);
    uint32_t seed = thread;
    uint8_t frame[60];
    pthread_barrier_wait(&start);
    uint64_t began = now_ms();
    for (unsigned i = 0; i < PACKETS || now_ms() - began < RUN_MS; i++) {
        unsigned port = random_of(&seed) % 3 == 0;
        size_t length = frame_of(frame, port, i, random_of(&seed));
        int out = nat_frame(thread, port, frame, length);
        CHECK(out == NAT_DROP || (unsigned)out == 1 - port);
        if (out == 1)
            CHECK(frame[26] == (uint8_t)(OUTSIDE >> 24) && frame[27] == (uint8_t)(OUTSIDE >> 16));
        if (out == 0)
            CHECK(frame[30] == 10);
        worker->packets++;
        worker->forwarded += out != NAT_DROP;
        if (i % 64 == 0)
            nat_idle(thread);
    }
    return NULL;
}

int main(void)
{
    struct nat_config config = {.threads = THREADS,
                                .outside = OUTSIDE,
                                .addresses = 2,
                                .capacity = CAPACITY,
                                .udp_ms = TIMEOUT_MS,
                                .tcp_ms = TIMEOUT_MS,
                                .transitory_ms = TIMEOUT_MS,
                                .icmp_ms = TIMEOUT_MS};
    struct nat_totals totals;
    uint64_t packets = 0, forwarded = 0, counted = 0;
    CHECK(nat_open(&config) == 0);
    pthread_barrier_init(&start, NULL, THREADS);
    for (unsigned t = 0; t < THREADS; t++)
        CHECK(!pthread_create(&workers[t].thread, NULL, work, &workers[t]));
    for (unsigned t = 0; t < THREADS; t++) {
        CHECK(!pthread_join(workers[t].thread, NULL));
        packets += workers[t].packets;
        forwarded += workers[t].forwarded;
    }
    nat_read(&totals);
    for (unsigned c = 0; c < NAT_COUNTS; c++)
        counted += totals.count[c];
    CHECK(counted - totals.count[NAT_CREATED] - totals.count[NAT_EXPIRED] == packets);
    CHECK(totals.count[NAT_OUTBOUND] + totals.count[NAT_INBOUND] == forwarded);
    CHECK(totals.count[NAT_OUTBOUND] > 0 && totals.count[NAT_INBOUND] > 0);
    CHECK(totals.count[NAT_EXPIRED] > 0);
    CHECK(totals.chained && totals.conserved && totals.counted);
    return 0;
}

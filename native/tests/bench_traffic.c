/* What a packet costs in the generator and the sink together, without links: frames go straight
 * from one to the other in bursts of 32, through buffers that are reused like those of a pool.
 *
 * bench_traffic [packets [flows [frame bytes with check sequence [zipf]]]] */
#include "io/clock.h"
#include "traffic_frames.h"
#include "traffic/sink.h"
#include "traffic/source.h"
#include "traffic/why.h"

#include <stdlib.h>

#define ROUNDS 3u
#define BUFFERS 256u
#define BUFFER_BYTES 2304u

struct bench {
    struct flows flows;
    struct source source;
    struct sink sink;
    struct tally tally;
    struct pace pace;
    uint64_t at;
    uint8_t *buffers;
};

/* CPU time of this thread: other programs on the machine do not count. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* One burst from the generator to the sink. Returns what the generator's part took, wall time. */
static uint64_t burst(struct bench *b)
{
    struct send sends[32];
    struct arrival arrivals[32];
    uint64_t start = clock_ns();
    for (unsigned i = 0; i < 32; i++) {
        sends[i].intended_ns = b->pace.next_ns;
        pace_advance(&b->pace);
    }
    source_plan(&b->source, sends, 32);
    for (unsigned i = 0; i < 32; i++) {
        uint8_t *frame = b->buffers + (b->at++ % BUFFERS) * BUFFER_BYTES + 128;
        enum side side = source_write(&b->source, &sends[i], frame, &b->tally);
        tally_offer(&b->tally, sends[i].intended_ns);
        arrivals[i] = (struct arrival){frame, sends[i].length, side == SIDE_INSIDE};
    }
    uint64_t took = clock_ns() - start;
    sink_take(&b->sink, arrivals, 32, b->pace.next_ns, &b->tally);
    b->tally.sent += 32;
    return took;
}

static void run(struct bench *b, uint64_t packets)
{
    uint64_t write_ns = 0, wall = clock_ns(), cpu = cpu_ns(), before = b->tally.sent;
    while (b->tally.sent - before < packets)
        write_ns += burst(b);
    double sent = (double)(b->tally.sent - before);
    double total = (double)(cpu_ns() - cpu) / sent;
    double share = (double)write_ns / (double)(clock_ns() - wall);
    printf("%.1f ns of cpu time per packet: generator %.1f, sink %.1f\n", total, total * share,
           total * (1 - share));
}

int main(int argc, char **argv)
{
    char why[TRAFFIC_WHY] = "";
    static struct bench b;
    uint64_t packets = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000;
    uint32_t flows = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10000;
    uint32_t length = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) - 4 : 60;
    double zipf = argc > 4 ? strtod(argv[4], NULL) : 0.0;
    const char *path = scratch_path("bench.pcap");
    pcap_template(path, PROTO_UDP, &length, 1);
    struct source_options options = {.path = path, .zipf = zipf, .reply_share = 0.1, .seed = 1};
    if (flows_init(&b.flows, flows, 0, 0x0a000000u, 8, why) ||
        source_init(&b.source, &b.flows, &options, why)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    unlink(path);
    CHECK(sink_init(&b.sink, &b.flows, &b.source.set, 1) == 0);
    CHECK(tally_init(&b.tally, 0, ROUNDS * packets * 1000, 0, false, false) == 0);
    b.buffers = aligned_alloc(64, BUFFERS * BUFFER_BYTES);
    CHECK(b.buffers);
    pace_init(&b.pace, 1000000);
    for (unsigned i = 0; i < ROUNDS; i++)
        run(&b, packets); /* the first one meets cold memory */
    CHECK(b.tally.delivered == b.tally.sent && b.tally.duplicated == 0 && b.tally.corrupted == 0);
    CHECK(b.tally.altered == 0);
    return 0;
}

/* Role frames from a link: any bytes, as the output logger and a worker take them.
 *
 * A frame that wire_valid() lets pass is read as its receiver reads it: header, PALs, vector and
 * packet, which must lie inside it. PALs and outputs of one view go through the stream and the
 * release, which may refuse them; what it takes must keep its rules. */
#include "core/hash.h"
#include "core/release.h"
#include "core/stream.h"
#include "core/wire.h"
#include "fuzz/input.h"
#include "io/trunk_frame.h"

#define WORKERS 3u
#define PALS 64u
#define OUTPUTS 32u
#define HELD 16u
#define FRAMES 64u

struct logger {
    struct release release;
    struct stream_rx in[WORKERS];
    uint8_t *kept[FRAMES]; /* the release refers to frames that it holds */
    uint32_t count;
    uint64_t seen; /* what was read: keeps the reads */
};

static void take_pals(struct logger *logger, uint32_t w, const struct wire_pals *frame)
{
    uint32_t count = frame->head.length / (uint32_t)sizeof(uint64_t);
    uint64_t stored = atomic_load(&logger->release.worker[w].stored);
    if (count == 0)
        return;
    bool taken = release_pals(&logger->release, w, frame->first, frame->pals, count) == RELEASE_OK;
    HOLDS(atomic_load(&logger->release.worker[w].stored) == stored + (taken ? count : 0));
}

static void take_output(struct logger *logger, uint32_t w, struct wire_output *frame)
{
    const uint8_t *packet = (const uint8_t *)frame + wire_output_bytes(WORKERS);
    uint64_t hash = hash_bytes(frame->head.port, packet, frame->head.length);
    release_output(&logger->release, w, frame->number, frame->vector, frame, hash, frame->head.seq);
    for (const struct wire_output *out; (out = release_next(&logger->release, w)) != NULL;) {
        for (uint32_t j = 0; j < WORKERS; j++)
            HOLDS(atomic_load(&logger->release.worker[j].stored) >= out->vector[j]);
        release_handed(&logger->release, 1);
    }
}

static void take_in_order(struct logger *logger, struct wire_head *head)
{
    if (head->type == WIRE_PAL)
        take_pals(logger, head->worker, (const struct wire_pals *)head);
    else
        take_output(logger, head->worker, (struct wire_output *)head);
}

/* A frame of a stream, and those that came early and follow it. */
static void take_numbered(struct logger *logger, struct wire_head *head)
{
    struct stream_rx *in = &logger->in[head->worker];
    uint64_t expected = in->expected;
    if (stream_rx_frame(in, head->seq, head) != STREAM_TAKE)
        return;
    HOLDS(head->seq == expected);
    take_in_order(logger, head);
    for (struct wire_head *early; (early = stream_rx_early(in)) != NULL;) {
        HOLDS(early->seq == in->expected);
        stream_rx_take_early(in);
        take_in_order(logger, early);
    }
}

static void take_ack(struct logger *logger, uint32_t w, const struct wire_ack *ack)
{
    struct stream_tx tx;
    uint64_t first;
    stream_tx_reset(&tx, 1, 1);
    tx.next = 300;
    stream_tx_sent(&tx, 1, 200);
    stream_tx_settle(&tx, ack->head.seq, 2);
    stream_tx_report(&tx, &ack->report, 2);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t count = stream_tx_run(&tx, FTMB_BURST, &first);
        HOLDS(count == 0 || (first > tx.acked && first + count <= tx.next));
        if (count)
            stream_tx_sent(&tx, first, count);
    }
    logger->seen ^= w + tx.resent;
}

/* The same bytes from an interface that others use, too. */
static void take_from_trunk(struct logger *logger, const uint8_t *frame, size_t length)
{
    static const uint8_t mac[TRUNK_MAC_BYTES] = {2, 0, 0, 0, 0, 1};
    static const uint8_t trial[TRUNK_TRIAL_BYTES] = {0};
    uint16_t inside = trunk_head_length(frame, (uint32_t)length, mac, trial);
    HOLDS(inside == 0 || inside + sizeof(struct trunk_head) <= length);
    for (uint16_t i = 0; i < inside; i++)
        logger->seen += frame[sizeof(struct trunk_head) + i];
}

static void take_frame(struct logger *logger, uint8_t *frame, size_t length)
{
    take_from_trunk(logger, frame, length);
    if (!wire_valid(frame, (uint32_t)length, WORKERS))
        return;
    struct wire_head *head = (struct wire_head *)frame;
    uint32_t w = head->worker;
    if (head->type == WIRE_INPUT || head->type == WIRE_TICK) {
        const struct wire_input *in = (const struct wire_input *)frame;
        logger->seen ^= hash_bytes(in->stamp_ns, in + 1, head->length);
    } else if (head->type == WIRE_PROBE) {
        stream_rx_probe(&logger->in[w], head->seq);
    } else if (head->type == WIRE_ACK) {
        take_ack(logger, w, (const struct wire_ack *)frame);
    } else {
        take_numbered(logger, head);
    }
    struct stream_report report;
    stream_rx_report(&logger->in[w], &report);
    HOLDS(report.have < logger->in[w].expected && report.seen - report.have <= STREAM_EARLY);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    static struct logger logger;
    memset(&logger, 0, sizeof(logger));
    void *memory = calloc(1, release_bytes(WORKERS, PALS, OUTPUTS, HELD));
    HOLDS(memory);
    release_init(&logger.release, WORKERS, memory, PALS, OUTPUTS, HELD);
    for (uint32_t w = 0; w < WORKERS; w++)
        stream_rx_reset(&logger.in[w], 1);
    while (input.left && logger.count < FRAMES) {
        size_t length = input_u16(&input) % (WIRE_MAX_FRAME + 1);
        uint8_t *frame = input_block(&input, &length);
        logger.kept[logger.count++] = frame;
        take_frame(&logger, frame, length);
    }
    /* Whatever came, a process that dies here leaves what the next one can take up. */
    HOLDS(release_attach(&logger.release, WORKERS, memory, PALS, OUTPUTS, HELD));
    for (uint32_t i = 0; i < logger.count; i++)
        free(logger.kept[i]);
    free(memory);
    return 0;
}

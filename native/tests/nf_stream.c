/* A network function fed from outside: inputs come on standard input, what it did with each goes to
 * standard output, so that an oracle in another language can follow (tests/nf_stream.py).
 *
 *   nf_stream FUNCTION WORKERS [PARAMETER=VALUE...]
 *
 * An input: stamp (8 bytes), length (2), side (1), worker (1), then the frame; a length of 65535 is
 * a tick. An answer: forwarded (1), side (1), length (2), PALs (2), of them writes (2), then the
 * frame. Little endian. At the end the counters of the report, a line each, after its checks. */
#include "tests/nf_harness.h"

#include <string.h>

#define TICK 65535u

struct record {
    uint64_t stamp;
    uint16_t length;
    uint8_t port;
    uint8_t worker;
};

struct answer {
    uint8_t forwarded;
    uint8_t port;
    uint16_t length;
    uint16_t pals;
    uint16_t writes;
};

static bool read_record(struct record *record)
{
    uint8_t raw[12];
    size_t got = fread(raw, 1, sizeof(raw), stdin);
    CHECK(got == 0 || got == sizeof(raw));
    memcpy(&record->stamp, raw, 8);
    memcpy(&record->length, raw + 8, 2);
    record->port = raw[10];
    record->worker = raw[11];
    return got != 0;
}

static void one(struct harness *h, const struct record *record)
{
    uint8_t frame[HARNESS_FRAME];
    struct answer answer = {0};
    CHECK(record->worker < h->workers && record->port <= NF_OUTSIDE);
    h->now = record->stamp;
    if (record->length == TICK) {
        harness_tick(h, record->worker);
    } else {
        CHECK(record->length <= sizeof(frame));
        CHECK(fread(frame, 1, record->length, stdin) == record->length);
        answer.forwarded =
            harness_packet(h, record->worker, (enum nf_port)record->port, frame, record->length);
        answer.port = h->out_port;
        answer.length = (uint16_t)h->out_length;
    }
    answer.pals = (uint16_t)h->pal_count;
    answer.writes = (uint16_t)harness_writes(h);
    CHECK(fwrite(&answer, sizeof(answer), 1, stdout) == 1);
    CHECK(fwrite(h->out, 1, answer.length, stdout) == answer.length);
}

static void print_counter(void *self, const char *name, uint64_t value)
{
    (void)self;
    printf("%s %llu\n", name, (unsigned long long)value);
}

static void no_check(void *self, const char *name, bool ok, const char *detail)
{
    (void)self;
    (void)name;
    (void)ok;
    (void)detail;
}

int main(int argc, char **argv)
{
    static struct harness_setting settings[NF_MAX_PARAMS + 1];
    struct harness h;
    struct record record;
    CHECK(argc >= 3 && argc - 3 <= (int)NF_MAX_PARAMS);
    for (int i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        CHECK(value);
        *value = 0;
        settings[i - 3] = (struct harness_setting){argv[i], strtoull(value + 1, NULL, 0)};
    }
    harness_open(&h, argv[1], (uint32_t)strtoul(argv[2], NULL, 0), settings);
    h.capacity = HARNESS_FRAME;
    while (read_record(&record))
        one(&h, &record);
    harness_checks(&h);
    h.nf->report(h.arena, &(struct nf_report){NULL, print_counter, no_check});
    harness_close(&h);
    return 0;
}

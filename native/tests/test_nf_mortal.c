/* mortal: forwards and counts, and dies of the one packet that carries the mark. */
#include "tests/nf_harness.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "traffic/trailer.h"

static const struct frame_spec udp = {.protocol = 17,
                                      .source = 0x0a000001,
                                      .destination = 0xc0000201,
                                      .source_port = 5000,
                                      .destination_port = 53,
                                      .payload = 18};

/* A frame with a trailer where the generator puts it. */
static uint32_t frame_of(uint8_t *frame, uint32_t flow, uint32_t number)
{
    uint32_t length = frame_build(frame, &udp, 1);
    struct trailer trailer = trailer_make(flow, number, 12345, 1);
    uint32_t l4 = 14 + 20;
    memcpy(frame + l4 + trailer_offset(length - l4), &trailer, sizeof(trailer));
    return length;
}

static void open_mortal(struct harness *h, uint64_t number, uint64_t assertion)
{
    harness_open(h, "mortal", 2,
                 (struct harness_setting[]){
                     {"flow", 77}, {"number", number}, {"assertion", assertion}, {NULL, 0}});
}

static void test_forwards(void)
{
    struct harness h;
    open_mortal(&h, 5, 0);
    for (uint32_t i = 0; i < 100; i++) {
        uint8_t frame[HARNESS_FRAME];
        uint32_t length = frame_of(frame, i == 5 ? 78 : i, i);
        enum nf_port port = i % 3 ? NF_INSIDE : NF_OUTSIDE;
        CHECK(harness_packet(&h, i & 1, port, frame, length));
        CHECK(h.out_port == 1 - port && h.out_length == length);
        CHECK(memcmp(h.out, frame, length) == 0);
        CHECK(h.pal_count == 1 && harness_writes(&h) == 1);
        for (uint32_t shorter = 0; shorter < length; shorter += 7)
            CHECK(harness_packet(&h, i & 1, port, frame, shorter));
    }
    CHECK(harness_counter(&h, "packets") > 100);
    harness_checks(&h);
    harness_close(&h);
}

/* The signal that the marked packet ends a process with, -1: an assertion, 0: it lives. */
static int death_by(uint32_t number, uint64_t assertion)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct harness h;
        uint8_t frame[HARNESS_FRAME];
        signal(SIGSEGV, SIG_DFL);
        open_mortal(&h, number, assertion);
        harness_packet(&h, 0, NF_INSIDE, frame, frame_of(frame, 77, 5));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

int main(void)
{
    test_forwards();
    CHECK(death_by(5, 0) == SIGSEGV);
    CHECK(death_by(5, 1) == -1);
    CHECK(death_by(6, 0) == 0 && death_by(0, 0) == 0);
    return 0;
}

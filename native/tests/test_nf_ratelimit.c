/* ratelimit: who is charged, what passes, what each costs, and that the state stays sound. What
 * exactly passes when is for the oracle (tests/test_nf_oracle.py). */
#include "nf/sets.h"
#include "tests/nf_harness.h"

#include <string.h>

#define HOST 0x0a000001u
#define SERVER 0xc0000201u

static const struct frame_spec udp = {.protocol = 17,
                                      .source = HOST,
                                      .destination = SERVER,
                                      .source_port = 5000,
                                      .destination_port = 53,
                                      .payload = 58}; /* 100 bytes */

/* 1 Mbit/s is 100 bytes in 800,000 ns: three such packets of a user at once, five of all. */
static void open_small(struct harness *h, uint64_t user_kbps, uint64_t total_kbps)
{
    harness_open(h, "ratelimit", 2,
                 (struct harness_setting[]){{"users", 16},
                                            {"user_kbps", user_kbps},
                                            {"user_burst", 300},
                                            {"total_kbps", total_kbps},
                                            {"total_burst", 500},
                                            {NULL, 0}});
}

/* Sends a packet of the host `number`, inside or from outside; what leaves is what came. */
static bool send(struct harness *h, uint32_t worker, uint32_t number, enum nf_port port)
{
    uint8_t frame[HARNESS_FRAME];
    struct frame_spec spec = udp;
    spec.source = port == NF_INSIDE ? HOST + number : SERVER;
    spec.destination = port == NF_INSIDE ? SERVER : HOST + number;
    uint32_t length = frame_build(frame, &spec, number);
    CHECK(length == 100);
    bool passed = harness_packet(h, worker, port, frame, length);
    if (passed)
        CHECK(h->out_length == length && h->out_port == 1 - port &&
              memcmp(h->out, frame, length) == 0);
    return passed;
}

static void test_user(void)
{
    struct harness h;
    open_small(&h, 1000, 0);
    CHECK(send(&h, 0, 1, NF_INSIDE) && h.pal_count == 1 && harness_writes(&h) == 1);
    CHECK(send(&h, 1, 1, NF_OUTSIDE)); /* both directions, whichever worker */
    CHECK(send(&h, 0, 1, NF_INSIDE) && !send(&h, 1, 1, NF_OUTSIDE) && h.pal_count == 1);
    CHECK(send(&h, 0, 2, NF_INSIDE));
    h.now += 799999;
    CHECK(!send(&h, 0, 1, NF_INSIDE));
    h.now += 1;
    CHECK(send(&h, 0, 1, NF_INSIDE) && !send(&h, 0, 1, NF_INSIDE));
    h.now += 100 * SECOND; /* never more than the burst */
    for (unsigned i = 0; i < 3; i++)
        CHECK(send(&h, i & 1, 1, NF_INSIDE));
    CHECK(!send(&h, 0, 1, NF_INSIDE));
    CHECK(harness_counter(&h, "dropped_user") == 4 && harness_counter(&h, "forwarded") == 8);
    CHECK(harness_counter(&h, "forwarded_bytes") == 800 && harness_counter(&h, "users") == 1);
    harness_checks(&h);
    harness_close(&h);
}

static void test_total(void)
{
    struct harness h;
    open_small(&h, 1000, 1000);
    for (uint32_t i = 0; i < 5; i++)
        CHECK(send(&h, i & 1, i, NF_INSIDE) && h.pal_count == 2 && harness_writes(&h) == 2);
    CHECK(!send(&h, 0, 9, NF_INSIDE) && harness_counter(&h, "dropped_total") == 1);
    h.now += 100 * SECOND; /* whom the limit for all held up was not charged: three at once */
    CHECK(send(&h, 0, 9, NF_INSIDE) && send(&h, 0, 9, NF_INSIDE) && send(&h, 0, 9, NF_INSIDE));
    CHECK(!send(&h, 0, 9, NF_INSIDE) &&
          h.pal_count == 1); /* over the own limit: total is not asked */
    CHECK(send(&h, 0, 10, NF_INSIDE) && send(&h, 0, 11, NF_INSIDE) && !send(&h, 0, 12, NF_INSIDE));
    harness_checks(&h);
    harness_close(&h);
    open_small(&h, 0, 1000); /* without a limit for users: one access */
    for (uint32_t i = 0; i < 5; i++)
        CHECK(send(&h, 0, 1, NF_INSIDE) && h.pal_count == 1);
    CHECK(!send(&h, 0, 1, NF_INSIDE) && harness_counter(&h, "users") == 0);
    harness_checks(&h);
    harness_close(&h);
}

/* A set has eight places; whoever is in debt keeps its own, whoever is not gives it up. */
static void test_no_room(void)
{
    struct harness h;
    struct sets one = {.count = 1};
    CHECK(sets_pick(&one, sets_mix(HOST)) == 0);
    harness_open(
        &h, "ratelimit", 1,
        (struct harness_setting[]){
            {"users", 2}, {"user_kbps", 1000}, {"user_burst", 300}, {"total_kbps", 0}, {NULL, 0}});
    for (uint32_t i = 0; i < 8; i++)
        CHECK(send(&h, 0, i, NF_INSIDE) && send(&h, 0, i, NF_INSIDE));
    CHECK(!send(&h, 0, 8, NF_INSIDE) && harness_counter(&h, "dropped_no_room") == 1);
    CHECK(send(&h, 0, 3, NF_INSIDE) && !send(&h, 0, 3, NF_INSIDE)); /* those that are there go on */
    h.now += 1600000; /* full again, but for number 3 */
    for (uint32_t i = 8; i < 15; i++)
        CHECK(send(&h, 0, i, NF_INSIDE));
    CHECK(!send(&h, 0, 15, NF_INSIDE));
    CHECK(send(&h, 0, 3, NF_INSIDE) && send(&h, 0, 3, NF_INSIDE) && !send(&h, 0, 3, NF_INSIDE));
    CHECK(harness_counter(&h, "users") == 8);
    harness_checks(&h);
    harness_close(&h);
}

/* What is not a plain packet: whom it is charged to, or that it is dropped. */
static void test_odd_packets(void)
{
    struct harness h;
    uint8_t frame[HARNESS_FRAME];
    open_small(&h, 1000, 100000);
    uint32_t length = frame_build(frame, &udp, 1);
    frame[12] = 0x86, frame[13] = 0xdd; /* IPv6: all together only */
    for (unsigned i = 0; i < 5; i++)
        CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length) && h.pal_count == 1);
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, length));
    CHECK(harness_counter(&h, "dropped_total") == 1 && harness_counter(&h, "users") == 0);
    h.now += SECOND;
    length = frame_build(frame, &udp, 1);
    frame[14 + 6] = 0x20; /* a fragment, and with it a wrong checksum */
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, length) && h.pal_count == 2);
    struct frame_spec options = udp;
    options.option_words = 10;
    CHECK(harness_packet(&h, 0, NF_INSIDE, frame, frame_build(frame, &options, 1)));
    CHECK(harness_counter(&h, "users") == 1);
    struct frame_spec large = udp;
    large.payload = 400; /* more than the user's bucket ever holds */
    CHECK(!harness_packet(&h, 0, NF_INSIDE, frame, frame_build(frame, &large, 1)));
    CHECK(harness_counter(&h, "dropped_user") == 1);
    length = frame_build(frame, &udp, 1);
    for (uint32_t cut = 0; cut < length; cut++)
        CHECK(!harness_packet(&h, 0, cut & 1, frame, cut) && h.pal_count == 0);
    CHECK(harness_counter(&h, "dropped_malformed") == length);
    harness_checks(&h);
    harness_close(&h);
}

static void test_refused(void)
{
    const struct nf *nf = nf_find("ratelimit");
    uint64_t values[NF_MAX_PARAMS];
    struct nf_needs out;
    char why[160] = "";
    CHECK(nf);
    for (unsigned i = 0; nf->params[i].name; i++)
        values[i] = strstr(nf->params[i].name, "kbps") ? 0 : nf->params[i].value;
    CHECK(!nf->needs(values, 1, &out, why) && strstr(why, "nothing to limit"));
}

int main(void)
{
    test_user();
    test_total();
    test_no_room();
    test_odd_packets();
    test_refused();
    return 0;
}

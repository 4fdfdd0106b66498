/* Every function marks what it stores into: what is collected at each cut, and nothing else, keeps
 * a backup equal to the master, line by line. The function that forgets to is found, and by name.
 */
#include "core/epoch.h"
#include "core/marks.h"
#include "core/snapshot.h"
#include "tests/nf_harness.h"
#include "tests/odd_nf.h"
#include "tests/wanopt_frames.h"

#include <string.h>

#define WORKERS 2u
#define UNDO_ENTRIES 20000u

static struct wanopt_frames wanopt_frames;

struct world {
    struct harness h;
    struct marks marks;
    struct epoch_group group;
    void *memory;
    struct arena *backup;
    struct arena *cut; /* the arena, copied at the flip: what the hashes are made of */
    struct delta delta;
    uint64_t seed;
    uint64_t epoch;
};

static void *zeroes(uint64_t bytes)
{
    void *memory = aligned_alloc(4096, align_up(bytes, 4096));
    CHECK(memory);
    memset(memory, 0, bytes);
    return memory;
}

static void open_world(struct world *w, const struct nf *nf, const struct harness_setting *settings,
                       uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->seed = seed;
    harness_open_nf(&w->h, nf, WORKERS, settings);
    w->h.capacity = HARNESS_FRAME;
    w->memory = zeroes(marks_bytes(w->h.arena_size, WORKERS, UNDO_ENTRIES));
    marks_create(&w->marks, w->h.arena, w->memory, UNDO_ENTRIES);
    w->group.workers = WORKERS;
    w->backup = zeroes(w->h.arena_size);
    w->cut = zeroes(w->h.arena_size);
    snapshot_copy(w->h.arena, w->backup);
    for (uint32_t i = 0; i < WORKERS; i++) {
        w->h.ctx[i].marks = &w->marks;
        w->h.ctx[i].epochs = &w->group;
        epoch_sit(&w->h.ctx[i]);
    }
}

static void close_world(struct world *w)
{
    free(w->memory);
    free(w->backup);
    free(w->cut);
    free(w->delta.bytes);
    free(w->delta.hash);
    harness_close(&w->h);
}

static uint64_t below(struct world *w, uint64_t bound)
{
    return test_random(&w->seed) % bound;
}

/* Few endpoints, so that flows come back, in both directions, end, and find no room. */
static struct frame_spec any_frame(struct world *w)
{
    static const uint8_t protocols[] = {1, 6, 17};
    return (struct frame_spec){.protocol = protocols[below(w, 3)],
                               .source = 0x0a000000 + (uint32_t)below(w, 8),
                               .destination = 0xc0000200 + (uint32_t)below(w, 4),
                               .source_port = (uint16_t)(1000 + below(w, 12)),
                               .destination_port = (uint16_t)(80 + below(w, 3)),
                               .payload = 30,
                               .tcp_flags = (uint8_t)(1u << below(w, 5)),
                               .icmp_type = 8};
}

/* A packet or a tick; now and then the answer to what came out, or much time goes by. */
static void input(struct world *w)
{
    uint8_t frame[HARNESS_FRAME];
    uint32_t worker = (uint32_t)below(w, WORKERS);
    struct ftmb_ctx *ctx = &w->h.ctx[worker];
    while (!epoch_enter(ctx))
        CHECK(epoch_turn(ctx));
    w->h.now += below(w, 500) ? below(w, MS) : 40 * SECOND;
    if (below(w, 20) == 0) {
        harness_tick(&w->h, worker);
    } else if (strcmp(w->h.nf->name, "wanopt") == 0) {
        enum nf_port port;
        uint32_t length = wanopt_frames_draw(&wanopt_frames, test_random(&w->seed), frame, &port);
        harness_packet(&w->h, worker, port, frame, length);
    } else if (w->h.out_length && w->h.out_port == NF_OUTSIDE && below(w, 3) == 0) {
        struct frame_spec back = any_frame(w);
        back.protocol = w->h.out[14 + 9];
        back.source = frame_address(w->h.out, true);
        back.destination = frame_address(w->h.out, false);
        back.source_port = frame_port(w->h.out, true);
        back.destination_port = frame_port(w->h.out, false);
        back.icmp_type = 0;
        harness_packet(&w->h, worker, NF_OUTSIDE, frame, frame_build(frame, &back, w->seed));
    } else {
        struct frame_spec spec = any_frame(w);
        uint32_t length = frame_build(frame, &spec, w->seed);
        if (strcmp(w->h.nf->name, "nat") == 0 && below(w, 10) == 0)
            frame[20] = 0x20; /* a first fragment */
        harness_packet(&w->h, worker, NF_INSIDE, frame, length);
    }
    ctx->cursor->next_input++;
    epoch_leave(ctx);
}

static bool sink(void *self, uint64_t offset, const uint8_t *content, uint64_t length)
{
    return delta_add(self, offset, content, length);
}

/* A snapshot, with work going on while it is collected. The offset of the first line that differs
 * at the backup. */
static uint64_t snapshot(struct world *w)
{
    struct arena header;
    struct marks_scan scan = {0};
    enum marks_progress progress;
    marks_open(&w->marks, ++w->epoch);
    epoch_flip(&w->group, false);
    CHECK(epoch_complete(&w->group, w->h.arena, &header));
    snapshot_copy(w->h.arena, w->cut);
    struct snapshot_name name = {.view = 1, .epoch = w->epoch, .previous_epoch = w->epoch - 1};
    CHECK(delta_begin(&w->delta, name, &header) && delta_hash(&w->delta, w->cut));
    do {
        for (uint64_t i = below(w, 30); i; i--)
            input(w);
        progress = marks_collect(&w->marks, &scan, 1 + below(w, 60), sink, &w->delta);
    } while (progress == MARKS_MORE);
    CHECK(progress == MARKS_DONE && delta_finish(&w->delta));
    CHECK(!delta_check(w->delta.bytes, w->delta.size, w->h.arena_size, 0));
    delta_apply(w->delta.bytes, w->backup);
    return delta_compare(w->delta.bytes, w->backup);
}

static void test_marks(const struct nf *nf, const struct harness_setting *settings, uint64_t seed)
{
    struct world w;
    uint64_t saved = 0;
    open_world(&w, nf, settings, seed);
    for (unsigned i = 0; i < 60; i++) {
        for (uint64_t n = below(&w, 100); n; n--)
            input(&w);
        uint64_t at = snapshot(&w);
        if (at != UINT64_MAX) {
            char where[48];
            snapshot_where(w.h.arena, at, where);
            fprintf(stderr, "%s: offset %llu, %s, was not marked\n", nf->name,
                    (unsigned long long)at, where);
            exit(1);
        }
        CHECK(snapshot_first_difference(w.cut, w.backup) == UINT64_MAX);
        saved += w.marks.undo_last;
    }
    CHECK(saved > 100); /* lines changed while they were being collected */
    harness_checks(&w.h);
    close_world(&w);
}

/* Its counters stand behind what it never changes, on a line of their own. */
static void test_forgets(uint64_t seed)
{
    struct world w;
    open_world(&w, nf_find("mortal"), (struct harness_setting[]){{"forgets", 1}, {NULL, 0}}, seed);
    CHECK(snapshot(&w) == UINT64_MAX || w.epoch == 1);
    for (unsigned i = 0; i < 10; i++)
        input(&w);
    uint64_t counters = w.h.arena->root_offset + CACHE_LINE;
    CHECK(snapshot(&w) == counters / ARENA_LINE * ARENA_LINE);
    char where[48];
    snapshot_where(w.h.arena, counters, where);
    CHECK(strcmp(where, "shared memory") == 0);
    close_world(&w);
}

#ifndef FTMB_TSAN
/* A store of an injected function that the compiler did not see. */
static void test_assembly(uint64_t seed)
{
    static const uint8_t frame[2] = {ODD_MARK, ODD_ASSEMBLY};
    struct world w;
    open_world(&w, &nf_odd, NULL, seed);
    CHECK(snapshot(&w) == UINT64_MAX);
    while (!epoch_enter(&w.h.ctx[0]))
        CHECK(epoch_turn(&w.h.ctx[0]));
    harness_packet(&w.h, 0, NF_INSIDE, frame, sizeof(frame));
    epoch_leave(&w.h.ctx[0]);
    uint64_t at = snapshot(&w);
    char where[48];
    CHECK(at != UINT64_MAX);
    snapshot_where(w.h.arena, at, where);
    CHECK(strcmp(where, "shared memory") == 0);
    close_world(&w);
}
#endif

int main(int argc, char **argv)
{
    uint64_t seed = test_seed(argc, argv);
    static const struct harness_setting small_nat[] = {{"capacity", 60}, {"addresses", 2},
                                                       {"udp_ms", 3000}, {"icmp_ms", 500},
                                                       {"datagrams", 8}, {NULL, 0}};
    static const struct harness_setting small_monitor[] = {
        {"flows", 40}, {"counters_per_packet", 3}, {NULL, 0}};
    static const struct harness_setting small_ratelimit[] = {
        {"users", 40}, {"user_kbps", 1000}, {"user_burst", 200}, {"total_burst", 500}, {NULL, 0}};
    static const struct harness_setting small_firewall[] = {
        {"capacity", 60}, {"window", 0}, {"udp_ms", 3000}, {"icmp_ms", 500}, {NULL, 0}};
    static const struct harness_setting small_lb[] = {
        {"capacity", 60}, {"least", 1}, {"udp_ms", 3000}, {"table", 251}, {NULL, 0}};
    static const struct harness_setting small_ids[] = {
        {"capacity", 60},  {"sources", 6},   {"half_open", 5},       {"columns", 40}, {"rows", 3},
        {"scan_ports", 3}, {"udp_ms", 3000}, {"transitory_ms", 500}, {NULL, 0}};
    static const struct harness_setting small_wanopt[] = {{"capacity", 60}, {NULL, 0}};
    wanopt_frames_make(&wanopt_frames, small_wanopt);
    for (unsigned i = 0; i < 10; i++) {
        test_marks(nf_find("nat"), small_nat, test_random(&seed));
        test_marks(nf_find("monitor"), small_monitor, test_random(&seed));
        test_marks(nf_find("ratelimit"), small_ratelimit, test_random(&seed));
        test_marks(nf_find("firewall"), small_firewall, test_random(&seed));
        test_marks(nf_find("lb"), small_lb, test_random(&seed));
        test_marks(nf_find("ids"), small_ids, test_random(&seed));
        test_marks(nf_find("wanopt"), small_wanopt, test_random(&seed));
        test_marks(nf_find("mortal"), NULL, test_random(&seed));
#ifndef FTMB_TSAN /* its arena lies where the thread sanitizer allows no mapping */
        static const struct harness_setting plain[] = {
            {"flows", 40}, {"sample_every", 5}, {NULL, 0}};
        test_marks(nf_find("monitor-pthread"), plain, test_random(&seed));
        test_marks(nf_find("nat-pthread"), small_nat, test_random(&seed));
        test_marks(&nf_odd, NULL, test_random(&seed));
        test_assembly(test_random(&seed));
#endif
        test_forgets(test_random(&seed));
    }
    return 0;
}

/* The input log against a plain list of records. */
#include "core/input_log.h"

#include <string.h>

#include "tests/core_test.h"

#define MODEL 4096u

struct entry {
    uint64_t stamp;
    uint32_t length;
    uint8_t fill, tick, port;
};

struct model {
    struct entry entry[MODEL]; /* by number modulo MODEL */
    uint64_t first, next;
};

static uint64_t needed(uint32_t length)
{
    return align_up(sizeof(struct input_record) + length, 16);
}

static void fill(struct input_record *record, const struct entry *entry)
{
    record->stamp_ns = entry->stamp;
    record->length = entry->length;
    record->tick = entry->tick;
    record->port = entry->port;
    memset(record->data, entry->fill, entry->length);
}

static void compare(const struct input_log *log, uint64_t number, const struct entry *entry)
{
    const struct input_record *record = input_log_get(log, number);
    CHECK(record->stamp_ns == entry->stamp && record->length == entry->length);
    CHECK(record->tick == entry->tick && record->port == entry->port);
    for (uint32_t i = 0; i < entry->length; i++)
        CHECK(record->data[i] == entry->fill);
}

static uint64_t live_bytes(const struct model *model)
{
    uint64_t bytes = 0;
    for (uint64_t n = model->first; n < model->next; n++)
        bytes += needed(model->entry[n % MODEL].length);
    return bytes;
}

/* One append; it may fail only when the bytes (with the rest of the ring that a record may have to
 * skip) or the index are used up, and then changes nothing. */
static void append(struct input_log *log, struct model *model, uint64_t *seed)
{
    struct entry entry = {.stamp = seed_next(seed),
                          .length = (uint32_t)seed_below(seed, seed_below(seed, 4) ? 100 : 500),
                          .fill = (uint8_t)seed_next(seed),
                          .tick = (uint8_t)seed_below(seed, 2),
                          .port = (uint8_t)seed_below(seed, 2)};
    struct input_log before = *log;
    struct input_record *record = input_log_append(log, entry.length);
    if (!record) {
        CHECK(memcmp(&before, log, sizeof(before)) == 0);
        bool index_full = model->next - model->first > log->index_mask;
        CHECK(index_full || input_log_used(log) + 2 * needed(entry.length) > log->capacity);
        return;
    }
    CHECK((uintptr_t)record % 16 == 0 && (uint8_t *)record >= log->bytes);
    CHECK(record->data + entry.length <= log->bytes + log->capacity);
    fill(record, &entry);
    CHECK(log->next == model->next);
    input_log_commit(log);
    model->entry[model->next++ % MODEL] = entry;
    CHECK(log->next == model->next);
}

static void round_of_operations(uint64_t seed)
{
    uint64_t capacity = 1024ull << seed_below(&seed, 5), records = 8ull << seed_below(&seed, 7);
    uint64_t bytes = input_log_bytes(capacity, records);
    void *memory = aligned_alloc(64, align_up(bytes, 64));
    struct model model = {.first = 1, .next = 1};
    struct input_log log;
    input_log_init(&log, memory, capacity, records);
    uint64_t peak = 0;
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t r = seed_below(&seed, 100);
        if (r < 70) {
            append(&log, &model, &seed);
        } else if (r < 75) {
            uint64_t to = model.first + seed_below(&seed, model.next - model.first + 1);
            input_log_trim(&log, to - (r == 70 && to > 1)); /* also back: nothing to do */
            model.first = u64_max(model.first, to - (r == 70 && to > 1));
        } else if (model.first < model.next) {
            uint64_t n = model.first + seed_below(&seed, model.next - model.first);
            compare(&log, n, &model.entry[n % MODEL]);
        }
        CHECK(log.first == model.first && log.next == model.next);
        CHECK(input_log_used(&log) >= live_bytes(&model) && input_log_used(&log) <= capacity);
        CHECK(model.first != model.next || input_log_used(&log) == 0);
        peak = u64_max(peak, input_log_used(&log));
        CHECK(log.peak == peak);
        CHECK(input_log_pressed(&log) ==
              (2 * input_log_used(&log) > capacity || 2 * (model.next - model.first) > records));
    }
    for (uint64_t n = model.first; n < model.next; n++)
        compare(&log, n, &model.entry[n % MODEL]);
    free(memory);
}

static void append_empty(struct input_log *log)
{
    CHECK(input_log_append(log, 0));
    input_log_commit(log);
}

static void test_bounds(void)
{
    static _Alignas(16) uint8_t memory[1024 + 8 * 8];
    struct input_log log;
    CHECK(input_log_bytes(1024, 8) == sizeof(memory));
    input_log_init(&log, memory, 1024, 8);
    CHECK_PANICS(input_log_get(&log, 1));
    CHECK(!input_log_append(&log, 1024) && !input_log_append(&log, UINT32_MAX));
    for (unsigned i = 0; i < 8; i++)
        append_empty(&log);
    CHECK(!input_log_append(&log, 0)); /* the index is full, the bytes are not */
    CHECK_PANICS(input_log_get(&log, 9));
    input_log_trim(&log, 3);
    CHECK_PANICS(input_log_get(&log, 2));
    input_log_get(&log, 3);
    CHECK_PANICS(input_log_trim(&log, 10));
    input_log_trim(&log, 9);
    CHECK(input_log_used(&log) == 0);
    /* An empty log takes any record that fits at all, wherever its ring stands. */
    input_log_init(&log, memory, 1024, 8);
    CHECK(input_log_append(&log, 500));
    input_log_commit(&log);
    input_log_trim(&log, 2);
    CHECK(input_log_append(&log, 900));
    CHECK_PANICS(input_log_init(&log, memory, 1000, 8));
    CHECK_PANICS(input_log_init(&log, memory, 1024, 7));
}

int main(int argc, char **argv)
{
    uint64_t seed = seed_begin(argc, argv), until = 0;
    test_bounds();
    while (time_left(&until, 1.0))
        round_of_operations(seed_next(&seed));
    return 0;
}

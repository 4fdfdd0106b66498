/* The input log's ring of records. */
#include "core/input_log.h"

#define RECORD_ALIGN 16u

uint64_t input_log_bytes(uint64_t capacity, uint64_t records)
{
    return capacity + records * sizeof(uint64_t);
}

void input_log_init(struct input_log *log, void *memory, uint64_t capacity, uint64_t records)
{
    FTMB_ASSERT(is_power_of_two(capacity) && is_power_of_two(records));
    *log = (struct input_log){.bytes = memory,
                              .capacity = capacity,
                              .index = (uint64_t *)((uint8_t *)memory + capacity),
                              .index_mask = records - 1,
                              .first = 1,
                              .next = 1};
}

bool input_log_attach(struct input_log *log, void *memory, uint64_t capacity, uint64_t records)
{
    if (log->capacity != capacity || log->index_mask != records - 1 || log->first == 0 ||
        log->first > log->next || log->next - log->first > records)
        return false;
    log->bytes = memory;
    log->index = (uint64_t *)((uint8_t *)memory + capacity);
    /* Between two stores of an append or a trim these may have been apart. */
    log->tail = log->first == log->next ? log->head : log->index[log->first & log->index_mask];
    return log->head - log->tail <= capacity;
}

struct input_record *input_log_append(struct input_log *log, uint32_t length)
{
    uint64_t need = align_up(sizeof(struct input_record) + length, RECORD_ALIGN);
    if (need > log->capacity || log->next - log->first > log->index_mask)
        return NULL;
    if (log->first == log->next) /* empty: from the ring's start, whole again */
        log->tail = log->head = align_up(log->head, log->capacity);
    uint64_t at = log->head;
    uint64_t to_end = log->capacity - (at & (log->capacity - 1));
    if (need > to_end)
        at += to_end; /* records are contiguous: skip the rest of the ring */
    if (at + need - log->tail > log->capacity)
        return NULL;
    log->index[log->next & log->index_mask] = at;
    log->head = at + need;
    log->peak = u64_max(log->peak, log->head - log->tail);
    return (struct input_record *)(log->bytes + (at & (log->capacity - 1)));
}

void input_log_trim(struct input_log *log, uint64_t number)
{
    FTMB_ASSERT(number <= log->next);
    if (number <= log->first)
        return;
    log->first = number;
    log->tail = number == log->next ? log->head : log->index[number & log->index_mask];
}

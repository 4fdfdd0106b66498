/* The input log of one worker: a copy of every input since the committed snapshot, in order.
 *
 * A ring of bytes with an index by number. Bounded: when a record does not fit, the caller refuses
 * the input before it has a number (I5).
 *
 * The struct and its memory may lie in a mapping that outlives the process (input_log_attach()): a
 * record is filled first and gets its number with one store, input_log_commit(). */
#ifndef FTMB_CORE_INPUT_LOG_H
#define FTMB_CORE_INPUT_LOG_H

#include "core/base.h"

struct input_record {
    uint64_t stamp_ns;
    uint32_t length; /* bytes of packet that follow */
    uint8_t tick;    /* no packet: time passed */
    uint8_t port;
    uint8_t reserved[2];
    uint8_t data[];
};

struct input_log {
    uint8_t *bytes;
    uint64_t capacity; /* of bytes */
    uint64_t head;     /* byte position after the newest record; only grows */
    uint64_t tail;     /* byte position of the oldest record; only grows */
    uint64_t *index;   /* number & mask -> byte position */
    uint64_t index_mask;
    uint64_t first; /* number of the oldest record kept */
    uint64_t next;  /* number of the next record */
    uint64_t peak;  /* most bytes ever held */
};

/* Bytes of memory for a log of `capacity` bytes and `records` records (both powers of two). */
uint64_t input_log_bytes(uint64_t capacity, uint64_t records);
void input_log_init(struct input_log *log, void *memory, uint64_t capacity, uint64_t records);

/* The process that used this log died; take up where it stopped. Sizes as for input_log_init(), the
 * addresses may differ. False: the memory contradicts itself. */
bool input_log_attach(struct input_log *log, void *memory, uint64_t capacity, uint64_t records);

/* Make room for the next record, whose number will be log->next; the caller fills it in, and then
 * calls input_log_commit(). NULL: full. */
struct input_record *input_log_append(struct input_log *log, uint32_t length);

static inline void input_log_commit(struct input_log *log)
{
    atomic_signal_fence(memory_order_release); /* the record before the number */
    log->next++;
    atomic_signal_fence(memory_order_release);
}

/* Record `number`, which must be first <= number < next. */
static inline struct input_record *input_log_get(const struct input_log *log, uint64_t number)
{
    FTMB_ASSERT(number >= log->first && number < log->next);
    uint64_t at = log->index[number & log->index_mask];
    return (struct input_record *)(log->bytes + (at & (log->capacity - 1)));
}

/* Forget everything before `number` (at most log->next). */
void input_log_trim(struct input_log *log, uint64_t number);

static inline uint64_t input_log_used(const struct input_log *log)
{
    return log->head - log->tail;
}

/* Is more than half of the bytes or of the index in use? Time to ask for a snapshot. */
static inline bool input_log_pressed(const struct input_log *log)
{
    return input_log_used(log) > log->capacity / 2 ||
           log->next - log->first > (log->index_mask + 1) / 2;
}

#endif

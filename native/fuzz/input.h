/* What the fuzz targets share: taking apart the bytes that the fuzzer made, and saying that a
 * property does not hold. Each target is one file with LLVMFuzzerTestOneInput(). */
#ifndef FTMB_FUZZ_INPUT_H
#define FTMB_FUZZ_INPUT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

/* The next `length` bytes, or as many as are left, then zeroes. */
static inline void input_take(struct input *input, void *to, size_t length)
{
    size_t there = length < input->left ? length : input->left;
    memset(to, 0, length);
    if (there)
        memcpy(to, input->at, there);
    input->at += there;
    input->left -= there;
}

static inline uint8_t input_u8(struct input *input)
{
    uint8_t value;
    input_take(input, &value, sizeof(value));
    return value;
}

static inline uint16_t input_u16(struct input *input)
{
    uint16_t value;
    input_take(input, &value, sizeof(value));
    return value;
}

/* A block of exactly `length` bytes from the input, so that the sanitizer sees any overrun; less if
 * less is left. To be freed. */
static inline uint8_t *input_block(struct input *input, size_t *length)
{
    if (*length > input->left)
        *length = input->left;
    uint8_t *block = malloc(*length ? *length : 1);
    if (!block)
        abort();
    input_take(input, block, *length);
    return block;
}

/* abort() is a crash to the fuzzer, which keeps the input. */
#define HOLDS(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif

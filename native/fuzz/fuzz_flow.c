/* The flow hash of any bytes: stays inside them, and depends on nothing else. */
#include "core/flow.h"
#include "fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    size_t length = size;
    uint8_t *frame = input_block(&input, &length);
    HOLDS(flow_hash(frame, (uint32_t)length) == flow_hash(bytes, (uint32_t)size));
    free(frame);
    return 0;
}

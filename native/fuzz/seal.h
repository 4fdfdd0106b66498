/* Deltas as a sender would have made them: a fuzzer cannot guess a checksum, so the head is
 * completed and the checksum made right. */
#ifndef FTMB_FUZZ_SEAL_H
#define FTMB_FUZZ_SEAL_H

#include "core/snapshot.h"
#include "fuzz/input.h"

static inline void seal(uint8_t *bytes, size_t size, uint64_t config_digest)
{
    struct delta_head head;
    if (size < sizeof(head))
        return;
    memcpy(&head, bytes, sizeof(head));
    head.magic = DELTA_MAGIC;
    head.version = DELTA_VERSION;
    head.bytes = size;
    head.config_digest = config_digest;
    memcpy(bytes, &head, sizeof(head));
    head.checksum = delta_checksum(bytes);
    memcpy(bytes, &head, sizeof(head));
}

#endif

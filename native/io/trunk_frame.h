/* How frames of several links share a network interface: what stands before each of them. */
#ifndef FTMB_IO_TRUNK_FRAME_H
#define FTMB_IO_TRUNK_FRAME_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TRUNK_MAC_BYTES 6
#define TRUNK_TRIAL_BYTES 6
/* Most interfaces of a process, and links of one of them. */
#define TRUNK_MAX 8
#define TRUNK_LINKS 10
/* IEEE 802: for experiments of whoever administers the network. */
#define TRUNK_ETHER_TYPE 0x88b5u

enum trunk_driver { TRUNK_AF_PACKET, TRUNK_AF_XDP };

/* 24 bytes, so that what follows is aligned as it was. `length` is kept since an Ethernet frame may
 * have been padded; `trial` tells frames of this run from strays of another one. */
struct trunk_head {
    uint8_t to[TRUNK_MAC_BYTES];
    uint8_t from[TRUNK_MAC_BYTES];
    uint8_t ether_type[2];
    uint8_t length[2]; /* of what follows; little endian */
    uint8_t link;
    uint8_t queue;
    uint8_t trial[TRUNK_TRIAL_BYTES];
};

_Static_assert(sizeof(struct trunk_head) == 24, "head is 24 bytes on the wire");

static inline void trunk_head_put(struct trunk_head *head, uint8_t queue, uint16_t length)
{
    head->ether_type[0] = TRUNK_ETHER_TYPE >> 8;
    head->ether_type[1] = TRUNK_ETHER_TYPE & 0xff;
    head->length[0] = (uint8_t)length;
    head->length[1] = (uint8_t)(length >> 8);
    head->queue = queue;
}

/* Is this a frame of ours, of this trial, and of the length it says? Any bytes are safe. Then link
 * and sender are still to be looked up. Returns the length of what follows, 0: not ours. */
static inline uint16_t trunk_head_length(const uint8_t *frame, uint32_t bytes, const uint8_t *mac,
                                         const uint8_t *trial)
{
    struct trunk_head head;
    if (bytes < sizeof(head))
        return 0;
    memcpy(&head, frame, sizeof(head));
    uint16_t length = (uint16_t)(head.length[0] | head.length[1] << 8);
    if (memcmp(head.to, mac, sizeof(head.to)) != 0 || head.ether_type[0] != TRUNK_ETHER_TYPE >> 8 ||
        head.ether_type[1] != (TRUNK_ETHER_TYPE & 0xff) ||
        memcmp(head.trial, trial, sizeof(head.trial)) != 0 || length > bytes - sizeof(head))
        return 0;
    return length;
}

#endif

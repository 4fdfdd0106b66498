/* The role header: what stands before every frame between loggers and replicas.
 *
 * Typed and versioned in the frame itself, never inferred from a length. Little endian; both ends
 * are the same build (checked at admission). Every frame carries view and incarnation, so that
 * nothing of an ended view or of an earlier process is ever taken (I4).
 *
 *   INPUT  IL -> replica   head, stamp, then the packet      seq: the input's number (from 1)
 *   TICK   IL -> replica   head, stamp                       seq: likewise, same numbering
 *   PAL    replica -> OL   head, first, progress, PALs       seq: stream sequence (from 1)
 *   OUTPUT replica -> OL   head, number, vector, then packet seq: stream sequence, same numbering
 *   ACK    either back     head, report of what arrived      seq: all up to here is settled
 *   PROBE  sender          head                              seq: the highest number sent so far
 */
#ifndef FTMB_CORE_WIRE_H
#define FTMB_CORE_WIRE_H

#include "core/base.h"
#include "core/plant.h"
#include "core/stream.h"

#include <string.h>

#define WIRE_MAGIC 0xf7b2u
#define WIRE_VERSION 1u

/* Links carry frames of at least this length, header included. */
#define WIRE_MAX_FRAME 1920u
#define WIRE_MAX_PACKET 1536u

enum wire_type { WIRE_INPUT = 1, WIRE_TICK, WIRE_PAL, WIRE_OUTPUT, WIRE_ACK, WIRE_PROBE };

struct wire_head {
    uint16_t magic;
    uint8_t version;
    uint8_t type;
    uint8_t worker;
    uint8_t port;    /* INPUT: side it came in; OUTPUT: side it leaves */
    uint16_t length; /* bytes of packet or PALs that follow the headers */
    uint32_t view;
    uint32_t incarnation;
    uint64_t seq;
};

struct wire_input {
    struct wire_head head;
    uint64_t stamp_ns;
};

struct wire_pals {
    struct wire_head head;
    uint64_t first;      /* number of the first PAL, from 1 */
    uint64_t next_input; /* progress: PALs of all inputs before this one are in the stream */
    uint64_t pals[];
};

struct wire_ack {
    struct wire_head head;
    struct stream_report report;
};

struct wire_output {
    struct wire_head head;
    uint64_t number; /* of the output, per worker, from 1 */
    uint64_t vector[];
};

_Static_assert(sizeof(struct wire_head) == 24, "head is 24 bytes on the wire");
_Static_assert(sizeof(struct wire_input) == 32, "input header is 32 bytes on the wire");
_Static_assert(sizeof(struct wire_ack) == 112, "an acknowledgement is 112 bytes on the wire");
_Static_assert(sizeof(struct wire_output) == 32, "output header is 32 bytes without its vector");

#define WIRE_MAX_PALS ((1600u - sizeof(struct wire_pals)) / sizeof(uint64_t))
_Static_assert(WIRE_MAX_PALS >= FTMB_MAX_SECTION_PALS, "a section fits a frame");

static inline uint32_t wire_output_bytes(uint32_t workers)
{
    return (uint32_t)sizeof(struct wire_output) + workers * (uint32_t)sizeof(uint64_t);
}

static inline void wire_head_put(struct wire_head *head, enum wire_type type, uint32_t worker,
                                 uint32_t port, uint32_t length, uint32_t view,
                                 uint32_t incarnation, uint64_t seq)
{
    *head = (struct wire_head){.magic = WIRE_MAGIC,
                               .version = WIRE_VERSION,
                               .type = (uint8_t)type,
                               .worker = (uint8_t)worker,
                               .port = (uint8_t)port,
                               .length = (uint16_t)length,
                               .view = view,
                               .incarnation = incarnation,
                               .seq = seq};
}

/* Does a frame belong to this view of this process? Nothing else is ever taken (I4). */
static inline bool wire_current(const struct wire_head *head, uint32_t view, uint32_t incarnation)
{
    return PLANTED(P_OLD_FRAMES) || (head->view == view && head->incarnation == incarnation);
}

/* Is this a well-formed role frame for one of `workers` workers? Any bytes are safe. */
static inline bool wire_valid(const uint8_t *frame, uint32_t length, uint32_t workers)
{
    struct wire_head head;
    if (length < sizeof(head))
        return false;
    memcpy(&head, frame, sizeof(head));
    if (head.magic != WIRE_MAGIC || head.version != WIRE_VERSION || head.worker >= workers)
        return false;
    uint64_t need = sizeof(head), most = 0; /* bytes of headers; of what follows */
    switch (head.type) {
    case WIRE_INPUT:
        need = sizeof(struct wire_input);
        most = WIRE_MAX_PACKET;
        break;
    case WIRE_TICK:
        need = sizeof(struct wire_input);
        break;
    case WIRE_PAL:
        need = sizeof(struct wire_pals);
        most = WIRE_MAX_PALS * sizeof(uint64_t);
        if (head.length % sizeof(uint64_t))
            return false;
        break;
    case WIRE_OUTPUT:
        need = wire_output_bytes(workers);
        most = WIRE_MAX_PACKET;
        break;
    case WIRE_ACK:
        need = sizeof(struct wire_ack);
        break;
    case WIRE_PROBE:
        break;
    default:
        return false;
    }
    return head.port <= 1 && head.length <= most && need + head.length <= length;
}

#endif

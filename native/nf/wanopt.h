/* Internals of the WAN optimizer: what an encoded packet looks like, and its cache.
 *
 * An encoded packet has the headers of the one it was made of, with the mark, and as its payload:
 *
 *   shim       12 bytes: kind, references, bytes of padding (0 or 1), 0, bytes of the payload that
 *              was (2), its checksum field of TCP or UDP as it was (2), check of the payload (4)
 *   reference  10 bytes each: literal bytes before it (2), name of the chunk (8)
 *   padding, then all literal bytes
 *
 * A report of missing chunks has a shim with their number, zeroes and names of 8 bytes. Numbers are
 * in network order, names and checks are as they lie in memory. */
#ifndef FTMB_NF_WANOPT_H
#define FTMB_NF_WANOPT_H

#include "nf/nf.h"
#include "nf/packet.h"
#include "nf/sets.h"
#include "nf/siphash.h"

#define WANOPT_MARK 0x80u /* of the byte with IPv4's flags: the reserved one */
#define WANOPT_DONT_FRAGMENT 0x40u
#define WANOPT_MTU 1500u  /* IPv4 total length, at most, of what is encoded, decoded or learnt */
#define WANOPT_CHUNKS 24u /* of a packet, at most */
#define WANOPT_CHUNK_BYTES 232u
#define WANOPT_REFERENCE 10u

enum wanopt_kind { WANOPT_ENCODED = 1, WANOPT_MISSING = 2 };

struct wanopt_shim {
    uint8_t kind;
    uint8_t count;
    uint8_t padding;
    uint8_t zero;
    uint16_t bytes;
    uint16_t checksum;
    uint32_t check;
};
_Static_assert(sizeof(struct wanopt_shim) == 12, "as it is on the wire");

enum wanopt_counter {
    WANOPT_PASSED, /* unchanged */
    WANOPT_SHORTENED,
    WANOPT_RESTORED,
    WANOPT_BYTES_SAVED,
    WANOPT_LEARNT,   /* chunks put into the cache */
    WANOPT_REPLACED, /* chunks that gave way to others */
    WANOPT_FORGOTTEN,
    WANOPT_FOUND,
    WANOPT_DROP_MISSING,
    WANOPT_DROP_DIFFERENT,
    WANOPT_DROP_REPORT,
    WANOPT_DROP_BAD,
    WANOPT_DROP_MARKED,
    WANOPT_DROP_MALFORMED,
    WANOPT_COUNTERS
};

struct wanopt_chunk {
    uint64_t name; /* hash of its content; 0: none */
    uint64_t used; /* stamp of its last use */
    uint16_t bytes;
    uint8_t spare[6];
    uint8_t content[WANOPT_CHUNK_BYTES];
};
_Static_assert(sizeof(struct wanopt_chunk) == 2 * ARENA_LINE, "two lines of a snapshot");

struct wanopt_worker {
    CACHE_ALIGNED uint64_t counters[WANOPT_COUNTERS];
};

struct wanopt {
    struct sets cache; /* its numbers are ids of variables */
    uint32_t chunks;   /* of a packet, at most: accesses too */
    uint32_t min;      /* a chunk is longer than this */
    uint32_t shift;    /* a boundary has zeroes in the hash's bits from this one on */
    uint32_t tail;     /* bytes at a payload's end that are in no chunk */
    uint8_t line;      /* side: from the other one comes what is encoded */
    struct siphash_key name_key, check_key;
    uint64_t worker_at[FTMB_MAX_WORKERS];
    uint64_t gear[256]; /* what each byte adds to the rolling hash */
};

/* A worker at work on a packet. */
struct wanopt_hand {
    struct ftmb_ctx *ctx;
    const struct wanopt *wan;
    struct wanopt_worker *worker;
};

struct wanopt_payload {
    uint8_t *at;
    uint32_t bytes;
};

static inline struct wanopt_worker *wanopt_worker(struct arena *arena, const struct wanopt *wan,
                                                  uint32_t worker)
{
    return (struct wanopt_worker *)((uint8_t *)arena + wan->worker_at[worker]);
}

/* Bytes of the first chunk of `bytes`, of which `left` are there; 0: it does not end in there. */
uint32_t wanopt_cut(const struct wanopt *wan, const uint8_t *bytes, uint32_t left);
uint64_t wanopt_name(const struct wanopt *wan, const uint8_t *bytes, uint32_t length);
/* Of a whole payload: by another hash than the names. */
uint32_t wanopt_check(const struct wanopt *wan, const uint8_t *bytes, uint32_t length);

/* The cache; each is one write access. */
/* True: this chunk is there. False: from now on it is. */
bool wanopt_remember(struct wanopt_hand *hand, uint64_t name, const uint8_t *bytes,
                     uint32_t length);
/* Copies the chunk of this name to `out`, of WANOPT_CHUNK_BYTES; its length, 0: it is not there. */
uint32_t wanopt_recall(struct wanopt_hand *hand, uint64_t name, uint8_t *out);
void wanopt_forget(struct wanopt_hand *hand, uint64_t name);

/* Remembers the chunks of `bytes`, `most` at most; how many they were. */
uint32_t wanopt_learn(struct wanopt_hand *hand, const uint8_t *bytes, uint32_t length,
                      uint32_t most);

/* Puts another payload into the packet: mark, lengths and checksums follow. */
void wanopt_put(struct nf_packet *packet, const struct packet_view *view,
                const struct wanopt_payload *payload, const uint8_t *content, uint32_t bytes,
                bool marked);
/* Offset of a checksum in the header of TCP or UDP. */
static inline uint32_t wanopt_checksum_at(const struct packet_view *view)
{
    return view->kind == PACKET_TCP ? 16 : 6;
}

/* A marked packet from the line; emits what comes of it. */
void wanopt_marked(struct wanopt_hand *hand, struct nf_packet *packet,
                   const struct packet_view *view, const struct wanopt_payload *payload);

void wanopt_report(struct arena *arena, const struct nf_report *out);

#endif

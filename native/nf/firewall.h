/* Internals of the firewall: a connection, and what a segment does to it.
 *
 * A connection is known by its inside and its outside endpoint, whichever way a packet goes, so
 * both directions meet the same entry. Sides are those of nf.h: index 0 is the inside host. */
#ifndef FTMB_NF_FIREWALL_H
#define FTMB_NF_FIREWALL_H

#include "nf/nf.h"
#include "nf/packet.h"
#include "nf/sets.h"

#define FW_NO_SCALE 0xffu
#define FW_MAX_SCALE 14u /* RFC 7323 */
/* How far an acknowledgement may lag behind, at least: as in van Rooij's paper. */
#define FW_ACK_SLACK 66000u

enum fw_state {
    FW_UDP,
    FW_ECHO,
    FW_SYN_SENT,     /* a SYN was seen; half open, as is the next */
    FW_SYN_ANSWERED, /* SYN and ACK came back */
    FW_ESTABLISHED,
    FW_CLOSING, /* both sides sent FIN */
    FW_CLOSED,  /* RST; its place may be taken, as it is the last state */
    FW_STATES
};

enum fw_counter {
    FW_FORWARDED,
    FW_OPENED, /* connections */
    FW_ENDED,  /* entries given up: expired, or begun anew */
    FW_DROP_RULE,
    FW_DROP_NO_CONNECTION,
    FW_DROP_STATE, /* a segment that its connection's state does not allow, or senseless flags */
    FW_DROP_WINDOW,
    FW_DROP_HALF_OPEN,
    FW_DROP_NO_ROOM,
    FW_DROP_ICMP,
    FW_DROP_FRAGMENT,
    FW_DROP_PROTOCOL,
    FW_DROP_NOT_IPV4,
    FW_DROP_MALFORMED,
    FW_COUNTERS
};

/* Two to a line of a snapshot. Sequence numbers are compared modulo 2^32. */
struct fw_connection {
    struct sets_flow flow; /* inside endpoint first */
    uint32_t end[2];       /* one beyond the last sequence number that the side has used */
    uint32_t limit[2];     /* up to where the other side lets it */
    uint32_t window[2];    /* largest that the side has offered */
    uint8_t scale[2];      /* of its windows */
    uint8_t opener;        /* side */
    uint8_t fins;          /* bit for each side */
    uint8_t spare[4];
};
_Static_assert(sizeof(struct fw_connection) == 64, "two to a line");

/* A TCP segment as the connection sees it. */
struct fw_segment {
    uint32_t seq, end; /* end: one beyond its last sequence number, SYN and FIN counted */
    uint32_t ack, window;
    uint8_t flags; /* of FIN, SYN, RST and ACK */
    uint8_t scale; /* FW_NO_SCALE: not offered */
};

static inline bool fw_half_open(const struct fw_connection *connection)
{
    return connection->flow.key.rest &&
           (connection->flow.state == FW_SYN_SENT || connection->flow.state == FW_SYN_ANSWERED);
}

struct fw_segment fw_segment_of(const struct packet_view *view);

/* May these flags occur at all? */
bool fw_flags_sound(uint8_t flags);

/* A SYN from `side`: a connection begins. */
void fw_tcp_open(struct fw_connection *connection, const struct fw_segment *segment, unsigned side);

/* May a SYN begin the connection anew? */
bool fw_tcp_over(const struct fw_connection *connection, const struct fw_segment *segment);

/* A segment from `side` meets its connection. FW_FORWARDED: it passes, and `connection` has moved
 * on; else why not, and it is as it was. `check`: sequence numbers count. */
enum fw_counter fw_tcp_next(struct fw_connection *connection, const struct fw_segment *segment,
                            unsigned side, bool check);

/* The firewall's report (firewall_report.c) needs its layout. */
#define FW_RULES 4u

struct fw_rule {
    uint32_t network, mask; /* of the destination, as on the wire */
    uint16_t port;          /* of the destination, as on the wire; 0: any */
    uint8_t protocol;       /* 0: any */
    uint8_t side;           /* where the packet comes from */
    bool used, allows;
    uint8_t spare[2]; /* what lies between members is state too, and of no certain value */
};
_Static_assert(sizeof(struct fw_rule) == 16, "no gaps: it is copied whole into the arena");

struct fw_half_opens {
    CACHE_ALIGNED uint64_t count;
};

struct fw_worker {
    CACHE_ALIGNED struct sets_sweep sweep;
    uint64_t counters[FW_COUNTERS];
};

struct firewall {
    struct sets table;        /* of connections; its numbers are ids of variables */
    uint64_t half_opens_at;   /* its id is the last one */
    uint64_t half_open_limit; /* 0: none, and they are not counted */
    struct sets_timeouts timeouts;
    uint64_t sweep_ns; /* between two sets of one worker */
    bool check;
    bool policy[2]; /* by side: what no rule says */
    struct fw_rule rules[FW_RULES];
    uint64_t worker_at[FTMB_MAX_WORKERS];
};

static inline struct fw_half_opens *fw_half_opens(struct arena *arena,
                                                  const struct firewall *firewall)
{
    return (struct fw_half_opens *)((uint8_t *)arena + firewall->half_opens_at);
}

static inline struct fw_worker *fw_worker(struct arena *arena, const struct firewall *firewall,
                                          uint32_t worker)
{
    return (struct fw_worker *)((uint8_t *)arena + firewall->worker_at[worker]);
}

void fw_report(struct arena *arena, const struct nf_report *out);

#endif

/* Traffic of a comparison between middleboxes: thousands of UDP flows from one client to one
 * server, each of whose packets names its flow. What arrives under another flow's address went
 * astray. */
#ifndef FTMB_PEERS_FLOWS_H
#define FTMB_PEERS_FLOWS_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define FLOW_PORT 9000u /* of the server */
#define FLOW_FIRST_PORT 1024u
#define FLOW_PORTS 1000u /* flows that share an address of the client: a NAT spreads addresses */
#define FLOWS_MOST 4000000u
#define TOKEN_MAGIC 0x6d74624eu
#define BURST 64u
#define NS 1000000000u
#define DATAGRAM_MOST 128u

enum kind {
    KIND_FILL = 1, /* makes the mapping */
    KIND_KNOWN,    /* of a flow that has one */
    KIND_NEW,      /* the only packet of a flow */
    KIND_PROBE,    /* of flow 0, at a small spacing */
    KIND_AGAIN,    /* asks for nothing: the server sees where it comes from now */
    KIND_PUSH,     /* from the server, to where the first probe came from */
    KIND_LATE,     /* from the server, to where a flow's first packet came from */
    KINDS,
};
#define KIND_REPLY 0x80u

/* The payload. Both ends are of one machine: host order, one clock. */
struct token {
    uint32_t magic;
    uint32_t kind;
    uint32_t flow;
    uint32_t number;
    uint64_t sent_ns;
};

/* An arrival that is told one by one. */
struct arrival {
    uint64_t at_ns;
    uint32_t kind;
    uint32_t number; /* of the probe; astray: the flow that it was meant for */
    uint32_t flow;   /* astray: the flow at whose address it arrived */
    uint32_t source; /* server: port that it came from */
};

struct arrivals {
    struct arrival *list;
    size_t count, room;
};

/* What is due at a fixed rate. */
struct due {
    uint64_t begin_ns, interval_ns; /* interval 0: nothing */
    uint64_t done;
};

static inline uint64_t due_at(const struct due *d)
{
    return d->interval_ns ? d->begin_ns + d->done * d->interval_ns : UINT64_MAX;
}

/* Datagrams that leave together. */
struct outbox {
    int socket;
    uint32_t count;
    uint64_t dropped; /* the kernel had no room */
    struct mmsghdr heads[BURST];
    struct iovec parts[BURST];
    struct sockaddr_in to[BURST];
    uint8_t data[BURST][DATAGRAM_MOST];
};

/* Whether the sweep after a crash looks at a flow: at all new ones, at every stride-th other. */
struct sweep {
    uint32_t next, end, filled, stride;
    struct due due;
};

uint64_t clock_ns(void);
void die(const char *what, const char *remedy);
bool ask_for_real_time(void);
void *some_memory(size_t count, size_t size);
void note_arrival(struct arrivals *a, struct arrival arrival);
void write_whole(const char *directory, const char *name, const void *data, size_t bytes);

void outbox_init(struct outbox *out, int socket);
uint8_t *outbox_next(struct outbox *out, struct sockaddr_in to, size_t bytes);
void outbox_flush(struct outbox *out);

struct due due_from(uint64_t now_ns, uint32_t per_second);
bool sweep_next(struct sweep *s, uint32_t *flow);

int wait_for(int socket, uint64_t due_ns);
bool read_command(char *line, size_t room);
bool is_command(const char *line, const char *verb, uint32_t *numbers, size_t count);

int run_client(const char *interface, const char *first, const char *server, const char *directory);
int run_server(const char *address, const char *directory);
int run_relay(const char *left, const char *right, uint64_t delay_ns);

#endif

/* The server: answers each datagram, notes under which address and port each flow came, first and
 * last, and when told sends to where each came from first. */
#include "peers/flows.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUSH_PER_S 1000u

/* Where a flow was seen; the layout of server.flows. */
struct seen {
    uint64_t first_ns, last_ns;
    uint32_t first_address, last_address; /* host order */
    uint16_t first_port, last_port;
    uint32_t changes; /* how often it came from elsewhere than the time before */
    uint32_t again;
};

struct server {
    int socket;
    const char *directory;
    struct seen *flows;
    uint32_t most; /* flows seen are below */
    uint64_t counts[KINDS];
    struct arrivals probes;
    struct sockaddr_in push_to;
    struct due push;
    struct sweep late;
    struct outbox out;
};

static struct sockaddr_in place(uint32_t address, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = htons(port)};
}

static void send_token(struct server *s, struct sockaddr_in to, struct token token)
{
    memcpy(outbox_next(&s->out, to, sizeof(token)), &token, sizeof(token));
}

static void note(struct server *s, const struct token *t, struct sockaddr_in from, uint64_t now_ns)
{
    struct seen *flow = &s->flows[t->flow];
    uint32_t address = ntohl(from.sin_addr.s_addr);
    uint16_t port = ntohs(from.sin_port);
    if (flow->first_ns == 0) {
        flow->first_ns = now_ns;
        flow->first_address = address;
        flow->first_port = port;
    } else if (flow->last_address != address || flow->last_port != port) {
        flow->changes++;
    }
    flow->last_ns = now_ns;
    flow->last_address = address;
    flow->last_port = port;
    if (t->flow >= s->most)
        s->most = t->flow + 1;
}

static void take(struct server *s, const uint8_t *data, size_t bytes, struct sockaddr_in from)
{
    struct token t;
    if (bytes != sizeof(t))
        return;
    memcpy(&t, data, sizeof(t));
    if (t.magic != TOKEN_MAGIC || t.flow >= FLOWS_MOST || t.kind < KIND_FILL || t.kind > KIND_AGAIN)
        return;
    uint64_t now_ns = clock_ns();
    note(s, &t, from, now_ns);
    s->counts[t.kind]++;
    if (t.kind == KIND_PROBE) {
        note_arrival(&s->probes,
                     (struct arrival){now_ns, t.kind, t.number, t.flow, ntohs(from.sin_port)});
        if (s->push_to.sin_family == 0) {
            s->push_to = from;
            s->push = due_from(now_ns, PUSH_PER_S);
        }
    }
    if (t.kind == KIND_AGAIN) {
        s->flows[t.flow].again++;
        return;
    }
    t.kind |= KIND_REPLY;
    send_token(s, from, t);
}

static void receive(struct server *s)
{
    static uint8_t data[BURST][DATAGRAM_MOST];
    static struct sockaddr_in from[BURST];
    struct iovec parts[BURST];
    struct mmsghdr heads[BURST];
    for (size_t i = 0; i < BURST; i++) {
        parts[i] = (struct iovec){data[i], DATAGRAM_MOST};
        heads[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                           .msg_namelen = sizeof(from[i]),
                                           .msg_iov = &parts[i],
                                           .msg_iovlen = 1};
    }
    int count = recvmmsg(s->socket, heads, BURST, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++)
        take(s, data[i], heads[i].msg_len, from[i]);
    outbox_flush(&s->out);
}

static void send_late(struct server *s, uint64_t now_ns)
{
    uint32_t flow = 0;
    while (due_at(&s->late.due) <= now_ns) {
        if (!sweep_next(&s->late, &flow)) {
            outbox_flush(&s->out);
            printf("late %llu\n", (unsigned long long)s->late.due.done);
            s->late.due.interval_ns = 0;
            return;
        }
        const struct seen *seen = &s->flows[flow];
        if (seen->first_ns == 0)
            continue;
        send_token(s, place(seen->first_address, seen->first_port),
                   (struct token){TOKEN_MAGIC, KIND_LATE, flow, 0, now_ns});
        s->late.due.done++;
    }
    outbox_flush(&s->out);
}

static void send_push(struct server *s, uint64_t now_ns)
{
    while (due_at(&s->push) <= now_ns) {
        uint32_t number = (uint32_t)s->push.done++;
        send_token(s, s->push_to, (struct token){TOKEN_MAGIC, KIND_PUSH, 0, number, now_ns});
    }
    outbox_flush(&s->out);
}

static void finish(struct server *s)
{
    write_whole(s->directory, "server.flows", s->flows, s->most * sizeof(*s->flows));
    write_whole(s->directory, "server.probes", s->probes.list,
                s->probes.count * sizeof(*s->probes.list));
    printf("done fill %llu known %llu new %llu probe %llu again %llu push %llu dropped %llu\n",
           (unsigned long long)s->counts[KIND_FILL], (unsigned long long)s->counts[KIND_KNOWN],
           (unsigned long long)s->counts[KIND_NEW], (unsigned long long)s->counts[KIND_PROBE],
           (unsigned long long)s->counts[KIND_AGAIN], (unsigned long long)s->push.done,
           (unsigned long long)s->out.dropped);
}

/* False: it is over. */
static bool obey(struct server *s, const char *line)
{
    uint32_t told[3] = {0}; /* flows of the fill, stride, flows a second */
    if (is_command(line, "late", told, 3) && told[1] && told[2]) {
        s->late = (struct sweep){0, s->most, told[0], told[1], due_from(clock_ns(), told[2])};
    } else if (strcmp(line, "hold") == 0) {
        printf("held push %llu\n", (unsigned long long)s->push.done);
        s->push.interval_ns = 0;
    } else if (strcmp(line, "quit") == 0) {
        finish(s);
        return false;
    } else {
        printf("unknown command\n");
    }
    return true;
}

int run_server(const char *address, const char *directory)
{
    struct server *s = some_memory(1, sizeof(*s));
    s->directory = directory;
    s->flows = some_memory(FLOWS_MOST, sizeof(*s->flows));
    s->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int room = 64 << 20;
    setsockopt(s->socket, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    setsockopt(s->socket, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    struct sockaddr_in here = place(0, FLOW_PORT);
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1)
        die(address, "name an IPv4 address");
    if (bind(s->socket, (struct sockaddr *)&here, sizeof(here)) != 0)
        die("bind", "name an address of this host");
    outbox_init(&s->out, s->socket);
    printf("ready %s\n", ask_for_real_time() ? "fifo" : "other");
    char line[128];
    for (;;) {
        uint64_t next_ns = due_at(&s->push), late_ns = due_at(&s->late.due);
        int ready = wait_for(s->socket, late_ns < next_ns ? late_ns : next_ns);
        if (ready & 1)
            receive(s);
        uint64_t now_ns = clock_ns();
        send_push(s, now_ns);
        send_late(s, now_ns);
        if (ready & 2 && (!read_command(line, sizeof(line)) || !obey(s, line)))
            return 0;
    }
}

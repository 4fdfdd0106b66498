/* The client: flows from thousands of addresses and ports that no socket has. Requests leave by a
 * raw socket, so that the kernel finds the next hop; answers are seen by a packet socket, whatever
 * their destination, so that one that reaches another flow shows. */
#include "peers/flows.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_NS 300000000u /* for answers to what was sent last */

/* What became of a flow; the layout of client.flows. */
struct flow {
    uint64_t first_ns;
    uint32_t sent, replies, late, again;
};

struct frame {
    struct iphdr ip;
    struct udphdr udp;
    struct token token;
} __attribute__((packed));

struct client {
    int receives;
    const char *directory;
    uint32_t first; /* address of flow 0, host order */
    struct sockaddr_in server;
    struct flow *flows;
    uint32_t filled, used; /* flows 0 to filled have mappings, filled to used were new */
    uint32_t known_next;
    struct due fill, known, fresh, probe;
    struct sweep again;
    uint32_t fill_next;
    uint64_t fill_end_ns, again_end_ns;
    uint64_t sent[KINDS], back[KINDS];
    struct arrivals probes, astray;
    struct outbox out;
};

static uint32_t sum_words(const void *data, size_t bytes, uint32_t sum)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i + 1 < bytes; i += 2)
        sum += (uint32_t)byte[i] << 8 | byte[i + 1];
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void send_one(struct client *c, uint32_t flow, enum kind kind, uint32_t number)
{
    struct frame f = {
        .ip = {.ihl = 5, .version = 4, .ttl = 64, .protocol = IPPROTO_UDP},
        .token = {TOKEN_MAGIC, kind, flow, number, clock_ns()},
    };
    f.ip.tot_len = htons(sizeof(f));
    f.ip.saddr = htonl(c->first + flow / FLOW_PORTS);
    f.ip.daddr = c->server.sin_addr.s_addr;
    f.udp.source = htons((uint16_t)(FLOW_FIRST_PORT + flow % FLOW_PORTS));
    f.udp.dest = htons(FLOW_PORT);
    f.udp.len = htons(sizeof(f.udp) + sizeof(f.token));
    uint32_t sum = sum_words(&f.ip.saddr, 8, IPPROTO_UDP + sizeof(f.udp) + sizeof(f.token));
    uint16_t check = fold(sum_words(&f.udp, sizeof(f.udp) + sizeof(f.token), sum));
    f.udp.check = htons(check ? check : 0xffff);
    memcpy(outbox_next(&c->out, c->server, sizeof(f)), &f, sizeof(f));
    struct flow *its = &c->flows[flow];
    if (its->first_ns == 0)
        its->first_ns = f.token.sent_ns;
    its->sent++;
    c->sent[kind]++;
}

static void take(struct client *c, const uint8_t *data, size_t bytes)
{
    struct frame f;
    if (bytes < sizeof(f))
        return;
    memcpy(&f, data, sizeof(f));
    uint32_t base = ntohl(f.ip.daddr) - c->first, port = ntohs(f.udp.dest);
    uint32_t kind = f.token.kind & ~KIND_REPLY;
    if (f.ip.ihl != 5 || f.ip.protocol != IPPROTO_UDP || f.udp.source != htons(FLOW_PORT) ||
        f.token.magic != TOKEN_MAGIC || kind >= KINDS || f.token.flow >= FLOWS_MOST ||
        base > FLOWS_MOST / FLOW_PORTS || port < FLOW_FIRST_PORT ||
        port >= FLOW_FIRST_PORT + FLOW_PORTS)
        return;
    uint32_t flow = base * FLOW_PORTS + port - FLOW_FIRST_PORT;
    uint64_t now_ns = clock_ns();
    if (flow != f.token.flow) {
        note_arrival(&c->astray, (struct arrival){now_ns, f.token.kind, f.token.flow, flow, 0});
        return;
    }
    c->back[kind]++;
    if (kind == KIND_LATE)
        c->flows[flow].late++;
    else
        c->flows[flow].replies++;
    if (kind == KIND_PROBE || kind == KIND_PUSH)
        note_arrival(&c->probes,
                     (struct arrival){now_ns, kind, f.token.number, flow, ntohs(f.udp.dest)});
}

static void receive(struct client *c)
{
    static uint8_t data[BURST][DATAGRAM_MOST];
    struct iovec parts[BURST];
    struct mmsghdr heads[BURST];
    memset(heads, 0, sizeof(heads));
    for (size_t i = 0; i < BURST; i++) {
        parts[i] = (struct iovec){data[i], DATAGRAM_MOST};
        heads[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(c->receives, heads, BURST, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++)
        take(c, data[i], heads[i].msg_len);
}

/* One packet of each flow that had no answer yet; may be told again for those. */
static void send_fill(struct client *c, uint64_t now_ns)
{
    while (due_at(&c->fill) <= now_ns) {
        while (c->fill_next < c->filled && c->flows[c->fill_next].replies)
            c->fill_next++;
        if (c->fill_next >= c->filled) {
            c->fill.interval_ns = 0;
            c->fill_end_ns = now_ns + GRACE_NS;
            break;
        }
        send_one(c, c->fill_next++, KIND_FILL, 0);
        c->fill.done++;
    }
    if (c->fill_end_ns && c->fill_end_ns <= now_ns) {
        uint32_t missing = 0;
        for (uint32_t i = 0; i < c->filled; i++)
            missing += c->flows[i].replies == 0;
        printf("filled %u missing %u\n", c->filled, missing);
        c->fill_end_ns = 0;
    }
}

static void send_traffic(struct client *c, uint64_t now_ns)
{
    for (; due_at(&c->probe) <= now_ns; c->probe.done++)
        send_one(c, 0, KIND_PROBE, (uint32_t)c->probe.done);
    for (; due_at(&c->fresh) <= now_ns && c->used < FLOWS_MOST; c->fresh.done++)
        send_one(c, c->used++, KIND_NEW, 0);
    for (; due_at(&c->known) <= now_ns; c->known.done++) {
        /* A large odd step: neighbours in time are no neighbours in the table. */
        c->known_next = (uint32_t)((c->known_next + 7919ull) % c->filled);
        send_one(c, c->known_next, KIND_KNOWN, 0);
    }
}

static void send_again(struct client *c, uint64_t now_ns)
{
    uint32_t flow = 0;
    while (due_at(&c->again.due) <= now_ns) {
        if (!sweep_next(&c->again, &flow)) {
            c->again.due.interval_ns = 0;
            c->again_end_ns = now_ns + GRACE_NS;
            break;
        }
        c->flows[flow].again++;
        send_one(c, flow, KIND_AGAIN, 0);
        c->again.due.done++;
    }
    if (c->again_end_ns && c->again_end_ns <= now_ns) {
        printf("again %llu\n", (unsigned long long)c->again.due.done);
        c->again_end_ns = 0;
    }
}

static void finish(const struct client *c)
{
    write_whole(c->directory, "client.flows", c->flows, c->used * sizeof(*c->flows));
    write_whole(c->directory, "client.probes", c->probes.list,
                c->probes.count * sizeof(*c->probes.list));
    write_whole(c->directory, "client.astray", c->astray.list,
                c->astray.count * sizeof(*c->astray.list));
    static const char *names[] = {
        [KIND_FILL] = "fill",   [KIND_KNOWN] = "known", [KIND_NEW] = "new",
        [KIND_PROBE] = "probe", [KIND_AGAIN] = "again",
    };
    printf("done");
    for (enum kind kind = KIND_FILL; kind <= KIND_AGAIN; kind++)
        printf(" %s %llu %s_back %llu", names[kind], (unsigned long long)c->sent[kind], names[kind],
               (unsigned long long)c->back[kind]);
    printf(" push_back %llu late_back %llu dropped %llu\n", (unsigned long long)c->back[KIND_PUSH],
           (unsigned long long)c->back[KIND_LATE], (unsigned long long)c->out.dropped);
}

/* False: it is over. */
static bool obey(struct client *c, const char *line)
{
    uint32_t told[3] = {0};
    uint64_t now_ns = clock_ns();
    if (is_command(line, "fill", told, 2) && told[0] && told[0] <= FLOWS_MOST && told[1]) {
        c->filled = c->used = told[0];
        c->fill_next = 0;
        c->fill = due_from(now_ns, told[1]);
    } else if (is_command(line, "run", told, 3) && c->filled) {
        c->fresh = due_from(now_ns, told[0]);
        c->known = due_from(now_ns, told[1]);
        c->probe = due_from(now_ns, told[2]);
        printf("running %llu\n", (unsigned long long)now_ns);
    } else if (strcmp(line, "hold") == 0) {
        c->fresh.interval_ns = c->known.interval_ns = c->probe.interval_ns = 0;
        printf("held new %u\n", c->used - c->filled);
    } else if (is_command(line, "again", told, 2) && told[0] && told[1]) {
        c->again = (struct sweep){0, c->used, c->filled, told[0], due_from(now_ns, told[1])};
    } else if (strcmp(line, "quit") == 0) {
        finish(c);
        return false;
    } else {
        printf("unknown command\n");
    }
    return true;
}

static int packet_socket(const char *interface)
{
    int made = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    if (made < 0)
        die("packet socket", "run as root, or with CAP_NET_RAW");
    struct sockaddr_ll here = {.sll_family = AF_PACKET,
                               .sll_protocol = htons(ETH_P_IP),
                               .sll_ifindex = (int)if_nametoindex(interface)};
    int on = 1, room = 64 << 20;
    setsockopt(made, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
    setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    if (here.sll_ifindex == 0 || bind(made, (struct sockaddr *)&here, sizeof(here)) != 0)
        die(interface, "name an interface of this host");
    return made;
}

static int raw_socket(void)
{
    int made = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    int room = 64 << 20;
    if (made < 0)
        die("raw socket", "run as root, or with CAP_NET_RAW");
    setsockopt(made, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    return made;
}

int run_client(const char *interface, const char *first, const char *server, const char *directory)
{
    struct client *c = some_memory(1, sizeof(*c));
    struct in_addr address = {0};
    c->directory = directory;
    c->server.sin_family = AF_INET;
    if (inet_pton(AF_INET, first, &address) != 1 ||
        inet_pton(AF_INET, server, &c->server.sin_addr) != 1)
        die("addresses", "name two IPv4 addresses");
    c->first = ntohl(address.s_addr);
    c->flows = some_memory(FLOWS_MOST, sizeof(*c->flows));
    c->receives = packet_socket(interface);
    outbox_init(&c->out, raw_socket());
    printf("ready %s\n", ask_for_real_time() ? "fifo" : "other");
    char line[128];
    for (;;) {
        uint64_t next_ns = UINT64_MAX;
        const uint64_t all[] = {due_at(&c->fill),
                                due_at(&c->known),
                                due_at(&c->fresh),
                                due_at(&c->probe),
                                due_at(&c->again.due),
                                c->fill_end_ns ? c->fill_end_ns : UINT64_MAX,
                                c->again_end_ns ? c->again_end_ns : UINT64_MAX};
        for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
            next_ns = all[i] < next_ns ? all[i] : next_ns;
        int ready = wait_for(c->receives, next_ns);
        if (ready & 1)
            receive(c);
        uint64_t now_ns = clock_ns();
        send_fill(c, now_ns);
        send_traffic(c, now_ns);
        send_again(c, now_ns);
        outbox_flush(&c->out);
        if (ready & 2 && (!read_command(line, sizeof(line)) || !obey(c, line)))
            return 0;
    }
}

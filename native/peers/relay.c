/* A long link between two interfaces: each frame leaves at the other side a fixed time after it
 * came, in order. What is on the way when its sender dies still arrives, as on a wire. */
#include "peers/flows.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MOST 2048u
#define QUEUE_MOST 65536u /* frames on the way, each direction; what does not fit is counted */

struct held {
    uint64_t due_ns;
    uint32_t bytes;
    uint8_t data[FRAME_MOST];
};

struct direction {
    int from, to;
    uint64_t taken, passed, dropped;
    struct held *queue;
};

static int frame_socket(const char *interface)
{
    int made = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    if (made < 0)
        die("packet socket", "run as root, or with CAP_NET_RAW");
    struct sockaddr_ll here = {.sll_family = AF_PACKET,
                               .sll_protocol = htons(ETH_P_ALL),
                               .sll_ifindex = (int)if_nametoindex(interface)};
    int on = 1, room = 64 << 20;
    setsockopt(made, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
    setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    setsockopt(made, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    if (here.sll_ifindex == 0 || bind(made, (struct sockaddr *)&here, sizeof(here)) != 0)
        die(interface, "name an interface of this host");
    return made;
}

static void take_in(struct direction *d, uint64_t delay_ns)
{
    for (uint32_t i = 0; i < BURST; i++) {
        struct held *slot = &d->queue[d->taken % QUEUE_MOST];
        bool full = d->taken - d->passed == QUEUE_MOST;
        uint8_t none[1];
        ssize_t bytes = full ? recv(d->from, none, 0, MSG_TRUNC)
                             : recv(d->from, slot->data, FRAME_MOST, MSG_TRUNC);
        if (bytes < 0)
            return;
        if (full || bytes > (ssize_t)FRAME_MOST) {
            d->dropped++;
            continue;
        }
        slot->due_ns = clock_ns() + delay_ns;
        slot->bytes = (uint32_t)bytes;
        d->taken++;
    }
}

/* Sends what is due; when the next is. */
static uint64_t let_out(struct direction *d, uint64_t now_ns)
{
    while (d->passed < d->taken) {
        const struct held *slot = &d->queue[d->passed % QUEUE_MOST];
        if (slot->due_ns > now_ns)
            return slot->due_ns;
        if (send(d->to, slot->data, slot->bytes, 0) < 0)
            d->dropped++;
        d->passed++;
    }
    return UINT64_MAX;
}

static volatile sig_atomic_t ending;

static void end(int number)
{
    (void)number;
    ending = 1;
}

static void wait_until(const struct direction ways[2], uint64_t due_ns)
{
    uint64_t now_ns = clock_ns();
    uint64_t left_ns = due_ns <= now_ns ? 0 : due_ns - now_ns;
    if (left_ns > NS / 10)
        left_ns = NS / 10;
    struct timespec left = {.tv_nsec = (long)left_ns};
    struct pollfd fds[3] = {{.fd = ways[0].from, .events = POLLIN},
                            {.fd = ways[1].from, .events = POLLIN},
                            {.fd = STDIN_FILENO, .events = POLLIN}};
    /* Nothing comes on stdin but its end: who started us is gone. */
    if (ppoll(fds, 3, &left, NULL) > 0 && fds[2].revents)
        ending = 1;
}

int run_relay(const char *left, const char *right, uint64_t delay_ns)
{
    struct direction ways[2] = {{.from = frame_socket(left)}, {.from = frame_socket(right)}};
    ways[0].to = ways[1].from;
    ways[1].to = ways[0].from;
    for (int i = 0; i < 2; i++)
        ways[i].queue = some_memory(QUEUE_MOST, sizeof(*ways[i].queue));
    signal(SIGTERM, end);
    printf("ready %s\n", ask_for_real_time() ? "fifo" : "other");
    while (!ending) {
        uint64_t now_ns = clock_ns(), next_ns = UINT64_MAX;
        for (int i = 0; i < 2; i++) {
            take_in(&ways[i], delay_ns);
            uint64_t due_ns = let_out(&ways[i], now_ns);
            next_ns = due_ns < next_ns ? due_ns : next_ns;
        }
        wait_until(ways, next_ns);
    }
    printf("done passed %llu dropped %llu\n", (unsigned long long)(ways[0].passed + ways[1].passed),
           (unsigned long long)(ways[0].dropped + ways[1].dropped));
    return 0;
}

/* What client and server share: clock, bursts, files, commands. */
#include "peers/flows.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

void die(const char *what, const char *remedy)
{
    fprintf(stderr, "ftmb-flows: %s: %s%s%s\n", what, strerror(errno), *remedy ? "; " : "", remedy);
    exit(3);
}

/* Else a busy middlebox on the same cores would look like one that is away. */
bool ask_for_real_time(void)
{
    struct sched_param first = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &first) == 0;
}

void *some_memory(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die("memory", "use fewer flows");
    return memory;
}

void note_arrival(struct arrivals *a, struct arrival arrival)
{
    if (a->count == a->room) {
        a->room = a->room ? a->room * 2 : 4096;
        a->list = realloc(a->list, a->room * sizeof(*a->list));
        if (a->list == NULL)
            die("memory", "run for a shorter time");
    }
    a->list[a->count++] = arrival;
}

void write_whole(const char *directory, const char *name, const void *data, size_t bytes)
{
    char path[4096];
    int length = snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = length < (int)sizeof(path) ? fopen(path, "wb") : NULL;
    if (file == NULL || (bytes && fwrite(data, bytes, 1, file) != 1) || fclose(file) != 0)
        die(name, "choose another directory");
}

void outbox_init(struct outbox *out, int socket)
{
    memset(out, 0, sizeof(*out));
    out->socket = socket;
    for (size_t i = 0; i < BURST; i++) {
        out->parts[i].iov_base = out->data[i];
        out->heads[i].msg_hdr = (struct msghdr){
            .msg_name = &out->to[i],
            .msg_namelen = sizeof(out->to[i]),
            .msg_iov = &out->parts[i],
            .msg_iovlen = 1,
        };
    }
}

/* Room for a datagram of so many bytes, which leaves with the next flush. */
uint8_t *outbox_next(struct outbox *out, struct sockaddr_in to, size_t bytes)
{
    if (out->count == BURST)
        outbox_flush(out);
    out->to[out->count] = to;
    out->parts[out->count].iov_len = bytes;
    return out->data[out->count++];
}

void outbox_flush(struct outbox *out)
{
    uint32_t sent = 0;
    while (sent < out->count) {
        int some = sendmmsg(out->socket, out->heads + sent, out->count - sent, 0);
        if (some > 0) {
            sent += (uint32_t)some;
        } else if (errno != EINTR) { /* a wire does not say either */
            out->dropped++;
            sent++;
        }
    }
    out->count = 0;
}

struct due due_from(uint64_t now_ns, uint32_t per_second)
{
    return (struct due){.begin_ns = now_ns, .interval_ns = per_second ? NS / per_second : 0};
}

/* The next flow to look at; false when all have been. */
bool sweep_next(struct sweep *s, uint32_t *flow)
{
    while (s->next < s->end && s->next < s->filled && s->next % s->stride)
        s->next++;
    if (s->next >= s->end)
        return false;
    *flow = s->next++;
    return true;
}

/* Until something can be read or something is due. Bit 0: the socket has data, bit 1: stdin. */
int wait_for(int socket, uint64_t due_ns)
{
    uint64_t now_ns = clock_ns();
    uint64_t left_ns = due_ns <= now_ns ? 0 : due_ns - now_ns;
    if (left_ns > NS / 10)
        left_ns = NS / 10;
    struct timespec left = {.tv_nsec = (long)left_ns};
    struct pollfd both[2] = {{.fd = socket, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
    if (ppoll(both, 2, &left, NULL) <= 0)
        return 0;
    return (both[0].revents & POLLIN ? 1 : 0) | (both[1].revents ? 2 : 0);
}

/* One line of stdin, byte by byte so that none stays behind in a buffer that poll cannot see.
 * False at the end: who started us is gone. */
bool read_command(char *line, size_t room)
{
    size_t length = 0;
    for (;;) {
        char byte = 0;
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        if (byte == '\n')
            break;
        if (length + 1 < room)
            line[length++] = byte;
    }
    line[length] = '\0';
    return true;
}

/* Whether a line is a verb with so many numbers, and nothing else. */
bool is_command(const char *line, const char *verb, uint32_t *numbers, size_t count)
{
    size_t length = strlen(verb);
    if (strncmp(line, verb, length) != 0)
        return false;
    const char *rest = line + length;
    for (size_t i = 0; i < count; i++) {
        if (rest[0] != ' ' || rest[1] < '0' || rest[1] > '9')
            return false;
        char *end = NULL;
        unsigned long number = strtoul(rest + 1, &end, 10);
        if (number > UINT32_MAX)
            return false;
        numbers[i] = (uint32_t)number;
        rest = end;
    }
    return *rest == '\0';
}

/* Control connections over TCP (see control_tcp.h). */
#include "io/control_tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/clock.h"

#define SCHEME "tcp:"
/* A killed process keeps its port until the kernel has taken its memory down. */
#define BIND_PATIENCE_MS 10000
/* How long the kernel keeps a connection that says nothing from us, and as many as it may keep. */
#define DEFER_S 1
#define BACKLOG SOMAXCONN

static const uint8_t what_follows[8] = {'F', 'T', 'M', 'T', 'O', 'K', 0, 1};
static uint8_t preamble[CONTROL_PREAMBLE_BYTES]; /* all zeroes: no token was given */
static _Atomic uint64_t refused;

static void pause_ms(void)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    nanosleep(&pause, NULL);
}

static int close_with(int fd, int error)
{
    close(fd);
    return -error;
}

bool control_is_tcp(const char *path)
{
    return strncmp(path, SCHEME, strlen(SCHEME)) == 0;
}

int control_tcp_address(const char *path, struct sockaddr_in *address)
{
    char host[INET_ADDRSTRLEN];
    const char *from = path + strlen(SCHEME), *colon;
    char *end;

    memset(address, 0, sizeof(*address));
    if (!control_is_tcp(path) || (colon = strchr(from, ':')) == NULL ||
        (size_t)(colon - from) >= sizeof(host) || colon[1] < '0' || colon[1] > '9')
        return -EINVAL;
    memcpy(host, from, (size_t)(colon - from));
    host[colon - from] = '\0';
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port == 0 || port > UINT16_MAX ||
        inet_pton(AF_INET, host, &address->sin_addr) != 1)
        return -EINVAL;
    /* One host's: never all interfaces of this machine, nor a group. */
    uint32_t number = ntohl(address->sin_addr.s_addr);
    if (number >> 24 == 0 || number >> 28 >= 14)
        return -EINVAL;
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)port);
    return 0;
}

int control_use_token(const char *file)
{
    uint8_t token[CONTROL_TOKEN_BYTES + 1];
    struct stat st = {0};
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    const char *wrong = fd < 0 || fstat(fd, &st) != 0 ? strerror(errno) : NULL;

    if (wrong == NULL && (st.st_uid != geteuid() || (st.st_mode & 077) != 0))
        wrong = "others may read it: it must be ours, with mode 0600";
    if (wrong == NULL && read(fd, token, sizeof(token)) != CONTROL_TOKEN_BYTES)
        wrong = "it must have 32 bytes";
    if (fd >= 0)
        close(fd);
    if (wrong != NULL) {
        fprintf(stderr, "ftmb-node: token %s: %s\n", file, wrong);
        return -EACCES;
    }
    memcpy(preamble, what_follows, sizeof(what_follows));
    memcpy(preamble + sizeof(what_follows), token, CONTROL_TOKEN_BYTES);
    return 0;
}

uint64_t control_refused(void)
{
    return atomic_load(&refused);
}

static void set(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* No message waits for the next one; and of a host that died we hear without having sent. */
static void configure(int fd)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, CONTROL_SILENT_MS);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, CONTROL_SILENT_MS / 1000 - 1);
}

int control_tcp_listen(const char *path)
{
    uint64_t deadline = clock_ns() + BIND_PATIENCE_MS * 1000000ull;
    struct sockaddr_in address;
    int rc = control_tcp_address(path, &address);
    int fd;

    if (rc != 0)
        return rc;
    if (preamble[0] == 0)
        return -EACCES;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, DEFER_S);
    while (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno != EADDRINUSE || clock_ns() > deadline)
            return close_with(fd, errno);
        pause_ms();
    }
    return listen(fd, BACKLOG) == 0 ? fd : close_with(fd, errno);
}

/* One attempt: a connection that the token was sent on, or a negative errno. */
static int attempt(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;
    socklen_t size = sizeof(error);

    if (fd < 0)
        return -errno;
    configure(fd);
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};

        if (errno != EINPROGRESS)
            return close_with(fd, errno);
        if (poll(&wait, 1, CONTROL_ATTEMPT_MS) != 1)
            return close_with(fd, ETIMEDOUT);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0)
            return close_with(fd, error != 0 ? error : errno);
    }
    /* An empty buffer takes so little whole. */
    ssize_t sent = send(fd, preamble, sizeof(preamble), MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent == (ssize_t)sizeof(preamble) ? fd : close_with(fd, ECONNRESET);
}

static bool may_come(int error)
{
    return error == -ECONNREFUSED || error == -ETIMEDOUT || error == -EHOSTUNREACH ||
           error == -ENETUNREACH || error == -ECONNRESET || error == -EINTR;
}

int control_tcp_connect(const char *path, unsigned timeout_ms)
{
    uint64_t deadline = clock_ns() + timeout_ms * 1000000ull;
    struct sockaddr_in address;
    int fd = control_tcp_address(path, &address);

    if (fd != 0)
        return fd;
    if (preamble[0] == 0)
        return -EACCES;
    for (;;) {
        fd = attempt(&address);
        if (fd >= 0 || !may_come(fd))
            return fd;
        if (clock_ns() >= deadline)
            return -ETIMEDOUT;
        pause_ms();
    }
}

/* Takes as long wherever the first difference is. */
static bool same(const uint8_t *a, const uint8_t *b, unsigned bytes)
{
    volatile uint8_t differs = 0;

    for (unsigned i = 0; i < bytes; i++)
        differs |= a[i] ^ b[i];
    return differs == 0;
}

int control_tcp_admit(int fd)
{
    uint8_t given[CONTROL_PREAMBLE_BYTES];
    ssize_t n = recv(fd, given, sizeof(given), MSG_DONTWAIT);

    if (preamble[0] != 0 && n == (ssize_t)sizeof(given) && same(given, preamble, sizeof(given))) {
        configure(fd);
        return 0;
    }
    if (atomic_fetch_add(&refused, 1) == 0)
        fprintf(stderr, "ftmb-node: a control connection came without this trial's token\n");
    return -EPERM;
}

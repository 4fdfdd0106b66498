/* Control messages over stream sockets (see control.h). */
#include "io/control.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "io/clock.h"
#include "io/control_tcp.h"

#define MAGIC 0x46544d43u /* "FTMC" */
#define VERSION 1u
#define FIRST_CAPACITY 65536u
#define SEND_BUFFER (4 << 20)

/* On the wire: this, the body, then zeroes up to a multiple of 8, which keeps every message of a
 * receive buffer aligned. */
struct wire_header {
    uint32_t magic;
    uint16_t version;
    uint16_t reserved;
    struct control_msg msg;
};

_Static_assert(sizeof(struct wire_header) == 24, "no padding on the wire");

static size_t wire_size(uint32_t length)
{
    return (sizeof(struct wire_header) + length + 7) & ~(size_t)7;
}

static int fill_address(struct sockaddr_un *address, const char *path)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    return 0;
}

static int close_with(int fd, int error)
{
    close(fd);
    return -error;
}

/* The file mode keeps others out; this also holds where a directory's rights were loosened. */
static int check_peer(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return -errno;
    return peer.uid == geteuid() ? 0 : -EPERM;
}

/* Ask for room for bursts: the default holds fewer than 300 small messages, as each is charged for
 * the kernel's own bookkeeping. Best effort, the system's limit applies without privileges. */
static void enlarge(int fd)
{
    const int bytes = SEND_BUFFER;

    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int control_listen(const char *path)
{
    struct sockaddr_un address;
    int rc = fill_address(&address, path);
    int fd;

    if (control_is_tcp(path))
        return control_tcp_listen(path);
    if (rc != 0)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (unlink(path) != 0 && errno != ENOENT)
        return close_with(fd, errno);
    /* Before bind(): the file is created with the socket's mode, so it is never open to others. */
    if (fchmod(fd, 0600) != 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, 16) != 0)
        return close_with(fd, errno);
    return fd;
}

static int connect_unix(const char *path, unsigned timeout_ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t deadline = clock_ns() + timeout_ms * 1000000ull;
    struct sockaddr_un address;
    int rc = fill_address(&address, path);

    if (rc != 0)
        return rc;
    for (;;) {
        /* Non-blocking: a listener that is stopped, and has a full queue, must not hold us. */
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
            return -errno;
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
            rc = check_peer(fd);
            return rc == 0 ? fd : close_with(fd, -rc);
        }
        rc = close_with(fd, errno);
        if (rc != -ENOENT && rc != -ECONNREFUSED && rc != -EAGAIN && rc != -EINTR)
            return rc;
        if (clock_ns() >= deadline)
            return -ETIMEDOUT;
        nanosleep(&pause, NULL);
    }
}

int control_connect(const char *path, unsigned timeout_ms)
{
    int fd = control_is_tcp(path) ? control_tcp_connect(path, timeout_ms)
                                  : connect_unix(path, timeout_ms);

    if (fd >= 0)
        enlarge(fd);
    return fd;
}

int control_accept(int listener)
{
    struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
    socklen_t size;
    int fd, rc;

    do {
        size = sizeof(from);
        fd = accept4(listener, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return -errno;
    enlarge(fd);
    rc = from.ss_family == AF_INET ? control_tcp_admit(fd) : check_peer(fd);
    return rc == 0 ? fd : close_with(fd, -rc);
}

/* Drop the first `sent` bytes of a message's parts. */
static void advance(struct msghdr *message, size_t sent)
{
    while (message->msg_iovlen > 0 && sent >= message->msg_iov->iov_len) {
        sent -= message->msg_iov->iov_len;
        message->msg_iov++;
        message->msg_iovlen--;
    }
    if (sent > 0) {
        message->msg_iov->iov_base = (uint8_t *)message->msg_iov->iov_base + sent;
        message->msg_iov->iov_len -= sent;
    }
}

static int wait_writable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    int rc = poll(&wait, 1, CONTROL_SEND_TIMEOUT_MS);

    if (rc == 0)
        return -ETIMEDOUT;
    return rc < 0 && errno != EINTR ? -errno : 0;
}

static int send_parts(int fd, struct msghdr *message, bool wait)
{
    bool begun = false;
    int rc = 0;

    while (rc == 0 && message->msg_iovlen > 0) {
        ssize_t sent = sendmsg(fd, message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0) {
            advance(message, (size_t)sent);
            begun = true;
        } else if (errno == EAGAIN && !wait)
            /* Between hosts the kernel may take a part: then the rest can never follow. */
            rc = begun ? -ETIMEDOUT : 1;
        else if (errno == EAGAIN)
            rc = wait_writable(fd);
        else if (errno != EINTR)
            rc = -errno;
    }
    if (rc == 1)
        return -EAGAIN;
    /* The peer must not take the next message for the rest of this one. */
    if (rc != 0)
        shutdown(fd, SHUT_RDWR);
    return rc;
}

static int send_message(int fd, struct control_msg head, const struct iovec *body, int n, bool wait)
{
    static uint8_t zeroes[8];
    struct iovec parts[CONTROL_MAX_PARTS + 2];
    struct wire_header header = {.magic = MAGIC, .version = VERSION};
    struct msghdr message = {.msg_iov = parts};
    size_t length = 0;

    if (n < 0 || n > CONTROL_MAX_PARTS)
        return -EMSGSIZE;
    for (int i = 0; i < n; i++) {
        length += body[i].iov_len;
        parts[i + 1] = body[i];
        if (length > UINT32_MAX - 64)
            return -EMSGSIZE;
    }
    header.msg = head;
    header.msg.length = (uint32_t)length;
    parts[0] = (struct iovec){&header, sizeof(header)};
    parts[n + 1] = (struct iovec){zeroes, wire_size((uint32_t)length) - sizeof(header) - length};
    message.msg_iovlen = (size_t)n + 2;
    return send_parts(fd, &message, wait);
}

int control_send(int fd, uint16_t type, uint32_t view, uint32_t inc, const struct iovec *body,
                 int n)
{
    const struct control_msg head = {.type = type, .view = view, .incarnation = inc};

    return send_message(fd, head, body, n, true);
}

int control_try_send(int fd, uint16_t type, uint32_t view, uint32_t inc, const struct iovec *body,
                     int n)
{
    const struct control_msg head = {.type = type, .view = view, .incarnation = inc};

    return send_message(fd, head, body, n, false);
}

int control_queue(struct control_out *out, uint16_t type, uint32_t view, uint32_t inc,
                  const struct iovec *body, int n)
{
    struct wire_header header = {.magic = MAGIC, .version = VERSION};
    size_t length = 0;

    for (int i = 0; i < n; i++)
        length += body[i].iov_len;
    if (length > CONTROL_LIMIT)
        return -EMSGSIZE;
    size_t size = wire_size((uint32_t)length);
    if (out->capacity - out->used < size) {
        uint8_t *data = realloc(out->data, out->used + size);

        if (data == NULL)
            return -ENOMEM;
        out->data = data;
        out->capacity = out->used + size;
    }
    header.msg = (struct control_msg){
        .type = type, .length = (uint32_t)length, .view = view, .incarnation = inc};
    uint8_t *at = out->data + out->used;
    memset(at + size - 8, 0, 8); /* what is behind the body */
    memcpy(at, &header, sizeof(header));
    at += sizeof(header);
    for (int i = 0; i < n; i++) {
        memcpy(at, body[i].iov_base, body[i].iov_len);
        at += body[i].iov_len;
    }
    out->used += size;
    return 0;
}

int control_flush(int fd, struct control_out *out)
{
    while (out->done < out->used) {
        ssize_t sent =
            send(fd, out->data + out->done, out->used - out->done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0)
            out->done += (size_t)sent;
        else if (errno == EAGAIN)
            return 0;
        else if (errno != EINTR)
            return -errno;
    }
    out->used = out->done = 0;
    return 1;
}

/* Bytes the message at `done` takes, as far as is known: the header's until that is complete.
 * -EPROTO when it cannot be one. */
static int bytes_needed(const struct control_buf *b, size_t *needed)
{
    const struct wire_header *header;
    size_t limit = b->limit != 0 ? b->limit : CONTROL_LIMIT;

    *needed = sizeof(*header);
    if (b->used - b->done < sizeof(*header))
        return 0;
    header = (const struct wire_header *)(b->data + b->done);
    if (header->magic != MAGIC || header->version != VERSION || header->msg.length > limit)
        return -EPROTO;
    *needed = wire_size(header->msg.length);
    return 0;
}

/* Make room for `needed` bytes counted from the first one not yet handed out. */
static int make_room(struct control_buf *b, size_t needed)
{
    size_t capacity = needed > FIRST_CAPACITY ? needed : FIRST_CAPACITY;

    if (b->done > 0) {
        memmove(b->data, b->data + b->done, b->used - b->done);
        b->used -= b->done;
        b->done = 0;
    }
    if (b->capacity < capacity) {
        uint8_t *data = realloc(b->data, capacity);

        if (data == NULL)
            return -ENOMEM;
        b->data = data;
        b->capacity = capacity;
    }
    return 0;
}

int control_recv(int fd, struct control_buf *b, struct control_msg **m)
{
    for (;;) {
        size_t needed;
        int rc = bytes_needed(b, &needed);

        if (rc == 0 && b->used - b->done >= needed) {
            *m = &((struct wire_header *)(b->data + b->done))->msg;
            b->done += needed;
            return 1;
        }
        if (rc == 0)
            rc = make_room(b, needed);
        if (rc != 0)
            return rc;
        ssize_t n = recv(fd, b->data + b->used, b->capacity - b->used, MSG_DONTWAIT);
        if (n > 0)
            b->used += (size_t)n;
        else if (n == 0)
            return -ECONNRESET;
        else if (errno == EAGAIN)
            return 0;
        else if (errno != EINTR)
            return -errno;
    }
}

void control_buf_free(struct control_buf *b)
{
    size_t limit = b->limit;

    free(b->data);
    *b = (struct control_buf){.limit = limit};
}

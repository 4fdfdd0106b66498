/* Small messages between processes: length-prefixed, versioned. Over Unix stream sockets, only
 * between processes of the same user; or, where a path is "tcp:ADDRESS:PORT", between hosts, let in
 * by a token (control_tcp.h). Byte order is the machine's: both ends are the same build. */
#ifndef FTMB_IO_CONTROL_H
#define FTMB_IO_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Longest body control_recv() accepts unless the buffer says otherwise: 64 MiB. */
#define CONTROL_LIMIT (64u << 20)
/* Most pieces of one message's body. */
#define CONTROL_MAX_PARTS 32
/* Longest time control_send() waits for a peer that does not read. */
#define CONTROL_SEND_TIMEOUT_MS 1000

/* A received message; `length` counts the bytes of `body`, which is 8-byte aligned. */
struct control_msg {
    uint16_t type;
    uint16_t flags; /* always 0 today */
    uint32_t length;
    uint32_t view;
    uint32_t incarnation;
    uint8_t body[];
};

/* Receive state of one connection; start with all zeroes, or set `limit` (bytes of body). */
struct control_buf {
    uint8_t *data;
    size_t used, done, capacity;
    size_t limit;
};

/* Listen at `path` (mode 0600, a stale socket is removed first). Returns a non-blocking,
 * close-on-exec descriptor or a negative errno. */
int control_listen(const char *path);

/* Connect to `path`, retrying every millisecond until it accepts or `timeout_ms` have passed
 * (-ETIMEDOUT). Returns a descriptor or a negative errno (-EPERM: the peer is another user). */
int control_connect(const char *path, unsigned timeout_ms);

/* Accept one connection: a descriptor, -EAGAIN when none is waiting, or another negative errno
 * (-EPERM: the peer is another user, or has not the token: refused). */
int control_accept(int fd);

/* Send one message whose body is the concatenation of `body[0..n)` (n may be 0). Returns 0 when
 * the whole message is with the kernel, or a negative errno: -EMSGSIZE (nothing sent), -EPIPE or
 * -ECONNRESET (peer gone), -ETIMEDOUT (peer did not read for CONTROL_SEND_TIMEOUT_MS). After any
 * error but -EMSGSIZE the connection is shut down, since a part may have been sent. Two threads
 * must not send on one descriptor at once. Never raises SIGPIPE. */
int control_send(int fd, uint16_t type, uint32_t view, uint32_t inc, const struct iovec *body,
                 int n);

/* The same without waiting: -EAGAIN when the peer has left no room for it, and nothing was sent.
 * For messages of at most CONTROL_SMALL bytes, which the kernel takes whole or not at all on one
 * machine; between hosts it may take a part, and then the connection ends (-ETIMEDOUT). */
#define CONTROL_SMALL 4096
int control_try_send(int fd, uint16_t type, uint32_t view, uint32_t inc, const struct iovec *body,
                     int n);

/* Messages on their way out of a connection that must not be waited for; start with all zeroes. */
struct control_out {
    uint8_t *data;
    size_t used, done, capacity;
};

/* Append a message. 0, -EMSGSIZE or -ENOMEM. The caller bounds what it leaves waiting. */
int control_queue(struct control_out *out, uint16_t type, uint32_t view, uint32_t inc,
                  const struct iovec *body, int n);

/* Send what the kernel takes: 1: all is out, 0: the peer has to read first, or a negative errno. */
int control_flush(int fd, struct control_out *out);

/* Receive without blocking: 1 and *m (valid until the next call with this buffer), 0 when no whole
 * message is there yet, or a negative errno: -ECONNRESET (peer closed or died), -EPROTO (not this
 * protocol, or longer than the limit), -ENOMEM. Call until it returns 0 before waiting in poll():
 * the buffer may hold several messages. */
int control_recv(int fd, struct control_buf *b, struct control_msg **m);

/* Release the buffer's memory; it may be used again afterwards. */
void control_buf_free(struct control_buf *b);

#endif

/* Control messages: framing, limits, and what each end sees when the other misbehaves or dies. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/clock.h"
#include "io/control.h"
#include "io/control_tcp.h"

/* More than any socket buffer: the sender depends on the reader. */
#define BIG (20u << 20)

static char path[64];

/* A connected pair made the way the program makes it. */
static void make_pair(int ends[2])
{
    int listener = control_listen(path);

    CHECK(listener >= 0);
    CHECK(control_accept(listener) == -EAGAIN);
    ends[0] = control_connect(path, 1000);
    CHECK(ends[0] >= 0);
    ends[1] = control_accept(listener);
    CHECK(ends[1] >= 0);
    close(listener);
}

static int recv_wait(int fd, struct control_buf *b, struct control_msg **m)
{
    uint64_t deadline = clock_ns() + 5000000000u;
    int rc;

    do
        rc = control_recv(fd, b, m);
    while (rc == 0 && clock_ns() < deadline);
    return rc;
}

static void test_listen_and_connect(void)
{
    struct stat st;
    uint64_t start = clock_ns();
    int listener;

    CHECK(control_connect(path, 50) == -ETIMEDOUT);
    CHECK(clock_ns() - start >= 50000000u);
    listener = control_listen(path);
    CHECK(listener >= 0);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    close(listener);
    /* The socket file is stale now: nobody answers, and a new listener replaces it. */
    CHECK(control_connect(path, 20) == -ETIMEDOUT);
    listener = control_listen(path);
    CHECK(listener >= 0);
    close(listener);
}

static void send_numbered(int fd, uint32_t i)
{
    char text[2][8] = {"abcdefg", "hijklmn"};
    struct iovec body[2] = {{text[0], i % 8}, {text[1], 7}};

    CHECK(control_send(fd, (uint16_t)i, i * 3, i * 5, body, 2) == 0);
}

static void check_numbered(const struct control_msg *m, uint32_t i)
{
    CHECK(m->type == i && m->view == i * 3 && m->incarnation == i * 5);
    CHECK(m->length == i % 8 + 7 && m->flags == 0);
    CHECK((uintptr_t)m->body % 8 == 0);
    CHECK(memcmp(m->body, "abcdefg", i % 8) == 0);
    CHECK(memcmp(m->body + i % 8, "hijklmn", 7) == 0);
}

static void test_messages_keep_their_bounds(void)
{
    struct control_buf buffer = {0};
    struct control_msg *m;
    int ends[2];

    make_pair(ends);
    /* Two rounds, so that the second starts in the middle of a used buffer. */
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 200; i++)
            send_numbered(ends[0], round * 200 + i);
        for (uint32_t i = 0; i < 200; i++) {
            CHECK(recv_wait(ends[1], &buffer, &m) == 1);
            check_numbered(m, round * 200 + i);
        }
    }
    CHECK(control_send(ends[0], 7, 1, 2, NULL, 0) == 0);
    CHECK(recv_wait(ends[1], &buffer, &m) == 1 && m->type == 7 && m->length == 0);
    CHECK(control_recv(ends[1], &buffer, &m) == 0);
    close(ends[0]);
    CHECK(control_recv(ends[1], &buffer, &m) == -ECONNRESET);
    CHECK(control_send(ends[1], 1, 0, 0, NULL, 0) == -EPIPE); /* and no SIGPIPE */
    close(ends[1]);
    control_buf_free(&buffer);
}

static void *send_big(void *arg)
{
    static uint8_t bytes[BIG];
    struct iovec body = {bytes, sizeof(bytes)};

    for (uint32_t i = 0; i < BIG; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 4096);
    CHECK(control_send(*(int *)arg, 9, 1, 1, &body, 1) == 0);
    return NULL;
}

static void test_a_body_larger_than_the_socket_buffer(void)
{
    struct control_buf buffer = {0};
    struct control_msg *m;
    pthread_t thread;
    int ends[2];

    make_pair(ends);
    CHECK(pthread_create(&thread, NULL, send_big, &ends[0]) == 0);
    CHECK(recv_wait(ends[1], &buffer, &m) == 1 && m->length == BIG);
    for (uint32_t i = 0; i < BIG; i++)
        CHECK(m->body[i] == (uint8_t)(i * 7 + i / 4096));
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
    control_buf_free(&buffer);
}

static void test_refusals(void)
{
    struct control_buf buffer = {.limit = 100};
    struct control_msg *m;
    uint8_t bytes[101] = {0};
    struct iovec body = {bytes, sizeof(bytes)};
    int ends[2];

    make_pair(ends);
    CHECK(control_send(ends[0], 1, 0, 0, &body, 1) == 0);
    CHECK(recv_wait(ends[1], &buffer, &m) == -EPROTO); /* over the limit */
    control_buf_free(&buffer);
    CHECK(buffer.limit == 100);
    close(ends[0]);
    close(ends[1]);
    make_pair(ends);
    CHECK(send(ends[0], "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", 32, 0) == 32);
    CHECK(recv_wait(ends[1], &buffer, &m) == -EPROTO); /* not this protocol */
    control_buf_free(&buffer);
    close(ends[0]);
    close(ends[1]);
}

/* A stopped peer must not hold the sender for ever, nor ever see half a message as a whole one. */
static void test_a_peer_that_does_not_read(void)
{
    static uint8_t bytes[BIG];
    struct control_buf buffer = {0};
    struct control_msg *m;
    struct iovec body = {bytes, sizeof(bytes)};
    uint64_t start = clock_ns();
    int ends[2];

    make_pair(ends);
    CHECK(control_send(ends[0], 1, 0, 0, &body, 1) == -ETIMEDOUT);
    CHECK(clock_ns() - start >= CONTROL_SEND_TIMEOUT_MS * 1000000ull);
    CHECK(control_send(ends[0], 2, 0, 0, NULL, 0) == -EPIPE);
    CHECK(recv_wait(ends[1], &buffer, &m) == -ECONNRESET);
    close(ends[0]);
    close(ends[1]);
    control_buf_free(&buffer);
}

/* A hub must not wait for one: a message that finds no room is not sent, and breaks nothing. */
static void test_trying(void)
{
    static const uint8_t bytes[1000];
    struct iovec body = {(void *)(uintptr_t)bytes, sizeof(bytes)};
    struct control_buf buffer = {0};
    struct control_msg *m;
    unsigned sent = 0, received = 0;
    int ends[2];

    make_pair(ends);
    uint64_t start = clock_ns();
    int rc;
    while ((rc = control_try_send(ends[0], 7, sent, 0, &body, 1)) == 0)
        sent++;
    CHECK(rc == -EAGAIN && sent > 10);
    CHECK(clock_ns() - start < 5000000000u);
    while (received < sent) {
        CHECK(recv_wait(ends[1], &buffer, &m) == 1);
        CHECK(m->view == received && m->length == sizeof(bytes));
        received++;
    }
    CHECK(control_try_send(ends[0], 8, sent, 0, &body, 1) == 0);
    CHECK(recv_wait(ends[1], &buffer, &m) == 1 && m->type == 8);
    close(ends[1]);
    CHECK(control_try_send(ends[0], 9, 0, 0, &body, 1) == -EPIPE);
    close(ends[0]);
    control_buf_free(&buffer);
}

/* ---- over TCP ----------------------------------------------------------------------------- */

static char token_path[64], address[32];

static void write_token(size_t bytes, mode_t mode)
{
    int fd = open(token_path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    CHECK(fd >= 0 && fchmod(fd, mode) == 0);
    for (size_t i = 0; i < bytes; i++)
        CHECK(write(fd, &(char){(char)(i * 37 + 1)}, 1) == 1);
    close(fd);
}

static void test_addresses(void)
{
    static const char *const bad[] = {
        "tcp:",
        "tcp:10.0.0.1",
        "tcp:10.0.0.1:",
        "tcp:10.0.0.1:0",
        "tcp:10.0.0.1:x",
        "tcp:10.0.0.1:+7",
        "tcp:10.0.0.1:65536",
        "tcp:10.0.0.1:70 ",
        "tcp:0.0.0.0:70",
        "tcp:localhost:70",
        "tcp:224.0.0.1:70",
        "tcp:255.255.255.255:70",
        "tcp:::1:70",
        "tcp:10.0.0.1.2:70",
        "tcp:10.0.0.1:7:7",
        "udp:10.0.0.1:70",
        "",
        "/run/ftmb/ol.ctl",
        "tcp:10.0.0.1:999999999999999999999",
    };
    struct sockaddr_in to;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(control_tcp_address(bad[i], &to) == -EINVAL);
    CHECK(control_tcp_address("tcp:10.1.2.3:65535", &to) == 0);
    CHECK(ntohl(to.sin_addr.s_addr) == 0x0a010203 && ntohs(to.sin_port) == 65535);
}

static void test_tokens(void)
{
    CHECK(control_listen(address) == -EACCES && control_connect(address, 0) == -EACCES);
    CHECK(control_use_token(token_path) == -EACCES); /* there is none */
    write_token(CONTROL_TOKEN_BYTES, 0640);
    CHECK(control_use_token(token_path) == -EACCES);
    write_token(CONTROL_TOKEN_BYTES - 1, 0600);
    CHECK(control_use_token(token_path) == -EACCES);
    write_token(CONTROL_TOKEN_BYTES + 1, 0600);
    CHECK(control_use_token(token_path) == -EACCES);
    CHECK(control_listen(address) == -EACCES);
    write_token(CONTROL_TOKEN_BYTES, 0600);
    CHECK(control_use_token(token_path) == 0);
}

/* A connection of somebody else's, who sends these bytes first. */
static int stranger(const uint8_t *bytes, size_t count)
{
    struct sockaddr_in to;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && control_tcp_address(address, &to) == 0);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    CHECK(send(fd, bytes, count, MSG_NOSIGNAL) == (ssize_t)count);
    return fd;
}

static int accept_wait(int listener)
{
    struct pollfd wait = {.fd = listener, .events = POLLIN};

    CHECK(poll(&wait, 1, 5000) == 1);
    return control_accept(listener);
}

static void refused(int listener, const uint8_t *bytes, size_t count)
{
    uint64_t before = control_refused();
    int fd = stranger(bytes, count);

    CHECK(accept_wait(listener) == -EPERM && control_refused() == before + 1);
    CHECK(recv(fd, &(char){0}, 1, 0) <= 0); /* closed */
    close(fd);
}

static void test_strangers(void)
{
    int listener = control_listen(address);
    uint8_t good[CONTROL_PREAMBLE_BYTES], bytes[CONTROL_PREAMBLE_BYTES];

    CHECK(listener >= 0);
    int fd = control_connect(address, 1000), peer;
    CHECK(fd >= 0);
    /* What it sent first is the secret: taken from the kernel before it is looked at. */
    do
        peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    while (peer < 0 && errno == EAGAIN);
    CHECK(recv(peer, good, sizeof(good), MSG_WAITALL) == sizeof(good));
    close(peer);
    close(fd);
    for (size_t i = 0; i < sizeof(good); i++) {
        memcpy(bytes, good, sizeof(bytes));
        bytes[i] ^= (uint8_t)(1u << i % 8);
        refused(listener, bytes, sizeof(bytes));
    }
    refused(listener, good, sizeof(good) - 1);
    refused(listener, (const uint8_t *)"GET / HTTP/1.0\r\n\r\n", 18);
    /* Says nothing: not heard of until it leaves, or the kernel has kept it for its second. */
    uint64_t before = control_refused();
    fd = stranger(good, 0);
    int rc = control_accept(listener);
    CHECK(rc == -EAGAIN || rc == -EPERM);
    close(fd);
    CHECK(rc == -EPERM || accept_wait(listener) == -EPERM);
    CHECK(control_refused() == before + 1);
    fd = stranger(good, sizeof(good));
    peer = accept_wait(listener);
    CHECK(peer >= 0);
    close(peer);
    close(fd);
    close(listener);
}

static void test_tcp(void)
{
    struct control_buf buffer = {0};
    struct control_msg *m;
    int ends[2], value = 0;
    socklen_t size = sizeof(value);
    uint64_t start = clock_ns();

    CHECK(control_connect(address, 50) == -ETIMEDOUT && clock_ns() - start >= 50000000u);
    int listener = control_listen(address);
    CHECK(listener >= 0);
    CHECK(control_accept(listener) == -EAGAIN);
    ends[0] = control_connect(address, 1000);
    CHECK(ends[0] >= 0);
    ends[1] = accept_wait(listener);
    CHECK(ends[1] >= 0);
    for (int e = 0; e < 2; e++) {
        CHECK(getsockopt(ends[e], IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0 && value == 1);
        CHECK(getsockopt(ends[e], IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &size) == 0);
        CHECK(value == CONTROL_SILENT_MS);
        CHECK(getsockopt(ends[e], SOL_SOCKET, SO_KEEPALIVE, &value, &size) == 0 && value == 1);
    }
    for (uint32_t i = 0; i < 200; i++)
        send_numbered(ends[0], i);
    for (uint32_t i = 0; i < 200; i++) {
        CHECK(recv_wait(ends[1], &buffer, &m) == 1);
        check_numbered(m, i);
    }
    /* A peer that does not read is never waited for, and gets no half message. */
    uint8_t body[CONTROL_SMALL - 64] = {0};
    struct iovec part = {body, sizeof(body)};
    int rc;
    start = clock_ns();
    do
        rc = control_try_send(ends[0], 1, 0, 0, &part, 1);
    while (rc == 0 && clock_ns() - start < 20000000000u);
    CHECK(rc == -EAGAIN || rc == -ETIMEDOUT);
    close(ends[0]);
    do
        rc = recv_wait(ends[1], &buffer, &m);
    while (rc == 1 && m->length == sizeof(body));
    CHECK(rc == -ECONNRESET);
    close(ends[1]);
    close(listener);
    control_buf_free(&buffer);
}

int main(void)
{
    char dir[] = "/tmp/ftmb-test-XXXXXX";

    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/control", dir);
    test_listen_and_connect();
    test_messages_keep_their_bounds();
    test_a_body_larger_than_the_socket_buffer();
    test_refusals();
    test_a_peer_that_does_not_read();
    test_trying();
    unlink(path);
    /* An address of this process alone, of the 16 million that are this machine. */
    snprintf(token_path, sizeof(token_path), "%s/token", dir);
    snprintf(address, sizeof(address), "tcp:127.%d.%d.%d:7000", 1 + (getpid() >> 16 & 127),
             getpid() >> 8 & 255, 1 + getpid() % 254);
    test_addresses();
    test_tokens();
    test_strangers();
    test_tcp();
    unlink(token_path);
    CHECK(rmdir(dir) == 0);
    return 0;
}

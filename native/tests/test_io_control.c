/* Control messages: framing, limits, and what each end sees when the other misbehaves or dies. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/clock.h"
#include "io/control.h"

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
    CHECK(rmdir(dir) == 0);
    return 0;
}

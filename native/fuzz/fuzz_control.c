/* Control messages from a peer: any bytes, in any pieces. */
#include "fuzz/input.h"
#include "io/control.h"
#include "io/control_tcp.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT 4096u

static uint64_t seen;

/* All messages that are whole; the last return value. */
static int receive(int fd, struct control_buf *buf)
{
    struct control_msg *message;
    int rc;
    while ((rc = control_recv(fd, buf, &message)) == 1) {
        HOLDS(message->length <= LIMIT && ((uintptr_t)message->body & 7) == 0);
        for (uint32_t i = 0; i < message->length; i++)
            seen += message->body[i];
    }
    return rc;
}

/* The secret is all ones; a file of ours without a name. */
static void set_token(void)
{
    uint8_t token[CONTROL_TOKEN_BYTES];
    char path[32];
    int fd = memfd_create("token", 0);
    memset(token, 1, sizeof(token));
    HOLDS(fd >= 0 && fchmod(fd, 0600) == 0);
    HOLDS(write(fd, token, sizeof(token)) == (ssize_t)sizeof(token));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    HOLDS(control_use_token(path) == 0);
    close(fd);
}

/* The same bytes as a stranger's first ones: let in only with the secret, and nothing else is. */
static void knock(const uint8_t *bytes, size_t size)
{
    static bool ready;
    int pair[2];
    uint64_t before = control_refused();
    if (!ready)
        set_token();
    ready = true;
    HOLDS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    size_t count = size < 2u * CONTROL_PREAMBLE_BYTES ? size : 2u * CONTROL_PREAMBLE_BYTES;
    HOLDS(write(pair[0], bytes, count) == (ssize_t)count);
    bool right = count >= CONTROL_PREAMBLE_BYTES && memcmp(bytes, "FTMTOK\0\1", 8) == 0;
    for (size_t i = 8; right && i < CONTROL_PREAMBLE_BYTES; i++)
        right = bytes[i] == 1;
    HOLDS(control_tcp_admit(pair[1]) == (right ? 0 : -EPERM));
    HOLDS(control_refused() == before + !right);
    close(pair[0]);
    close(pair[1]);
}

/* The same bytes as an address in a spec. */
static void parse_address(const uint8_t *bytes, size_t size)
{
    char text[64] = "tcp:";
    struct sockaddr_in address;
    size_t count = size < sizeof(text) - 5 ? size : sizeof(text) - 5;
    memcpy(text + 4, bytes, count);
    if (control_tcp_address(text, &address) == 0)
        HOLDS(address.sin_port && address.sin_addr.s_addr);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size) {
        knock(bytes, size);
        parse_address(bytes, size);
    }
    struct input input = {bytes, size};
    struct control_buf buf = {.limit = LIMIT};
    int pair[2], rc = 0;
    HOLDS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    while (input.left && rc == 0) {
        size_t piece = 1 + input_u16(&input) % 512;
        uint8_t *part = input_block(&input, &piece);
        HOLDS(write(pair[0], part, piece) == (ssize_t)piece);
        free(part);
        rc = receive(pair[1], &buf);
        HOLDS(rc == 0 || rc == -EPROTO);
    }
    close(pair[0]);
    if (rc == 0)
        HOLDS(receive(pair[1], &buf) == -ECONNRESET);
    close(pair[1]);
    control_buf_free(&buf);
    return 0;
}

/* Control messages from a peer: any bytes, in any pieces. */
#include "fuzz/input.h"
#include "io/control.h"

#include <errno.h>
#include <sys/socket.h>
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
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

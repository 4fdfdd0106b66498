/* A file in memory for decoders that take a path. */
#ifndef FTMB_FUZZ_FILE_H
#define FTMB_FUZZ_FILE_H

#include "fuzz/input.h"

#include <sys/mman.h>
#include <unistd.h>

/* Makes `bytes` the content of a file; returns its path. */
static inline const char *file_with(const uint8_t *bytes, size_t size)
{
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        HOLDS(fd >= 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    HOLDS(ftruncate(fd, 0) == 0);
    HOLDS(pwrite(fd, bytes, size, 0) == (ssize_t)size);
    return path;
}

#endif

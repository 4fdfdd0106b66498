/* Mapped files that outlive their process (see statefile.h). */
#include "io/statefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/clock.h"

#define PAGE 4096u

/* The first page of the file. */
struct head {
    uint64_t magic;
    uint64_t version;
    uint64_t config_digest;
    uint64_t bytes;
    _Atomic uint64_t complete;
};

/* A killed process keeps its lock until its memory has been torn down. */
static int lock(int fd, unsigned wait_ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t deadline = clock_ns() + wait_ms * 1000000ull;

    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (clock_ns() > deadline)
            return -EBUSY;
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* 1: whole and what is wanted; 0: new, or never completed; or a negative errno. */
static int examine(int fd, const struct statefile_name *name)
{
    struct head head = {0};
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (st.st_size == 0)
        return 0;
    if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
        return -EINVAL;
    if (atomic_load(&head.complete) == 0)
        return 0;
    if (head.magic != name->magic || head.version != name->version ||
        head.config_digest != name->config_digest || head.bytes != name->bytes ||
        (uint64_t)st.st_size != PAGE + name->bytes)
        return -EINVAL;
    return 1;
}

static int make(int fd, const struct statefile_name *name)
{
    struct head head = {.magic = name->magic,
                        .version = name->version,
                        .config_digest = name->config_digest,
                        .bytes = name->bytes};

    if (ftruncate(fd, 0) != 0)
        return -errno;
    int error = posix_fallocate(fd, 0, (off_t)(PAGE + name->bytes));
    if (error != 0)
        return -error;
    return pwrite(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head) ? 0 : -EIO;
}

static int map(int fd, uint64_t bytes, void **memory)
{
    uint8_t *at = mmap(NULL, PAGE + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (at == MAP_FAILED)
        return -errno;
    madvise(at, PAGE + bytes, MADV_HUGEPAGE);
    madvise(at, PAGE + bytes, MADV_POPULATE_WRITE);
    *memory = at + PAGE;
    return 0;
}

static int complain(const char *path, uint64_t bytes, int rc)
{
    const char *why = strerror(-rc);

    if (rc == -EBUSY)
        why = "another process has it";
    else if (rc == -EINVAL)
        why = "it is of another configuration, or not whole";
    fprintf(stderr, "ftmb-node: cannot map %s (%llu MB): %s\n", path,
            (unsigned long long)(bytes >> 20), why);
    return rc;
}

int statefile_open(const char *path, const struct statefile_name *name, unsigned wait_ms,
                   void **memory, bool *found)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int rc;

    if (fd < 0)
        return complain(path, name->bytes, -errno);
    rc = lock(fd, wait_ms);
    if (rc == 0)
        rc = examine(fd, name);
    *found = rc == 1;
    if (rc == 0)
        rc = make(fd, name);
    if (rc >= 0)
        rc = map(fd, name->bytes, memory);
    if (rc == 0)
        return 0; /* it stays open for the life of the process, and with it the lock */
    close(fd);
    return complain(path, name->bytes, rc);
}

void statefile_complete(void *memory)
{
    struct head *head = (struct head *)((uint8_t *)memory - PAGE);

    atomic_store_explicit(&head->complete, 1, memory_order_release);
}

/* Memory that outlives its process: a mapped file. On tmpfs it costs what memory costs; what was
 * stored before a process was killed is there for the next one.
 *
 * One process at a time: it holds a lock that ends with it. */
#ifndef FTMB_IO_STATEFILE_H
#define FTMB_IO_STATEFILE_H

#include <stdbool.h>
#include <stdint.h>

/* What a file must be to be taken up again. */
struct statefile_name {
    uint64_t magic;
    uint32_t version;
    uint64_t config_digest;
    uint64_t bytes; /* of the memory that is asked for */
};

/* Map `path`, made and filled with zeroes (mode 0600) unless it is there already and whole, which
 * `found` tells. Waits up to `wait_ms` for the end of a process that still has it. All of it is in
 * memory afterwards: no page faults later. `memory` is aligned to a page. Returns 0, or
 * after one line on stderr a negative errno: -EBUSY (another process has it), -EINVAL (it is there,
 * and another's or of another configuration), -ENOSPC. */
int statefile_open(const char *path, const struct statefile_name *name, unsigned wait_ms,
                   void **memory, bool *found);

/* A new one is filled in: from here on it will be found. */
void statefile_complete(void *memory);

#endif

/* Millisecond bins of a run. */
#include "traffic/timeline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

int timeline_init(struct timeline *t, uint64_t span_ns)
{
    uint32_t count = (uint32_t)(span_ns / TIMELINE_BIN_NS) + 1;
    *t = (struct timeline){ .count = count, .offering_end = TIMELINE_BIN_NS };
    t->bins = calloc(count, sizeof(*t->bins));
    return t->bins ? 0 : -ENOMEM;
}

void timeline_free(struct timeline *t)
{
    free(t->bins);
    t->bins = NULL;
}

/* Bins after the last one that saw anything say nothing: the run ended early. */
static uint32_t used_bins(const struct timeline *t)
{
    uint32_t n = t->count;
    while (n > 0 && t->bins[n - 1].offered == 0 && t->bins[n - 1].delivered == 0)
        n--;
    return n;
}

int timeline_write(const struct timeline *t, uint64_t zero_ns, FILE *out)
{
    int64_t zero = (int64_t)(zero_ns / TIMELINE_BIN_NS);
    uint32_t used = used_bins(t);
    fprintf(out, "t_ms,offered,delivered,latency_max_ns\n");
    for (uint32_t i = 0; i < used; i++) {
        const struct timeline_bin *bin = &t->bins[i];
        fprintf(out, "%" PRId64 ",%u,%u,%" PRIu64 "\n", (int64_t)i - zero, bin->offered,
                bin->delivered, bin->latency_max_ns);
    }
    return ferror(out) ? -EIO : 0;
}

/* Node specs: any bytes are a spec, or refused with exit code 2 and a reason. */
#include "app/spec.h"
#include "fuzz/file.h"
#include "io/event.h"
#include "io/fault.h"
#include "traffic/config.h"
#include "traffic/why.h"

#include <setjmp.h>
#include <stdarg.h>

/* spec_read() ends the process at the first fault: here that leads back into the target, which then
 * frees what jansson had allocated. */
static jmp_buf refused;
static struct block {
    struct block *next, *previous;
    uint64_t bytes[];
} blocks = {&blocks, &blocks};

void die(int code, const char *fmt, ...)
{
    va_list args;
    char why[1024];
    va_start(args, fmt);
    vsnprintf(why, sizeof(why), fmt, args);
    va_end(args);
    HOLDS(code == 2 && *why);
    longjmp(refused, 1);
}

/* Stands for the fault layer, which takes these as they are. */
void fault_configure(uint64_t seed, const char *kind, const struct fault_rates *rates)
{
    (void)seed;
    HOLDS(*kind);
    HOLDS(rates->drop >= 0 && rates->drop <= 0.5 && rates->repeat >= 0 && rates->repeat <= 0.5);
    HOLDS(rates->reorder >= 0 && rates->reorder <= 0.5 && rates->delay >= 0 && rates->delay <= 0.5);
}

static void *tracked_malloc(size_t size)
{
    struct block *block = malloc(sizeof(*block) + size);
    if (!block)
        return NULL;
    *block = (struct block){.next = blocks.next, .previous = &blocks};
    blocks.next->previous = block;
    blocks.next = block;
    return block->bytes;
}

static void tracked_free(void *at)
{
    if (!at)
        return;
    struct block *block = (struct block *)((uint8_t *)at - offsetof(struct block, bytes));
    block->next->previous = block->previous;
    block->previous->next = block->next;
    free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct node_config config;
    struct traffic_config traffic;
    char why[TRAFFIC_WHY];
    json_set_alloc_funcs(tracked_malloc, tracked_free);
    if (setjmp(refused) == 0) {
        spec_read(file_with(bytes, size), &config);
        HOLDS(config.workers >= 1 && config.workers <= FTMB_MAX_WORKERS && config.nf);
        HOLDS(config.lcores >= 1 && config.lcores <= NODE_MAX_LCORES);
        if (config.traffic)
            traffic_config_read(&traffic, config.traffic, why);
    }
    while (blocks.next != &blocks)
        tracked_free(blocks.next->bytes);
    return 0;
}

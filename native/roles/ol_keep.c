/* What the output logger keeps beyond its own death, and how it takes it up again.
 *
 * The file: counts and streams as the lcore stores them (struct ol_kept), the decisions as a twin,
 * the logs. Each decision is stored before it is acted on; acting on it again does no harm. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "io/event.h"
#include "io/statefile.h"
#include "roles/ol_control.h"

#define MAGIC 0x4f4c2e7374617465ull
#define VERSION 2u
/* A killed process gives its file up when its memory has been torn down. */
#define OWNER_GONE_MS 10000

static uint64_t twin_offset(void)
{
    return align_up(sizeof(struct ol_kept), CACHE_LINE);
}

static uint64_t logs_offset(void)
{
    return align_up(twin_offset() + twin_bytes(sizeof(struct ol_decisions)), CACHE_LINE);
}

static void place(struct output_logger *ol, void *memory)
{
    ol->kept = memory;
    ol->release = &ol->kept->release;
    ol->decisions = (struct twin *)((uint8_t *)memory + twin_offset());
}

static void begin_new(struct output_logger *ol)
{
    const struct node_config *config = ol->config;
    void *logs = (uint8_t *)ol->kept + logs_offset();
    release_init(ol->release, config->workers, logs, config->pals, config->outputs, OL_HELD);
    ol->release->exact = config->exact;
    view_init(&ol->state.view);
    /* Where the first view's inputs begin, also if its beginning is cut off. */
    for (uint32_t w = 0; w < FTMB_MAX_WORKERS; w++) {
        ol->state.next_input[w] = 1;
        atomic_store(&ol->kept->progress[w], 1);
    }
    twin_init(ol->decisions, sizeof(struct ol_decisions));
    ol_decided(ol);
    statefile_complete(ol->kept);
}

/* Forgetting logs may have been cut off before it was written down from where on they are kept; the
 * IL was told nothing then. */
static void keep_from_base(struct output_logger *ol)
{
    uint64_t pals[FTMB_MAX_WORKERS] = {0}, next_input[FTMB_MAX_WORKERS] = {0};
    for (uint32_t w = 0; w < ol->config->workers; w++)
        pals[w] = ol->release->worker[w].pal_base;
    view_forgot(&ol->state.view, pals, next_input);
}

static int take_up(struct output_logger *ol)
{
    const struct node_config *config = ol->config;
    void *logs = (uint8_t *)ol->kept + logs_offset();
    uint64_t lost_before = ol->release->lost_in_hand, released = 0;
    if (!release_attach(ol->release, config->workers, logs, config->pals, config->outputs,
                        OL_HELD)) {
        fprintf(stderr, "ftmb-node: state_lost: %s/ol.state contradicts itself\n", config->dir);
        return -EINVAL;
    }
    memcpy(&ol->state, twin_load(ol->decisions), sizeof(ol->state));
    ol->state.view.pending.valid = false; /* who holds it tells so again */
    if (ol->state.forgotten)
        keep_from_base(ol);
    ol->recovered = ol->state.view.view > 0;
    if (ol->recovered && config->apart) /* what the port took, a trunk may have had in hand */
        ol->release->lost_in_hand += 2u * FTMB_BURST;
    for (uint32_t w = 0; w < config->workers; w++)
        released += ol->release->worker[w].released;
    if (ol->recovered)
        event_emit("recovered", "{s:s,s:I,s:I,s:I}", "what", "ol", "view",
                   (json_int_t)ol->state.view.view, "released", (json_int_t)released,
                   "lost_in_hand", (json_int_t)(ol->release->lost_in_hand - lost_before));
    return 0;
}

int ol_keep_open(struct output_logger *ol)
{
    const struct node_config *config = ol->config;
    void *memory;
    if (config->mode != MODE_FTMB) { /* only counters, and nobody comes back for them */
        memory = aligned_alloc(CACHE_LINE, logs_offset());
        if (!memory)
            return -ENOMEM;
        memset(memory, 0, logs_offset());
        place(ol, memory);
        return 0;
    }
    uint64_t sizes[] = {config->pals, config->outputs, OL_HELD, FTMB_MAX_WORKERS};
    struct statefile_name name = {
        .magic = MAGIC,
        .version = VERSION,
        .config_digest = hash_bytes(config->config_digest, sizes, sizeof(sizes)),
        .bytes =
            logs_offset() + release_bytes(config->workers, config->pals, config->outputs, OL_HELD)};
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/ol.state", config->dir);
    bool found;
    int error = statefile_open(path, &name, OWNER_GONE_MS, &memory, &found);
    if (error)
        return error;
    place(ol, memory);
    if (found)
        return take_up(ol);
    begin_new(ol);
    return 0;
}

void ol_decided(struct output_logger *ol)
{
    twin_store(ol->decisions, &ol->state, sizeof(ol->state));
}

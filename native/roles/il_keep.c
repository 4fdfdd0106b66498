/* What the input logger keeps beyond its own death, and how it takes it up again: the logs, the
 * numbers that were acknowledged, the latest stamps, the view. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "io/clock.h"
#include "io/event.h"
#include "io/statefile.h"
#include "roles/input_logger.h"

#define MAGIC 0x494c2e7374617465ull
#define VERSION 1u
/* A killed process gives its file up when its memory has been torn down. */
#define OWNER_GONE_MS 10000
/* Bytes of log per index entry: a 64-byte frame's record takes 80, a tick's 16. */
#define LOG_BYTES_PER_RECORD 64u

static uint64_t logs_offset(void)
{
    return align_up(sizeof(struct il_kept), CACHE_LINE);
}

static void place(struct input_logger *il, void *memory)
{
    il->kept = memory;
    il->worker = il->kept->worker;
}

static uint64_t records(const struct node_config *config)
{
    return config->input_bytes / LOG_BYTES_PER_RECORD;
}

static void *log_memory(const struct input_logger *il, uint32_t w)
{
    uint64_t each = input_log_bytes(il->config->input_bytes, records(il->config));
    return (uint8_t *)il->kept + logs_offset() + w * each;
}

static void begin_new(struct input_logger *il)
{
    for (uint32_t w = 0; w < il->config->workers; w++) {
        input_log_init(&il->worker[w].log, log_memory(il, w), il->config->input_bytes,
                       records(il->config));
        stream_tx_reset(&il->worker[w].out, 1, clock_ns());
        il->worker[w].out.window = node_window(il->config);
    }
    statefile_complete(il->kept);
}

/* Between the store of its number and its count, the last record is of neither kind yet. */
static void count_last(struct il_worker *x)
{
    uint64_t last = x->log.next - 1;
    if (x->accepted + x->ticks == last || last < x->log.first)
        return;
    input_log_get(&x->log, last)->tick ? x->ticks++ : x->accepted++;
}

static bool take_up_worker(struct input_logger *il, uint32_t w)
{
    struct il_worker *x = &il->worker[w];
    if (!input_log_attach(&x->log, log_memory(il, w), il->config->input_bytes, records(il->config)))
        return false;
    uint64_t acked = u64_max(x->out.acked, x->log.first - 1);
    uint64_t resent = x->out.resent;
    if (acked >= x->log.next)
        return false;
    count_last(x);
    x->burst_count = x->link_full = 0;
    stream_tx_reset(&x->out, acked + 1, clock_ns());
    x->out.window = node_window(il->config);
    x->out.next = x->log.next;
    x->out.resent = resent + x->log.next - 1 - acked;
    return true;
}

static int take_up(struct input_logger *il)
{
    json_t *next = json_array();
    for (uint32_t w = 0; w < il->config->workers; w++) {
        if (!take_up_worker(il, w)) {
            fprintf(stderr, "ftmb-node: state_lost: %s/il.state contradicts itself\n",
                    il->config->dir);
            json_decref(next);
            return -EINVAL;
        }
        json_array_append_new(next, json_integer((json_int_t)il->worker[w].log.next));
    }
    il->recovered = il->kept->view > 0;
    if (il->recovered)
        event_emit("recovered", "{s:s,s:o}", "what", "il", "next", next);
    else
        json_decref(next);
    return 0;
}

int il_keep_open(struct input_logger *il)
{
    const struct node_config *config = il->config;
    void *memory;
    if (config->mode != MODE_FTMB) { /* only counters, and nobody comes back for them */
        memory = aligned_alloc(CACHE_LINE, logs_offset());
        if (!memory)
            return -ENOMEM;
        memset(memory, 0, logs_offset());
        place(il, memory);
        return 0;
    }
    uint64_t sizes[] = {config->input_bytes, records(config), FTMB_MAX_WORKERS};
    struct statefile_name name = {
        .magic = MAGIC,
        .version = VERSION,
        .config_digest = hash_bytes(config->config_digest, sizes, sizeof(sizes)),
        .bytes = logs_offset() +
                 config->workers * input_log_bytes(config->input_bytes, records(config))};
    char path[NODE_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/il.state", config->dir);
    bool found;
    int error = statefile_open(path, &name, OWNER_GONE_MS, &memory, &found);
    if (error)
        return error;
    place(il, memory);
    if (found)
        return take_up(il);
    begin_new(il);
    return 0;
}

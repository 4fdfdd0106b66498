/* Reading and checking the node spec (see spec.h). */
#include "app/spec.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "app/build_id.h"
#include "core/hash.h"
#include "core/view.h"
#include "io/control.h"
#include "io/event.h"
#include "io/fault.h"

#define SPEC_VERSION 1
#define MAX_KEYS (NF_MAX_PARAMS + 8)

static const char *spec_path;

/* Names of the keys that were asked for, to tell which of those given are unknown. */
struct section {
    const char *name;
    const json_t *object;
    const char *asked[MAX_KEYS];
    unsigned asked_count;
};

static struct section section_of(const char *name, const json_t *object)
{
    if (!json_is_object(object))
        die(2, "%s: '%s' must be an object", spec_path, name);
    return (struct section){.name = name, .object = object};
}

static json_t *want(struct section *section, const char *key)
{
    FTMB_ASSERT(section->asked_count < MAX_KEYS);
    section->asked[section->asked_count++] = key;
    json_t *value = json_object_get(section->object, key);
    if (!value)
        die(2, "%s: '%s.%s' is missing", spec_path, section->name, key);
    return value;
}

static uint64_t want_uint(struct section *section, const char *key, uint64_t min, uint64_t max)
{
    json_t *value = want(section, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) < min || (uint64_t)json_integer_value(value) > max)
        die(2, "%s: '%s.%s' must be a whole number from %llu to %llu", spec_path, section->name,
            key, (unsigned long long)min, (unsigned long long)max);
    return (uint64_t)json_integer_value(value);
}

/* A key that specs may leave out. */
static uint64_t may_uint(struct section *section, const char *key, uint64_t min, uint64_t max,
                         uint64_t otherwise)
{
    return json_object_get(section->object, key) ? want_uint(section, key, min, max) : otherwise;
}

static uint64_t want_power(struct section *section, const char *key, uint64_t min, uint64_t max)
{
    uint64_t value = want_uint(section, key, min, max);
    if (!is_power_of_two(value))
        die(2, "%s: '%s.%s' must be a power of two", spec_path, section->name, key);
    return value;
}

static bool want_bool(struct section *section, const char *key)
{
    json_t *value = want(section, key);
    if (!json_is_boolean(value))
        die(2, "%s: '%s.%s' must be true or false", spec_path, section->name, key);
    return json_is_true(value);
}

static void want_text(struct section *section, const char *key, char *to, size_t size)
{
    json_t *value = want(section, key);
    if (!json_is_string(value) || json_string_length(value) >= size)
        die(2, "%s: '%s.%s' must be a text shorter than %zu bytes", spec_path, section->name, key,
            size);
    memcpy(to, json_string_value(value), json_string_length(value) + 1);
}

/* One of `names` (NULL at the end); returns its index. */
static unsigned want_choice(struct section *section, const char *key, const char *const *names)
{
    json_t *value = want(section, key);
    for (unsigned i = 0; json_is_string(value) && names[i]; i++) {
        if (strcmp(names[i], json_string_value(value)) == 0)
            return i;
    }
    die(2, "%s: '%s.%s' has an unknown value (one it may have: %s)", spec_path, section->name, key,
        names[0]);
}

static void no_more_keys(const struct section *section)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)section->object, key, value)
    {
        bool known = false;
        for (unsigned i = 0; i < section->asked_count; i++)
            known |= strcmp(section->asked[i], key) == 0;
        if (!known)
            die(2, "%s: unknown key '%s.%s'", spec_path, section->name, key);
    }
}

/* ---- the network function ----------------------------------------------------------------- */

static uint64_t param_value(const struct nf_param *param, const json_t *value)
{
    struct in_addr address;
    if (param->kind == NF_IPV4 && json_is_string(value) &&
        inet_pton(AF_INET, json_string_value(value), &address) == 1)
        return ntohl(address.s_addr);
    if (param->kind == NF_FLAG && json_is_boolean(value))
        return json_is_true(value);
    if (param->kind != NF_IPV4 && json_is_integer(value) && json_integer_value(value) >= 0) {
        uint64_t number = (uint64_t)json_integer_value(value);
        if (number >= param->min && number <= param->max)
            return number;
    }
    die(2, "%s: 'nf.%s' is out of range or of the wrong kind (%s)", spec_path, param->name,
        param->help);
}

static void read_nf(struct node_config *config, const json_t *object)
{
    struct section nf = section_of("nf", object);
    char name[NODE_NAME_BYTES];
    want_text(&nf, "name", name, sizeof(name));
    config->nf = nf_find(name);
    if (!config->nf)
        die(2, "%s: there is no network function '%s'", spec_path, name);
    for (unsigned i = 0; config->nf->params[i].name; i++) {
        const struct nf_param *param = &config->nf->params[i];
        config->params[i] = param_value(param, want(&nf, param->name));
    }
    no_more_keys(&nf);
    char why[160] = "";
    if (!config->nf->needs(config->params, config->workers, &config->needs, why))
        die(2, "%s: %s: %s", spec_path, name, why);
    uint64_t digest = hash_bytes(config->workers, name, strlen(name));
    digest = hash_bytes(digest, config->params, sizeof(config->params));
    digest = hash_bytes(digest + config->reads_locked, FTMB_BUILD_ID, strlen(FTMB_BUILD_ID));
    config->config_digest = digest;
}

/* ---- sections ----------------------------------------------------------------------------- */

static void read_ft(struct node_config *config, const json_t *object)
{
    static const char *const release[] = {"max", "exact", NULL};
    static const char *const reads[] = {"optimistic", "locked", NULL};
    static const char *const engine[] = {"none", "stop-copy", "fork", "cow", "page", NULL};
    static const char *const schedule[] = {"period", "log", "demand", "adaptive", NULL};
    struct section ft = section_of("ft", object);
    config->exact = want_choice(&ft, "release", release) == 1;
    config->reads_locked = want_choice(&ft, "reads", reads) == 1;
    config->pal_batch = want_bool(&ft, "pal_batch");
    config->engine = (enum snapshot_engine_kind)want_choice(&ft, "engine", engine);
    config->schedule = (enum snapshot_schedule)want_choice(&ft, "schedule", schedule);
    config->period_us = want_uint(&ft, "period_us", 1000, 3600000000);
    config->log_mb = (uint32_t)want_uint(&ft, "log_mb", 1, 16384);
    config->replay_target_us = want_uint(&ft, "replay_target_us", 100, 3600000000);
    config->undo_mb = (uint32_t)want_uint(&ft, "undo_mb", 1, 16384);
    config->full_mb_per_s = (uint32_t)want_uint(&ft, "full_mb_per_s", 1, 1000000);
    config->detect_ms = (uint32_t)want_uint(&ft, "detect_ms", 5, 3600000);
    config->heir_ms = (uint32_t)may_uint(&ft, "heir_ms", 0, 3600000, 20000);
    config->peer_ms = (uint32_t)may_uint(&ft, "peer_ms", 1, 3600000, 20000);
    config->check = want_bool(&ft, "check");
    no_more_keys(&ft);
}

static void read_log(struct node_config *config, const json_t *object)
{
    struct section log = section_of("log", object);
    config->input_bytes = want_power(&log, "input_mb", 1, 16384) << 20;
    config->pals = want_power(&log, "pals", 4096, 1u << 30);
    config->outputs = want_power(&log, "outputs", 1024, 1u << 30);
    /* All of them go to a backup in one message, whose length has 32 bits. */
    if (config->workers * config->pals * sizeof(uint64_t) > UINT32_MAX - CONTROL_SMALL)
        die(2, "%s: 'log.pals' of all workers together must be below 4 GiB", spec_path);
    no_more_keys(&log);
}

static void read_groups(struct node_config *config, const json_t *object)
{
    struct section groups = section_of("groups", object);
    want_text(&groups, "traffic", config->group_traffic, NODE_NAME_BYTES);
    if (config->mode == MODE_FTMB || config->mode == MODE_NONE) {
        want_text(&groups, "il", config->group_il, NODE_NAME_BYTES);
        want_text(&groups, "ol", config->group_ol, NODE_NAME_BYTES);
    }
    no_more_keys(&groups);
}

static void read_lcores(struct node_config *config, const json_t *list)
{
    if (!json_is_array(list) || json_array_size(list) == 0 ||
        json_array_size(list) > NODE_MAX_LCORES)
        die(2, "%s: 'spec.lcores' must list 1 to %d lcores", spec_path, NODE_MAX_LCORES);
    config->lcores = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < config->lcores; i++) {
        struct node_lcore *lcore = &config->lcore[i];
        struct section s = section_of("lcores", json_array_get(list, i));
        lcore->cpu = (uint32_t)want_uint(&s, "cpu", 0, 4095);
        json_t *roles = want(&s, "roles");
        if (!json_is_array(roles) || json_array_size(roles) > NODE_MAX_ROLES)
            die(2, "%s: 'lcores.roles' must list at most %d roles", spec_path, NODE_MAX_ROLES);
        lcore->roles = (uint32_t)json_array_size(roles);
        for (uint32_t r = 0; r < lcore->roles; r++) {
            const char *role = json_string_value(json_array_get(roles, r));
            if (!role || strlen(role) >= NODE_NAME_BYTES)
                die(2, "%s: 'lcores.roles' must be names of roles", spec_path);
            memcpy(lcore->role[r], role, strlen(role) + 1);
        }
        no_more_keys(&s);
    }
}

static void read_noise(struct node_config *config, const json_t *list)
{
    if (!json_is_array(list) || json_array_size(list) > NODE_MAX_LCORES)
        die(2, "%s: 'spec.noise_cpus' must be a list of CPU numbers", spec_path);
    config->noise_cpus = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < config->noise_cpus; i++)
        config->noise_cpu[i] = (uint32_t)json_integer_value(json_array_get(list, i));
}

static double want_rate(struct section *section, const char *key)
{
    if (!json_object_get(section->object, key))
        return 0;
    json_t *value = want(section, key);
    if (!json_is_number(value) || json_number_value(value) < 0 || json_number_value(value) > 0.5)
        die(2, "%s: '%s.%s' must be a number from 0 to 0.5", spec_path, section->name, key);
    return json_number_value(value);
}

/* Faults of links: the layer in io keeps them, since no role knows of them. */
static void read_links(const struct node_config *config, const json_t *object)
{
    static const char *const kinds[] = {"il", "ol", "state"};
    struct section links = section_of("links", object);
    uint64_t seed = want_uint(&links, "seed", 0, UINT64_MAX);
    if (config->mode != MODE_FTMB)
        die(2, "%s: only mode ftmb recovers from faults of 'links'", spec_path);
    for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        if (!json_object_get(object, kinds[k]))
            continue;
        struct section kind = section_of(kinds[k], want(&links, kinds[k]));
        struct fault_rates rates = {
            .drop = want_rate(&kind, "drop"),
            .repeat = want_rate(&kind, "repeat"),
            .reorder = want_rate(&kind, "reorder"),
            .delay = want_rate(&kind, "delay"),
            .garble = want_rate(&kind, "garble"),
        };
        if (rates.delay > 0)
            rates.delay_us = (uint32_t)want_uint(&kind, "delay_us", 1, 1000000);
        else if (json_object_get(kind.object, "delay_us"))
            want(&kind, "delay_us");
        no_more_keys(&kind);
        fault_configure(seed, kinds[k], &rates);
    }
    no_more_keys(&links);
}

static void read_interfaces(struct node_config *config, const json_t *object)
{
    struct section interfaces = section_of("interfaces", object);
    want_text(&interfaces, "inside", config->interface[NF_INSIDE], NODE_INTERFACE_BYTES);
    want_text(&interfaces, "outside", config->interface[NF_OUTSIDE], NODE_INTERFACE_BYTES);
    no_more_keys(&interfaces);
    if (strcmp(config->group_il, config->group_ol) != 0)
        die(2, "%s: 'interfaces' are opened by one process: both loggers must be in it", spec_path);
    if (config->traffic)
        die(2, "%s: 'interfaces' take the place of 'traffic'", spec_path);
}

static void read_optional(struct node_config *config, struct section *top)
{
    if (json_object_get(top->object, "noise_cpus"))
        read_noise(config, want(top, "noise_cpus"));
    if (json_object_get(top->object, "slot"))
        config->slot = (uint32_t)want_uint(top, "slot", 0, VIEW_SLOTS - 1);
    if (json_object_get(top->object, "traffic"))
        config->traffic = want(top, "traffic");
    if (json_object_get(top->object, "links"))
        read_links(config, want(top, "links"));
    if (json_object_get(top->object, "interfaces"))
        read_interfaces(config, want(top, "interfaces"));
}

void spec_read(const char *path, struct node_config *config)
{
    static const char *const mode[] = {"direct", "none", "ftmb", "floor", NULL};
    static const char *const idle[] = {"poll", "yield", NULL};
    static const char *const full[] = {"refuse", "wait", NULL};
    json_error_t error;
    spec_path = path;
    memset(config, 0, sizeof(*config));
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        die(2, "%s: %s (line %d)", path, error.text, error.line);
    struct section top = section_of("spec", root);
    char out[4096];
    want_uint(&top, "version", SPEC_VERSION, SPEC_VERSION);
    want_text(&top, "process", config->process, sizeof(config->process));
    want_text(&top, "dir", config->dir, sizeof(config->dir));
    want_text(&top, "out", out, sizeof(out));
    config->mode = (enum node_mode)want_choice(&top, "mode", mode);
    config->workers = (uint32_t)want_uint(&top, "workers", 1, FTMB_MAX_WORKERS);
    config->replicas = (uint32_t)want_uint(&top, "replicas", 1, VIEW_SLOTS);
    config->yield = want_choice(&top, "idle", idle) == 1;
    config->memory_mb = (uint32_t)want_uint(&top, "memory_mb", 64, 1u << 20);
    config->wait_when_full = want_choice(&top, "when_full", full) == 1;
    read_ft(config, want(&top, "ft"));
    read_nf(config, want(&top, "nf"));
    read_log(config, want(&top, "log"));
    read_groups(config, want(&top, "groups"));
    read_lcores(config, want(&top, "lcores"));
    read_optional(config, &top);
    no_more_keys(&top);
    if (config->mode == MODE_FTMB && config->replicas < 2)
        die(2, "%s: mode ftmb needs a backup: 'spec.replicas' must be at least 2", path);
}

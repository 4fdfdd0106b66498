/* Reading and checking the node spec (see spec.h). */
#include "app/spec.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "app/build_id.h"
#include "core/hash.h"
#include "core/view.h"
#include "io/control.h"
#include "io/control_tcp.h"
#include "io/event.h"
#include "io/fault.h"
#include "nf/chain.h"

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

static uint64_t param_value(const char *section, const struct nf_param *param, const json_t *value)
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
    die(2, "%s: '%s.%s' is out of range or of the wrong kind (%s)", spec_path, section, param->name,
        param->help);
}

static const struct nf *read_function(struct section *nf)
{
    char name[NODE_NAME_BYTES];
    want_text(nf, "name", name, sizeof(name));
    const struct nf *function = nf_find(name);
    if (!function)
        die(2, "%s: there is no network function '%s'", spec_path, name);
    return function;
}

static void read_params(struct section *nf, const struct nf *function, uint64_t *values)
{
    for (unsigned i = 0; function->params[i].name; i++) {
        const struct nf_param *param = &function->params[i];
        values[i] = param_value(nf->name, param, want(nf, param->name));
    }
}

/* A stage is written as `nf` is; those at the end may be missing. */
static void read_stages(struct section *nf, uint64_t *values)
{
    static const char *const keys[NF_STAGES] = {"stage1", "stage2", "stage3", "stage4"};
    static const char *const names[NF_STAGES] = {"nf.stage1", "nf.stage2", "nf.stage3",
                                                 "nf.stage4"};
    for (unsigned s = 0; s < NF_STAGES; s++) {
        if (!json_object_get(nf->object, keys[s]))
            continue;
        struct section stage = section_of(names[s], want(nf, keys[s]));
        const struct nf *function = read_function(&stage);
        read_params(&stage, function, chain_set(values, s, function));
        no_more_keys(&stage);
    }
}

static void read_nf(struct node_config *config, const json_t *object)
{
    struct section nf = section_of("nf", object);
    config->nf = read_function(&nf);
    const char *name = config->nf->name;
    read_params(&nf, config->nf, config->params);
    if (config->nf->stages)
        read_stages(&nf, config->params);
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

/* ---- roles on several hosts ---------------------------------------------------------------- */

static uint8_t nibble(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (uint8_t)(at - digits) : 16;
}

/* `bytes` pairs of hexadecimal digits, with or without colons between them. */
static void want_hex(struct section *section, const char *key, uint8_t *to, unsigned bytes,
                     bool colons)
{
    const char *text = json_string_value(want(section, key));
    unsigned step = colons ? 3 : 2;
    bool good = text && strlen(text) == bytes * step - colons;
    for (unsigned i = 0; good && i < bytes; i++) {
        uint8_t high = nibble(text[i * step]), low = nibble(text[i * step + 1]);
        good = high < 16 && low < 16 && (!colons || i == bytes - 1 || text[i * step + 2] == ':');
        to[i] = (uint8_t)(high << 4 | (low & 15));
    }
    if (!good)
        die(2, "%s: '%s.%s' must be %u bytes in hexadecimal, in small letters%s", spec_path,
            section->name, key, bytes, colons ? ", with colons" : "");
}

static void want_tcp(struct section *section, const char *key, char *to)
{
    struct sockaddr_in address;
    want_text(section, key, to, NODE_CONTROL_BYTES);
    if (control_tcp_address(to, &address))
        die(2, "%s: '%s.%s' must be tcp:ADDRESS:PORT, with one host's IPv4 address", spec_path,
            section->name, key);
}

static bool is_link(const struct node_config *config, const char *name)
{
    if (strcmp(name, "traffic-il") == 0 || strcmp(name, "traffic-ol") == 0)
        return true;
    return (strncmp(name, "il-", 3) == 0 || strncmp(name, "ol-", 3) == 0) && name[3] >= '0' &&
           (uint32_t)(name[3] - '0') < config->replicas && !name[4];
}

static void read_trunk(const struct node_config *config, struct node_trunk *trunk,
                       const json_t *object)
{
    static const char *const drivers[] = {"af_packet", "af_xdp", NULL};
    struct section section = section_of("trunks", object);
    want_text(&section, "interface", trunk->interface, NODE_INTERFACE_BYTES);
    trunk->driver = (enum trunk_driver)want_choice(&section, "driver", drivers);
    struct section links = section_of("trunks.links", want(&section, "links"));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)links.object, key, value)
    {
        if (trunk->links == TRUNK_LINKS || !is_link(config, key))
            die(2, "%s: 'trunks.links' has a link that does not exist", spec_path);
        strcpy(trunk->link[trunk->links].name, key);
        want_hex(&links, key, trunk->link[trunk->links++].peer, TRUNK_MAC_BYTES, true);
    }
    no_more_keys(&section);
}

static void read_hosts(struct node_config *config, const json_t *object)
{
    static const char *const states[VIEW_SLOTS] = {"state-0", "state-1", "state-2", "state-3"};
    struct node_hosts *hosts = &config->hosts;
    struct section section = section_of("hosts", object);
    want_text(&section, "token", hosts->token, sizeof(hosts->token));
    want_hex(&section, "trial", hosts->trial, TRUNK_TRIAL_BYTES, false);
    struct section control = section_of("control", want(&section, "control"));
    want_tcp(&control, "ol", hosts->ol);
    for (uint32_t slot = 0; slot < config->replicas; slot++)
        want_tcp(&control, states[slot], hosts->state[slot]);
    no_more_keys(&control);
    const json_t *trunks = want(&section, "trunks");
    if (!json_is_array(trunks) || json_array_size(trunks) > TRUNK_MAX)
        die(2, "%s: 'hosts.trunks' must list at most %d interfaces", spec_path, TRUNK_MAX);
    hosts->trunks = (uint32_t)json_array_size(trunks);
    for (uint32_t t = 0; t < hosts->trunks; t++)
        read_trunk(config, &hosts->trunk[t], json_array_get(trunks, t));
    no_more_keys(&section);
    config->apart = true;
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
    if (json_object_get(top->object, "hosts"))
        read_hosts(config, want(top, "hosts"));
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

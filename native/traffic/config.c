/* Reading the `traffic` object. */
#include "traffic/config.h"

#include "traffic/flows.h"
#include "traffic/why.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000u
#define MAX_MS 3600000u

enum kind { WHOLE, REAL, TEXT };

/* One key: where its value goes, and its bounds. */
struct key {
    const char *name;
    enum kind kind;
    void *into; /* uint64_t, double or const char * */
    double min, max;
};

static int read_key(const struct key *key, const json_t *value, char *why)
{
    const char *kinds[] = {"a whole number", "a number", "a string"};
    bool fits = key->kind == WHOLE  ? json_is_integer(value)
                : key->kind == REAL ? json_is_number(value)
                                    : json_is_string(value);
    if (!value)
        return traffic_why(why, "traffic: key \"%s\" is missing", key->name);
    if (!fits)
        return traffic_why(why, "traffic: \"%s\" must be %s", key->name, kinds[key->kind]);
    if (key->kind == TEXT) {
        *(const char **)key->into = json_string_value(value);
        return 0;
    }
    double number = json_number_value(value);
    if (number < key->min || number > key->max)
        return traffic_why(why, "traffic: \"%s\" is %g, allowed are %g to %g", key->name, number,
                           key->min, key->max);
    if (key->kind == WHOLE)
        *(uint64_t *)key->into = (uint64_t)json_integer_value(value);
    else
        *(double *)key->into = number;
    return 0;
}

static int read_keys(const struct key *keys, size_t count, const json_t *spec, char *why)
{
    const char *name;
    json_t *value;
    if (!json_is_object(spec))
        return traffic_why(why, "traffic: must be an object");
    json_object_foreach((json_t *)spec, name, value)
    {
        size_t i = 0;
        while (i < count && strcmp(keys[i].name, name) != 0)
            i++;
        if (i == count)
            return traffic_why(why, "traffic: unknown key \"%s\"", name);
    }
    for (size_t i = 0; i < count; i++)
        if (read_key(&keys[i], json_object_get(spec, keys[i].name), why))
            return -1;
    return 0;
}

/* "10.0.0.0/8" */
static int read_network(const char *text, struct traffic_config *config, char *why)
{
    char address[32];
    struct in_addr parsed;
    const char *slash = strchr(text, '/');
    char *end = NULL;
    unsigned long prefix = slash ? strtoul(slash + 1, &end, 10) : 0;
    size_t length = slash ? (size_t)(slash - text) : sizeof(address);
    if (length >= sizeof(address) || end == slash + 1 || *end || prefix > 30)
        return traffic_why(why, "traffic: \"inside\" is \"%s\", not a network such as 10.0.0.0/8",
                           text);
    memcpy(address, text, length);
    address[length] = '\0';
    if (inet_pton(AF_INET, address, &parsed) != 1)
        return traffic_why(why, "traffic: \"inside\" is \"%s\", not a network such as 10.0.0.0/8",
                           text);
    config->inside_prefix = (uint32_t)prefix;
    config->inside = ntohl(parsed.s_addr) & (prefix ? UINT32_MAX << (32 - prefix) : 0);
    return 0;
}

int traffic_config_read(struct traffic_config *config, const json_t *spec, char *why)
{
    uint64_t warmup, duration, drain, flows, fill_silence;
    const char *inside;
    const struct key keys[] = {
        {"rate_pps", WHOLE, &config->rate_pps, 0, 1e9},
        {"warmup_ms", WHOLE, &warmup, 0, MAX_MS},
        {"duration_ms", WHOLE, &duration, 1, MAX_MS},
        {"drain_ms", WHOLE, &drain, 0, MAX_MS},
        {"flows", WHOLE, &flows, 1, FLOWS_MAX},
        {"fill_pps", WHOLE, &config->fill_pps, 0, 1e9},
        {"fill_silence_ms", WHOLE, &fill_silence, 0, MAX_MS},
        {"zipf", REAL, &config->zipf, 0, 4},
        {"new_flows_per_s", WHOLE, &config->new_flows_per_s, 0, 1e9},
        {"reply_share", REAL, &config->reply_share, 0, 0.999},
        {"seed", WHOLE, &config->seed, 0, 9.3e18},
        {"template", TEXT, &config->template, 0, 0},
        {"capture", TEXT, &config->capture, 0, 0},
        {"inside", TEXT, &inside, 0, 0},
        {"histogram", TEXT, &config->histogram, 0, 0},
        {"timeline", TEXT, &config->timeline, 0, 0},
        {"samples", TEXT, &config->samples, 0, 0},
        {"noise", TEXT, &config->noise, 0, 0},
    };
    memset(config, 0, sizeof(*config));
    if (read_keys(keys, sizeof(keys) / sizeof(keys[0]), spec, why))
        return -1;
    if (!*config->template == !*config->capture)
        return traffic_why(why, "traffic: name either a \"template\" or a \"capture\"");
    if (config->fill_pps && *config->capture)
        return traffic_why(why, "traffic: a capture brings its own flows, so there is nothing to "
                                "fill: \"fill_pps\" 0, or a template");
    config->warmup_ns = warmup * MS;
    config->duration_ns = duration * MS;
    config->drain_ns = drain * MS;
    config->flows = (uint32_t)flows;
    config->fill_silence_ns = fill_silence * MS;
    return read_network(inside, config, why);
}

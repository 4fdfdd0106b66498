/* `ftmb-node --describe`: what this build can do, for the Python side. */
#include <rte_version.h>
#include <stdio.h>

#include "app/build_id.h"
#include "app/spec.h"
#include "roles/snapshotter.h"

static json_t *describe_param(const struct nf_param *param)
{
    static const char *const kinds[] = {[NF_UINT] = "uint", [NF_IPV4] = "ipv4", [NF_FLAG] = "flag"};
    json_t *value = json_integer((json_int_t)param->value);
    if (param->kind == NF_IPV4) {
        json_decref(value);
        value = json_sprintf("%u.%u.%u.%u", (unsigned)(param->value >> 24) & 255,
                             (unsigned)(param->value >> 16) & 255,
                             (unsigned)(param->value >> 8) & 255, (unsigned)param->value & 255);
    }
    return json_pack("{s:s,s:s,s:o,s:I,s:I,s:s}", "name", param->name, "kind", kinds[param->kind],
                     "default", value, "min", (json_int_t)param->min, "max",
                     (json_int_t)u64_min(param->max, INT64_MAX), "help", param->help);
}

/* What a build has, a machine may lack: why one cannot be used here stands beside it. */
static json_t *describe_engines(void)
{
    static const char *const names[] = {[ENGINE_NONE] = "none",
                                        [ENGINE_STOP_COPY] = "stop-copy",
                                        [ENGINE_FORK] = "fork",
                                        [ENGINE_COW] = "cow",
                                        [ENGINE_PAGE] = "page"};
    json_t *engines = json_array();
    for (unsigned kind = 0; kind < sizeof(names) / sizeof(names[0]); kind++) {
        const char *why;
        (void)snapshot_engine_of((enum snapshot_engine_kind)kind, &why);
        json_array_append_new(engines,
                              json_pack("{s:s,s:s?}", "name", names[kind], "missing", why));
    }
    return engines;
}

void spec_describe(void)
{
    json_t *nfs = json_array();
    for (unsigned i = 0; nf_registry[i]; i++) {
        json_t *params = json_array();
        for (unsigned p = 0; nf_registry[i]->params[p].name; p++)
            json_array_append_new(params, describe_param(&nf_registry[i]->params[p]));
        json_array_append_new(nfs,
                              json_pack("{s:s,s:i,s:o}", "name", nf_registry[i]->name, "stages",
                                        (int)nf_registry[i]->stages, "params", params));
    }
    json_t *all =
        json_pack("{s:s,s:i,s:o,s:o,s:s,s:s,s:s,s:s}", "version", FTMB_VERSION, "max_workers",
                  FTMB_MAX_WORKERS, "nfs", nfs, "engines", describe_engines(), "compiler",
                  __VERSION__, "flags", FTMB_FLAGS, "dpdk", rte_version(), "git", FTMB_BUILD_ID);
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
}

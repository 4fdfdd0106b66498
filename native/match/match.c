/* See match.h. */
#include "match/match.h"

#include <hs.h>
#include <stdlib.h>

#include "core/base.h"

struct rule {
    const char *name;
    const char *expression;
    unsigned flags;
};

/* Examples of what such lists hold, not a protection against anything in particular. */
static const struct rule rules[MATCH_RULES] = {
    {"passwd", "/etc/(passwd|shadow)", 0},
    {"traversal", "(\\.\\./){3}", 0},
    {"cmd_exe", "cmd\\.exe", HS_FLAG_CASELESS},
    {"union_select", "union[ +]{1,4}select", HS_FLAG_CASELESS},
    {"or_true", "' or '?1'?='?1", HS_FLAG_CASELESS},
    {"script", "<script[ >]", HS_FLAG_CASELESS},
    {"jndi", "\\$\\{jndi:(ldap|rmi|dns)", HS_FLAG_CASELESS},
    {"shellshock", "\\(\\) \\{ :;", 0},
    {"nop_sled", "\\x90{16}", 0},
    {"powershell", "powershell(\\.exe)? -enc", HS_FLAG_CASELESS},
    {"scanner", "user-agent: (nikto|sqlmap|nmap)", HS_FLAG_CASELESS},
    {"download", "(wget|curl) http://", 0},
};

static hs_database_t *database;
static hs_scratch_t *scratch[FTMB_MAX_WORKERS];

static bool narrow(const struct rule *rule)
{
    hs_expr_info_t *info = NULL;
    hs_compile_error_t *error = NULL;
    if (hs_expression_info(rule->expression, rule->flags, &info, &error) != HS_SUCCESS) {
        hs_free_compile_error(error);
        return false;
    }
    bool is = info->max_width <= MATCH_WIDTH;
    free(info);
    return is;
}

static bool compile(void)
{
    const char *expressions[MATCH_RULES];
    unsigned flags[MATCH_RULES], ids[MATCH_RULES];
    hs_compile_error_t *error = NULL;
    for (unsigned r = 0; r < MATCH_RULES; r++) {
        if (!narrow(&rules[r]))
            return false;
        expressions[r] = rules[r].expression;
        flags[r] = rules[r].flags;
        ids[r] = r;
    }
    if (hs_compile_multi(expressions, flags, ids, MATCH_RULES, HS_MODE_VECTORED, NULL, &database,
                         &error) == HS_SUCCESS)
        return true;
    hs_free_compile_error(error);
    return false;
}

bool match_open(uint32_t workers)
{
    if (!database && !compile())
        return false;
    for (uint32_t w = 0; w < workers; w++) {
        if (!scratch[w] && hs_alloc_scratch(database, &scratch[w]) != HS_SUCCESS)
            return false;
    }
    return true;
}

struct hits {
    uint64_t after; /* what ends here or before was there already */
    uint32_t found;
};

static int on_match(unsigned rule, unsigned long long from, unsigned long long to, unsigned flags,
                    void *self)
{
    struct hits *hits = self;
    (void)from;
    (void)flags;
    if (to > hits->after)
        hits->found |= 1u << rule;
    return 0;
}

uint32_t match_scan(uint32_t worker, const uint8_t *tail, uint32_t tail_bytes, const uint8_t *data,
                    uint32_t bytes)
{
    const char *part[2] = {(const char *)tail, (const char *)data};
    unsigned length[2] = {tail_bytes, bytes};
    struct hits hits = {.after = tail_bytes};
    unsigned first = tail_bytes ? 0 : 1;
    hs_error_t error = hs_scan_vector(database, part + first, length + first, 2 - first, 0,
                                      scratch[worker], on_match, &hits);
    FTMB_ASSERT(error == HS_SUCCESS);
    return hits.found;
}

const char *match_name(unsigned rule)
{
    return rules[rule].name;
}

/* Hash set with linear probing; deletion closes the hole, so it never fills up with leftovers. */
#include "traffic/mapping.h"

#include <errno.h>
#include <stdlib.h>

static uint32_t home_of(const struct mapping *m, uint64_t key)
{
    return (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & m->mask;
}

int mapping_init(struct mapping *m, uint32_t flows)
{
    uint64_t size = 16;
    while (size < 2ull * flows)
        size *= 2;
    m->mask = (uint32_t)(size - 1);
    m->entries = calloc(size, sizeof(*m->entries));
    return m->entries ? 0 : -ENOMEM;
}

void mapping_free(struct mapping *m)
{
    free(m->entries);
    m->entries = NULL;
}

/* Where `key` is, or the empty place where it belongs. */
static uint32_t find_place(const struct mapping *m, uint64_t key)
{
    uint32_t i = home_of(m, key);
    while (m->entries[i].key && m->entries[i].key != key)
        i = (i + 1) & m->mask;
    return i;
}

uint32_t mapping_set(struct mapping *m, uint64_t key, uint32_t flow)
{
    struct mapping_entry *entry = &m->entries[find_place(m, key)];
    uint32_t before = entry->key ? entry->flow : MAPPING_NONE;
    *entry = (struct mapping_entry){.key = key, .flow = flow};
    return before;
}

void mapping_clear(struct mapping *m, uint64_t key, uint32_t flow)
{
    uint32_t hole = find_place(m, key);
    if (m->entries[hole].key == 0 || m->entries[hole].flow != flow)
        return;
    /* Move up every later entry of the cluster whose home does not lie behind the hole. */
    for (uint32_t i = (hole + 1) & m->mask; m->entries[i].key; i = (i + 1) & m->mask) {
        uint32_t home = home_of(m, m->entries[i].key);
        if (((i - home) & m->mask) >= ((i - hole) & m->mask)) {
            m->entries[hole] = m->entries[i];
            hole = i;
        }
    }
    m->entries[hole].key = 0;
}

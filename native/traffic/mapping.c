/* Hash set with linear probing; deletion closes the hole, so it never fills up with leftovers. */
#include "traffic/mapping.h"

#include "traffic/table.h"

#include <errno.h>

static uint32_t home_of(const struct mapping *m, uint64_t key)
{
    return (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & m->mask;
}

static uint64_t places_for(uint64_t flows)
{
    uint64_t places = 16;
    while (places < 2 * flows)
        places *= 2;
    return places;
}

uint64_t mapping_bytes(uint64_t flows)
{
    return places_for(flows) * sizeof(struct mapping_entry);
}

int mapping_init(struct mapping *m, uint32_t flows)
{
    m->mask = (uint32_t)(places_for(flows) - 1);
    m->entries = table_make(mapping_bytes(flows));
    return m->entries ? 0 : -ENOMEM;
}

void mapping_free(struct mapping *m)
{
    table_free(m->entries, ((size_t)m->mask + 1) * sizeof(*m->entries));
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

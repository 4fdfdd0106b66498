/* Large tables. */
#include "traffic/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

void *table_make(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += PAGE)
        ((volatile uint8_t *)memory)[at] = 0;
    return memory;
}

void table_free(void *table, size_t bytes)
{
    if (table)
        munmap(table, bytes);
}

uint64_t table_room(void)
{
    static const char key[] = "MemAvailable:";
    char line[128];
    uint64_t room = UINT64_MAX;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, sizeof(key) - 1) == 0)
            room = strtoull(line + sizeof(key) - 1, NULL, 10) * 1024; /* it is in kB */
    }
    if (file)
        fclose(file);
    return room;
}

/* Large tables. */
#include "traffic/table.h"

#include <stdio.h>
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
    char line[128];
    unsigned long long kilobytes;
    uint64_t room = UINT64_MAX;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1)
            room = kilobytes * 1024;
    if (file)
        fclose(file);
    return room;
}

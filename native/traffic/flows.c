/* The flow table's memory and address plan. */
#include "traffic/flows.h"

#include "traffic/table.h"
#include "traffic/why.h"

/* Ports from 1024 up. */
#define PORTS 64512u
#define MAX_HOST_BITS 20u

_Static_assert(sizeof(struct flow) == 32, "two flows in a cache line");

int flows_init(struct flows *f, uint32_t active, uint64_t fresh, uint32_t network, uint32_t prefix,
               char *why)
{
    uint64_t total = active + fresh;
    *f = (struct flows){.active = active, .total = (uint32_t)total};
    if (active == 0 || total > FLOWS_MAX)
        return traffic_why(why,
                           "%llu flows in one run, most is %u: fewer flows or new flows per "
                           "second, or a shorter run",
                           (unsigned long long)total, FLOWS_MAX);
    if (prefix > 30)
        return traffic_why(why, "inside network /%u has no room for hosts", prefix);
    /* Half of the network, so that neither its own nor its broadcast address is used. */
    uint32_t bits = 31 - prefix;
    f->host_bits = bits < MAX_HOST_BITS ? bits : MAX_HOST_BITS;
    f->inside = network + 1;
    if ((((total - 1) >> (4 + f->host_bits)) + 1) * 16 > PORTS)
        return traffic_why(why, "inside network /%u is too small for %llu flows", prefix,
                           (unsigned long long)total);
    f->table = table_make((size_t)total * sizeof(*f->table));
    if (!f->table)
        return traffic_why(why, "no memory for %llu flows", (unsigned long long)total);
    return 0;
}

void flows_free(struct flows *f)
{
    table_free(f->table, (size_t)f->total * sizeof(*f->table));
    f->table = NULL;
}

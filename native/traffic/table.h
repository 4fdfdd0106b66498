/* Memory of the large tables: a cell for each of millions of flows. */
#ifndef FTMB_TRAFFIC_TABLE_H
#define FTMB_TRAFFIC_TABLE_H

#include "core/base.h"

/* `bytes` zeroed bytes, in huge pages where there are any. Every page is there from the start, so
 * that none has to be fetched while packets are timed. NULL: no memory. */
void *table_make(size_t bytes);

/* NULL is no table, and left alone. */
void table_free(void *table, size_t bytes);

/* Bytes that this machine could still give; UINT64_MAX if it does not tell. */
uint64_t table_room(void);

#endif

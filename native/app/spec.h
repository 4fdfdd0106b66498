/* The node spec: the JSON file that says what a process is to be. */
#ifndef FTMB_APP_SPEC_H
#define FTMB_APP_SPEC_H

#include "roles/config.h"

/* Read and check `path`. Ends the process with code 2 and one line that names the file and the key
 * if anything is missing, unknown, of the wrong kind or out of range. */
void spec_read(const char *path, struct node_config *config);

/* What this build can do, as JSON on stdout (`ftmb-node --describe`). */
void spec_describe(void);

#endif

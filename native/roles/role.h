/* A role: a thin loop over the core, placed on a core by the node spec. */
#ifndef FTMB_ROLES_ROLE_H
#define FTMB_ROLES_ROLE_H

#include <jansson.h>

struct role {
    const char *name;
    void *self;
    /* One bounded piece of work on the role's lcore; returns frames handled, 0 when idle. */
    unsigned (*poll)(void *self);
    /* A command from the runner ("start", "stop", ...), on the main thread. May be NULL. */
    void (*command)(void *self, const char *verb);
    /* Counters at the end, on the main thread, after the lcores have stopped. */
    json_t *(*stats)(void *self);
};

#endif

/* What the embedding process may set: the reaction to a broken invariant, and giving way. */
#include "core/base.h"

static void trap(const char *file, int line, const char *what)
{
    (void)file;
    (void)line;
    (void)what;
    __builtin_trap();
}

void (*ftmb_panic)(const char *file, int line, const char *what) = trap;
void (*ftmb_breathe)(void) = NULL;

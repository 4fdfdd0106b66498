/* The default reaction to a broken invariant: stop at once. */
#include "core/base.h"

static void trap(const char *file, int line, const char *what)
{
    (void)file;
    (void)line;
    (void)what;
    __builtin_trap();
}

void (*ftmb_panic)(const char *file, int line, const char *what) = trap;

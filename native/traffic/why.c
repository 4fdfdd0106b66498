/* Messages of the traffic modules. */
#include "traffic/why.h"

#include <stdarg.h>
#include <stdio.h>

void traffic_say(char *why, const char *format, ...)
{
    va_list args;
    if (!why)
        return;
    va_start(args, format);
    vsnprintf(why, TRAFFIC_WHY, format, args);
    va_end(args);
}

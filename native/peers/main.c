/* ftmb-flows: client, server and long link of a comparison between middleboxes. Commands come on
 * stdin, one a line; the end of stdin ends it. */
#include "peers/flows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int usage(void)
{
    fprintf(stderr, "ftmb-flows: client INTERFACE FIRST_ADDRESS SERVER DIRECTORY\n"
                    "            server ADDRESS DIRECTORY\n"
                    "            relay INTERFACE INTERFACE MICROSECONDS\n");
    return 2;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 6 && strcmp(words[1], "client") == 0)
        return run_client(words[2], words[3], words[4], words[5]);
    if (count == 4 && strcmp(words[1], "server") == 0)
        return run_server(words[2], words[3]);
    if (count == 5 && strcmp(words[1], "relay") == 0) {
        char *rest = words[4];
        unsigned long us = strtoul(words[4], &rest, 10);
        if (rest == words[4] || *rest || us > 10000000)
            return usage();
        return run_relay(words[2], words[3], us * 1000);
    }
    return usage();
}

/* The assertion of the C tests: they are plain programs that exit 0, or say where they failed. */
#ifndef FTMB_TESTS_CHECK_H
#define FTMB_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

/* Unlike assert(), never compiled out. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #cond);               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#endif

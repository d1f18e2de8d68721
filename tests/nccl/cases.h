/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of NCCL have in common: a process for each case, as a library is loaded once. */
#ifndef TESTS_NCCL_CASES_H
#define TESTS_NCCL_CASES_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition,         \
                    kolo_error_text());                                                            \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* In a process of its own, where the stand-in follows the script. */
void in_process(const char *script, void (*body)(void));
/* A name of the stand-in in the folder `kind`, which the module has opened. */
void *of_standin(const char *kind, const char *name);

#define CASE(name, script)                                                                         \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_process(script, name);                                                                  \
    }

#endif

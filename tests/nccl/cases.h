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
/* The driver's stand-in from now on: "whole", unless told otherwise, or "running" its kernels. */
void use_driver(const char *kind);
/* A name of it. */
void *of_driver(const char *name);
/* One of standin_count_* of the whole library. */
int counted(const char *what);
bool said(const char *words);

/* Processes that run body, each with its script: what NCCL does, behind a slash what the driver
 * does, and behind another one KOLO_GPU_EXCHANGE. */
enum { RANKS = 2, RANKS_MOST = 4 };
void in_ranks(int size, const char *const *scripts, void (*body)(kolo_comm *world));
void in_world(const char *first, const char *second, void (*body)(kolo_comm *world));
void still_works(kolo_comm *world);
/* Rank 1 comes back when rank 0 has nothing under way any more, and may break what it likes. */
void let_rank_1_go_on(kolo_comm *world);
/* "Device memory" of GPU 1 by the driver's stand-in: 1, 2, 3... */
float *device_memory(size_t count);
void release(void *memory);

#define CASE(name, script)                                                                         \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_process(script, name);                                                                  \
    }

#define WORLD_CASE(name, first, second)                                                            \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_world(first, second, name);                                                             \
    }

#endif

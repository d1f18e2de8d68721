/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests on a GPU have in common: they open the first one, draw fresh random numbers (the
 * seed is printed; an argument repeats it, --quick before it makes the test smaller), and end at
 * the first check that fails, saying what was being tried. Included by one file of each test. They
 * need the kernels and the base alone, so that tests/gpu/build.sh can make them with nothing but
 * nvcc and gcc.
 */
#ifndef KOLO_TESTS_GPU_FIXTURE_H
#define KOLO_TESTS_GPU_FIXTURE_H

#include "base/random.h"
#include "kernels/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (%s); last error: %s\n", __FILE__, __LINE__, #condition,    \
                    now_text, kolo_error_text());                                                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static const struct kolo__device_module *gpu;
static struct kolo__device *device;
static kolo__device_event event;
static struct kolo__random fresh;
static bool quick;     /* smaller: every access is checked, or a processor does it all */
static int processors; /* of the GPU */
static char now_text[200];

/* What is being tried, for the message of a check that fails. */
__attribute__((format(printf, 1, 2), unused)) static void now(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(now_text, sizeof now_text, format, arguments);
    va_end(arguments);
}

/* Everything so far is done; a kernel that failed says so here. */
__attribute__((unused)) static void synchronize_stream(kolo__device_stream stream)
{
    const struct timespec nap = {0, 20000};
    kolo_status status;
    CHECK(gpu->event_record(device, event, stream) == KOLO_OK);
    for (int naps = 0; (status = gpu->event_query(device, event)) == KOLO_AGAIN; naps++) {
        CHECK(naps < 500000);
        nanosleep(&nap, NULL);
    }
    CHECK(status == KOLO_OK);
}

__attribute__((unused)) static void synchronize(void)
{
    synchronize_stream(NULL);
}

__attribute__((unused)) static void *on_gpu(size_t bytes)
{
    void *memory;
    CHECK(gpu->alloc(device, bytes, &memory) == KOLO_OK);
    return memory;
}

__attribute__((unused)) static void copy(void *to, const void *from, size_t bytes)
{
    CHECK(gpu->copy(device, to, from, bytes, NULL) == KOLO_OK);
    synchronize();
}

static void draw_seed(int argc, char **argv)
{
    quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    if (argc > 1 + quick)
        fresh.state = strtoull(argv[1 + quick], NULL, 0);
    else if (getrandom(&fresh.state, sizeof fresh.state, 0) < 0)
        exit(1);
}

/* Asked by another process: this one stays one that has not begun the driver. */
__attribute__((unused)) static bool has_gpu(void)
{
    static struct kolo__device_survey survey;
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(kolo__device_load(&gpu) == KOLO_OK && gpu->survey(&survey) == KOLO_OK &&
                      survey.count > 0
                  ? 0
                  : 1);
    CHECK(waitpid(child, &status, 0) == child);
    return status == 0;
}

/* Ends the test with 77, and says why, where there is no GPU. */
static void begin(int argc, char **argv)
{
    static struct kolo__device_survey survey;
    if (kolo__device_load(&gpu) != KOLO_OK || gpu->survey(&survey) != KOLO_OK ||
        survey.count == 0) {
        printf("skipped: %s\n", kolo_error_text());
        exit(77);
    }
    draw_seed(argc, argv);
    printf("%s, seed 0x%llx\n", survey.devices[0].name, (unsigned long long)fresh.state);
    processors = survey.devices[0].processors;
    CHECK(gpu->open(0, &device) == KOLO_OK);
    CHECK(gpu->event_create(device, &event) == KOLO_OK);
}

__attribute__((unused)) static void end(void)
{
    gpu->event_destroy(device, event);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* See cases.h. */
#include "cases.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <cmocka.h>

void in_process(const char *script, void (*body)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        setenv("STANDIN_NCCL", script, 1);
        body();
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

void *of_standin(const char *kind, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/libnccl.so.2", STANDIN, kind);
    void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    CHECK(handle != NULL);
    void *found = dlsym(handle, name);
    CHECK(found != NULL);
    return found;
}

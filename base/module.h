/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Modules: parts of kolo that need a library which not every machine has, each a shared object with
 * one table of functions, loaded when it is wanted. libkolo is linked to none of them.
 */
#ifndef KOLO_BASE_MODULE_H
#define KOLO_BASE_MODULE_H

#include <kolo/kolo.h>
#include <stdbool.h>

struct kolo__module {
    const char *name;   /* "MPI", for errors */
    const char *file;   /* "libkolo-mpi.so.0" */
    const char *symbol; /* of its table, which begins with its version, an unsigned */
    unsigned version;   /* of the table that this library knows */
    bool global;        /* what it is linked to looks its symbols up by itself */
};

/* Looks beside libkolo (or the program that has all of it), then where the dynamic linker does.
 * Loaded for the life of the process. KOLO_ERR_UNSUPPORTED with the reason when it is not there, or
 * belongs to another kolo. */
kolo_status kolo__module_load(const struct kolo__module *module, const void **table);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files that spare a later run what this one found out, in $XDG_CACHE_HOME/kolo or
 * ~/.cache/kolo. Each carries the key under which it was found; anybody may have written it, so
 * whoever reads it believes it within bounds, and only at the price of time.
 */
#ifndef KOLO_RUNTIME_CACHE_FILE_H
#define KOLO_RUNTIME_CACHE_FILE_H

#include <kolo/kolo.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* FNV-1a, 64 bits. */
uint64_t kolo__cache_hash(const char *text, size_t bytes);

/* "<folder>/<kind>-<hash of key>". False, and "": there is no such folder. */
bool kolo__cache_path(const char *kind, const char *key, char path[PATH_MAX]);

/* The bytes of a regular file, at most `capacity`; 0: there is none. */
size_t kolo__cache_read(const char *path, char *text, size_t capacity);
/* In place of what was there, at once; makes the folder. False: it could not be written. */
bool kolo__cache_write(const char *path, const char *text, size_t bytes);

/* Of the files of one kind that lie beside this one, the oldest go until there are `most`; this one
 * stays. */
void kolo__cache_trim(const char *path, size_t most);

/* What the processor calls itself, in one line. */
void kolo__cache_processor(char *name, size_t bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What collectives cost on this machine: constants for collectives/select.h, measured when a world
 * begins whose ranks all share memory, or read from a file that an earlier world wrote. One rank's
 * numbers count: rank 0 reads or takes the time, and all others get what it has, so that no
 * difference between files or clocks can make ranks choose differently. Worlds on several hosts, or
 * over tcp, keep the constants that kolo comes with.
 */
#ifndef KOLO_RUNTIME_COSTS_H
#define KOLO_RUNTIME_COSTS_H

#include "collectives/cost.h"

#include <kolo/kolo.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kolo__costs_source { KOLO__COSTS_DEFAULT, KOLO__COSTS_MEASURED, KOLO__COSTS_FILE };

struct kolo__costs {
    struct kolo__cost_model model;
    enum kolo__costs_source source;
    uint32_t ranks;      /* they are true of so many ranks; 0: of any number */
    char path[PATH_MAX]; /* of the file, on rank 0; "" : none */
};

/* Fills the context's costs; collective over the world. Costs nothing worth mentioning with a file,
 * some 10 ms without; in epochs after the first nothing is measured. A fault of the world does not
 * fail it: the next operation does. */
kolo_status kolo__costs_find(kolo_context *context);
/* What a communicator that all its ranks map shall go by: what was measured with as many ranks, or
 * what kolo comes with. */
const struct kolo__cost_model *kolo__costs_for(const struct kolo__costs *costs, bool mapped,
                                               uint32_t ranks);

/* ---- measuring (costs_measure.c) ------------------------------------------------------------ */

/* Runs operations on the communicator, whose ranks all share memory, and nothing else runs on it;
 * collective. The model is rank 0's; on the other ranks it is left as it is. */
kolo_status kolo__costs_measure(kolo_comm *comm, struct kolo__cost_model *model);

/* Bytes that a rank may touch and stay in the cache of a level, when `ranks` of them share the
 * outermost. */
void kolo__costs_levels(uint32_t ranks, double bytes[KOLO__COST_LEVELS]);

/* ---- the file (costs_file.c) ---------------------------------------------------------------- */

enum { KOLO__COSTS_TEXT_BYTES = 2048, KOLO__COSTS_KEY_BYTES = 512 };

/* How the ranks of a host lie on its processors. */
enum kolo__costs_layout {
    KOLO__LAYOUT_BOUND, /* each has a processor of its own, and stays on it */
    KOLO__LAYOUT_FREE,
    KOLO__LAYOUT_OVERSUBSCRIBED
};

/* What the numbers depend on, in one line: processor, caches, kernel, ranks, layout. */
void kolo__costs_key(uint32_t ranks, enum kolo__costs_layout layout,
                     char key[KOLO__COSTS_KEY_BYTES]);
/* Of this process, among `ranks` on this machine. */
enum kolo__costs_layout kolo__costs_layout(uint32_t ranks, bool crowded);
/* Where that is kept: $XDG_CACHE_HOME/kolo/, or $HOME/.cache/kolo/. False: nowhere. */
bool kolo__costs_path(const char *key, char path[PATH_MAX]);

/* The file's text; numbers out of range are written as the nearest in it. Returns the length. */
size_t kolo__costs_text(const char *key, const struct kolo__cost_model *model,
                        char text[KOLO__COSTS_TEXT_BYTES]);
/* False, and the model untouched, when it is not the text of this key, or not whole. What messages
 * between hosts cost is not in it: that of kolo__default_cost_model. */
bool kolo__costs_parse(const char *text, size_t bytes, const char *key,
                       struct kolo__cost_model *model);

bool kolo__costs_load(const char *path, const char *key, struct kolo__cost_model *model);
/* Makes the folders it needs. The file is whole or not there; it is no fault when it cannot be. */
bool kolo__costs_save(const char *path, const char *key, const struct kolo__cost_model *model);

#endif

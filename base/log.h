/* SPDX-License-Identifier: Apache-2.0 */
/* One line a message to stderr: "kolo[rank@host] warn: ...". A line is written by one write(2). */
#ifndef KOLO_BASE_LOG_H
#define KOLO_BASE_LOG_H

#include <stdbool.h>

enum kolo__log_level { KOLO__LOG_ERROR, KOLO__LOG_WARN, KOLO__LOG_INFO, KOLO__LOG_DEBUG };

/* level: "error", "warn", "info" or "debug". rank < 0: no rank is printed. */
void kolo__log_configure(const char *level, int rank);
void kolo__log(enum kolo__log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* For messages whose making costs something. */
bool kolo__log_enabled(enum kolo__log_level level);
/* This host's name, found once. */
const char *kolo__host_name(void);

#endif

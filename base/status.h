/* SPDX-License-Identifier: Apache-2.0 */
/* The text of the last error, per thread. Written once, by whoever detects the error. */
#ifndef KOLO_BASE_STATUS_H
#define KOLO_BASE_STATUS_H

#include <kolo/kolo.h>

/* Stores the text and returns the status: `return kolo__error(KOLO_ERR_INVALID, "kolo_send: peer %d
 * ...", peer);` */
kolo_status kolo__error(kolo_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* As kolo__error with ": strerror(errno_value)" appended; status KOLO_ERR_SYSTEM. */
kolo_status kolo__error_errno(int errno_value, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ /* which else takes an error for a status like any other, perhaps        \
                             KOLO_OK */
#define kolo__error(status, ...) ((void)(kolo__error)((status), __VA_ARGS__), (status))
#define kolo__error_errno(...)   ((void)(kolo__error_errno)(__VA_ARGS__), KOLO_ERR_SYSTEM)
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef kolo__error /* what analyzers are told */
#undef kolo__error_errno

static _Thread_local char error_text[1024];

static int set_text(const char *format, va_list arguments)
{
    /* Through a copy: an argument may be the old text itself. */
    char text[sizeof error_text];
    int length = vsnprintf(text, sizeof text, format, arguments);
    memcpy(error_text, text, sizeof text);
    return length;
}

kolo_status kolo__error(kolo_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_text(format, arguments);
    va_end(arguments);
    return status;
}

kolo_status kolo__error_errno(int errno_value, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_text(format, arguments);
    va_end(arguments);
    size_t length = strlen(error_text);
    snprintf(error_text + length, sizeof error_text - length, ": %s", strerror(errno_value));
    return KOLO_ERR_SYSTEM;
}

const char *kolo_error_text(void)
{
    return error_text;
}

const char *kolo_status_name(kolo_status status)
{
    switch (status) {
    case KOLO_OK:
        return "KOLO_OK";
    case KOLO_AGAIN:
        return "KOLO_AGAIN";
    case KOLO_ERR_INVALID:
        return "KOLO_ERR_INVALID";
    case KOLO_ERR_CONFIG:
        return "KOLO_ERR_CONFIG";
    case KOLO_ERR_MEMORY:
        return "KOLO_ERR_MEMORY";
    case KOLO_ERR_SYSTEM:
        return "KOLO_ERR_SYSTEM";
    case KOLO_ERR_NETWORK:
        return "KOLO_ERR_NETWORK";
    case KOLO_ERR_TIMEOUT:
        return "KOLO_ERR_TIMEOUT";
    case KOLO_ERR_PEER_LOST:
        return "KOLO_ERR_PEER_LOST";
    case KOLO_ERR_MISMATCH:
        return "KOLO_ERR_MISMATCH";
    case KOLO_ERR_WORLD:
        return "KOLO_ERR_WORLD";
    case KOLO_ERR_UNSUPPORTED:
        return "KOLO_ERR_UNSUPPORTED";
    case KOLO_ERR_ABORTED:
        return "KOLO_ERR_ABORTED";
    case KOLO_ERR_DEVICE:
        return "KOLO_ERR_DEVICE";
    }
    return "unknown status";
}

const char *kolo_version(void)
{
    return "0.1.0";
}

void kolo__assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "kolo: bug: assertion failed at %s:%d: %s\n", file, line, expression);
    abort();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum kolo__log_level threshold = KOLO__LOG_WARN;
static int log_rank = -1;
static char host[256];
static pthread_once_t host_once = PTHREAD_ONCE_INIT;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

static void find_host(void)
{
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0')
        strcpy(host, "localhost");
}

const char *kolo__host_name(void)
{
    pthread_once(&host_once, find_host);
    return host;
}

void kolo__log_configure(const char *level, int rank)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(level, level_names[i]) == 0)
            threshold = (enum kolo__log_level)i;
    log_rank = rank;
}

bool kolo__log_enabled(enum kolo__log_level level)
{
    return level <= threshold;
}

void kolo__log(enum kolo__log_level level, const char *format, ...)
{
    if (!kolo__log_enabled(level))
        return;
    char line[2048];
    int length;
    if (log_rank >= 0)
        length = snprintf(line, sizeof line, "kolo[%d@%s] %s: ", log_rank, kolo__host_name(),
                          level_names[level]);
    else
        length =
            snprintf(line, sizeof line, "kolo[%s] %s: ", kolo__host_name(), level_names[level]);
    va_list arguments;
    va_start(arguments, format);
    int body = vsnprintf(line + length, sizeof line - 1 - (size_t)length, format, arguments);
    va_end(arguments);
    if (body > 0)
        length += body;
    if ((size_t)length > sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written;
}

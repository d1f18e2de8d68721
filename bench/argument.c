/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/argument.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bench_parse_bytes(const char *text, size_t *bytes)
{
    if (*text < '0' || *text > '9') /* strtoull would take "-1" and " 1" */
        return false;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*end != '\0') {
        const char *unit = strchr("KkMmGg", *end);
        if (unit == NULL || end[1] != '\0')
            return false;
        shift = *unit == 'K' || *unit == 'k' ? 10 : *unit == 'M' || *unit == 'm' ? 20 : 30;
    }
    if (errno != 0 || number > SIZE_MAX >> shift)
        return false;
    *bytes = (size_t)number << shift;
    return true;
}

size_t bench_argument_bytes(const struct argp_state *state, const char *name, const char *text)
{
    size_t bytes = 0;
    if (!bench_parse_bytes(text, &bytes) || bytes == 0 || bytes > PTRDIFF_MAX)
        argp_error(state, "--%s '%s': say a number of bytes such as 64, 4K, 256M or 1G", name,
                   text);
    return bytes;
}

long bench_argument_number(const struct argp_state *state, const char *name, const char *text,
                           long low, long high)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || number < low || number > high)
        argp_error(state, "--%s '%s': say a number from %ld to %ld", name, text, low, high);
    return number;
}

double bench_argument_seconds(const struct argp_state *state, const char *text)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds > 0 && seconds <= 86400))
        argp_error(state, "--seconds '%s': say a time such as 0.5", text);
    return seconds;
}

int bench_argument_choice(const struct argp_state *state, const char *name, const char *text,
                          const char *const *choices)
{
    char words[160] = "";
    size_t used = 0;
    for (int i = 0; choices[i] != NULL; i++) {
        if (strcmp(choices[i], text) == 0)
            return i;
        const char *joint = i == 0 ? "" : choices[i + 1] == NULL ? " or " : ", ";
        if (used < sizeof words)
            used += (size_t)snprintf(words + used, sizeof words - used, "%s%s", joint, choices[i]);
    }
    argp_error(state, "--%s '%s': say %s", name, text, words);
    return 0;
}

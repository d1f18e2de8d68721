/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slurm's lists of hosts: names divided by commas, in which brackets stand for numbers,
 *
 *     rack[1-2]node[01-03,07],login      rack1node01, rack1node02, ...
 *
 * Only the first is needed, and whether there is another.
 */
#include "runtime/launch/launch.h"

#include "base/status.h"

#include <string.h>

static bool is_of_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == ':';
}

/* Appends the first number between brackets. Returns what follows "]"; NULL: broken. */
static const char *take_bracket(const char *next, char *first, size_t bytes, size_t *used,
                                bool *only)
{
    const char *end = strchr(next, ']');
    size_t digits = strspn(next, "0123456789");
    if (end == NULL || digits == 0 || *used + digits >= bytes)
        return NULL;
    memcpy(first + *used, next, digits);
    *used += digits;
    const char *rest = next + digits;
    if (*rest == '-') { /* a range of one number is one host */
        size_t last = strspn(rest + 1, "0123456789");
        if (last == 0)
            return NULL;
        *only = *only && last == digits && memcmp(next, rest + 1, digits) == 0;
        rest += 1 + last;
    }
    if (*rest != ',' && *rest != ']')
        return NULL;
    *only = *only && *rest == ']';
    return end + 1;
}

kolo_status kolo__hostlist_first(const char *list, char *first, size_t bytes, bool *only)
{
    size_t used = 0;
    const char *next = list;
    *only = true;
    while (next != NULL && *next != '\0' && *next != ',') {
        if (*next == '[') {
            next = take_bracket(next + 1, first, bytes, &used, only);
        } else if (is_of_name(*next) && used + 1 < bytes) {
            first[used++] = *next++;
        } else {
            next = NULL;
        }
    }
    if (next == NULL || used == 0)
        return kolo__error(KOLO_ERR_CONFIG, "'%.200s' is no list of hosts, such as node[01-03,07]",
                           list);
    *only = *only && *next == '\0';
    first[used] = '\0';
    return KOLO_OK;
}

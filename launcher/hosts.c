/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/hosts.h"

#include "base/status.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SLOTS_MAX = 1 << 20 };

/* Names compare without case; "node7" is "node7.example.com" whichever of the two is the own name.
 */
static bool is_this_machine(const char *host, const char *own_name)
{
    static const char *const LOCAL[] = {"localhost", "127.0.0.1", "::1", "[::1]"};
    for (size_t i = 0; i < sizeof LOCAL / sizeof *LOCAL; i++)
        if (strcasecmp(host, LOCAL[i]) == 0)
            return true;
    if (strcasecmp(host, own_name) == 0)
        return true;
    size_t host_label = strcspn(host, "."), own_label = strcspn(own_name, ".");
    bool one_is_short = host[host_label] == '\0' || own_name[own_label] == '\0';
    return one_is_short && host_label == own_label && strncasecmp(host, own_name, own_label) == 0;
}

/* Cuts ":slots" off the entry. A bare IPv6 address has more than one colon and no slots. */
static kolo_status take_slots(char *entry, long default_slots, long *slots)
{
    char *colon = strrchr(entry, ':'), *end;
    bool bare_v6 = colon != NULL && entry[0] != '[' && strchr(entry, ':') != colon;
    bool inside_brackets = colon != NULL && strchr(colon, ']') != NULL;
    *slots = default_slots;
    if (colon == NULL || bare_v6 || inside_brackets)
        return KOLO_OK;
    *colon = '\0';
    errno = 0;
    *slots = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end != '\0' || errno != 0 || *slots < 1 || *slots > SLOTS_MAX)
        return kolo__error(KOLO_ERR_CONFIG,
                           "--hosts: '%s' is no number of slots for %s: give host:slots, with "
                           "slots from 1 to %d",
                           colon + 1, entry, SLOTS_MAX);
    return KOLO_OK;
}

kolo_status kolo__hosts_parse(const char *text, const char *own_name, long default_slots,
                              long *slots)
{
    *slots = 0;
    for (const char *next = text; next != NULL;) {
        char entry[300];
        long here;
        size_t length = strcspn(next, ",");
        if (length == 0 || length >= sizeof entry)
            return kolo__error(KOLO_ERR_CONFIG,
                               "--hosts: '%s' has an empty or overlong name: give "
                               "host:slots,host:slots",
                               text);
        snprintf(entry, sizeof entry, "%.*s", (int)length, next);
        next = next[length] == ',' ? next + length + 1 : NULL;

        kolo_status status = take_slots(entry, default_slots, &here);
        if (status != KOLO_OK)
            return status;
        if (!is_this_machine(entry, own_name))
            return kolo__error(KOLO_ERR_CONFIG,
                               "--hosts: %s is another machine than this one (%s); launching over "
                               "ssh comes in a later version",
                               entry, own_name);
        *slots += here;
        if (*slots > SLOTS_MAX)
            return kolo__error(KOLO_ERR_CONFIG, "--hosts: more than %d slots in all", SLOTS_MAX);
    }
    return KOLO_OK;
}

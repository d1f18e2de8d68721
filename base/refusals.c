/* SPDX-License-Identifier: Apache-2.0 */
#include "base/refusals.h"

#include "base/log.h"

#include <string.h>

/* FNV-1a, of the text up to the end character. */
static uint64_t hash(uint64_t value, const char *text, char end)
{
    for (; *text != '\0' && *text != end; text++)
        value = (value ^ (unsigned char)*text) * 0x100000001b3u;
    return value;
}

/* The port is another one each time, and so may be what stands behind a reason's colon: what a
 * stranger said, and who says something else each time must not use up what may be said of others.
 */
static uint64_t hash_refusal(char *address, const char *reason)
{
    char *port = strrchr(address, ':'), kept = ':';
    if (port != NULL) {
        kept = *port;
        *port = '\0';
    }
    uint64_t value = hash(hash(0xcbf29ce484222325u, address, '\0'), reason, ':');
    if (port != NULL)
        *port = kept;
    return value;
}

void kolo__refusals_log(struct kolo__refusals *refusals, const char *where,
                        const struct kolo__address *from, const char *reason)
{
    char address[80];
    kolo__address_text(from, address, sizeof address);
    uint64_t refusal = hash_refusal(address, reason);
    bool known = refusals->count == KOLO__REFUSALS_MAX;
    for (unsigned i = 0; i < refusals->count && !known; i++)
        known = refusals->seen[i] == refusal;
    if (!known)
        refusals->seen[refusals->count++] = refusal;
    kolo__log(known ? KOLO__LOG_DEBUG : KOLO__LOG_WARN, "%s: refused a connection from %s: %s%s",
              where, address, reason,
              !known && refusals->count == KOLO__REFUSALS_MAX
                  ? " (no more refusals are reported; KOLO_LOG=debug shows all)"
                  : "");
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/refusals.h"

#include "base/log.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* FNV-1a, of the text up to the end character. */
static uint64_t hash(uint64_t value, const char *text, char end)
{
    for (; *text != '\0' && *text != end; text++)
        value = (value ^ (unsigned char)*text) * 0x100000001b3u;
    return value;
}

static bool is_news(struct kolo__refusals *refusals, const char *address, const char *reason)
{
    char host[80];
    const char *port = strrchr(address, ':'); /* another one each time */
    snprintf(host, sizeof host, "%.*s", port != NULL ? (int)(port - address) : 79, address);
    uint64_t kind = hash(hash(0xcbf29ce484222325u, host, '\0'), reason, ':');
    if (refusals->count == KOLO__REFUSALS_MAX)
        return false;
    for (unsigned i = 0; i < refusals->count; i++)
        if (refusals->kinds[i] == kind)
            return false;
    refusals->kinds[refusals->count++] = kind;
    return true;
}

void kolo__refusals_log(struct kolo__refusals *refusals, const char *where,
                        const struct kolo__address *from, const char *reason)
{
    char address[80];
    kolo__address_text(from, address, sizeof address);
    bool news = is_news(refusals, address, reason);
    kolo__log(news ? KOLO__LOG_WARN : KOLO__LOG_DEBUG, "%s: refused a connection from %s: %s%s",
              where, address, reason,
              news && refusals->count == KOLO__REFUSALS_MAX
                  ? " (no more refusals are reported; KOLO_LOG=debug shows all)"
                  : "");
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/addresses.h"

#include "base/interfaces.h"
#include "base/resolve.h"
#include "base/socket.h"
#include "base/status.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

kolo_status kolo__addresses_of(const char *host, uint64_t deadline_ns,
                               struct kolo__addresses *addresses)
{
    struct kolo__resolved resolved;
    addresses->count = 0;
    addresses->only_loopback = true;
    kolo_status status = kolo__resolve(host, "0", deadline_ns, &resolved);
    for (int i = 0; status == KOLO_OK && i < resolved.count && i < KOLO__ADDRESSES_MAX; i++) {
        const struct kolo__address *address = &resolved.list[i];
        if (getnameinfo((const struct sockaddr *)&address->storage, address->length,
                        addresses->text[addresses->count], KOLO__ADDRESS_TEXT_BYTES, NULL, 0,
                        NI_NUMERICHOST) != 0)
            continue;
        addresses->only_loopback &= kolo__address_is_loopback(address);
        addresses->count++;
    }
    return status;
}

kolo_status kolo__addresses_listen(char *text, size_t bytes)
{
    struct kolo__interfaces found;
    kolo_status status = kolo__interfaces_find("", &found);
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; status == KOLO_OK && i < found.count; i++) {
        char host[KOLO__ADDRESS_TEXT_BYTES];
        const struct kolo__address *address = &found.list[i].address;
        if (getnameinfo((const struct sockaddr *)&address->storage, address->length, host,
                        sizeof host, NULL, 0, NI_NUMERICHOST) == 0 &&
            used + strlen(host) + 2 < bytes)
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used > 0 ? "," : "", host);
    }
    if (status == KOLO_OK && used == 0)
        status = kolo__error(KOLO_ERR_NETWORK, "this host has no address yet: is its network up?");
    return status;
}

kolo_status kolo__addresses_own(const char *net, char text[KOLO__ADDRESS_TEXT_BYTES])
{
    struct kolo__interfaces found;
    kolo_status status = kolo__interfaces_find(net, &found);
    if (status != KOLO_OK)
        return status;
    if (found.count == 0 || found.list[0].loopback)
        return kolo__error(KOLO_ERR_NETWORK, "this host has no address that other hosts reach: no "
                                             "interface but loopback is up");
    const struct kolo__address *address = &found.list[0].address;
    int failure = getnameinfo((const struct sockaddr *)&address->storage, address->length, text,
                              KOLO__ADDRESS_TEXT_BYTES, NULL, 0, NI_NUMERICHOST);
    if (failure != 0)
        return kolo__error(KOLO_ERR_SYSTEM, "cannot find this host's address: %s",
                           gai_strerror(failure));
    return KOLO_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/addresses.h"

#include "base/interfaces.h"
#include "base/socket.h"
#include "base/status.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_loopback(const struct sockaddr *socket_address, socklen_t length)
{
    struct kolo__address address = {.length = length};
    memcpy(&address.storage, socket_address, length);
    return kolo__address_is_loopback(&address);
}

kolo_status kolo__addresses_of(const char *host, struct kolo__addresses *addresses)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
    addresses->count = 0;
    addresses->only_loopback = true;
    int failure = getaddrinfo(host, NULL, &hints, &list);
    if (failure != 0)
        return kolo__error(KOLO_ERR_NETWORK, "cannot resolve '%s': %s", host,
                           gai_strerror(failure));
    for (const struct addrinfo *entry = list;
         entry != NULL && addresses->count < KOLO__ADDRESSES_MAX; entry = entry->ai_next) {
        if (getnameinfo(entry->ai_addr, entry->ai_addrlen, addresses->text[addresses->count],
                        KOLO__ADDRESS_TEXT_BYTES, NULL, 0, NI_NUMERICHOST) != 0)
            continue;
        addresses->only_loopback &= is_loopback(entry->ai_addr, entry->ai_addrlen);
        addresses->count++;
    }
    freeaddrinfo(list);
    return KOLO_OK;
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

int kolo__addresses_try(const char *numeric, int port)
{
    struct kolo__address address;
    char text[KOLO__ADDRESS_TEXT_BYTES + 10];
    int failure = 0, on = 1;
    snprintf(text, sizeof text, strchr(numeric, ':') != NULL ? "[%s]:%d" : "%s:%d", numeric, port);
    if (kolo__address_parse(text, &address) != KOLO_OK)
        return EADDRNOTAVAIL;
    int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address.storage, address.length) != 0 || listen(fd, 1) != 0)
        failure = errno;
    close(fd);
    return failure;
}

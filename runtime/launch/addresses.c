/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/addresses.h"

#include "base/socket.h"
#include "base/status.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
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

/* Bridges that join the containers of one host: every host has the same addresses there. */
static bool is_bridge(const char *name)
{
    static const char *const prefixes[] = {"docker", "br-", "virbr", "cni", "lxc", "podman"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static bool is_usable(const struct ifaddrs *entry, int family)
{
    if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != family ||
        (entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0 ||
        is_bridge(entry->ifa_name))
        return false;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)entry->ifa_addr;
    return family != AF_INET6 || !IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr);
}

kolo_status kolo__addresses_own(char text[KOLO__ADDRESS_TEXT_BYTES])
{
    static const int families[] = {AF_INET, AF_INET6};
    struct ifaddrs *list;
    bool found = false;
    if (getifaddrs(&list) != 0)
        return kolo__error_errno(errno, "cannot list this host's addresses");
    for (int f = 0; f < 2 && !found; f++)
        for (const struct ifaddrs *entry = list; entry != NULL && !found; entry = entry->ifa_next)
            found = is_usable(entry, families[f]) &&
                    getnameinfo(entry->ifa_addr,
                                families[f] == AF_INET ? sizeof(struct sockaddr_in)
                                                       : sizeof(struct sockaddr_in6),
                                text, KOLO__ADDRESS_TEXT_BYTES, NULL, 0, NI_NUMERICHOST) == 0;
    freeifaddrs(list);
    if (!found)
        return kolo__error(KOLO_ERR_NETWORK, "this host has no address that other hosts reach: no "
                                             "interface but loopback is up");
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

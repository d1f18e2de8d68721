/* SPDX-License-Identifier: Apache-2.0 */
#include "base/local_addresses.h"

#include "base/status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* False for what no other host can use. */
static bool write_address(const struct sockaddr *address, char *text, socklen_t bytes)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        uint32_t number = ntohl(in->sin_addr.s_addr);
        return number >> 24 != 127 && number >> 16 != 0xa9fe && /* 169.254: link-local */
               inet_ntop(AF_INET, &in->sin_addr, text, bytes) != NULL;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
    return !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) && !IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) &&
           inet_ntop(AF_INET6, &in6->sin6_addr, text, bytes) != NULL;
}

kolo_status kolo__local_addresses(char text[KOLO__LOCAL_ADDRESSES_BYTES])
{
    static const int FAMILIES[] = {AF_INET, AF_INET6};
    struct ifaddrs *list;
    size_t used = 0;
    int count = 0;
    text[0] = '\0';
    if (getifaddrs(&list) != 0)
        return kolo__error_errno(errno, "cannot read the addresses of this host");
    for (size_t f = 0; f < 2; f++)
        for (const struct ifaddrs *one = list; one != NULL; one = one->ifa_next) {
            char address[INET6_ADDRSTRLEN];
            bool usable = one->ifa_addr != NULL && one->ifa_addr->sa_family == FAMILIES[f] &&
                          (one->ifa_flags & IFF_UP) != 0 &&
                          write_address(one->ifa_addr, address, sizeof address);
            if (!usable || count == KOLO__LOCAL_ADDRESSES_MAX)
                continue;
            used += (size_t)snprintf(text + used, KOLO__LOCAL_ADDRESSES_BYTES - used, "%s%s",
                                     count > 0 ? "," : "", address);
            count++;
        }
    freeifaddrs(list);
    return KOLO_OK;
}

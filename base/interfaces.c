/* SPDX-License-Identifier: Apache-2.0 */
#include "base/interfaces.h"

#include "base/assert.h"
#include "base/status.h"

#include <ctype.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Made by container engines and hypervisors for what runs on this host. Their addresses are often
 * the same on every host, so connecting to one may lead back home (which the handshake then finds).
 */
static const char *const VIRTUAL[] = {"docker", "podman", "br-",  "cni",  "cali", "flannel",
                                      "virbr",  "lxc",    "veth", "tunl", "kube", "nodelocaldns"};

/* ---- the filter ---------------------------------------------------------------------------- */

struct term {
    const char *name;
    size_t length;
    bool excludes, exact;
};

/* Cuts "^" and "=" off the front of text. */
static const char *skip_marks(const char *text, bool *excludes, bool *exact)
{
    *excludes |= *text == '^';
    text += *text == '^';
    *exact |= *text == '=';
    return text + (*text == '=');
}

/* Takes the next term off *rest; false: there is none. */
static bool next_term(const char *filter, const char **rest, struct term *term)
{
    if (*rest == NULL || **rest == '\0')
        return false;
    const char *end = *rest + strcspn(*rest, ",");
    *term = (struct term){.name = NULL};
    skip_marks(filter, &term->excludes, &term->exact); /* those of the first name hold for all */
    term->name = skip_marks(*rest, &term->excludes, &term->exact);
    term->length = (size_t)(end - term->name);
    *rest = *end == ',' ? end + 1 : NULL;
    return true;
}

static bool matches(const struct term *term, const char *name)
{
    return strncmp(name, term->name, term->length) == 0 &&
           (!term->exact || name[term->length] == '\0');
}

kolo_status kolo__interface_filter_check(const char *filter)
{
    const char *rest = filter;
    struct term term;
    size_t terms = 0, length = strlen(filter);
    while (next_term(filter, &rest, &term)) {
        bool clean = term.length > 0 && term.length < IFNAMSIZ;
        for (size_t i = 0; i < term.length; i++)
            clean = clean && isgraph((unsigned char)term.name[i]) &&
                    strchr("^=/:", term.name[i]) == NULL;
        if (!clean)
            return kolo__error(
                KOLO_ERR_CONFIG,
                "KOLO_NET=%.200s: '%.*s' is no name of an interface: give names like "
                "eth0,ib (all that begin so), =eth0 (exactly), ^docker0 (not this)",
                filter, (int)(term.length < 40 ? term.length : 40), term.name);
        terms++;
    }
    if (length > 0 && (terms == 0 || filter[length - 1] == ','))
        return kolo__error(KOLO_ERR_CONFIG, "KOLO_NET=%.200s ends with a comma", filter);
    return KOLO_OK;
}

bool kolo__interface_filter_allows(const char *filter, const char *name, bool *named)
{
    const char *rest = filter;
    struct term term;
    bool chooses = false, excluded = false;
    *named = false;
    while (next_term(filter, &rest, &term)) {
        chooses |= !term.excludes;
        excluded |= term.excludes && matches(&term, name);
        *named |= !term.excludes && matches(&term, name);
    }
    return !excluded && (*named || !chooses);
}

/* ---- choosing ------------------------------------------------------------------------------ */

static bool is_virtual(const char *name)
{
    for (size_t i = 0; i < sizeof VIRTUAL / sizeof *VIRTUAL; i++)
        if (strncmp(name, VIRTUAL[i], strlen(VIRTUAL[i])) == 0)
            return true;
    return false;
}

/* A worse class serves only where there is no better one: in a pod all may look virtual. */
static int class_of(const struct kolo__interface *interface)
{
    return interface->loopback ? 2 : interface->is_virtual ? 1 : 0;
}

/* Real ones first, the fast before the slow, IPv4 before IPv6; then by name, so that all hosts of
 * one make have the same order. */
static int compare(const void *left, const void *right)
{
    const struct kolo__interface *a = left, *b = right;
    if (class_of(a) != class_of(b))
        return class_of(a) - class_of(b);
    if (a->speed_mbps != b->speed_mbps)
        return a->speed_mbps > b->speed_mbps ? -1 : 1;
    int by_name = strcmp(a->name, b->name);
    if (by_name != 0)
        return by_name;
    return (a->address.storage.ss_family == AF_INET6) - (b->address.storage.ss_family == AF_INET6);
}

size_t kolo__interfaces_choose(const char *filter, struct kolo__interface *interfaces, size_t count)
{
    size_t kept = 0, best = 0;
    for (size_t i = 0; i < count; i++) {
        bool named;
        struct kolo__interface *one = &interfaces[i];
        one->is_virtual = is_virtual(one->name);
        if (!kolo__interface_filter_allows(filter, one->name, &named))
            continue;
        /* Whoever is named is as good as any. */
        if (named)
            one->loopback = one->is_virtual = false;
        interfaces[kept++] = *one;
    }
    if (kept > 1)
        qsort(interfaces, kept, sizeof *interfaces, compare);
    while (best < kept && class_of(&interfaces[best]) == class_of(&interfaces[0]))
        best++;
    return best;
}

/* ---- finding ------------------------------------------------------------------------------- */

static uint32_t speed_of(const char *name)
{
    char path[64];
    long speed = 0;
    snprintf(path, sizeof path, "/sys/class/net/%s/speed", name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    /* Reading fails with EINVAL where the driver does not know, and -1 means the same. */
    if (fscanf(file, "%ld", &speed) != 1 || speed < 0 || speed > UINT32_MAX)
        speed = 0;
    fclose(file);
    return (uint32_t)speed;
}

static const unsigned char *address_bytes(const struct sockaddr *address, size_t *bytes)
{
    if (address->sa_family == AF_INET) {
        *bytes = 4;
        return (const unsigned char *)&((const struct sockaddr_in *)(const void *)address)
            ->sin_addr;
    }
    *bytes = 16;
    return (const unsigned char *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
}

static uint32_t prefix_of(const struct sockaddr *mask)
{
    uint32_t bits = 0;
    size_t bytes;
    if (mask == NULL || (mask->sa_family != AF_INET && mask->sa_family != AF_INET6))
        return 0;
    const unsigned char *next = address_bytes(mask, &bytes);
    for (size_t i = 0; i < bytes; i++)
        bits += (uint32_t)__builtin_popcount(next[i]);
    return bits;
}

/* Up, running, and with an address that other hosts can use. */
static bool is_usable(const struct ifaddrs *entry)
{
    if (entry->ifa_addr == NULL || (entry->ifa_flags & IFF_UP) == 0 ||
        (entry->ifa_flags & IFF_RUNNING) == 0)
        return false;
    if (entry->ifa_addr->sa_family == AF_INET6)
        return !IN6_IS_ADDR_LINKLOCAL(
            &((const struct sockaddr_in6 *)(const void *)entry->ifa_addr)->sin6_addr);
    return entry->ifa_addr->sa_family == AF_INET;
}

static void describe(const struct ifaddrs *entry, struct kolo__interface *interface)
{
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "%s", entry->ifa_name);
    interface->address.length = entry->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                                      : sizeof(struct sockaddr_in6);
    memcpy(&interface->address.storage, entry->ifa_addr, interface->address.length);
    interface->prefix_bits = prefix_of(entry->ifa_netmask);
    interface->speed_mbps = speed_of(entry->ifa_name);
    interface->loopback = (entry->ifa_flags & IFF_LOOPBACK) != 0;
}

/* All that are usable; the caller frees. */
static kolo_status list_usable(struct kolo__interface **all, size_t *count)
{
    struct ifaddrs *list;
    size_t entries = 0;
    *count = 0;
    if (getifaddrs(&list) != 0)
        return kolo__error_errno(errno, "cannot list the network interfaces");
    for (const struct ifaddrs *entry = list; entry != NULL; entry = entry->ifa_next)
        entries++;
    *all = calloc(entries + 1, sizeof **all);
    for (const struct ifaddrs *entry = list; *all != NULL && entry != NULL; entry = entry->ifa_next)
        if (is_usable(entry))
            describe(entry, &(*all)[(*count)++]);
    freeifaddrs(list);
    return *all != NULL ? KOLO_OK : kolo__error(KOLO_ERR_MEMORY, "no memory for interfaces");
}

static kolo_status none_left(const char *filter, const char *names)
{
    if (names[0] == '\0')
        return kolo__error(
            KOLO_ERR_CONFIG,
            "no network interface of this host is up and has an address, not even "
            "loopback: 'ip link set lo up' and 'ip link set IFACE up' bring them up");
    return kolo__error(KOLO_ERR_CONFIG,
                       "KOLO_NET=%.100s leaves no network interface of this host: it has%s", filter,
                       names);
}

kolo_status kolo__interfaces_find(const char *filter, struct kolo__interfaces *found)
{
    struct kolo__interface *all = NULL;
    size_t count = 0;
    char names[200] = "";
    kolo_status status = kolo__interface_filter_check(filter);
    if (status == KOLO_OK)
        status = list_usable(&all, &count);
    if (status != KOLO_OK || all == NULL)
        return status;
    for (size_t i = 0; i < count; i++) { /* all: one for each address */
        size_t first = 0;
        while (strcmp(all[first].name, all[i].name) != 0)
            first++;
        if (first == i)
            snprintf(names + strlen(names), sizeof names - strlen(names), " %s", all[i].name);
    }
    count = kolo__interfaces_choose(filter, all, count);
    found->count = count < KOLO__INTERFACES_MAX ? count : KOLO__INTERFACES_MAX;
    memcpy(found->list, all, found->count * sizeof *all);
    free(all);
    return count > 0 ? KOLO_OK : none_left(filter, names);
}

kolo_status kolo__interfaces_up(bool *loopback, bool *others)
{
    struct kolo__interface *all = NULL;
    size_t count = 0;
    kolo_status status = list_usable(&all, &count);
    *loopback = *others = false;
    for (size_t i = 0; status == KOLO_OK && i < count; i++) {
        *loopback |= all[i].loopback;
        *others |= !all[i].loopback;
    }
    free(all);
    return status;
}

bool kolo__interface_reaches(const struct kolo__interface *interface,
                             const struct kolo__address *address)
{
    size_t bytes;
    if (interface->address.storage.ss_family != address->storage.ss_family ||
        interface->prefix_bits == 0)
        return false;
    const unsigned char *own =
        address_bytes((const struct sockaddr *)&interface->address.storage, &bytes);
    const unsigned char *other = address_bytes((const struct sockaddr *)&address->storage, &bytes);
    KOLO__ASSERT(interface->prefix_bits <= 8 * bytes);
    for (uint32_t bit = 0; bit < interface->prefix_bits; bit++)
        if (((own[bit / 8] ^ other[bit / 8]) & (0x80 >> bit % 8)) != 0)
            return false;
    return true;
}

/* The first of its interface's addresses, and the interface not much slower than the fastest. */
static bool is_primary(const struct kolo__interfaces *own, size_t index)
{
    const struct kolo__interface *one = &own->list[index];
    uint32_t fastest = 0;
    for (size_t i = 0; i < index; i++)
        if (strcmp(own->list[i].name, one->name) == 0)
            return false;
    for (size_t i = 0; i < own->count; i++)
        if (own->list[i].speed_mbps > fastest)
            fastest = own->list[i].speed_mbps;
    return one->speed_mbps == 0 || one->speed_mbps >= fastest / 2;
}

void kolo__interfaces_endpoint(const struct kolo__interfaces *own, struct kolo__endpoint *endpoint)
{
    endpoint->count = endpoint->alternatives = 0;
    for (int primary = 1; primary >= 0; primary--)
        for (size_t i = 0; i < own->count && endpoint->count < KOLO__ENDPOINT_ADDRESSES; i++)
            if (is_primary(own, i) == primary) {
                endpoint->addresses[endpoint->count++] = own->list[i].address;
                endpoint->alternatives += !primary;
            }
}

static void sort(const struct kolo__interfaces *own, struct kolo__address *addresses,
                 uint32_t count)
{
    uint32_t sorted = 0;
    for (size_t i = 0; i < own->count; i++)
        for (uint32_t a = sorted; a < count; a++) {
            struct kolo__address near = addresses[a];
            if (!kolo__interface_reaches(&own->list[i], &near))
                continue;
            memmove(&addresses[sorted + 1], &addresses[sorted], (a - sorted) * sizeof near);
            addresses[sorted++] = near;
        }
}

void kolo__interfaces_sort(const struct kolo__interfaces *own, struct kolo__endpoint *endpoint)
{
    uint32_t primaries = endpoint->count - endpoint->alternatives;
    sort(own, endpoint->addresses, primaries);
    sort(own, endpoint->addresses + primaries, endpoint->alternatives);
}

const struct kolo__address *kolo__interfaces_source(const struct kolo__interfaces *own,
                                                    const struct kolo__address *address,
                                                    uint32_t number)
{
    const struct kolo__interface *near[KOLO__INTERFACES_MAX];
    uint32_t count = 0;
    for (size_t i = 0; i < own->count; i++)
        if (kolo__interface_reaches(&own->list[i], address))
            near[count++] = &own->list[i];
    return count > 0 ? &near[number % count]->address : NULL;
}

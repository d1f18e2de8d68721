/* SPDX-License-Identifier: Apache-2.0 */
#include "base/socket.h"

#include "base/clock.h"
#include "base/status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *kolo__address_text(const struct kolo__address *address, char *text, size_t bytes)
{
    char host[INET6_ADDRSTRLEN] = "?", scope[IF_NAMESIZE + 1] = "";
    if (address->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(text, bytes, "%s:%d", host, ntohs(in->sin_port));
    } else if (address->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr); /* IPv4 on a socket of both families */
        if (mapped)
            inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], host, sizeof host);
        else
            inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        /* A link-local address is none without its interface. */
        if (in6->sin6_scope_id != 0 && if_indextoname(in6->sin6_scope_id, scope + 1) != NULL)
            scope[0] = '%';
        snprintf(text, bytes, mapped ? "%s%s:%d" : "[%s%s]:%d", host, scope, ntohs(in6->sin6_port));
    } else {
        snprintf(text, bytes, "no address");
    }
    return text;
}

bool kolo__address_is_loopback(const struct kolo__address *address)
{
    if (address->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
    }
    return false;
}

/* Where the port lies, in network order. */
static in_port_t *port_of(struct kolo__address *address)
{
    if (address->storage.ss_family == AF_INET6)
        return &((struct sockaddr_in6 *)&address->storage)->sin6_port;
    return &((struct sockaddr_in *)&address->storage)->sin_port;
}

void kolo__address_set_port(struct kolo__address *address, uint16_t port)
{
    *port_of(address) = htons(port);
}

uint16_t kolo__address_port(const struct kolo__address *address)
{
    struct kolo__address copy = *address;
    return ntohs(*port_of(&copy));
}

/* The address as IPv6 sees it: on a socket of both families IPv4 comes as ::ffff:10.0.0.1. */
static struct in6_addr as_v6(const struct kolo__address *address)
{
    if (address->storage.ss_family == AF_INET6)
        return ((const struct sockaddr_in6 *)&address->storage)->sin6_addr;
    struct in6_addr mapped = {{{[10] = 0xff, [11] = 0xff}}};
    memcpy(&mapped.s6_addr[12], &((const struct sockaddr_in *)&address->storage)->sin_addr, 4);
    return mapped;
}

bool kolo__address_same_host(const struct kolo__address *a, const struct kolo__address *b)
{
    struct in6_addr x = as_v6(a), y = as_v6(b);
    return memcmp(&x, &y, sizeof x) == 0;
}

const char *kolo__endpoint_text(const struct kolo__endpoint *endpoint,
                                char text[KOLO__ENDPOINT_TEXT_BYTES])
{
    char one[64];
    text[0] = '\0';
    for (uint32_t i = 0; i < endpoint->count; i++) {
        size_t used = strlen(text);
        const char *comma = i == 0 ? "" : i == endpoint->count - endpoint->alternatives ? ";" : ",";
        snprintf(text + used, KOLO__ENDPOINT_TEXT_BYTES - used, "%s%s", comma,
                 kolo__address_text(&endpoint->addresses[i], one, sizeof one));
    }
    return text;
}

kolo_status kolo__endpoint_parse(const char *text, struct kolo__endpoint *endpoint)
{
    endpoint->count = endpoint->alternatives = 0;
    bool alternatives = false;
    for (const char *next = text; next != NULL;) {
        char one[64];
        size_t length = strcspn(next, ",;");
        if (length == 0 || length >= sizeof one || endpoint->count == KOLO__ENDPOINT_ADDRESSES ||
            (alternatives && next[length] == ';'))
            return kolo__error(KOLO_ERR_CONFIG, "'%.100s' is no list of up to %d ADDRESS:PORT",
                               text, KOLO__ENDPOINT_ADDRESSES);
        memcpy(one, next, length);
        one[length] = '\0';
        kolo_status status = kolo__address_parse(one, &endpoint->addresses[endpoint->count]);
        if (status != KOLO_OK)
            return status;
        endpoint->count++;
        endpoint->alternatives += alternatives;
        alternatives |= next[length] == ';';
        next = next[length] != '\0' ? next + length + 1 : NULL;
    }
    return KOLO_OK;
}

kolo_status kolo__split_host_port(const char *text, char *host, size_t host_bytes, char *port,
                                  size_t port_bytes)
{
    const char *colon = strrchr(text, ':');
    const char *start = text, *end = colon;
    if (colon != NULL && text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        start = text + 1;
        end = colon - 1;
    } else if (colon != NULL && memchr(text, ':', (size_t)(colon - text)) != NULL) {
        colon = NULL; /* a bare IPv6 address: the port is missing, or the brackets are */
    }
    if (colon == NULL || end == start || (size_t)(end - start) >= host_bytes)
        return kolo__error(KOLO_ERR_CONFIG, "'%s' is not HOST:PORT (IPv6: [ADDRESS]:PORT)", text);

    char *rest;
    long number = strtol(colon + 1, &rest, 10);
    if (colon[1] < '0' || colon[1] > '9' || *rest != '\0' || number > 65535)
        return kolo__error(KOLO_ERR_CONFIG, "'%s': the port must be a number up to 65535", text);
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    snprintf(port, port_bytes, "%ld", number);
    return KOLO_OK;
}

/* All addresses of a name. Numeric: no resolver is asked. */
static kolo_status resolve(const char *host, const char *port, int flags, struct addrinfo **list)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    int failure = getaddrinfo(host, port, &hints, list);
    if (failure == EAI_SYSTEM)
        return kolo__error_errno(errno, "cannot resolve '%s'", host);
    if (failure != 0)
        return kolo__error(KOLO_ERR_NETWORK, "cannot resolve '%s': %s", host,
                           gai_strerror(failure));
    return KOLO_OK;
}

static void copy_address(struct kolo__address *address, const struct addrinfo *entry)
{
    memset(address, 0, sizeof *address);
    address->length = entry->ai_addrlen;
    memcpy(&address->storage, entry->ai_addr, entry->ai_addrlen);
}

kolo_status kolo__address_parse(const char *text, struct kolo__address *address)
{
    char host[256], port[24];
    kolo_status status = kolo__split_host_port(text, host, sizeof host, port, sizeof port);
    if (status != KOLO_OK)
        return status;
    struct addrinfo *list;
    status = resolve(host, port, AI_NUMERICHOST | AI_NUMERICSERV, &list);
    if (status != KOLO_OK)
        return status;
    copy_address(address, list);
    freeaddrinfo(list);
    return KOLO_OK;
}

/* BBR, where it is the system's choice, spaces packets by timers. Over some tens of microseconds
 * those take longer than the packets (a connection to the same host halves its rate); and what BBR
 * is for, long paths that lose, is not there. Reno may be chosen by everybody, unless the
 * administrator has said otherwise (net.ipv4.tcp_allowed_congestion_control).
 *
 * So every socket begins without, for a connection that began with BBR is paced for ever; a
 * listener's choice is that of those it accepts. When the path turns out to be long it gets what is
 * usual on this system (kolo__tune_data_stream). */
static const char UNPACED[] = "reno";

static void read_congestion_control(int fd, char name[16])
{
    socklen_t bytes = 15;
    memset(name, 0, 16);
    (void)getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &bytes);
}

static void avoid_pacing(int fd)
{
    char name[16];
    read_congestion_control(fd, name);
    if (strncmp(name, "bbr", 3) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, UNPACED, sizeof UNPACED - 1);
}

static void pace_as_usual(int fd)
{
    char name[16], usual[16] = "";
    int fresh = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fresh < 0)
        return;
    read_congestion_control(fresh, usual);
    close(fresh);
    read_congestion_control(fd, name);
    if (strcmp(name, UNPACED) == 0 && strncmp(usual, "bbr", 3) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, usual, (socklen_t)strlen(usual));
}

/* shown: what messages call the address. */
static kolo_status listen_at(const char *host, const char *shown, int port, int *fd,
                             struct kolo__address *bound)
{
    char port_text[16];
    snprintf(port_text, sizeof port_text, "%d", port);
    struct addrinfo *list;
    kolo_status status =
        resolve(host, port_text, AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, &list);
    if (status != KOLO_OK) {
        errno = EADDRNOTAVAIL;
        return status;
    }

    int on = 1, off = 0, failure = 0;
    int s = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0) {
        failure = errno;
        status = kolo__error_errno(failure, "cannot make a socket for %s", shown);
        goto free_list;
    }
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off); /* "::" is IPv4 as well */
    if (bind(s, list->ai_addr, list->ai_addrlen) != 0 || listen(s, SOMAXCONN) != 0) {
        failure = errno;
        status = kolo__error_errno(failure, "cannot listen on %s port %d", shown, port);
        goto close_socket;
    }
    memset(bound, 0, sizeof *bound);
    bound->length = sizeof bound->storage;
    if (getsockname(s, (struct sockaddr *)&bound->storage, &bound->length) != 0) {
        failure = errno;
        status = kolo__error_errno(failure, "cannot read the address of a listening socket");
        goto close_socket;
    }
    avoid_pacing(s);
    *fd = s;
    freeaddrinfo(list);
    return KOLO_OK;

close_socket:
    close(s);
free_list:
    freeaddrinfo(list);
    errno = failure;
    return status;
}

kolo_status kolo__listen(const char *host, int port, int *fd, struct kolo__address *bound)
{
    static const char ALL[] = "all addresses (*)";
    if (strcmp(host, "*") != 0)
        return listen_at(host, host, port, fd, bound);
    if (listen_at("::", ALL, port, fd, bound) == KOLO_OK)
        return KOLO_OK;
    return listen_at("0.0.0.0", ALL, port, fd, bound); /* a kernel without IPv6 */
}

kolo_status kolo__connect_start(const struct kolo__address *address,
                                const struct kolo__address *source, int *fd)
{
    int s = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return kolo__error_errno(errno, "cannot make a socket");
    if (source != NULL) {
        int on = 1; /* the port is chosen when the other end is known */
        setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        (void)!bind(s, (const struct sockaddr *)&source->storage, source->length);
    }
    avoid_pacing(s);
    if (connect(s, (const struct sockaddr *)&address->storage, address->length) != 0 &&
        errno != EINPROGRESS) {
        int saved = errno;
        char text[80];
        close(s);
        kolo__address_text(address, text, sizeof text);
        return kolo__error(KOLO_ERR_NETWORK, "cannot connect to %s: %s%s", text, strerror(saved),
                           saved == ENETUNREACH && kolo__address_is_loopback(address)
                               ? " (loopback is down: 'ip link set lo up')"
                               : "");
    }
    *fd = s;
    return KOLO_OK;
}

kolo_status kolo__connect_finish(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    if (poll(&ready, 1, 0) == 0)
        return KOLO_AGAIN;
    int failure = 0;
    socklen_t length = sizeof failure;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length) != 0)
        failure = errno;
    if (failure != 0)
        return kolo__error(KOLO_ERR_NETWORK, "cannot connect: %s", strerror(failure));
    return KOLO_OK;
}

kolo_status kolo__wait_for(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        uint64_t left_ms = now >= deadline_ns ? 0 : (deadline_ns - now + 999999) / 1000000;
        struct pollfd ready = {.fd = fd, .events = events};
        int count = poll(&ready, 1, left_ms > 60000 ? 60000 : (int)left_ms);
        if (count > 0)
            return KOLO_OK;
        if (count < 0 && errno != EINTR)
            return kolo__error_errno(errno, "poll failed");
        if (count == 0 && left_ms == 0)
            return kolo__error(KOLO_ERR_TIMEOUT, "no answer before the deadline");
    }
}

void kolo__tune_stream(int fd)
{
    int on = 1, idle_s = 10, interval_s = 5, probes = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void kolo__tune_data_stream(int fd)
{
    const uint32_t near_us = 100;
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    kolo__tune_stream(fd);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        return;
    if (info.tcpi_rtt < near_us)
        avoid_pacing(fd);
    else
        pace_as_usual(fd);
}

kolo_status kolo__send_all(int fd, const void *data, size_t bytes, uint64_t deadline_ns)
{
    const unsigned char *next = data;
    while (bytes > 0) {
        ssize_t sent = send(fd, next, bytes, MSG_NOSIGNAL);
        if (sent >= 0) {
            next += sent;
            bytes -= (size_t)sent;
        } else if (errno == EAGAIN) {
            kolo_status status = kolo__wait_for(fd, POLLOUT, deadline_ns);
            if (status != KOLO_OK)
                return status;
        } else if (errno != EINTR) {
            return kolo__error(KOLO_ERR_PEER_LOST, "the connection broke: %s", strerror(errno));
        }
    }
    return KOLO_OK;
}

kolo_status kolo__recv_all(int fd, void *data, size_t bytes, uint64_t deadline_ns)
{
    unsigned char *next = data;
    while (bytes > 0) {
        ssize_t received = recv(fd, next, bytes, 0);
        if (received > 0) {
            next += received;
            bytes -= (size_t)received;
        } else if (received == 0) {
            return kolo__error(KOLO_ERR_PEER_LOST, "the other side closed the connection");
        } else if (errno == EAGAIN) {
            kolo_status status = kolo__wait_for(fd, POLLIN, deadline_ns);
            if (status != KOLO_OK)
                return status;
        } else if (errno != EINTR) {
            return kolo__error(KOLO_ERR_PEER_LOST, "the connection broke: %s", strerror(errno));
        }
    }
    return KOLO_OK;
}

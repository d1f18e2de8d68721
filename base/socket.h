/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets: what both the control plane and the tcp transport need. Everything that waits takes a
 * deadline (kolo__real_clock nanoseconds). Every descriptor is close-on-exec; all are non-blocking.
 */
#ifndef KOLO_BASE_SOCKET_H
#define KOLO_BASE_SOCKET_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct kolo__address {
    socklen_t length;
    struct sockaddr_storage storage;
};

/* "10.0.0.1:5000", "[::1]:5000"; returns text. */
const char *kolo__address_text(const struct kolo__address *address, char *text, size_t bytes);
/* The reverse, numeric only: no name is resolved. */
kolo_status kolo__address_parse(const char *text, struct kolo__address *address);
bool kolo__address_is_loopback(const struct kolo__address *address);

void kolo__address_set_port(struct kolo__address *address, uint16_t port);
uint16_t kolo__address_port(const struct kolo__address *address);
/* The same host, whatever the port. */
bool kolo__address_same_host(const struct kolo__address *a, const struct kolo__address *b);

enum { KOLO__ENDPOINT_ADDRESSES = 8, KOLO__ENDPOINT_TEXT_BYTES = 8 * 48 };

/* Where somebody accepts connections: different ways to the same place, best first. The last so
 * many of them are alternatives, for when the others do not answer: the others are one for each
 * network interface that is to be used. */
struct kolo__endpoint {
    uint32_t count, alternatives;
    struct kolo__address addresses[KOLO__ENDPOINT_ADDRESSES];
};

/* "10.0.0.1:5000,10.1.0.1:5000;[fd00::1]:5000": alternatives stand behind a semicolon; "" for none.
 * Returns text. */
const char *kolo__endpoint_text(const struct kolo__endpoint *endpoint,
                                char text[KOLO__ENDPOINT_TEXT_BYTES]);
/* The reverse, numeric only. */
kolo_status kolo__endpoint_parse(const char *text, struct kolo__endpoint *endpoint);

/* Splits "host:port", "[v6]:port". host gets at least 256 bytes. */
kolo_status kolo__split_host_port(const char *text, char *host, size_t host_bytes, char *port,
                                  size_t port_bytes);

/* Listens on a numeric host ("127.0.0.1") and port (0: any); the bound address comes back. "*": on
 * all of this host's addresses, IPv6 and IPv4. After a failure errno says why: EADDRINUSE,
 * EADDRNOTAVAIL (not this host's), ... */
kolo_status kolo__listen(const char *host, int port, int *fd, struct kolo__address *bound);
/* Begins a connection; *fd is connecting or connected. source: the own address to come from, which
 * is only a wish; NULL: the system chooses. */
kolo_status kolo__connect_start(const struct kolo__address *address,
                                const struct kolo__address *source, int *fd);
/* After it became writable: KOLO_OK when connected, KOLO_AGAIN, or KOLO_ERR_NETWORK with errno in
 * the text. */
kolo_status kolo__connect_finish(int fd);
/* One round of kolo__dial_next (base/dial.h), for who takes whoever answers. */
kolo_status kolo__connect(const char *host_port, uint64_t deadline_ns, int *fd);
/* TCP_NODELAY, keepalive. Errors are ignored: they are only wishes. */
void kolo__tune_stream(int fd);
/* The same for a connected stream of bulk data: besides, no timers between its packets where the
 * other end is near. */
void kolo__tune_data_stream(int fd);

/* Waits for events of poll(2) on one descriptor; KOLO_ERR_TIMEOUT at the deadline. */
kolo_status kolo__wait_for(int fd, short events, uint64_t deadline_ns);
/* Blocking helpers for short control messages. */
kolo_status kolo__send_all(int fd, const void *data, size_t bytes, uint64_t deadline_ns);
/* KOLO_ERR_PEER_LOST when the stream ended first. */
kolo_status kolo__recv_all(int fd, void *data, size_t bytes, uint64_t deadline_ns);

#endif

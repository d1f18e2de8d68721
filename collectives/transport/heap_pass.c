/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Over an abstract Unix stream socket, integers in the host's order (it is one host):
 *
 *   member <-> member 0  handshake                             base/secure.h
 *   member -> member 0   struct request                        the last word in TLS
 *   member 0 -> member   struct grant, with the descriptor (SCM_RIGHTS) when accepted
 *   member -> member 0   'm'   mapped
 *   member 0 -> member   'g'   go: all have mapped
 *
 * Both sides also check that the other runs under the same user id. That alone would not tell jobs
 * of one user apart, and user ids mean nothing across user namespaces that share a network
 * namespace; the handshake is what all connections of a job begin with.
 */
#include "collectives/transport/heap_pass.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/secure.h"
#include "base/socket.h"
#include "base/status.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A stranger that connects and says nothing holds member 0 up no longer than this. */
static const uint64_t patience_ns = 2000000000;

struct request {
    uint32_t member, members;
};

struct grant {
    uint32_t accepted; /* 0: the member does not fit; geometry.members says how many there are */
    uint32_t reserved;
    struct kolo__heap_geometry geometry;
};

static kolo_status abstract_socket(const struct kolo__heap_options *options, int *fd,
                                   struct sockaddr_un *address, socklen_t *length);
static kolo_status check_user(int fd);
static kolo_status serve(const struct kolo__heap_options *options,
                         const struct kolo__credentials *credentials, int listen_fd, int heap_fd,
                         const struct kolo__heap_geometry *geometry);
static kolo_status fetch(const struct kolo__heap_options *options,
                         const struct kolo__credentials *credentials, int *heap_fd,
                         struct kolo__heap_geometry *geometry, int *connection_fd);
static kolo_status admit(const struct kolo__heap_options *options,
                         const struct kolo__credentials *credentials, int fd, int heap_fd,
                         const struct kolo__heap_geometry *geometry, uint32_t *member);
static kolo_status await_mapped(const struct kolo__heap_options *options, const int *connections);
static kolo_status ask(const struct kolo__heap_options *options,
                       const struct kolo__credentials *credentials, int fd, int *heap_fd,
                       struct kolo__heap_geometry *geometry);
static kolo_status send_grant(int fd, const struct grant *grant, int heap_fd);
static kolo_status receive_grant(int fd, uint64_t deadline_ns, struct grant *grant, int *heap_fd);
static kolo_status missing_members(const struct kolo__heap_options *options,
                                   const int *connections);

kolo_status kolo__heap_listen(const struct kolo__heap_options *options, int *listen_fd)
{
    struct sockaddr_un address;
    socklen_t length = 0;
    kolo_status status = abstract_socket(options, listen_fd, &address, &length);
    if (status != KOLO_OK)
        return status;
    if (bind(*listen_fd, (struct sockaddr *)&address, length) != 0 ||
        listen(*listen_fd, SOMAXCONN) != 0) {
        status = kolo__error_errno(errno, "cannot offer the shared heap as '%s'", options->name);
        close(*listen_fd);
    }
    return status;
}

/* The heap's name has the job in it. */
static kolo_status create_credentials(const struct kolo__heap_options *options,
                                      struct kolo__credentials **credentials)
{
    return kolo__credentials_create(KOLO__PURPOSE_HEAP, options->name, options->token, credentials);
}

enum { LOOK_MS = 50 }; /* between questions whether waiting is in vain */

static bool is_vain(const struct kolo__heap_options *options)
{
    return options->is_vain != NULL && options->is_vain(options->self);
}

/* Of one who may have been stopped in the middle. */
static kolo_status await_word(const struct kolo__heap_options *options, int fd, char *word)
{
    kolo_status status;
    do {
        uint64_t look_ns = kolo__now_ns(&kolo__real_clock) + LOOK_MS * UINT64_C(1000000);
        status = kolo__recv_all(fd, word, 1,
                                look_ns < options->deadline_ns ? look_ns : options->deadline_ns);
    } while (status == KOLO_ERR_TIMEOUT && kolo__now_ns(&kolo__real_clock) < options->deadline_ns &&
             !is_vain(options));
    return status;
}

kolo_status kolo__heap_serve(const struct kolo__heap_options *options, int listen_fd, int heap_fd,
                             const struct kolo__heap_geometry *geometry)
{
    struct kolo__credentials *credentials = NULL;
    kolo_status status = create_credentials(options, &credentials);
    if (status == KOLO_OK)
        status = serve(options, credentials, listen_fd, heap_fd, geometry);
    kolo__credentials_free(credentials);
    return status;
}

static kolo_status serve(const struct kolo__heap_options *options,
                         const struct kolo__credentials *credentials, int listen_fd, int heap_fd,
                         const struct kolo__heap_geometry *geometry)
{
    kolo_status status = KOLO_OK;
    uint32_t present = 1;
    bool warned = false;
    int *connections = malloc(options->members * sizeof *connections); /* by member; -1: none yet */
    if (connections == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u connections", options->members);
    for (uint32_t i = 0; i < options->members; i++)
        connections[i] = -1;

    while (present < options->members) {
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (now >= options->deadline_ns || is_vain(options)) {
            status = missing_members(options, connections);
            goto close_connections;
        }
        uint64_t left_ms = (options->deadline_ns - now) / 1000000 + 1;
        struct pollfd ready = {.fd = listen_fd, .events = POLLIN};
        poll(&ready, 1, left_ms > LOOK_MS ? LOOK_MS : (int)left_ms);
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            continue;
        uint32_t member;
        if (admit(options, credentials, fd, heap_fd, geometry, &member) != KOLO_OK) {
            if (!warned)
                kolo__log(KOLO__LOG_WARN, "refused a connection for the shared heap: %s",
                          kolo_error_text());
            warned = true;
            close(fd);
            continue;
        }
        /* A member whose first connection broke comes again. */
        if (connections[member] < 0)
            present++;
        else
            close(connections[member]);
        connections[member] = fd;
    }
    status = await_mapped(options, connections);

close_connections:
    for (uint32_t i = 0; i < options->members; i++)
        if (connections[i] >= 0)
            close(connections[i]);
    free(connections);
    return status;
}

kolo_status kolo__heap_fetch(const struct kolo__heap_options *options, int *heap_fd,
                             struct kolo__heap_geometry *geometry, int *connection_fd)
{
    struct kolo__credentials *credentials = NULL;
    kolo_status status = create_credentials(options, &credentials);
    if (status == KOLO_OK)
        status = fetch(options, credentials, heap_fd, geometry, connection_fd);
    kolo__credentials_free(credentials);
    return status;
}

static kolo_status fetch(const struct kolo__heap_options *options,
                         const struct kolo__credentials *credentials, int *heap_fd,
                         struct kolo__heap_geometry *geometry, int *connection_fd)
{
    long pause_ns = 1000000;
    for (;;) {
        struct sockaddr_un address;
        socklen_t length = 0;
        int fd = -1;
        kolo_status status = abstract_socket(options, &fd, &address, &length);
        if (status != KOLO_OK)
            return status;
        /* Member 0 may not be there yet, or its queue may be full: then try again. */
        bool again = true;
        if (connect(fd, (struct sockaddr *)&address, length) == 0) {
            status = check_user(fd);
            if (status == KOLO_OK)
                status = ask(options, credentials, fd, heap_fd, geometry);
            if (status == KOLO_OK) {
                *connection_fd = fd;
                return KOLO_OK;
            }
            again = status == KOLO_ERR_PEER_LOST;
        }
        close(fd);
        if (!again)
            return status;
        if (kolo__now_ns(&kolo__real_clock) >= options->deadline_ns || is_vain(options))
            return kolo__error(KOLO_ERR_TIMEOUT,
                               "the shared heap '%s' was not offered in time by the first rank of "
                               "this host",
                               options->name);
        nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
        if (pause_ns < 50000000)
            pause_ns *= 2;
    }
}

kolo_status kolo__heap_confirm(const struct kolo__heap_options *options, int connection_fd)
{
    char go = 0;
    kolo_status status = kolo__send_all(connection_fd, "m", 1, options->deadline_ns);
    if (status == KOLO_OK)
        status = await_word(options, connection_fd, &go);
    close(connection_fd);
    if (status == KOLO_OK && go != 'g')
        status = kolo__error(KOLO_ERR_NETWORK, "no word of the shared heap: 0x%02x", go);
    if (status == KOLO_ERR_PEER_LOST)
        status = kolo__error(KOLO_ERR_PEER_LOST, "the first rank of this host gave up sharing the "
                                                 "heap: not all local ranks came, or it failed");
    return status;
}

/* ---- helpers ------------------------------------------------------------------------------ */

static kolo_status abstract_socket(const struct kolo__heap_options *options, int *fd,
                                   struct sockaddr_un *address, socklen_t *length)
{
    size_t name_bytes = strlen(options->name);
    if (name_bytes == 0 || name_bytes > sizeof address->sun_path - 1)
        return kolo__error(KOLO_ERR_INVALID, "the heap's name has %zu bytes", name_bytes);
    /* A leading zero makes the name abstract: it vanishes with its socket. */
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + 1, options->name, name_bytes);
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name_bytes);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return kolo__error_errno(errno, "cannot make a socket for the shared heap");
    return KOLO_OK;
}

static kolo_status check_user(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return kolo__error_errno(errno, "cannot tell who is on the other side");
    if (peer.uid != geteuid())
        return kolo__error(KOLO_ERR_NETWORK, "process %d of user %d is not this job's (user %d)",
                           (int)peer.pid, (int)peer.uid, (int)geteuid());
    return KOLO_OK;
}

static kolo_status admit(const struct kolo__heap_options *options,
                         const struct kolo__credentials *credentials, int fd, int heap_fd,
                         const struct kolo__heap_geometry *geometry, uint32_t *member)
{
    uint64_t deadline = kolo__now_ns(&kolo__real_clock) + patience_ns;
    if (deadline > options->deadline_ns)
        deadline = options->deadline_ns;
    struct request request;
    struct kolo__secure *secure = NULL;
    kolo_status status = check_user(fd);
    if (status == KOLO_OK)
        status = kolo__secure_create(credentials, KOLO__SECURE_ACCEPTOR, fd, &secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(secure, deadline);
    if (status == KOLO_OK)
        status = kolo__secure_recv_all(secure, &request, sizeof request, deadline);
    kolo__secure_free(secure);
    if (status != KOLO_OK)
        return status;

    struct grant grant = {.accepted = request.members == options->members && request.member > 0 &&
                                      request.member < options->members,
                          .geometry = *geometry};
    status = send_grant(fd, &grant, heap_fd);
    if (status == KOLO_OK && !grant.accepted)
        status = kolo__error(KOLO_ERR_WORLD, "member %u of %u asked, the heap is for %u",
                             request.member, request.members, options->members);
    *member = request.member;
    return status;
}

static kolo_status await_mapped(const struct kolo__heap_options *options, const int *connections)
{
    for (uint32_t i = 1; i < options->members; i++) {
        char word = 0;
        kolo_status status = await_word(options, connections[i], &word);
        if (status == KOLO_OK && word != 'm')
            status = kolo__error(KOLO_ERR_NETWORK, "no word of the shared heap: 0x%02x", word);
        if (status != KOLO_OK) {
            char text[200];
            snprintf(text, sizeof text, "%s", kolo_error_text());
            return kolo__error(status, "local rank %u has not mapped the shared heap: %s", i, text);
        }
    }
    /* Whoever is gone by now does not keep the others from going on. */
    for (uint32_t i = 1; i < options->members; i++)
        kolo__send_all(connections[i], "g", 1, options->deadline_ns);
    return KOLO_OK;
}

static kolo_status ask(const struct kolo__heap_options *options,
                       const struct kolo__credentials *credentials, int fd, int *heap_fd,
                       struct kolo__heap_geometry *geometry)
{
    struct request request = {.member = options->member, .members = options->members};
    struct grant grant;
    struct kolo__secure *secure = NULL;
    uint64_t deadline = options->deadline_ns;
    kolo_status status = kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(secure, deadline);
    if (status == KOLO_OK)
        status = kolo__secure_send_all(secure, &request, sizeof request, deadline);
    kolo__secure_free(secure);
    if (status == KOLO_OK)
        status = receive_grant(fd, deadline, &grant, heap_fd);
    if (status != KOLO_OK)
        return status;
    *geometry = grant.geometry;
    if (!grant.accepted)
        return kolo__error(KOLO_ERR_WORLD, "local rank %u of %u does not fit the heap, made for %u",
                           options->member, options->members, grant.geometry.members);
    return KOLO_OK;
}

static kolo_status send_grant(int fd, const struct grant *grant, int heap_fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {{0}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)grant, .iov_len = sizeof *grant};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (grant->accepted) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &heap_fd, sizeof heap_fd);
    }
    /* Some tens of bytes into an empty socket buffer: all or nothing. */
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)sizeof *grant)
        return kolo__error(KOLO_ERR_PEER_LOST, "cannot pass the shared heap: %s", strerror(errno));
    return KOLO_OK;
}

/* How many came; more than one are closed here. (The room for one has room for two, by
 * alignment.) */
static int take_descriptors(const struct msghdr *message, int *heap_fd)
{
    const struct cmsghdr *rights = CMSG_FIRSTHDR(message);
    if (rights == NULL || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return 0;
    int count = (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof *heap_fd);
    for (int i = 0; i < count; i++) {
        memcpy(heap_fd, CMSG_DATA(rights) + (size_t)i * sizeof *heap_fd, sizeof *heap_fd);
        if (count > 1)
            close(*heap_fd);
    }
    if (count != 1)
        *heap_fd = -1;
    return count;
}

static kolo_status receive_grant(int fd, uint64_t deadline_ns, struct grant *grant, int *heap_fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {.iov_base = grant, .iov_len = sizeof *grant};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t received;
    for (;;) {
        received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        if (received >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
        if (kolo__now_ns(&kolo__real_clock) >= deadline_ns)
            return kolo__error(KOLO_ERR_TIMEOUT, "the shared heap did not come in time");
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        poll(&ready, 1, 100);
    }
    int count = take_descriptors(&message, heap_fd);
    kolo_status status = KOLO_OK;
    if (received != (ssize_t)sizeof *grant)
        status = kolo__error(KOLO_ERR_PEER_LOST, "the first rank of this host went away");
    else if (grant->accepted && count != 1)
        status = kolo__error(KOLO_ERR_NETWORK, "the shared heap came with %d descriptors", count);
    if (count == 1 && (status != KOLO_OK || !grant->accepted)) {
        close(*heap_fd);
        *heap_fd = -1;
    }
    return status;
}

static kolo_status missing_members(const struct kolo__heap_options *options, const int *connections)
{
    char list[160] = "";
    size_t used = 0;
    for (uint32_t i = 1; i < options->members && used < sizeof list - 16; i++)
        if (connections[i] < 0)
            used += (size_t)snprintf(list + used, sizeof list - used, " %u", i);
    return kolo__error(KOLO_ERR_TIMEOUT, "not all local ranks came for the shared heap; missing:%s",
                       list);
}

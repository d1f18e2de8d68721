/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of the simulated kernel, above all real ones: streams, listeners, epoll, signals. */
#include "world.h"

#include "base/assert.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { FIRST_FD = 1 << 20, BACKLOG = 64, WATCHED_MAX = 256, PORT = 5000 };

enum kind { FREE, STREAM, LISTENER, EPOLL, SIGNAL, DISK };

struct file {
    enum kind kind;
    struct process *owner;
    struct stream *stream;
    struct disk_file *disk; /* NULL: the folder */
    struct stream *incoming[BACKLOG];
    uint32_t incoming_count;
    struct epoll_event events[WATCHED_MAX]; /* of an epoll */
    int watched[WATCHED_MAX];
    uint32_t watched_count;
    bool raised;
};

static struct file *files[WORLD_FILES_MAX];

int __real_close(int fd);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes);
int __wrap_close(int fd);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *bytes);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *bytes);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes);
int __wrap_ioctl(int fd, unsigned long request, int *value);

static struct file *file_of(int fd)
{
    return fd >= FIRST_FD && fd < FIRST_FD + WORLD_FILES_MAX ? files[fd - FIRST_FD] : NULL;
}

static int make(struct process *owner, enum kind kind)
{
    int i = 0;
    while (i < WORLD_FILES_MAX && files[i] != NULL && files[i]->kind != FREE)
        i++;
    KOLO__ASSERT(i < WORLD_FILES_MAX);
    struct process *inside = memory_step_out();
    if (files[i] == NULL)
        files[i] = calloc(1, sizeof *files[i]);
    memory_step_in(inside);
    KOLO__ASSERT(files[i] != NULL);
    files[i]->kind = kind;
    files[i]->owner = owner;
    files[i]->stream = NULL;
    files[i]->incoming_count = files[i]->watched_count = 0;
    files[i]->raised = false;
    return FIRST_FD + i;
}

int file_of_stream(struct process *owner, struct stream *end)
{
    int fd = make(owner, STREAM);
    file_of(fd)->stream = end;
    return fd;
}

struct stream *stream_of_file(int fd)
{
    struct file *file = file_of(fd);
    KOLO__ASSERT(file != NULL && file->kind == STREAM);
    return file->stream;
}

int file_of_disk(struct process *owner, struct disk_file *disk)
{
    int fd = make(owner, DISK);
    file_of(fd)->disk = disk;
    return fd;
}

bool disk_of_file(int fd, struct disk_file **disk)
{
    const struct file *file = file_of(fd);
    if (file == NULL || file->kind != DISK)
        return false;
    *disk = file->disk;
    return true;
}

int file_listener(struct process *owner)
{
    return make(owner, LISTENER);
}

static struct file *find_listener(const struct process *owner)
{
    for (int i = 0; i < WORLD_FILES_MAX && files[i] != NULL; i++)
        if (files[i]->kind == LISTENER && files[i]->owner == owner)
            return files[i];
    return NULL;
}

bool file_is_listening(const struct process *owner)
{
    return find_listener(owner) != NULL;
}

void file_incoming(struct process *owner, struct stream *end)
{
    struct file *listener = find_listener(owner);
    if (listener == NULL || listener->incoming_count == BACKLOG) {
        net_close(end, false);
        return;
    }
    listener->incoming[listener->incoming_count++] = end;
    fiber_wake_process(owner);
}

int file_signal(struct process *owner)
{
    return make(owner, SIGNAL);
}

void file_raise(int fd)
{
    struct file *file = file_of(fd);
    file->raised = true;
    fiber_wake_process(file->owner);
}

static void close_file(struct file *file, bool silent)
{
    if (file->kind == STREAM)
        net_close(file->stream, silent);
    if (file->kind == DISK)
        disk_close(file->disk, silent);
    for (uint32_t i = 0; i < file->incoming_count; i++)
        net_close(file->incoming[i], silent);
    file->kind = FREE;
}

void file_close_all(struct process *owner)
{
    for (int i = 0; i < WORLD_FILES_MAX && files[i] != NULL; i++)
        if (files[i]->kind != FREE && files[i]->owner == owner)
            close_file(files[i], owner->silent);
}

size_t file_count(const struct process *owner)
{
    size_t count = 0;
    for (int i = 0; i < WORLD_FILES_MAX && files[i] != NULL; i++)
        count += files[i]->kind != FREE && files[i]->owner == owner;
    return count;
}

int __wrap_close(int fd)
{
    struct file *file = file_of(fd);
    if (file == NULL)
        return __real_close(fd);
    KOLO__ASSERT(file->kind != FREE && file->owner == world->current);
    for (int i = 0; i < WORLD_FILES_MAX && files[i] != NULL; i++) /* as the kernel does */
        if (files[i]->kind == EPOLL)
            __wrap_epoll_ctl(FIRST_FD + i, EPOLL_CTL_DEL, fd, NULL);
    close_file(file, false);
    return 0;
}

/* ---- readiness -------------------------------------------------------------------------------
 */

static short look(const struct file *file);

static bool epoll_has(const struct file *epoll)
{
    for (uint32_t i = 0; i < epoll->watched_count; i++)
        if (look(file_of(epoll->watched[i])) & (short)epoll->events[i].events)
            return true;
    return false;
}

/* EPOLLIN and EPOLLOUT are POLLIN and POLLOUT. */
static short look(const struct file *file)
{
    switch (file->kind) {
    case STREAM:
        return (short)((net_is_readable(file->stream) ? POLLIN : 0) |
                       (net_is_writable(file->stream) ? POLLOUT : 0));
    case LISTENER:
        return file->incoming_count > 0 ? POLLIN : 0;
    case EPOLL:
        return epoll_has(file) ? POLLIN : 0;
    case SIGNAL:
        return file->raised ? POLLIN : 0;
    case DISK:
    case FREE:
        break;
    }
    return POLLNVAL;
}

static int look_at_all(struct pollfd *fds, nfds_t count)
{
    int ready = 0;
    for (nfds_t i = 0; i < count; i++) {
        struct file *file = file_of(fds[i].fd);
        if (fds[i].fd < 0)
            continue;
        KOLO__ASSERT(file != NULL && file->owner == world->current);
        fds[i].revents = (short)(look(file) & (fds[i].events | POLLNVAL));
        ready += fds[i].revents != 0;
        file->raised = false;
    }
    return ready;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    if (world == NULL || world->current == NULL)
        return __real_poll(fds, count, timeout_ms);
    uint64_t until_ns = timeout_ms < 0 ? NEVER : world->now_ns + (uint64_t)timeout_ms * MS;
    for (;;) {
        int ready = look_at_all(fds, count);
        if (ready > 0 || world->now_ns >= until_ns)
            return ready;
        fiber_wait(until_ns);
    }
}

int __wrap_epoll_create1(int flags)
{
    (void)flags;
    return make(world->current, EPOLL);
}

int __wrap_epoll_ctl(int fd, int operation, int watched, struct epoll_event *event)
{
    struct file *epoll = file_of(fd);
    uint32_t i = 0;
    while (i < epoll->watched_count && epoll->watched[i] != watched)
        i++;
    if (operation == EPOLL_CTL_DEL) {
        if (i == epoll->watched_count)
            return -1;
        epoll->watched[i] = epoll->watched[--epoll->watched_count];
        epoll->events[i] = epoll->events[epoll->watched_count];
        return 0;
    }
    KOLO__ASSERT(i < WATCHED_MAX && (operation == EPOLL_CTL_MOD) == (i < epoll->watched_count));
    epoll->watched[i] = watched;
    epoll->events[i] = *event;
    epoll->watched_count += operation == EPOLL_CTL_ADD;
    return 0;
}

/* In any order. */
int __wrap_epoll_wait(int fd, struct epoll_event *events, int most, int timeout_ms)
{
    const struct file *epoll = file_of(fd);
    int count = 0;
    KOLO__ASSERT(timeout_ms == 0);
    uint32_t first = epoll->watched_count > 1 ? (uint32_t)world_below(epoll->watched_count) : 0;
    for (uint32_t k = 0; k < epoll->watched_count && count < most; k++) {
        uint32_t i = (first + k) % epoll->watched_count;
        uint32_t ready = (uint32_t)look(file_of(epoll->watched[i])) & epoll->events[i].events;
        if (ready != 0)
            events[count++] = (struct epoll_event){.events = ready, .data = epoll->events[i].data};
    }
    return count;
}

/* ---- sockets ---------------------------------------------------------------------------------
 */

static int tell_address(struct sockaddr *address, socklen_t *bytes, uint32_t host)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    in.sin_addr.s_addr = htonl(0x7f000001u + host);
    memcpy(address, &in, sizeof in < *bytes ? sizeof in : *bytes);
    *bytes = sizeof in;
    return 0;
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
    struct file *listener = file_of(fd);
    (void)flags;
    if (listener->incoming_count == 0) {
        errno = EAGAIN;
        return -1;
    }
    struct stream *end = listener->incoming[0];
    listener->incoming_count--;
    for (uint32_t i = 0; i < listener->incoming_count; i++)
        listener->incoming[i] = listener->incoming[i + 1];
    tell_address(address, bytes, net_peer(end)->id);
    return file_of_stream(listener->owner, end);
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *bytes)
{
    const struct file *file = file_of(fd);
    if (file != NULL)
        return tell_address(address, bytes, file->owner->id);
    errno = EBADF; /* who has hung up asks, too */
    return -1;
}

int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *bytes)
{
    return tell_address(address, bytes, net_peer(stream_of_file(fd))->id);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes)
{
    const struct file *file = file_of(fd);
    if (file == NULL)
        return __real_getsockopt(fd, level, name, value, bytes);
    KOLO__ASSERT(level == IPPROTO_TCP && name == TCP_INFO && file->kind == STREAM);
    struct tcp_info info = {0};
    uint32_t retransmits;
    bool unacknowledged;
    net_info(file->stream, &unacknowledged, &info.tcpi_last_data_sent, &info.tcpi_last_ack_recv,
             &info.tcpi_last_data_recv, &retransmits);
    info.tcpi_unacked = unacknowledged;
    info.tcpi_retransmits = (uint8_t)retransmits;
    memcpy(value, &info, sizeof info < *bytes ? sizeof info : *bytes);
    return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes)
{
    return file_of(fd) != NULL ? 0 : __real_setsockopt(fd, level, name, value, bytes);
}

int __wrap_ioctl(int fd, unsigned long request, int *value)
{
    const struct file *file = file_of(fd);
    KOLO__ASSERT(request == FIONREAD);
    if (file == NULL || file->kind != STREAM) { /* the same */
        errno = EBADF;
        return -1;
    }
    *value = (int)net_unread(stream_of_file(fd));
    return 0;
}

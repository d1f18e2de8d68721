/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How ranks of a host get their shared heap, against somebody who knows the token and then says
 * something else than kolo would. An input:
 *
 *     | what u8 | changes |     changes: bytes that are added (xor) to the right ones
 *
 *     bit 0 of what    who is tested: 0 a member, 1 member 0
 *     bits 1, 2        a member gets so many descriptors
 *     bit 3            the memory has the size that the (changed) grant tells
 *
 * The right bytes are a grant, the header of the memory and "g"; or a request and "m". Whatever was
 * changed: nothing but the right heap is mapped, no descriptor is left open, and after a request
 * that does not fit the right member is served.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secure.h"
#include "base/socket.h"
#include "collectives/transport/heap_pass.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 3 };

static const uint64_t share = 2 << 20;

/* As in heap_pass.c and heap.c. */
struct request {
    uint32_t member, members;
};

struct grant {
    uint32_t accepted, reserved;
    struct kolo__heap_geometry geometry;
};

struct header {
    char magic[8];
    struct kolo__heap_geometry geometry;
};

struct play {
    const char *name;
    int listen_fd;
    unsigned descriptors;
    bool sized;
    struct grant grant;
    struct header header;
    struct request request;
    char word;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 5000000000u;
}

static struct kolo__heap_options options_of(const struct play *play, uint32_t member)
{
    return (struct kolo__heap_options){.name = play->name,
                                       .token = "secret",
                                       .member = member,
                                       .members = 2,
                                       .share_bytes = share,
                                       .deadline_ns = soon()};
}

static struct kolo__secure *prove(const struct play *play, enum kolo__secure_side side, int fd)
{
    static struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    if (credentials == NULL)
        KOLO__ASSERT(kolo__credentials_create(KOLO__PURPOSE_HEAP, play->name, "secret",
                                              &credentials) == KOLO_OK);
    KOLO__ASSERT(kolo__secure_create(credentials, side, fd, &secure) == KOLO_OK);
    KOLO__ASSERT(kolo__secure_handshake_by(secure, soon()) == KOLO_OK);
    return secure;
}

/* Adds what there is of the changes to `wanted` bytes. */
static void change(void *right, size_t wanted, const uint8_t **changes, size_t *bytes)
{
    unsigned char *to = right;
    size_t count = *bytes < wanted ? *bytes : wanted;
    for (size_t i = 0; i < count; i++)
        to[i] ^= (*changes)[i];
    *changes += count;
    *bytes -= count;
}

/* ---- a false member 0 ------------------------------------------------------------------------ */

static int make_memory(const struct play *play)
{
    uint64_t told = (2 << 20) + play->grant.geometry.members * play->grant.geometry.share_bytes;
    bool possible = play->sized && told <= UINT64_C(1) << 40;
    int fd = memfd_create("heap", MFD_CLOEXEC);
    KOLO__ASSERT(fd >= 0 && ftruncate(fd, (off_t)(possible ? told : (2 << 20) + 2 * share)) == 0);
    KOLO__ASSERT(pwrite(fd, &play->header, sizeof play->header, 0) == sizeof play->header);
    return fd;
}

static void send_grant(const struct play *play, int fd)
{
    union {
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
        struct cmsghdr aligned;
    } control = {{0}};
    struct grant grant = play->grant;
    struct iovec part = {.iov_base = &grant, .iov_len = sizeof grant};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int memory = make_memory(play), all[DESCRIPTORS_MAX] = {memory, memory, memory};
    if (play->descriptors > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(play->descriptors * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(play->descriptors * sizeof(int));
        memcpy(CMSG_DATA(rights), all, play->descriptors * sizeof(int));
    }
    KOLO__ASSERT(sendmsg(fd, &message, MSG_NOSIGNAL) == sizeof grant);
    close(memory);
}

static void *false_member_0(void *argument)
{
    const struct play *play = argument;
    struct pollfd ready = {.fd = play->listen_fd, .events = POLLIN};
    struct request request;
    char word;
    KOLO__ASSERT(poll(&ready, 1, 5000) == 1);
    int fd = accept4(play->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    KOLO__ASSERT(fd >= 0);
    struct kolo__secure *secure = prove(play, KOLO__SECURE_ACCEPTOR, fd);
    KOLO__ASSERT(kolo__secure_recv_all(secure, &request, sizeof request, soon()) == KOLO_OK);
    kolo__secure_free(secure);
    KOLO__ASSERT(request.member == 1 && request.members == 2);
    send_grant(play, fd);
    if (kolo__recv_all(fd, &word, 1, soon()) == KOLO_OK)
        kolo__send_all(fd, &play->word, 1, soon());
    close(fd);
    return NULL;
}

static void check_member(struct play *play, const uint8_t *changes, size_t bytes)
{
    struct kolo__heap_options options = options_of(play, 1), own = options_of(play, 0);
    struct kolo__heap *heap = NULL;
    pthread_t thread;
    const struct kolo__heap_geometry geometry = {.share_bytes = share, .members = 2};
    play->grant = (struct grant){.accepted = 1, .geometry = geometry};
    play->header = (struct header){.magic = "kolohp1", .geometry = geometry};
    play->word = 'g';
    change(&play->grant, sizeof play->grant, &changes, &bytes);
    change(&play->header, sizeof play->header, &changes, &bytes);
    change(&play->word, 1, &changes, &bytes);
    KOLO__ASSERT(kolo__heap_listen(&own, &play->listen_fd) == KOLO_OK);
    KOLO__ASSERT(pthread_create(&thread, NULL, false_member_0, play) == 0);
    kolo_status status = kolo__heap_open(&options, &heap);
    KOLO__ASSERT(pthread_join(thread, NULL) == 0);
    if (status == KOLO_OK) {
        KOLO__ASSERT(play->grant.accepted != 0 && play->grant.geometry.members == 2);
        KOLO__ASSERT(memcmp(&play->grant.geometry, &play->header.geometry, sizeof geometry) == 0);
        KOLO__ASSERT(play->word == 'g' && play->descriptors == 1);
        KOLO__ASSERT(kolo__heap_address(heap, 0, 1) != NULL);
    }
    kolo__heap_close(heap);
    close(play->listen_fd);
}

/* ---- a false member, then the right one ------------------------------------------------------ */

static int connect_to_member_0(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t deadline_ns = soon();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path + 1, name, strlen(name));
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    while (connect(fd, (struct sockaddr *)&address, length) != 0) { /* it may not listen yet */
        KOLO__ASSERT(kolo__now_ns(&kolo__real_clock) < deadline_ns);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    KOLO__ASSERT(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

static bool fits(const struct play *play)
{
    return play->request.member == 1 && play->request.members == 2;
}

static void *false_member(void *argument)
{
    const struct play *play = argument;
    struct kolo__heap_options options = options_of(play, 1);
    struct kolo__heap *heap = NULL;
    struct grant grant;
    char go = 0;
    int fd = connect_to_member_0(play->name);
    struct kolo__secure *secure = prove(play, KOLO__SECURE_INITIATOR, fd);
    KOLO__ASSERT(kolo__secure_send_all(secure, &play->request, sizeof play->request, soon()) ==
                 KOLO_OK);
    kolo__secure_free(secure);
    /* As for a descriptor: without room for it the kernel closes it. */
    KOLO__ASSERT(kolo__recv_all(fd, &grant, sizeof grant, soon()) == KOLO_OK);
    KOLO__ASSERT((grant.accepted == 1) == fits(play) && grant.geometry.members == 2);
    if (fits(play) && kolo__send_all(fd, &play->word, 1, soon()) == KOLO_OK)
        KOLO__ASSERT((kolo__recv_all(fd, &go, 1, soon()) == KOLO_OK) == (play->word == 'm'));
    close(fd);
    if (!fits(play))
        KOLO__ASSERT(kolo__heap_open(&options, &heap) == KOLO_OK);
    kolo__heap_close(heap);
    return NULL;
}

static void check_member_0(struct play *play, const uint8_t *changes, size_t bytes)
{
    struct kolo__heap_options options = options_of(play, 0);
    struct kolo__heap *heap = NULL;
    pthread_t thread;
    play->request = (struct request){.member = 1, .members = 2};
    play->word = 'm';
    change(&play->request, sizeof play->request, &changes, &bytes);
    change(&play->word, 1, &changes, &bytes);
    KOLO__ASSERT(pthread_create(&thread, NULL, false_member, play) == 0);
    kolo_status status = kolo__heap_open(&options, &heap);
    KOLO__ASSERT(pthread_join(thread, NULL) == 0);
    KOLO__ASSERT((status == KOLO_OK) == (!fits(play) || play->word == 'm'));
    kolo__heap_close(heap);
}

static int count_open(void)
{
    int count = 0;
    for (int fd = 0; fd < 64; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char name[40];
    struct play play = {.name = name};
    if (bytes == 0)
        return 0;
    if (name[0] == '\0')
        snprintf(name, sizeof name, "kolo-fuzz-%d", (int)getpid());
    kolo__log_configure("error", -1);
    play.descriptors = data[0] >> 1 & 3;
    play.sized = (data[0] & 8) != 0;
    int before = count_open();
    if ((data[0] & 1) == 0)
        check_member(&play, data + 1, bytes - 1);
    else
        check_member_0(&play, data + 1, bytes - 1);
    KOLO__ASSERT(count_open() == before);
    return 0;
}

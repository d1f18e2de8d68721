/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A measured connection of `kolo doctor` whose other end knows the token and then says anything. An
 * input:
 *
 *     bit 0 of the first byte   who is tested: 0 who was asked, 1 who tries
 *     bit 1                     who tries also gets what large packets are answered with
 *     the rest                  what the other end says after the proof
 *
 * Whatever came, it ends at once when the other end does, and says how far it got.
 */
#include "launcher/doctor/link.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/socket.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LARGE_BYTES = 1 << 16, CLOCK_BYTES = 8, TAKEN_MAX = 1 << 20 };

/* What the other end is to do. */
struct play {
    const struct kolo__credentials *credentials;
    enum kolo__secure_side side;
    int fd; /* a connection, or a listener */
    const uint8_t *data;
    size_t bytes;
    bool large;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 5000000000u;
}

static void prove(const struct play *play, int fd)
{
    struct kolo__secure *secure;
    unsigned char go = 0x6b;
    KOLO__ASSERT(kolo__secure_create(play->credentials, play->side, fd, &secure) == KOLO_OK);
    KOLO__ASSERT(kolo__secure_handshake_by(secure, soon()) == KOLO_OK);
    if (play->side == KOLO__SECURE_INITIATOR)
        KOLO__ASSERT(kolo__secure_recv_all(secure, &go, 1, soon()) == KOLO_OK && go == 0x6b);
    else
        KOLO__ASSERT(kolo__secure_send_all(secure, &go, 1, soon()) == KOLO_OK);
    KOLO__ASSERT(kolo__secure_leave(secure));
    kolo__secure_free(secure);
}

/* Says its part, then takes what comes, but not for ever. */
static void *other_end(void *argument)
{
    static unsigned char taken[1 << 16];
    static const unsigned char large[CLOCK_BYTES + LARGE_BYTES];
    const struct play *play = argument;
    int fd = play->fd;
    if (play->side == KOLO__SECURE_ACCEPTOR) {
        struct pollfd ready = {.fd = play->fd, .events = POLLIN};
        KOLO__ASSERT(poll(&ready, 1, 5000) == 1);
        fd = accept4(play->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        KOLO__ASSERT(fd >= 0);
    }
    prove(play, fd);
    kolo_status status = kolo__send_all(fd, play->data, play->bytes, soon());
    if (status == KOLO_OK && play->large)
        kolo__send_all(fd, large, sizeof large, soon());
    shutdown(fd, SHUT_WR);
    for (size_t all = 0; all < TAKEN_MAX;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        poll(&ready, 1, 5000);
        ssize_t got = recv(fd, taken, sizeof taken, 0);
        if (got <= 0)
            break;
        all += (size_t)got;
    }
    close(fd);
    return NULL;
}

static void check_serve(struct play *play)
{
    pthread_t thread;
    int ends[2];
    KOLO__ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    play->side = KOLO__SECURE_INITIATOR;
    play->fd = ends[1];
    KOLO__ASSERT(pthread_create(&thread, NULL, other_end, play) == 0);
    kolo__link_serve(play->credentials, ends[0]);
    KOLO__ASSERT(pthread_join(thread, NULL) == 0);
}

static void check_try(struct play *play)
{
    static int listen_fd = -1;
    static char address[80];
    struct kolo__address bound;
    struct kolo__link link;
    pthread_t thread;
    if (listen_fd < 0) {
        KOLO__ASSERT(kolo__listen("127.0.0.1", 0, &listen_fd, &bound) == KOLO_OK);
        kolo__address_text(&bound, address, sizeof address);
    }
    play->side = KOLO__SECURE_ACCEPTOR;
    play->fd = listen_fd;
    KOLO__ASSERT(pthread_create(&thread, NULL, other_end, play) == 0);
    kolo__link_try(play->credentials, address, &link);
    KOLO__ASSERT(pthread_join(thread, NULL) == 0);
    KOLO__ASSERT(link.stage >= KOLO__LINK_SMALL && link.stage <= KOLO__LINK_DONE);
    KOLO__ASSERT(memchr(link.why, '\0', sizeof link.why) != NULL);
    KOLO__ASSERT((link.stage == KOLO__LINK_DONE) == (link.why[0] == '\0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct kolo__credentials *credentials;
    if (bytes == 0)
        return 0;
    if (credentials == NULL)
        KOLO__ASSERT(kolo__credentials_create(KOLO__PURPOSE_DATA, "job", "secret", &credentials) ==
                     KOLO_OK);
    struct play play = {.credentials = credentials, .data = data + 1, .bytes = bytes - 1};
    play.large = (data[0] & 2) != 0;
    if ((data[0] & 1) == 0)
        check_serve(&play);
    else
        check_try(&play);
    return 0;
}

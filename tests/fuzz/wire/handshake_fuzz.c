/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a handshake against somebody who does not know the token, and both ends with somebody
 * between them. An input:
 *
 *     0, 1   | bytes |                        sent to an acceptor, to an initiator
 *     2      | at u16, changed u8 | ...       bytes of a real handshake, counted both ways, xor
 *
 * Nobody proves the token who does not know it, and whoever has proved it is understood.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/secure.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS = 8 };

struct end {
    struct kolo__secure *secure;
    int fd, other_fd; /* other_fd: the middle's, or the stranger's */
    kolo_status status;
};

static struct kolo__credentials *credentials;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void open_end(struct end *end, enum kolo__secure_side side)
{
    int fds[2];
    KOLO__ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    *end = (struct end){.fd = fds[0], .other_fd = fds[1], .status = KOLO_AGAIN};
    KOLO__ASSERT(kolo__secure_create(credentials, side, end->fd, &end->secure) == KOLO_OK);
}

static void close_end(struct end *end)
{
    kolo__secure_free(end->secure);
    close(end->fd);
    close(end->other_fd);
}

static void advance(struct end *end)
{
    if (end->status == KOLO_AGAIN)
        end->status = kolo__secure_handshake(end->secure);
}

/* In two pieces, so that the state machine stops in between. */
static void meet_stranger(enum kolo__secure_side side, const uint8_t *data, size_t bytes)
{
    struct end end;
    size_t first = bytes > 0 ? data[bytes - 1] % (bytes + 1) : 0;
    open_end(&end, side);
    advance(&end);
    for (size_t from = 0, to = first; from < bytes; from = to, to = bytes) {
        (void)!send(end.other_fd, data + from, to - from, MSG_NOSIGNAL);
        advance(&end);
        if (to == bytes)
            break;
    }
    shutdown(end.other_fd, SHUT_WR);
    advance(&end);
    KOLO__ASSERT(end.status != KOLO_OK && end.status != KOLO_AGAIN);
    close_end(&end);
}

static void carry(struct end *from, struct end *to, size_t *passed, const uint8_t *changes,
                  size_t bytes)
{
    unsigned char wire[4096];
    ssize_t got = recv(from->other_fd, wire, sizeof wire, 0);
    if (got <= 0)
        return;
    for (; bytes >= 3; changes += 3, bytes -= 3) {
        size_t at = kolo__load_u16(changes);
        if (at >= *passed && at < *passed + (size_t)got)
            wire[at - *passed] ^= changes[2];
    }
    *passed += (size_t)got;
    (void)!send(to->other_fd, wire, (size_t)got, MSG_NOSIGNAL);
}

static void check_stream(struct end *from, struct end *to)
{
    char in[5] = "";
    size_t moved;
    KOLO__ASSERT(kolo__secure_write(from->secure, "kolo", 4, &moved) == KOLO_OK && moved == 4);
    size_t passed = SIZE_MAX / 2; /* unchanged */
    carry(from, to, &passed, NULL, 0);
    KOLO__ASSERT(kolo__secure_read(to->secure, in, 4, &moved) == KOLO_OK && moved == 4);
    KOLO__ASSERT(strcmp(in, "kolo") == 0);
}

static void meet_through_the_middle(const uint8_t *changes, size_t bytes)
{
    struct end initiator, acceptor;
    size_t passed = 0;
    open_end(&initiator, KOLO__SECURE_INITIATOR);
    open_end(&acceptor, KOLO__SECURE_ACCEPTOR);
    for (int turn = 0; turn < TURNS; turn++) {
        advance(&initiator);
        carry(&initiator, &acceptor, &passed, changes, bytes);
        advance(&acceptor);
        carry(&acceptor, &initiator, &passed, changes, bytes);
    }
    if (bytes < 3)
        KOLO__ASSERT(initiator.status == KOLO_OK && acceptor.status == KOLO_OK);
    if (initiator.status == KOLO_OK && acceptor.status == KOLO_OK) {
        check_stream(&initiator, &acceptor);
        check_stream(&acceptor, &initiator);
    }
    close_end(&initiator);
    close_end(&acceptor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    if (credentials == NULL)
        KOLO__ASSERT(kolo__credentials_create(KOLO__PURPOSE_DATA, "job", "secret", &credentials) ==
                     KOLO_OK);
    if (data[0] % 3 == 0)
        meet_stranger(KOLO__SECURE_ACCEPTOR, data + 1, bytes - 1);
    else if (data[0] % 3 == 1)
        meet_stranger(KOLO__SECURE_INITIATOR, data + 1, bytes - 1);
    else
        meet_through_the_middle(data + 1, bytes - 1);
    return 0;
}

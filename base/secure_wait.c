/* SPDX-License-Identifier: Apache-2.0 */
/* Secure connections for callers that have nothing else to do meanwhile. */
#include "base/secure.h"

#include "base/socket.h"

#include <poll.h>

static kolo_status wait_for(struct kolo__secure *secure, uint64_t deadline_ns)
{
    return kolo__wait_for(kolo__secure_fd(secure),
                          kolo__secure_wants_write(secure) ? POLLOUT : POLLIN, deadline_ns);
}

kolo_status kolo__secure_handshake_by(struct kolo__secure *secure, uint64_t deadline_ns)
{
    kolo_status status;
    while ((status = kolo__secure_handshake(secure)) == KOLO_AGAIN) {
        status = wait_for(secure, deadline_ns);
        if (status != KOLO_OK)
            break;
    }
    return status;
}

kolo_status kolo__secure_send_some(struct kolo__secure *secure, const void *data, size_t bytes,
                                   uint64_t deadline_ns, size_t *sent)
{
    const unsigned char *first = data;
    for (*sent = 0; *sent < bytes;) {
        size_t moved;
        kolo_status status = kolo__secure_write(secure, first + *sent, bytes - *sent, &moved);
        if (status == KOLO_AGAIN)
            status = wait_for(secure, deadline_ns);
        if (status != KOLO_OK)
            return status;
        *sent += moved;
    }
    return KOLO_OK;
}

kolo_status kolo__secure_send_all(struct kolo__secure *secure, const void *data, size_t bytes,
                                  uint64_t deadline_ns)
{
    size_t sent;
    return kolo__secure_send_some(secure, data, bytes, deadline_ns, &sent);
}

kolo_status kolo__secure_recv_all(struct kolo__secure *secure, void *data, size_t bytes,
                                  uint64_t deadline_ns)
{
    unsigned char *next = data;
    while (bytes > 0) {
        size_t moved;
        kolo_status status = kolo__secure_read(secure, next, bytes, &moved);
        if (status == KOLO_AGAIN)
            status = wait_for(secure, deadline_ns);
        if (status != KOLO_OK)
            return status;
        next += moved;
        bytes -= moved;
    }
    return KOLO_OK;
}

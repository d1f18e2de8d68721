/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Established connections that stay encrypted (KOLO_ENCRYPT=1), as pipes. A record of TLS has at
 * most 16 KiB and costs one call of send, so a header travels in one record with what follows it.
 */
#include "collectives/transport/tcp_transport.h"

#include <string.h>

/* Until nothing more moves. */
static kolo_status write_all(struct kolo__secure *secure, const void *data, size_t bytes,
                             size_t *moved)
{
    kolo_status status = KOLO_OK;
    size_t done = 0;
    while (done < bytes && status == KOLO_OK) {
        size_t now;
        status = kolo__secure_write(secure, (const char *)data + done, bytes - done, &now);
        done += now;
    }
    *moved += done;
    return status;
}

/* The first record's worth of two parts. What did not fit the socket is gathered again by the next
 * call: the same bytes, with more behind them if there are. */
static size_t gather(const struct iovec parts[2], unsigned char record[KOLO__TCP_RECORD_BYTES])
{
    size_t head = parts[0].iov_len, room = KOLO__TCP_RECORD_BYTES - head;
    size_t rest = parts[1].iov_len < room ? parts[1].iov_len : room;
    memcpy(record, parts[0].iov_base, head);
    if (rest > 0) /* a message without payload has no memory */
        memcpy(record + head, parts[1].iov_base, rest);
    return head + rest;
}

kolo_status kolo__tcp_write_secure(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane,
                                   const struct iovec *parts, int part_count, size_t *moved,
                                   bool *would_block)
{
    kolo_status status = KOLO_OK;
    size_t skip = 0; /* of the parts: has gone */
    *moved = 0;
    if (part_count == 2 && parts[0].iov_len > 0 && parts[0].iov_len < KOLO__TCP_RECORD_BYTES) {
        status = write_all(lane->secure, tcp->record, gather(parts, tcp->record), moved);
        skip = *moved;
    }
    for (int i = 0; i < part_count && status == KOLO_OK; i++) {
        size_t gone = skip < parts[i].iov_len ? skip : parts[i].iov_len;
        skip -= gone;
        status = write_all(lane->secure, (const char *)parts[i].iov_base + gone,
                           parts[i].iov_len - gone, moved);
    }
    *would_block = status == KOLO_AGAIN;
    return *would_block ? KOLO_OK : status;
}

kolo_status kolo__tcp_read_secure(struct kolo__tcp_lane *lane, const struct iovec *parts,
                                  int part_count, size_t *moved, bool *would_block)
{
    kolo_status status = KOLO_OK;
    *moved = 0;
    for (int i = 0; i < part_count && status == KOLO_OK; i++) {
        size_t done = 0;
        while (done < parts[i].iov_len && status == KOLO_OK) {
            size_t now;
            status = kolo__secure_read(lane->secure, (char *)parts[i].iov_base + done,
                                       parts[i].iov_len - done, &now);
            done += now;
        }
        *moved += done;
    }
    *would_block = status == KOLO_AGAIN;
    /* What came before the end is heard first. */
    return *would_block || *moved > 0 ? KOLO_OK : status;
}

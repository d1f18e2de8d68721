/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common half of transports that move messages through byte pipes, one each way per peer (shm,
 * tcp): queues of posts, headers and their check, watermarks, faults. The transport supplies the
 * pipes.
 *
 * A transport embeds struct kolo__stream as its first member, so that a pointer to its struct
 * kolo__transport is a pointer to all three.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_STREAM_H
#define KOLO_COLLECTIVES_TRANSPORT_STREAM_H

#include "collectives/transport/message.h"
#include "collectives/transport/transport.h"

#include <sys/uio.h>

struct kolo__stream;

enum { KOLO__PIPE_PARTS_MAX = 3 };

/* Bytes to and from one peer, in order, without blocking. *moved is 0 when nothing can move now.
 * An error (kolo__error has the text, which names no rank) breaks the whole transport. */
struct kolo__pipe_ops {
    kolo_status (*write)(struct kolo__stream *stream, uint32_t peer, const struct iovec *parts,
                         int part_count, size_t *moved);
    kolo_status (*read)(struct kolo__stream *stream, uint32_t peer, const struct iovec *parts,
                        int part_count, size_t *moved);
    /* Bytes read ahead when a header is wanted, at least a header: large where reading is a system
     * call, a header where it is a copy. Where the next message has no more bytes than a short one,
     * so many more: copying them costs less than the second call. */
    size_t read_ahead_bytes, short_message_bytes;
    /* After a fault, before posts complete with it: when this returns nothing touches their memory
     * any more. Of pipes that never lend: kolo__pipe_lends_nothing. */
    void (*stop)(struct kolo__stream *stream);
};

void kolo__pipe_lends_nothing(struct kolo__stream *stream);

struct kolo__stream_queue {
    struct kolo__post *first, *last;
};

struct kolo__stream_peer {
    struct kolo__stream_queue sends, recvs;
    /* Sends that the pipe has taken whole, and still reads; it says when no more. */
    struct kolo__stream_queue lent;
    bool lends;              /* set by write: of the first send, whose last byte it takes */
    uint64_t sent, received; /* messages finished */
    /* Of the first send. The payload is counted in bytes_done. */
    unsigned char send_header[KOLO__MESSAGE_HEADER_BYTES];
    size_t send_header_done;
    bool send_begun;
    size_t send_block_end; /* without checksums a message is one block */
    unsigned char send_sum[KOLO__MESSAGE_CHECKSUM_BYTES]; /* goes behind the block */
    size_t send_sum_bytes, send_sum_done;
    bool recv_checked;      /* the header of the first recv has come, and fits */
    size_t recv_block_done; /* with checksums: bytes behind bytes_done that are not checked yet */
    unsigned char *ahead;   /* bytes read and not yet used: ahead[ahead_begin, ahead_end) */
    size_t ahead_begin, ahead_end;
    uint32_t active_index; /* in kolo__stream.active, UINT32_MAX: both queues are empty */
};

struct kolo__stream {
    struct kolo__transport transport;
    const struct kolo__pipe_ops *pipes;
    bool checksum;            /* the same on all ranks */
    const char *const *hosts; /* for messages; may be NULL; borrowed */
    struct kolo__stream_peer *peers;
    unsigned char *ahead; /* all peers' */
    uint32_t *active;     /* peers with a post */
    uint32_t active_count;
    bool unfinished; /* something was posted, or put off: there may be work no pipe tells of */
};

/* Fills transport.rank, .size; ops is the caller's to set. */
kolo_status kolo__stream_init(struct kolo__stream *stream, uint32_t rank, uint32_t size,
                              const char *const *hosts, const struct kolo__pipe_ops *pipes);
/* Completes every pending post with the fault (KOLO_ERR_ABORTED without one), frees. */
void kolo__stream_release(struct kolo__stream *stream);

/* For the slots of the same names in struct kolo__transport_ops. */
void kolo__stream_post_send(struct kolo__transport *transport, uint32_t peer,
                            struct kolo__post *post);
void kolo__stream_post_recv(struct kolo__transport *transport, uint32_t peer,
                            struct kolo__post *post);
bool kolo__stream_progress(struct kolo__stream *stream);
/* The oldest send that was lent to this peer's pipe is read no more. */
void kolo__stream_return_lent(struct kolo__stream *stream, uint32_t peer);
/* For arm: progress would do something, whatever the pipes have. */
bool kolo__stream_has_work(const struct kolo__stream *stream);
void kolo__stream_fail(struct kolo__transport *transport, const struct kolo__fault *fault);

/* The first fault stays. */
void kolo__stream_set_fault(struct kolo__stream *stream, kolo_status status, int peer,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));
/* "rank 3 (host b)"; returns text. */
const char *kolo__stream_peer_name(const struct kolo__stream *stream, uint32_t peer, char *text,
                                   size_t bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's end of the control plane against a rendezvous that knows the token and then says
 * anything: the input, byte for byte, and the end of the connection.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secure.h"
#include "base/socket.h"
#include "runtime/frame.h"
#include "runtime/control.h"
#include "runtime/heartbeat.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { RANK = 1, RANKS = 3 };

/* What the false server is to do. */
struct play {
    int listen_fd;
    const uint8_t *data;
    size_t bytes;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 5000000000u;
}

/* Where the first EPOCH stands that is not the first of all messages; or the end. */
static size_t find_epoch(const struct play *play)
{
    size_t at = 0, length;
    enum kolo__frame_type type;
    struct kolo__frame_reader payload;
    for (; at < play->bytes; at += length) {
        length = kolo__frame_parse(play->data + at, play->bytes - at, KOLO__FRAME_PAYLOAD_MAX,
                                   &type, &payload);
        if (length == 0 || length == (size_t)-1)
            return play->bytes;
        if (type == KOLO__FRAME_EPOCH && at > 0)
            return at;
    }
    return at;
}

/* Nobody believes in an epoch before having asked for it. */
static void await_renewal(struct kolo__secure *secure)
{
    static unsigned char in[4096];
    size_t bytes = 0, moved, length;
    kolo_status status = KOLO_OK;
    for (int i = 0; i < 200 && status <= KOLO_AGAIN; i++) {
        struct kolo__frame_reader payload;
        enum kolo__frame_type type;
        status = kolo__secure_read(secure, in + bytes, sizeof in - bytes, &moved);
        bytes += moved;
        while ((length = kolo__frame_parse(in, bytes, sizeof in, &type, &payload)) > 0 &&
               length != (size_t)-1) {
            if (type == KOLO__FRAME_RENEW)
                return;
            memmove(in, in + length, bytes - length);
            bytes -= length;
        }
        usleep(status == KOLO_AGAIN ? 500 : 0);
    }
}

static void say(int fd, const struct play *play)
{
    struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    unsigned char ignored;
    KOLO__ASSERT(kolo__credentials_create(KOLO__PURPOSE_CONTROL, "job", "secret", &credentials) ==
                 KOLO_OK);
    KOLO__ASSERT(kolo__secure_create(credentials, KOLO__SECURE_ACCEPTOR, fd, &secure) == KOLO_OK);
    KOLO__ASSERT(kolo__secure_handshake_by(secure, soon()) == KOLO_OK);
    size_t first = find_epoch(play);
    kolo__secure_send_all(secure, play->data, first, soon());
    if (first > 0 && first < play->bytes)
        await_renewal(secure);
    kolo__secure_send_all(secure, play->data + first, play->bytes - first, soon());
    shutdown(fd, SHUT_WR);
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    while (kolo__recv_all(fd, &ignored, 1, soon()) == KOLO_OK)
        ;
}

static void *false_server(void *argument)
{
    const struct play *play = argument;
    struct pollfd ready = {.fd = play->listen_fd, .events = POLLIN};
    KOLO__ASSERT(poll(&ready, 1, 5000) == 1);
    int fd = accept4(play->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    KOLO__ASSERT(fd >= 0);
    say(fd, play);
    close(fd);
    return NULL;
}

/* ---- the rank ------------------------------------------------------------------------------ */

/* Reads all of it, so that AddressSanitizer sees where it lies. */
static void touch(const unsigned char *data, size_t bytes)
{
    static volatile unsigned char last;
    for (size_t i = 0; i < bytes; i++)
        last = data[i];
    (void)last;
}

static uint32_t size_of(const struct kolo__control *control)
{
    const struct kolo__epoch *epoch = kolo__control_epoch(control);
    return epoch->number > 0 ? epoch->size : RANKS;
}

static void visit(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    KOLO__ASSERT(rank < size_of(self));
    touch(blob, bytes);
}

static void check_text(const char *text, size_t bytes)
{
    size_t length = strnlen(text, bytes);
    KOLO__ASSERT(length < bytes);
    for (size_t i = 0; i < length; i++)
        KOLO__ASSERT((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
}

static void check_members(const struct kolo__control *control)
{
    const struct kolo__epoch *epoch = kolo__control_epoch(control);
    check_text(epoch->gone, sizeof epoch->gone);
    KOLO__ASSERT(epoch->number == 0 || epoch->rank < epoch->size);
    touch((const unsigned char *)epoch->previous, epoch->survivors * sizeof *epoch->previous);
    for (uint32_t r = 0; r < size_of(control); r++) {
        const struct kolo__control_member *member = kolo__control_member(control, r);
        check_text(member->host, sizeof member->host);
        touch(member->blob, member->blob_bytes);
    }
}

/* The server is gone at the end, so there is a fault; it is fit to be shown. */
static void check_faults(struct kolo__control *control)
{
    struct kolo__fault fault;
    bool any = false;
    static const struct kolo__flight flight; /* of a rank that has called nothing */
    uint64_t began_ns = kolo__now_ns(&kolo__real_clock), deadline_ns = soon();
    kolo__heartbeat_once(control, &flight, deadline_ns - began_ns, began_ns);
    while (!any && kolo__now_ns(&kolo__real_clock) < deadline_ns) {
        struct pollfd ready = {.fd = kolo__control_fd(control), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__control_poll(control);
        any = kolo__control_fault(control, 0, &fault);
        for (uint32_t comm = 0; comm < 3; comm++) {
            if (!kolo__control_fault(control, comm, &fault))
                continue;
            KOLO__ASSERT(fault.status > KOLO_AGAIN && fault.status <= KOLO_ERR_DEVICE);
            KOLO__ASSERT(fault.peer >= -1 && fault.peer < (int)size_of(control));
            check_text(fault.text, sizeof fault.text);
        }
    }
    KOLO__ASSERT(any);
}

/* Whatever was said of kolo_join can be asked for. */
static void check_joins(struct kolo__control *control)
{
    struct kolo__announcement announcement;
    uint64_t sequence;
    uint32_t last;
    for (uint32_t comm = 0; comm < 3; comm++) {
        kolo__control_has_joined(control, comm, 1, &sequence);
        kolo__control_lowest_joined(control, comm, &sequence);
        while (kolo__control_next_announced(control, comm, &announcement))
            KOLO__ASSERT(announcement.signature.comm == comm);
        while (kolo__control_all_joined(control, comm, &last)) {
        }
    }
    kolo__control_forget(control, 1);
    KOLO__ASSERT(!kolo__control_has_joined(control, 1, 1, &sequence));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct play play = {.listen_fd = -1};
    static char address[80];
    struct kolo__address bound;
    pthread_t thread;
    if (play.listen_fd < 0) {
        kolo__log_configure("error", -1);
        KOLO__ASSERT(kolo__listen("127.0.0.1", 0, &play.listen_fd, &bound) == KOLO_OK);
        kolo__address_text(&bound, address, sizeof address);
    }
    play.data = data;
    play.bytes = bytes;
    KOLO__ASSERT(pthread_create(&thread, NULL, false_server, &play) == 0);
    struct kolo__control_options options = {
        .rendezvous = address,
        .job = "job",
        .token = "secret",
        .rank = RANK,
        .size = RANKS,
        .deadline_ns = soon(),
        .timeout_s = 5,
    };
    struct kolo__control *control;
    KOLO__ASSERT(kolo__control_connect(&options, &control) == KOLO_OK);
    if (kolo__control_join(control, "blob", 4) == KOLO_OK) {
        check_members(control);
        kolo__control_exchange(control, 1, "blob", 4, soon(), visit, control);
        check_members(control);
        if (kolo__control_renew(control, 100, "blob", 4) == KOLO_OK) {
            check_members(control);
            kolo__control_exchange(control, 1, "blob", 4, soon(), visit, control);
        }
    }
    check_faults(control);
    check_joins(control);
    kolo__control_close(control);
    KOLO__ASSERT(pthread_join(thread, NULL) == 0);
    return 0;
}

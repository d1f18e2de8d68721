/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/relay.h"

#include "base/clock.h"
#include "base/silence.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum { RELAY_BYTES = 64 << 10 };

/* One direction: what was read and is not written yet. */
struct half {
    char data[RELAY_BYTES];
    size_t begin, end;
    bool ended; /* no more comes in */
};

struct relay {
    struct kolo__secure *secure;
    int in_fd, out_fd;
    struct half in, out; /* from in_fd to the socket; from the socket to out_fd */
    struct kolo__silence silence;
    bool broken;
};

static bool is_empty(const struct half *half)
{
    return half->begin == half->end;
}

static void filled(struct half *half, size_t bytes)
{
    half->begin = 0;
    half->end = bytes;
}

static void from_local(struct relay *r)
{
    ssize_t got = is_empty(&r->in) && !r->in.ended ? read(r->in_fd, r->in.data, RELAY_BYTES) : -1;
    if (got > 0)
        filled(&r->in, (size_t)got);
    else if (got == 0)
        r->in.ended = true;
    size_t moved;
    while (!is_empty(&r->in)) {
        kolo_status status = kolo__secure_write(r->secure, r->in.data + r->in.begin,
                                                r->in.end - r->in.begin, &moved);
        if (status != KOLO_OK) {
            r->broken |= status != KOLO_AGAIN;
            return;
        }
        r->in.begin += moved;
    }
}

static void from_socket(struct relay *r)
{
    do {
        size_t moved;
        if (is_empty(&r->out) && !r->out.ended) {
            kolo_status status = kolo__secure_read(r->secure, r->out.data, RELAY_BYTES, &moved);
            if (status == KOLO_OK)
                filled(&r->out, moved);
            else if (status != KOLO_AGAIN)
                r->out.ended = true;
        }
        while (!is_empty(&r->out)) {
            ssize_t sent = write(r->out_fd, r->out.data + r->out.begin, r->out.end - r->out.begin);
            if (sent < 0) {
                r->broken |= errno != EAGAIN && errno != EINTR;
                return;
            }
            r->out.begin += (size_t)sent;
        }
    } while (!r->out.ended && kolo__secure_pending(r->secure));
}

/* Whoever has given up at in_fd is not noticed while the socket takes nothing, which TCP itself
 * ends after a quarter of an hour. Returns for how long to poll. */
static int look_for_silence(struct relay *r, long silence_s)
{
    if (is_empty(&r->in))
        return -1;
    r->broken |= kolo__silence_check(&r->silence, kolo__secure_fd(r->secure), silence_s,
                                     kolo__now_ns(&kolo__real_clock));
    return (int)(kolo__silence_pause_ns(silence_s) / 1000000);
}

void kolo__relay(struct kolo__secure *secure, int in_fd, int out_fd, long silence_s)
{
    struct relay *r = calloc(1, sizeof *r);
    if (r == NULL)
        return;
    *r = (struct relay){.secure = secure, .in_fd = in_fd, .out_fd = out_fd};
    fcntl(in_fd, F_SETFL, O_NONBLOCK);
    fcntl(out_fd, F_SETFL, O_NONBLOCK);
    for (;;) {
        from_local(r);
        from_socket(r);
        int pause_ms = look_for_silence(r, silence_s);
        if (r->broken || (r->in.ended && is_empty(&r->in)) || (r->out.ended && is_empty(&r->out)))
            break;
        struct pollfd fds[] = {{.fd = is_empty(&r->in) ? in_fd : -1, .events = POLLIN},
                               {.fd = is_empty(&r->out) ? -1 : out_fd, .events = POLLOUT},
                               {.fd = kolo__secure_fd(secure),
                                .events = (short)((is_empty(&r->out) ? POLLIN : 0) |
                                                  (is_empty(&r->in) ? 0 : POLLOUT))}};
        poll(fds, 3, pause_ms);
    }
    free(r);
}

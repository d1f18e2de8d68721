/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/carrier.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, PREAMBLE_MAX = 64 << 10 };

static const uint64_t MILLISECOND = 1000000;

void kolo__carrier_open(struct kolo__carrier *carrier, int in_fd, int out_fd)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    *carrier = (struct kolo__carrier){
        .in_fd = in_fd, .out_fd = out_fd, .heard_ns = now_ns, .spoke_ns = now_ns};
    fcntl(in_fd, F_SETFL, O_NONBLOCK);
    fcntl(out_fd, F_SETFL, O_NONBLOCK);
}

void kolo__carrier_close(struct kolo__carrier *carrier)
{
    if (carrier->out_fd >= 0 && carrier->out_fd != carrier->in_fd)
        close(carrier->out_fd);
    if (carrier->in_fd >= 0)
        close(carrier->in_fd);
    kolo__frame_writer_free(&carrier->out);
    free(carrier->in);
    *carrier = (struct kolo__carrier){.in_fd = -1, .out_fd = -1, .broken = true};
}

void kolo__carrier_break(struct kolo__carrier *carrier, const char *why)
{
    if (carrier->broken)
        return;
    carrier->broken = true;
    snprintf(carrier->why, sizeof carrier->why, "%s", why);
}

bool kolo__carrier_is_sending(const struct kolo__carrier *carrier)
{
    return !carrier->broken && carrier->out_sent < carrier->out.bytes;
}

void kolo__carrier_poll_fill(const struct kolo__carrier *carrier,
                             struct pollfd fds[KOLO__CARRIER_ENTRIES])
{
    bool sending = kolo__carrier_is_sending(carrier);
    fds[0] = (struct pollfd){.fd = carrier->broken ? -1 : carrier->in_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = sending ? carrier->out_fd : -1, .events = POLLOUT};
}

/* ---- out ----------------------------------------------------------------------------------- */

void kolo__carrier_flush(struct kolo__carrier *carrier, uint64_t now_ns)
{
    struct kolo__frame_writer *out = &carrier->out;
    if (!carrier->broken && out->bytes == 0 &&
        now_ns >= carrier->spoke_ns + KOLO__AGENT_ALIVE_MS * MILLISECOND) {
        kolo__agent_begin(out, KOLO__AGENT_ALIVE);
        kolo__frame_end(out);
    }
    if (out->failed)
        kolo__carrier_break(carrier, "there is no memory for messages");
    while (kolo__carrier_is_sending(carrier)) {
        ssize_t sent =
            write(carrier->out_fd, out->data + carrier->out_sent, out->bytes - carrier->out_sent);
        if (sent >= 0) {
            carrier->out_sent += (size_t)sent;
            carrier->spoke_ns = now_ns;
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            carrier->ended = errno == EPIPE;
            kolo__carrier_break(carrier,
                                carrier->ended ? "the connection was closed" : strerror(errno));
        }
    }
    out->bytes = carrier->out_sent = 0;
}

/* ---- in ------------------------------------------------------------------------------------ */

/* Room for READ_BYTES more behind what was not taken. */
static bool make_room(struct kolo__carrier *carrier)
{
    if (carrier->in_used > 0) {
        memmove(carrier->in, carrier->in + carrier->in_used, carrier->in_bytes - carrier->in_used);
        carrier->in_bytes -= carrier->in_used;
        carrier->in_used = 0;
    }
    if (carrier->in_capacity - carrier->in_bytes >= READ_BYTES)
        return true;
    unsigned char *in = realloc(carrier->in, 2 * carrier->in_bytes + READ_BYTES);
    if (in == NULL)
        return false;
    carrier->in = in;
    carrier->in_capacity = 2 * carrier->in_bytes + READ_BYTES;
    return true;
}

/* Once: whoever reads frames takes all that are whole before the next call, so that no more than
 * one frame and READ_BYTES are ever held. */
void kolo__carrier_receive(struct kolo__carrier *carrier, uint64_t now_ns)
{
    if (carrier->broken)
        return;
    if (!make_room(carrier)) {
        kolo__carrier_break(carrier, "there is no memory for messages");
        return;
    }
    ssize_t got = read(carrier->in_fd, carrier->in + carrier->in_bytes, READ_BYTES);
    if (got > 0) {
        carrier->in_bytes += (size_t)got;
        carrier->heard_ns = now_ns;
    } else if (got == 0) {
        carrier->ended = true;
        kolo__carrier_break(carrier, "the connection was closed");
    } else if (errno != EAGAIN && errno != EINTR) {
        kolo__carrier_break(carrier, strerror(errno));
    }
}

bool kolo__carrier_next(struct kolo__carrier *carrier, size_t payload_max,
                        enum kolo__agent_frame *type, struct kolo__frame_reader *payload)
{
    size_t length =
        kolo__agent_parse(carrier->in + carrier->in_used, carrier->in_bytes - carrier->in_used,
                          payload_max, type, payload);
    if (length == (size_t)-1) {
        kolo__carrier_break(carrier, "bytes came that are no message");
        carrier->in_used = carrier->in_bytes;
        return false;
    }
    carrier->in_used += length;
    return length > 0;
}

bool kolo__carrier_greeted(struct kolo__carrier *carrier)
{
    static const char GREETING[] = KOLO__AGENT_GREETING;
    const unsigned char *data = carrier->in + carrier->in_used;
    size_t bytes = carrier->in_bytes - carrier->in_used;
    if (carrier->greeted)
        return true;
    const unsigned char *found =
        bytes > 0 ? memmem(data, bytes, GREETING, sizeof GREETING - 1) : NULL;
    carrier->greeted = found != NULL;
    if (found != NULL)
        carrier->in_used += (size_t)(found - data) + sizeof GREETING - 1;
    else if (bytes > PREAMBLE_MAX)
        kolo__carrier_break(carrier, "its login shell writes without end before kolo starts");
    return carrier->greeted;
}

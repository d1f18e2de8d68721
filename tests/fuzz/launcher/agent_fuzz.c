/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes over the stream between `kolo run` and an agent, in both directions: a greeting or
 * not, then frames, through a pipe and the carrier that both ends use. Nothing is believed:
 * whatever came, memory stays bounded, and what was accepted is written again as the same bytes.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "launcher/carrier.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_hello(struct kolo__frame_reader *payload)
{
    struct kolo__agent_hello hello, again;
    struct kolo__frame_writer frame = {0};
    enum kolo__agent_frame type;
    if (!kolo__get_agent_hello(payload, &hello))
        return;
    KOLO__ASSERT(hello.cores >= 1 && strlen(hello.version) < sizeof hello.version);
    kolo__put_agent_hello(&frame, &hello);
    struct kolo__frame_reader written;
    KOLO__ASSERT(kolo__agent_parse(frame.data, frame.bytes, KOLO__AGENT_FRAME_MAX, &type,
                                   &written) == frame.bytes);
    KOLO__ASSERT(kolo__get_agent_hello(&written, &again));
    KOLO__ASSERT(memcmp(&hello, &again, sizeof hello) == 0);
    kolo__frame_writer_free(&frame);
}

static void check_start(const struct kolo__frame_reader *payload)
{
    struct kolo__frame_reader reader = *payload;
    struct kolo__agent_start start;
    struct kolo__frame_writer frame = {0};
    size_t bytes = (size_t)(payload->end - payload->next);
    if (kolo__get_agent_start(&reader, &start) == KOLO_OK) {
        KOLO__ASSERT(start.count >= 1 && start.count <= start.places);
        KOLO__ASSERT(start.program[0] != NULL);
        kolo__put_agent_start(&frame, &start);
        KOLO__ASSERT(frame.bytes == bytes + KOLO__FRAME_HEAD_BYTES);
        KOLO__ASSERT(memcmp(frame.data + KOLO__FRAME_HEAD_BYTES, payload->next, bytes) == 0);
        kolo__frame_writer_free(&frame);
    }
    kolo__agent_start_free(&start);
}

static void take_frames(struct kolo__carrier *carrier)
{
    enum kolo__agent_frame type;
    struct kolo__frame_reader payload;
    while (!carrier->broken &&
           kolo__carrier_next(carrier, KOLO__AGENT_START_MAX, &type, &payload)) {
        if (type == KOLO__AGENT_HELLO)
            check_hello(&payload);
        else if (type == KOLO__AGENT_START)
            check_start(&payload);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    int ends[2];
    struct kolo__carrier carrier;
    if (bytes == 0)
        return 0;
    bool greets = data[0] & 1;
    KOLO__ASSERT(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    kolo__carrier_open(&carrier, ends[0], open("/dev/null", O_WRONLY | O_CLOEXEC));
    for (size_t at = 1; at < bytes && !carrier.broken;) {
        size_t piece = bytes - at < 4096 ? bytes - at : 4096;
        KOLO__ASSERT(write(ends[1], data + at, piece) == (ssize_t)piece);
        at += piece;
        kolo__carrier_receive(&carrier, kolo__now_ns(&kolo__real_clock));
        if (!greets || kolo__carrier_greeted(&carrier))
            take_frames(&carrier);
        KOLO__ASSERT(carrier.in_used <= carrier.in_bytes &&
                     carrier.in_bytes <= carrier.in_capacity);
    }
    close(ends[1]);
    kolo__carrier_close(&carrier);
    return 0;
}

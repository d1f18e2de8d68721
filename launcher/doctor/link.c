/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/doctor/link.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    STAGE_MS = 2000, /* each; a connection, three SYNs */
    SERVE_MS = 12000,
    PINGS = 20,
    COMMAND_BYTES = 16,
    LARGE_BYTES = 1 << 16, /* some dozens of full packets, also jumbo ones */
    BURST_FIRST_BYTES = 1 << 18,
    BURST_MAX_BYTES = 1 << 24,
    BURST_MS = 100,
    BURST_LONG_MS = 8,
    BURST_REPEATS = 5,
    BLOCK_BYTES = 1 << 16,
};

enum command { PING = 1, SINK, SOURCE, END };

static const uint64_t MILLISECOND = 1000000;
static const unsigned char GO = 0x6b;

static uint64_t deadline_in(uint64_t milliseconds)
{
    return kolo__now_ns(&kolo__real_clock) + milliseconds * MILLISECOND;
}

/* The time of day: what shall agree between hosts. */
static int64_t time_of_day_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static kolo_status send_command(int fd, enum command command, uint64_t bytes, uint64_t deadline_ns)
{
    unsigned char text[COMMAND_BYTES] = {0};
    kolo__store_u32(text, (uint32_t)command);
    kolo__store_u64(text + 8, bytes);
    return kolo__send_all(fd, text, sizeof text, deadline_ns);
}

static kolo_status send_block(int fd, uint64_t bytes, uint64_t deadline_ns)
{
    static const unsigned char BLOCK[BLOCK_BYTES];
    kolo_status status = KOLO_OK;
    for (; bytes > 0 && status == KOLO_OK; bytes -= bytes < BLOCK_BYTES ? bytes : BLOCK_BYTES)
        status = kolo__send_all(fd, BLOCK, bytes < BLOCK_BYTES ? bytes : BLOCK_BYTES, deadline_ns);
    return status;
}

static kolo_status receive_block(int fd, uint64_t bytes, uint64_t deadline_ns)
{
    static unsigned char block[BLOCK_BYTES];
    kolo_status status = KOLO_OK;
    for (; bytes > 0 && status == KOLO_OK; bytes -= bytes < BLOCK_BYTES ? bytes : BLOCK_BYTES)
        status = kolo__recv_all(fd, block, bytes < BLOCK_BYTES ? bytes : BLOCK_BYTES, deadline_ns);
    return status;
}

static kolo_status receive_clock(int fd, int64_t *clock_ns, uint64_t deadline_ns)
{
    unsigned char text[8];
    kolo_status status = kolo__recv_all(fd, text, sizeof text, deadline_ns);
    *clock_ns = status == KOLO_OK ? (int64_t)kolo__load_u64(text) : 0;
    return status;
}

/* ---- who tries ------------------------------------------------------------------------------- */

static kolo_status connect_to(const char *text, int *fd)
{
    struct kolo__address address;
    uint64_t deadline_ns = deadline_in(STAGE_MS);
    kolo_status status = kolo__address_parse(text, &address);
    if (status == KOLO_OK)
        status = kolo__connect_start(&address, NULL, fd);
    if (status == KOLO_OK)
        status = kolo__wait_for(*fd, POLLOUT, deadline_ns);
    if (status == KOLO_OK)
        status = kolo__connect_finish(*fd);
    if (status == KOLO_OK)
        kolo__tune_stream(*fd);
    return status;
}

static kolo_status prove(const struct kolo__credentials *credentials, int fd)
{
    struct kolo__secure *secure = NULL;
    unsigned char go;
    uint64_t deadline_ns = deadline_in(STAGE_MS);
    kolo_status status = kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(secure, deadline_ns);
    if (status == KOLO_OK)
        status = kolo__secure_recv_all(secure, &go, 1, deadline_ns);
    if (status == KOLO_OK && (go != GO || !kolo__secure_leave(secure)))
        status = kolo__error(KOLO_ERR_NETWORK, "the other end is no probe of this doctor");
    kolo__secure_free(secure);
    return status;
}

/* The shortest round trip tells the other clock best: it was read halfway. */
static kolo_status ping(int fd, struct kolo__link *link)
{
    uint64_t deadline_ns = deadline_in(STAGE_MS);
    kolo_status status = KOLO_OK;
    link->round_trip_ns = UINT64_MAX;
    for (int i = 0; i < PINGS && status == KOLO_OK; i++) {
        int64_t theirs, before = time_of_day_ns();
        uint64_t start_ns = kolo__now_ns(&kolo__real_clock);
        status = send_command(fd, PING, 0, deadline_ns);
        if (status == KOLO_OK)
            status = receive_clock(fd, &theirs, deadline_ns);
        uint64_t round_ns = kolo__now_ns(&kolo__real_clock) - start_ns;
        if (status == KOLO_OK && round_ns < link->round_trip_ns) {
            link->round_trip_ns = round_ns;
            /* Wraps around, whatever a clock says. */
            link->clock_ahead_ns = (int64_t)((uint64_t)theirs - ((uint64_t)before + round_ns / 2));
        }
    }
    if (status != KOLO_OK)
        link->round_trip_ns = 0;
    return status;
}

static kolo_status sink(int fd, uint64_t bytes, uint64_t deadline_ns)
{
    int64_t ignored;
    kolo_status status = send_command(fd, SINK, bytes, deadline_ns);
    if (status == KOLO_OK)
        status = send_block(fd, bytes, deadline_ns);
    if (status == KOLO_OK)
        status = receive_clock(fd, &ignored, deadline_ns);
    return status;
}

/* Packets of full size, both ways. */
static kolo_status try_large(int fd)
{
    uint64_t deadline_ns = deadline_in(STAGE_MS);
    if (sink(fd, LARGE_BYTES, deadline_ns) != KOLO_OK)
        return kolo__error(KOLO_ERR_TIMEOUT, "%d bytes to it did not get there within %d s",
                           LARGE_BYTES, STAGE_MS / 1000);
    deadline_ns = deadline_in(STAGE_MS);
    if (send_command(fd, SOURCE, LARGE_BYTES, deadline_ns) != KOLO_OK ||
        receive_block(fd, LARGE_BYTES, deadline_ns) != KOLO_OK)
        return kolo__error(KOLO_ERR_TIMEOUT, "%d bytes from it did not come within %d s",
                           LARGE_BYTES, STAGE_MS / 1000);
    return KOLO_OK;
}

/* Larger and larger, until one takes long enough to be believed; then the best of several, for
 * processors that others need just then make any link look slow. */
static void measure_bandwidth(int fd, struct kolo__link *link)
{
    uint64_t begin_ns = kolo__now_ns(&kolo__real_clock), took_ns = 0, bytes = BURST_FIRST_BYTES;
    uint64_t deadline_ns = deadline_in(STAGE_MS);
    for (int repeats = 0; repeats < BURST_REPEATS;) {
        uint64_t start_ns = kolo__now_ns(&kolo__real_clock);
        kolo_status status = sink(fd, bytes, deadline_ns);
        uint64_t end_ns = kolo__now_ns(&kolo__real_clock);
        took_ns = end_ns - start_ns;
        /* One that did not end in time was slower than this. */
        uint64_t rate = (uint64_t)((double)bytes * 1e9 / (double)(took_ns + 1));
        bool grows = took_ns < BURST_LONG_MS * MILLISECOND && bytes * 4 <= BURST_MAX_BYTES;
        if (grows)
            bytes *= 4;
        if (link->bytes_per_second == 0 || (status == KOLO_OK && repeats == 0) ||
            (status == KOLO_OK && rate > link->bytes_per_second))
            link->bytes_per_second = rate;
        if (status != KOLO_OK)
            return;
        repeats += !grows;
        if (!grows && end_ns - begin_ns > BURST_MS * MILLISECOND)
            break;
    }
    send_command(fd, END, 0, deadline_in(STAGE_MS));
}

/* Where data is stuck, an end in good order would wait behind it, and the other side for that. */
static void hang_up(int fd, bool in_order)
{
    const struct linger at_once = {.l_onoff = 1};
    if (fd < 0)
        return;
    if (!in_order)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

void kolo__link_try(const struct kolo__credentials *credentials, const char *address,
                    struct kolo__link *link)
{
    int fd = -1;
    *link = (struct kolo__link){.stage = KOLO__LINK_CONNECT};
    kolo_status status = connect_to(address, &fd);
    if (status == KOLO_OK) {
        link->stage = KOLO__LINK_HANDSHAKE;
        status = prove(credentials, fd);
    }
    if (status == KOLO_OK) {
        link->stage = KOLO__LINK_SMALL;
        status = ping(fd, link);
    }
    if (status == KOLO_OK) {
        link->stage = KOLO__LINK_LARGE;
        status = try_large(fd);
    }
    if (status == KOLO_OK) {
        link->stage = KOLO__LINK_DONE;
        measure_bandwidth(fd, link);
    } else if (status == KOLO_ERR_TIMEOUT && link->stage != KOLO__LINK_LARGE) {
        snprintf(link->why, sizeof link->why, "no answer within %d s", STAGE_MS / 1000);
    } else {
        snprintf(link->why, sizeof link->why, "%.150s", kolo_error_text());
    }
    hang_up(fd, link->stage == KOLO__LINK_DONE);
}

/* ---- who was asked --------------------------------------------------------------------------- */

static kolo_status accept_proof(const struct kolo__credentials *credentials, int fd)
{
    struct kolo__secure *secure = NULL;
    uint64_t deadline_ns = deadline_in(STAGE_MS);
    kolo_status status = kolo__secure_create(credentials, KOLO__SECURE_ACCEPTOR, fd, &secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(secure, deadline_ns);
    if (status == KOLO_OK)
        status = kolo__secure_send_all(secure, &GO, 1, deadline_ns);
    if (status == KOLO_OK && !kolo__secure_leave(secure))
        status = KOLO_ERR_NETWORK;
    kolo__secure_free(secure);
    return status;
}

static kolo_status tell_clock(int fd, uint64_t deadline_ns)
{
    unsigned char text[8];
    kolo__store_u64(text, (uint64_t)time_of_day_ns());
    return kolo__send_all(fd, text, sizeof text, deadline_ns);
}

static kolo_status serve_command(int fd, uint64_t end_ns)
{
    /* Who tries gives a step up after STAGE_MS, whether we hear of it or not. */
    uint64_t deadline_ns = deadline_in(STAGE_MS + STAGE_MS / 4);
    if (deadline_ns > end_ns)
        deadline_ns = end_ns;
    unsigned char text[COMMAND_BYTES];
    kolo_status status = kolo__recv_all(fd, text, sizeof text, deadline_ns);
    if (status != KOLO_OK)
        return status;
    uint32_t command = kolo__load_u32(text);
    uint64_t bytes = kolo__load_u64(text + 8);
    if (bytes > BURST_MAX_BYTES)
        return KOLO_ERR_NETWORK;
    switch (command) {
    case PING:
        return tell_clock(fd, deadline_ns);
    case SINK:
        status = receive_block(fd, bytes, deadline_ns);
        return status == KOLO_OK ? tell_clock(fd, deadline_ns) : status;
    case SOURCE:
        return send_block(fd, bytes, deadline_ns);
    default:
        return KOLO_ERR_NETWORK;
    }
}

void kolo__link_serve(const struct kolo__credentials *credentials, int fd)
{
    uint64_t end_ns = deadline_in(SERVE_MS);
    kolo__tune_stream(fd);
    kolo_status status = accept_proof(credentials, fd);
    while (status == KOLO_OK)
        status = serve_command(fd, end_ns);
    close(fd);
}

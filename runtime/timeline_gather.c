/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timelines of all ranks become one file. Rank 0 turns to one rank after the other:
 *
 *     rank 0                            rank r
 *     its clock, 16 times            -> <- clock of rank r     only between hosts
 *     how far apart they are         ->                        only between hosts
 *                                       <- when its first event began, by rank 0's clock
 *
 * and, when the earliest of all is known,
 *
 *     your turn: this is 0           ->
 *                                       <- pieces of text, the last one shorter
 *     (all ranks have been heard)
 *     all is written, or not         ->
 *
 * Text, not events: each rank makes its own, so names need no table, and rank 0 no memory for
 * others.
 */
#include "runtime/timeline.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/comm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROUND_TRIPS = 16, PIECE_BYTES = 64 * 1024 };

/* Always sent whole; used < PIECE_BYTES: the last one. */
struct piece {
    uint64_t used;
    char text[PIECE_BYTES];
};

/* ---- messages ------------------------------------------------------------------------------- */

/* An operation of KOLO_TIMEOUT may pass for each rank that comes first. */
static kolo_status wait_for(kolo_comm *world, kolo_request **request, uint32_t ranks)
{
    int timeout_ms = (int)world->context->config.timeout * 1000;
    kolo_status status = KOLO_AGAIN;
    for (uint32_t i = 0; i < ranks && status == KOLO_AGAIN; i++)
        status = kolo_wait(request, timeout_ms);
    return status == KOLO_AGAIN ? kolo_wait(request, -1) : status;
}

kolo_status kolo__timeline_send(kolo_comm *world, const void *bytes, size_t count, uint32_t peer,
                                uint32_t ranks)
{
    kolo_request *request;
    kolo_status status = kolo_send_start(world, bytes, count, KOLO_UINT8, (int)peer, &request);
    return status == KOLO_OK ? wait_for(world, &request, ranks) : status;
}

kolo_status kolo__timeline_recv(kolo_comm *world, void *bytes, size_t count, uint32_t peer,
                                uint32_t ranks)
{
    kolo_request *request;
    kolo_status status = kolo_recv_start(world, bytes, count, KOLO_UINT8, (int)peer, &request);
    return status == KOLO_OK ? wait_for(world, &request, ranks) : status;
}

/* ---- clocks --------------------------------------------------------------------------------- */

/* Processes of one host read one clock. */
static bool shares_clock(const kolo_context *context, uint32_t rank)
{
    return context->host_of[rank] == context->host_of[0];
}

/* Rank 0's part: what is to be added to that rank's clock, as of the quickest round trip, in the
 * middle of which it answered. */
static kolo_status compare_clock(kolo_comm *world, uint32_t rank)
{
    uint64_t least_ns = UINT64_MAX, theirs;
    int64_t shift = 0;
    kolo_status status = KOLO_OK;
    for (int i = 0; i < ROUND_TRIPS && status == KOLO_OK; i++) {
        uint64_t before = kolo__now_ns(&kolo__real_clock);
        status = kolo__timeline_send(world, &before, sizeof before, rank, 0);
        if (status == KOLO_OK)
            status = kolo__timeline_recv(world, &theirs, sizeof theirs, rank, 0);
        uint64_t after = kolo__now_ns(&kolo__real_clock);
        if (status == KOLO_OK && after - before < least_ns) {
            least_ns = after - before;
            shift = (int64_t)(before + least_ns / 2 - theirs);
        }
    }
    return status == KOLO_OK ? kolo__timeline_send(world, &shift, sizeof shift, rank, 0) : status;
}

static kolo_status answer_clock(kolo_comm *world, int64_t *shift)
{
    kolo_status status = KOLO_OK;
    for (int i = 0; i < ROUND_TRIPS && status == KOLO_OK; i++) {
        uint64_t theirs, own;
        status = kolo__timeline_recv(world, &theirs, sizeof theirs, 0, i == 0 ? world->rank : 0);
        own = kolo__now_ns(&kolo__real_clock);
        if (status == KOLO_OK)
            status = kolo__timeline_send(world, &own, sizeof own, 0, 0);
    }
    return status == KOLO_OK ? kolo__timeline_recv(world, shift, sizeof *shift, 0, 0) : status;
}

kolo_status kolo__timeline_read_clock(kolo_context *context, unsigned reading)
{
    struct kolo__trace_clock *clock = &context->timeline->clock;
    kolo_comm *world = context->world;
    kolo_status status = KOLO_OK;
    int64_t shift = 0;
    if (context->rank == 0) {
        for (uint32_t r = 1; r < context->size && status == KOLO_OK; r++)
            if (!shares_clock(context, r))
                status = compare_clock(world, r);
    } else if (!shares_clock(context, context->rank)) {
        status = answer_clock(world, &shift);
    }
    for (unsigned i = reading; i < 2; i++) {
        clock->at_ns[i] = kolo__now_ns(&kolo__real_clock);
        clock->shift_ns[i] = shift;
    }
    return status;
}

/* ---- rank 0 --------------------------------------------------------------------------------- */

static kolo_status put_into_file(void *self, const char *text, size_t bytes)
{
    struct kolo__timeline *timeline = self;
    if (fwrite(text, 1, bytes, timeline->file) < bytes)
        return kolo__error_errno(errno, "cannot write KOLO_TIMELINE=%s", timeline->path);
    return KOLO_OK;
}

/* What a rank says into the file. A file that cannot be written is no reason to stop listening:
 * *written keeps the first error of that kind. */
static kolo_status copy_rank(struct kolo__timeline *timeline, struct piece *piece, uint32_t rank,
                             kolo_status *written)
{
    kolo_comm *world = timeline->context->world;
    uint64_t origin = timeline->clock.origin_ns;
    kolo_status status = kolo__timeline_send(world, &origin, sizeof origin, rank, 0);
    do {
        if (status == KOLO_OK)
            status = kolo__timeline_recv(world, piece, sizeof *piece, rank, 0);
        if (status == KOLO_OK && piece->used > PIECE_BYTES)
            status = kolo__error(KOLO_ERR_NETWORK, "rank %u sent no timeline", rank);
        if (status == KOLO_OK && *written == KOLO_OK)
            *written = put_into_file(timeline, piece->text, piece->used);
    } while (status == KOLO_OK && piece->used == PIECE_BYTES);
    return status;
}

static uint64_t first_ticks(const struct kolo__trace_event *event)
{
    bool caller = event->caller != NULL && event->caller_begin_ticks < event->begin_ticks;
    return caller ? event->caller_begin_ticks : event->begin_ticks;
}

static uint64_t first_begin(const struct kolo__timeline *timeline)
{
    uint64_t first = kolo__now_ns(&kolo__real_clock);
    struct kolo__trace_event event;
    for (size_t i = 0; i < kolo__trace_count(timeline->trace); i++)
        if (kolo__trace_get(timeline->trace, i, &event) &&
            kolo__trace_ns(timeline->trace, first_ticks(&event)) < first)
            first = kolo__trace_ns(timeline->trace, first_ticks(&event));
    return kolo__trace_clock_map(&timeline->clock, first);
}

static kolo_status write_file(struct kolo__timeline *timeline, struct piece *piece)
{
    const kolo_context *context = timeline->context;
    kolo_status status = KOLO_OK, written;
    timeline->clock.origin_ns = first_begin(timeline);
    for (uint32_t r = 1; r < context->size && status == KOLO_OK; r++) {
        uint64_t first;
        status = kolo__timeline_recv(context->world, &first, sizeof first, r, 0);
        if (status == KOLO_OK && first < timeline->clock.origin_ns)
            timeline->clock.origin_ns = first;
    }
    struct kolo__trace_process process = {
        .rank = 0, .host = kolo__host_name(), .first = true, .clock = timeline->clock};
    written = kolo__trace_json_head(put_into_file, timeline);
    if (written == KOLO_OK)
        written = kolo__trace_json_process(timeline->trace, &process, put_into_file, timeline);
    for (uint32_t r = 1; r < context->size && status == KOLO_OK; r++)
        status = copy_rank(timeline, piece, r, &written);
    if (written == KOLO_OK)
        written = kolo__trace_json_tail(put_into_file, timeline);
    if (written == KOLO_OK && fflush(timeline->file) != 0)
        written = kolo__error_errno(errno, "cannot write KOLO_TIMELINE=%s", timeline->path);
    if (status != KOLO_OK)
        return status;
    if (written == KOLO_OK) {
        fclose(timeline->file);
        timeline->file = NULL;
    }
    timeline->gathered = true;
    uint64_t told = 0;
    for (uint32_t r = 1; r < context->size && status == KOLO_OK; r++)
        status = kolo__timeline_send(context->world, &told, sizeof told, r, 0);
    return status != KOLO_OK ? status : written;
}

/* ---- the other ranks ------------------------------------------------------------------------ */

struct sender {
    kolo_comm *world;
    struct piece *piece;
};

static kolo_status put_into_message(void *self, const char *text, size_t bytes)
{
    struct sender *sender = self;
    struct piece *piece = sender->piece;
    kolo_status status = KOLO_OK;
    while (bytes > 0 && status == KOLO_OK) {
        size_t part = PIECE_BYTES - piece->used < bytes ? PIECE_BYTES - piece->used : bytes;
        memcpy(piece->text + piece->used, text, part);
        piece->used += part;
        text += part;
        bytes -= part;
        if (piece->used == PIECE_BYTES) {
            status = kolo__timeline_send(sender->world, piece, sizeof *piece, 0, 0);
            piece->used = 0;
        }
    }
    return status;
}

static kolo_status tell_rank_0(struct kolo__timeline *timeline, struct piece *piece)
{
    const kolo_context *context = timeline->context;
    kolo_comm *world = context->world;
    struct sender sender = {.world = world, .piece = piece};
    uint64_t first = first_begin(timeline), told;
    struct kolo__trace_process process = {
        .rank = context->rank, .host = kolo__host_name(), .clock = timeline->clock};
    kolo_status status = kolo__timeline_send(world, &first, sizeof first, 0, context->rank);
    if (status == KOLO_OK)
        status = kolo__timeline_recv(world, &process.clock.origin_ns,
                                     sizeof process.clock.origin_ns, 0, context->size);
    if (status != KOLO_OK)
        return status;
    /* No memory: then rank 0 gets what there is. */
    kolo__trace_json_process(timeline->trace, &process, put_into_message, &sender);
    status = kolo__timeline_send(world, piece, sizeof *piece, 0, 0);
    if (status == KOLO_OK)
        status = kolo__timeline_recv(world, &told, sizeof told, 0, context->size);
    timeline->gathered = status == KOLO_OK;
    return status;
}

kolo_status kolo__timeline_gather(kolo_context *context)
{
    struct kolo__timeline *timeline = context->timeline;
    if (timeline == NULL)
        return KOLO_OK;
    context->trace = NULL; /* what follows is not part of it */
    kolo__trace_calibrate(timeline->trace);
    struct piece *piece = malloc(sizeof *piece);
    if (piece == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory to gather a timeline");
    memset(piece, 0, sizeof *piece);
    kolo_status status = kolo__timeline_read_clock(context, 1);
    if (status == KOLO_OK)
        status = context->rank == 0 ? write_file(timeline, piece) : tell_rank_0(timeline, piece);
    free(piece);
    return status;
}

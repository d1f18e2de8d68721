/* SPDX-License-Identifier: Apache-2.0 */
/* See timeline.h: what one rank does by itself. */
#include "runtime/timeline.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/comm.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Computed: browsers open files of some hundred MiB, and an event is about 130 bytes there, twice
 * that with a caller. */
enum { EVENTS_OF_A_FILE = 3 << 19, EVENTS_MAX = 3 << 18, EVENTS_MIN = 1 << 12 };

/* What a process that ends without kolo_finalize has not written. */
static _Atomic(struct kolo__timeline *) unfinished;

static void save_at_exit(void);

/* ---- opening -------------------------------------------------------------------------------- */

static size_t capacity(uint32_t ranks)
{
    size_t share = EVENTS_OF_A_FILE / ranks;
    return share > EVENTS_MAX ? EVENTS_MAX : share < EVENTS_MIN ? EVENTS_MIN : share;
}

static kolo_status find_path(struct kolo__timeline *timeline)
{
    const char *path = timeline->context->config.timeline;
    char folder[4096] = "";
    if (path[0] != '/' && getcwd(folder, sizeof folder - 1) == NULL)
        return kolo__error_errno(errno, "KOLO_TIMELINE=%s: cannot find the current folder", path);
    char epoch[24] = ""; /* each has a file */
    if (timeline->context->epoch > 0)
        snprintf(epoch, sizeof epoch, ".epoch%u", timeline->context->epoch);
    int length = snprintf(timeline->path, sizeof timeline->path - 16, "%s%s%s%s", folder,
                          folder[0] != '\0' ? "/" : "", path, epoch);
    if ((size_t)length >= sizeof timeline->path - 16)
        return kolo__error(KOLO_ERR_CONFIG, "KOLO_TIMELINE=%s: the path is too long", path);
    return KOLO_OK;
}

/* Now, and not after hours of training. */
static kolo_status create_file(struct kolo__timeline *timeline)
{
    if (timeline->context->rank != 0)
        return KOLO_OK;
    timeline->file = fopen(timeline->path, "we");
    if (timeline->file == NULL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "KOLO_TIMELINE=%s cannot be written: %s. Name a file in a folder that "
                           "exists on the host of rank 0 (%s)",
                           timeline->context->config.timeline, strerror(errno), kolo__host_name());
    return KOLO_OK;
}

static void make_labels(struct kolo__timeline *timeline)
{
    for (unsigned c = 0; c < KOLO__COLLECTIVE_COUNT; c++) {
        const char *collective = kolo__collective_name((enum kolo__collective)c);
        timeline->labels[c][KOLO__TIMELINE_ALGORITHMS] =
            kolo__trace_label(timeline->trace, collective);
        for (unsigned a = 0; kolo__algorithms[a] != NULL; a++) {
            char text[80];
            KOLO__ASSERT(a < KOLO__TIMELINE_ALGORITHMS);
            snprintf(text, sizeof text, "%s %s", collective, kolo__algorithms[a]->name);
            timeline->labels[c][a] = kolo__trace_label(timeline->trace, text);
        }
    }
}

static void release(struct kolo__timeline *timeline)
{
    struct stat what;
    /* Else an empty file would pass for a timeline. */
    if (timeline->file != NULL && fstat(fileno(timeline->file), &what) == 0 &&
        S_ISREG(what.st_mode))
        unlink(timeline->path);
    if (timeline->file != NULL)
        fclose(timeline->file);
    kolo__trace_free(timeline->trace);
    free(timeline);
}

kolo_status kolo__timeline_open(kolo_context *context)
{
    static atomic_bool registered;
    if (context->config.timeline[0] == '\0')
        return KOLO_OK;
    struct kolo__timeline *timeline = calloc(1, sizeof *timeline);
    if (timeline == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a timeline");
    timeline->context = context;
    timeline->process = getpid();
    kolo_status status = find_path(timeline);
    if (status == KOLO_OK)
        status = create_file(timeline);
    if (status == KOLO_OK)
        status = kolo__trace_create(capacity(context->size), &timeline->trace);
    context->timeline = timeline;
    if (status == KOLO_OK)
        status = kolo__timeline_read_clock(context, 0);
    if (status != KOLO_OK) {
        context->timeline = NULL;
        release(timeline);
        return status;
    }
    make_labels(timeline);
    kolo__trace_use_counter(timeline->trace);
    context->trace = timeline->trace;
    atomic_store(&unfinished, timeline);
    if (!atomic_exchange(&registered, true))
        atexit(save_at_exit);
    return KOLO_OK;
}

const char *kolo__timeline_label(const kolo_context *context, unsigned collective,
                                 unsigned algorithm)
{
    if (context->timeline == NULL || collective >= KOLO__COLLECTIVE_COUNT)
        return NULL;
    if (algorithm > KOLO__TIMELINE_ALGORITHMS)
        algorithm = KOLO__TIMELINE_ALGORITHMS;
    return context->timeline->labels[collective][algorithm];
}

/* ---- a rank alone --------------------------------------------------------------------------- */

static kolo_status put_into_file(void *self, const char *text, size_t bytes)
{
    if (fwrite(text, 1, bytes, self) < bytes)
        return kolo__error_errno(errno, "cannot write a timeline");
    return KOLO_OK;
}

/* By this rank's clock, as of rank 0 when the world began. */
static void save(struct kolo__timeline *timeline)
{
    const kolo_context *context = timeline->context;
    size_t length = strlen(timeline->path);
    struct kolo__trace_process process = {
        .rank = context->rank,
        .host = kolo__host_name(),
        .first = true,
        .clock = timeline->clock,
    };
    process.clock.origin_ns = 0;
    process.clock.at_ns[1] = process.clock.at_ns[0];
    process.clock.shift_ns[1] = process.clock.shift_ns[0];
    char *path = timeline->path; /* find_path left room */
    snprintf(path + length, sizeof timeline->path - length, ".rank%u", context->rank);
    FILE *file = fopen(path, "we");
    kolo__trace_calibrate(timeline->trace);
    kolo_status status = KOLO_OK;
    if (file == NULL)
        status = kolo__error_errno(errno, "cannot write a timeline");
    if (status == KOLO_OK)
        status = kolo__trace_json_head(put_into_file, file);
    if (status == KOLO_OK)
        status = kolo__trace_json_process(timeline->trace, &process, put_into_file, file);
    if (status == KOLO_OK)
        status = kolo__trace_json_tail(put_into_file, file);
    if (file != NULL && fclose(file) != 0 && status == KOLO_OK)
        status = kolo__error_errno(errno, "cannot write a timeline");
    if (status == KOLO_OK)
        kolo__log(KOLO__LOG_WARN,
                  "the world did not end well, so this rank's part of the timeline is in %s", path);
    else
        kolo__log(KOLO__LOG_WARN, "no timeline of this rank in %s: %s", path, kolo_error_text());
    path[length] = '\0';
}

static void save_at_exit(void)
{
    struct kolo__timeline *timeline = atomic_exchange(&unfinished, NULL);
    if (timeline == NULL || timeline->process != getpid())
        return;
    struct stat what;
    if (timeline->file != NULL && fstat(fileno(timeline->file), &what) == 0 &&
        S_ISREG(what.st_mode))
        unlink(timeline->path);
    save(timeline);
}

void kolo__timeline_close(kolo_context *context)
{
    struct kolo__timeline *timeline = context->timeline;
    if (timeline == NULL)
        return;
    char text[1024]; /* the caller's error stays what it was */
    snprintf(text, sizeof text, "%s", kolo_error_text());
    atomic_store(&unfinished, NULL);
    context->trace = NULL;
    context->timeline = NULL;
    if (!timeline->gathered && timeline->process == getpid())
        save(timeline);
    release(timeline);
    kolo__error(KOLO_OK, "%s", text);
}

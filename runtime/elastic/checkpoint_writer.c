/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training goes on while a checkpoint is written: it pays for a copy of the state, and a thread for
 * sums and the disk. The copy is the file as it will be, its memory is kept.
 *
 *     trainer   IDLE --- fills, offers ---> OFFERED      thread   OFFERED --- writes ---> IDLE
 */
#include "runtime/elastic/checkpoint.h"

#include "base/log.h"
#include "base/status.h"
#include "base/thread.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kolo__checkpoint_writer {
    char *folder; /* owned */
    int keep;
    uint64_t *doubtful; /* owned; steps of checkpoints that are perhaps not good */
    size_t doubtful_count;
    unsigned char *file; /* owned; the thread's while offered */
    size_t bytes, room;
    uint64_t step;
    uint32_t part, parts;
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t changed;
    bool offered, ending;
    struct kolo__checkpoint_part written;
    kolo_status status; /* of the last one written */
    char error[512];
};

/* One of this step is good now. */
static void trust(struct kolo__checkpoint_writer *writer, uint64_t step)
{
    for (size_t i = writer->doubtful_count; i-- > 0;)
        if (writer->doubtful[i] == step)
            writer->doubtful[i] = writer->doubtful[--writer->doubtful_count];
}

static kolo_status write_file(struct kolo__checkpoint_writer *writer, uint32_t *sum)
{
    char path[PATH_MAX];
    *sum = kolo__checkpoint_seal(writer->file);
    kolo_status status =
        kolo__checkpoint_path(writer->folder, writer->step, writer->part, writer->parts, path);
    if (status == KOLO_OK)
        status = kolo__checkpoint_save(writer->folder, path, writer->file, writer->bytes);
    if (status == KOLO_OK && writer->parts == 0) {
        trust(writer, writer->step);
        kolo__checkpoint_remove_old(writer->folder, writer->step, writer->keep, writer->doubtful,
                                    writer->doubtful_count);
    }
    return status;
}

static void *write_offers(void *self)
{
    struct kolo__checkpoint_writer *writer = self;
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        while (!writer->offered && !writer->ending)
            pthread_cond_wait(&writer->changed, &writer->lock);
        if (!writer->offered)
            break;
        pthread_mutex_unlock(&writer->lock);
        uint32_t sum;
        kolo_status status = write_file(writer, &sum);
        pthread_mutex_lock(&writer->lock);
        writer->written = (struct kolo__checkpoint_part){sum, writer->bytes};
        writer->status = status;
        if (status != KOLO_OK) {
            snprintf(writer->error, sizeof writer->error, "%s", kolo_error_text());
            kolo__log(KOLO__LOG_WARN, "%s", writer->error);
        }
        writer->offered = false;
        pthread_cond_broadcast(&writer->changed);
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

/* steps: descending. */
static size_t count_later(const uint64_t *steps, size_t count, uint64_t since)
{
    size_t later = 0;
    while (later < count && steps[later] > since)
        later++;
    return later;
}

static void free_memory(struct kolo__checkpoint_writer *writer)
{
    free(writer->folder);
    free(writer->doubtful);
    free(writer->file);
    free(writer);
}

kolo_status kolo__checkpoint_writer_create(const char *folder, int keep, uint64_t since,
                                           struct kolo__checkpoint_writer **result)
{
    size_t files;
    struct kolo__checkpoint_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL || (writer->folder = strdup(folder)) == NULL) {
        free(writer);
        return kolo__error(KOLO_ERR_MEMORY, "no memory to write checkpoints");
    }
    kolo_status status = kolo__checkpoint_steps(folder, &writer->doubtful, &files);
    if (status != KOLO_OK) {
        free_memory(writer);
        return status;
    }
    writer->doubtful_count = count_later(writer->doubtful, files, since);
    writer->keep = keep;
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->changed, NULL);
    int reason = kolo__thread_start(&writer->thread, NULL, write_offers, writer);
    if (reason == 0) {
        *result = writer;
        return KOLO_OK;
    }
    free_memory(writer);
    return kolo__error_errno(reason, "no thread to write checkpoints");
}

bool kolo__checkpoint_writer_is_busy(struct kolo__checkpoint_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    bool busy = writer->offered;
    pthread_mutex_unlock(&writer->lock);
    return busy;
}

unsigned char *kolo__checkpoint_writer_file(struct kolo__checkpoint_writer *writer, size_t bytes)
{
    if (bytes > writer->room) {
        free(writer->file);
        writer->file = malloc(bytes);
        writer->room = writer->file != NULL ? bytes : 0;
    }
    writer->bytes = bytes;
    if (writer->file == NULL)
        (void)kolo__error(KOLO_ERR_MEMORY, "no memory for a copy of the state (%zu bytes)", bytes);
    return writer->file;
}

void kolo__checkpoint_writer_offer(struct kolo__checkpoint_writer *writer, uint64_t step,
                                   uint32_t part, uint32_t parts)
{
    writer->step = step;
    writer->part = part;
    writer->parts = parts;
    pthread_mutex_lock(&writer->lock);
    writer->offered = true;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

kolo_status kolo__checkpoint_writer_wait(struct kolo__checkpoint_writer *writer,
                                         struct kolo__checkpoint_part *written)
{
    pthread_mutex_lock(&writer->lock);
    while (writer->offered)
        pthread_cond_wait(&writer->changed, &writer->lock);
    kolo_status status = writer->status;
    if (status != KOLO_OK)
        (void)kolo__error(status, "%s", writer->error);
    else if (written != NULL)
        *written = writer->written;
    pthread_mutex_unlock(&writer->lock);
    return status;
}

void kolo__checkpoint_writer_free(struct kolo__checkpoint_writer *writer)
{
    if (writer == NULL)
        return;
    pthread_mutex_lock(&writer->lock);
    writer->ending = true;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    pthread_mutex_destroy(&writer->lock);
    pthread_cond_destroy(&writer->changed);
    free_memory(writer);
}

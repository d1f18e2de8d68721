/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training goes on while a checkpoint is written: it pays for a copy of the state, and a thread for
 * sums and the disk. The copy is the file as it will be, its memory is kept.
 *
 *     trainer   IDLE --- copies, offers ---> OFFERED      thread   OFFERED --- writes ---> IDLE
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
    char *folder;             /* owned */
    const kolo_tensor *state; /* borrowed */
    size_t count, bytes;
    int keep;
    unsigned char *file; /* owned; the thread's while offered */
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t changed;
    bool offered, ending;
    uint64_t step;
    kolo_status status; /* of the last one written */
    char error[512];
};

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
        kolo__checkpoint_seal(writer->file, writer->state, writer->count, writer->step);
        kolo_status status = kolo__checkpoint_save(writer->folder, writer->step, writer->file,
                                                   writer->bytes, writer->keep);
        pthread_mutex_lock(&writer->lock);
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

kolo_status kolo__checkpoint_writer_create(const char *folder, int keep, const kolo_tensor *state,
                                           size_t count, struct kolo__checkpoint_writer **result)
{
    struct kolo__checkpoint_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory to write checkpoints");
    *writer = (struct kolo__checkpoint_writer){
        .folder = strdup(folder), .state = state, .count = count, .keep = keep};
    writer->bytes = kolo__checkpoint_file_bytes(state, count);
    writer->file = calloc(1, writer->bytes); /* holes between tensors stay zero */
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->changed, NULL);
    kolo_status status = KOLO_OK;
    if (writer->folder == NULL || writer->file == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for a copy of the state (%zu bytes)",
                             writer->bytes);
    int reason =
        status == KOLO_OK ? kolo__thread_start(&writer->thread, NULL, write_offers, writer) : 0;
    if (reason != 0)
        status = kolo__error_errno(reason, "no thread to write checkpoints");
    if (status == KOLO_OK) {
        *result = writer;
        return KOLO_OK;
    }
    free(writer->folder);
    free(writer->file);
    free(writer);
    return status;
}

bool kolo__checkpoint_writer_offer(struct kolo__checkpoint_writer *writer, uint64_t step)
{
    pthread_mutex_lock(&writer->lock);
    bool busy = writer->offered;
    pthread_mutex_unlock(&writer->lock);
    if (busy)
        return false;
    for (size_t i = 0; i < writer->count; i++)
        if (writer->state[i].count > 0)
            memcpy(writer->file + kolo__checkpoint_data_at(writer->state, writer->count, i),
                   writer->state[i].data,
                   writer->state[i].count * kolo_dtype_bytes(writer->state[i].dtype));
    pthread_mutex_lock(&writer->lock);
    writer->step = step;
    writer->offered = true;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
    return true;
}

kolo_status kolo__checkpoint_writer_wait(struct kolo__checkpoint_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    while (writer->offered)
        pthread_cond_wait(&writer->changed, &writer->lock);
    kolo_status status = writer->status;
    if (status != KOLO_OK)
        (void)kolo__error(status, "%s", writer->error);
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
    free(writer->folder);
    free(writer->file);
    free(writer);
}

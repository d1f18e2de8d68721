/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank to be killed: chaos_rank FOLDER SEED [think] [MARK...]. Works for ever, in operations that
 * follow from the seed, of all kinds and sizes, with pauses. Writes into FOLDER/RANK
 *
 *   ready PID
 *   failed TIME STATUS TEXT     when the others' fate reached it; TIME in ns, CLOCK_MONOTONIC
 *
 * think: the last rank never comes back from its first pause, and lives.
 */
#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 1 << 20, MINUTES = 5 };

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static void pause_us(uint32_t microseconds)
{
    struct timespec time = {.tv_sec = microseconds / 1000000,
                            .tv_nsec = (long)(microseconds % 1000000) * 1000};
    nanosleep(&time, NULL);
}

/* All ranks draw the same. */
static kolo_status work(kolo_comm *comm, float *in, float *out)
{
    uint32_t size = (uint32_t)kolo_comm_size(comm), rank = (uint32_t)kolo_comm_rank(comm);
    uint32_t count = draw(4) == 0 ? LARGEST / size : 1 + draw(20000);
    switch (draw(6)) {
    case 0:
        return kolo_barrier(comm);
    case 1:
        return kolo_broadcast(comm, in, count, KOLO_FP32, (int)draw(size), NULL);
    case 2:
        return kolo_allgather(comm, in, out, count / size + 1, KOLO_FP32, NULL);
    case 3: { /* in a ring */
        kolo_request *request = NULL;
        kolo_status status =
            kolo_send_start(comm, in, count, KOLO_FP32, (int)((rank + 1) % size), &request);
        if (status == KOLO_OK)
            status = kolo_recv(comm, out, count, KOLO_FP32, (int)((rank + size - 1) % size));
        kolo_status sent = kolo_wait(&request, -1);
        return status != KOLO_OK ? status : sent;
    }
    default:
        return kolo_allreduce(comm, in, out, count, KOLO_FP32, KOLO_SUM, NULL);
    }
}

int main(int argc, char **argv)
{
    kolo_context *context = NULL;
    char path[400];
    if (argc < 3)
        return 2;
    state = strtoull(argv[2], NULL, 10);
    kolo_status status = kolo_init(NULL, &context);
    if (status != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return 1;
    }
    kolo_comm *world = kolo_world(context);
    bool thinks = argc > 3 && strcmp(argv[3], "think") == 0 &&
                  kolo_comm_rank(world) + 1 == kolo_comm_size(world);
    snprintf(path, sizeof path, "%s/%u", argv[1], (unsigned)kolo_comm_rank(world));
    FILE *notes = fopen(path, "w");
    float *in = calloc(LARGEST + 4, sizeof *in), *out = calloc(LARGEST + 4, sizeof *out);
    if (notes == NULL || in == NULL || out == NULL)
        return 2;
    /* All are connected from here on: a link that is cut later is one that was there. */
    status = kolo_alltoall(world, in, out, 1, KOLO_FP32, NULL);
    fprintf(notes, "ready %d\n", (int)getpid());
    fflush(notes);
    time_t end = time(NULL) + 60 * MINUTES;
    while (status == KOLO_OK && time(NULL) < end) {
        if (draw(4) == 0)
            pause_us(draw(20000));
        status = work(world, in, out);
        if (thinks)
            pause_us(3600u * 1000000u);
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    fprintf(notes, "failed %lld%09ld %d %s\n", (long long)now.tv_sec, now.tv_nsec, (int)status,
            status != KOLO_OK ? kolo_error_text() : "nothing happened");
    fclose(notes);
    free(in);
    free(out);
    return 1;
}

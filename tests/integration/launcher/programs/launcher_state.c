/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of 300 steps of 10 ms with so many bytes of state, for bench/elastic.py: launcher_state
 * BYTES. Rank 1 is killed in step 20, and started again by kolo run; rank 0 says how long the
 * others stood still to take it in.
 */
#include <kolo/kolo.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int epoch_of(const kolo_context *context)
{
    kolo_epoch_report report = {.size = sizeof report};
    kolo_get_epoch_report(context, &report);
    return report.epoch;
}

/* Two epochs: one is lost; it is there again. */
static void train(kolo_context *context, kolo_elastic *loop)
{
    uint64_t step;
    int epoch = epoch_of(context);
    for (double began = now(); kolo_elastic_begin_step(loop, &step); began = now()) {
        double seconds = now() - began;
        kolo_comm *world = kolo_world(context);
        int64_t sum = 1;
        if (epoch_of(context) > epoch && kolo_comm_rank(world) == 0)
            printf("epoch %d, %d ranks: stood still for %.1f ms\n", epoch_of(context),
                   kolo_comm_size(world), 1e3 * seconds);
        epoch = epoch_of(context);
        fflush(stdout);
        if (epoch == 0 && step == 20 && kolo_comm_rank(world) == 1)
            raise(SIGKILL);
        usleep(10000);
        kolo_elastic_end_step(loop,
                              kolo_allreduce(world, &sum, &sum, 1, KOLO_INT64, KOLO_SUM, NULL));
    }
}

int main(int argc, char **argv)
{
    const kolo_elastic_options options = {.size = sizeof options, .steps = 300};
    size_t bytes = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    void *data = bytes > 0 ? calloc(1, bytes) : NULL;
    const kolo_tensor state = {.data = data, .count = bytes, .dtype = KOLO_UINT8};
    kolo_context *context = NULL;
    kolo_elastic *loop = NULL;
    kolo_status status = data != NULL ? kolo_init(NULL, &context) : KOLO_ERR_INVALID;
    if (status == KOLO_OK)
        status = kolo_elastic_create(context, &state, 1, &options, &loop);
    if (status == KOLO_OK)
        train(context, loop);
    if (status == KOLO_OK)
        status = kolo_elastic_result(loop);
    if (status != KOLO_OK)
        fprintf(stderr, "launcher_state: %s\n", kolo_error_text());
    kolo_elastic_free(loop);
    kolo_finalize(context);
    free(data);
    return status == KOLO_OK ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: this rank's gradients, on their way while backward goes on, then an update.
 *
 *     forward and backward of all sequences but the last ...   gradients add up
 *     ... backward of the last one                             each travels once it is final
 *     what else all ranks add up is started; wait for the sums; update; sharded: gather
 */
#include "trainer.h"

#include "random.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Adds up the gradients and the mean loss of part `part` of this rank's sequences, which are those
 * from batch * rank / size to batch * (rank + 1) / size, of the batch that (seed, step) fixes.
 * During the last backward each gradient is on its way as soon as it is final. */
static int own_gradients(struct trainer *trainer, uint64_t part, double *loss)
{
    const struct options *options = trainer->options;
    struct parallel *parallel = &trainer->parallel;
    int length = options->model.context;
    uint64_t seed = random_at(options->seed, 0, SEED_WINDOWS), parts = options->accumulate;
    uint64_t rank = (uint64_t)trainer->rank, size = (uint64_t)trainer->size;
    uint64_t first = options->batch * rank / size;
    uint64_t count = options->batch * (rank + 1) / size - first;
    uint64_t end = first + count * (part + 1) / parts;
    double scale = 1 / ((double)options->batch * length);

    first += count * part / parts;
    for (uint64_t i = first; i < end; i++) {
        uint8_t *bytes = trainer->window;
        if (corpus_training_window(&trainer->corpus, seed, trainer->step, i, (size_t)length + 1,
                                   bytes) != 0)
            return EXIT_FAILED;
        const float *losses =
            model_forward(trainer->model, parallel->parameters, bytes, bytes + 1, length);
        for (int t = 0; t < length; t++)
            *loss += losses[t] * scale;
        model_backward(trainer->model, parallel->parameters, (float)scale, parallel->gradients,
                       i + 1 == end ? parallel_final : NULL, parallel);
    }
    for (size_t i = parallel->tensor_count; i-- > 0 && first == end;) /* nothing to do */
        parallel_final(parallel, i);
    return 0;
}

/* Adds up the sums of the gradients and of the riders. *computed: when this rank was done with its
 * own. */
static kolo_status reduce_gradients(struct trainer *trainer, double begin, double *computed,
                                    kolo_reducer_report *report)
{
    const struct options *options = trainer->options;
    struct parallel *parallel = &trainer->parallel;
    double loss = 0;
    kolo_status status = KOLO_OK;
    parallel_begin_step(parallel);
    for (uint64_t part = 0; part < options->accumulate && status == KOLO_OK; part++) {
        bool last = part + 1 == options->accumulate;
        status = kolo_reducer_accumulate(parallel->reducer, !last);
        if (status != KOLO_OK)
            break;
        int code = own_gradients(trainer, part, &loss);
        if (code != 0)
            return trainer_give_up(trainer, code);
        if (!last) /* so much like a step of its own that nothing else has to know */
            status = parallel_end_step(parallel, report);
    }
    if (status != KOLO_OK)
        return status;

    /* Rank 0 alone says how far training has come: no rank may do one step more than another. The
     * riders are no gradients, to be narrowed, clipped or sharded; started before the wait for
     * gradients, on another communicator, they have arrived when it is over. */
    *computed = now();
    trainer->riders[RIDER_LOSS] = loss;
    trainer->riders[RIDER_COMMUNICATION] = trainer->communication_share;
    trainer->riders[RIDER_PROGRESS] =
        trainer->rank == 0
            ? progress_after(options, trainer->step + 1, trainer->seconds + *computed - begin)
            : 0;
    kolo_request *request = NULL;
    status = kolo_allreduce_start(trainer->world, trainer->riders, trainer->riders, RIDER_COUNT,
                                  KOLO_FP64, KOLO_SUM, NULL, &request);
    if (status == KOLO_OK)
        status = parallel_end_step(parallel, report);
    kolo_status riders = kolo_wait(&request, -1); /* in any case: it borrows them until then */
    return status == KOLO_OK ? riders : status;
}

kolo_status train_step(struct trainer *trainer, struct step_report *shown)
{
    const struct options *options = trainer->options;
    const double *riders = trainer->riders;
    double begin = now(), computed = begin;
    kolo_reducer_report report = {.size = sizeof(report)};
    kolo_status status = reduce_gradients(trainer, begin, &computed, &report);
    if (status != KOLO_OK)
        return status;
    double reduced = now();

    if (!isfinite(riders[RIDER_LOSS]) || !report.finite) {
        if (trainer->rank == 0)
            fprintf(stderr,
                    "train_bytes: the loss or a gradient is no longer finite at step %llu: try a "
                    "smaller --lr%s\n",
                    (unsigned long long)trainer->step + 1,
                    options->wire == KOLO_WIRE_SAME ? "" : ", or --wire fp32");
        return trainer_give_up(trainer, EXIT_FAILED);
    }
    struct adamw adamw = {
        .step = trainer->step + 1,
        .rate = learning_rate(options->learning_rate, trainer->step, trainer->progress),
        .scale = adamw_clipping(report.norm)};
    parallel_update(&trainer->parallel, &adamw);
    double updated = now();
    status = parallel_gather(&trainer->parallel);
    if (status != KOLO_OK)
        return status;

    double end = now();
    trainer->step++;
    trainer->seconds += end - begin;
    trainer->progress = riders[RIDER_PROGRESS];
    trainer->communication_share = (reduced - computed + end - updated) / (end - begin);
    *shown = (struct step_report){
        .step = trainer->step,
        .loss = riders[RIDER_LOSS],
        .tokens = (double)options->batch * options->model.context,
        .seconds = end - begin,
        .communication = riders[RIDER_COMMUNICATION] / trainer->size,
    };
    return KOLO_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: this rank's gradients, on their way while backward goes on, then an update.
 *
 *     forward and backward of all sequences but the last ...   gradients add up
 *     ... backward of the last one                             each travels once it is final
 *     what else all ranks add up is started; wait for the sums; update; sharded: gather
 *
 * On a GPU all of this is queued, and the host waits for nothing but a step two before: what it
 * shows of a step it learns then (train_collect). How far training has come the host knows by
 * itself.
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

/* ---- memory --------------------------------------------------------------------------------- */

/* This rank's sequences of each batch are those from batch * rank / size to
 * batch * (rank + 1) / size. */
static uint64_t own_first(const struct trainer *trainer, uint64_t rank)
{
    return trainer->options->batch * rank / (uint64_t)trainer->size;
}

static uint64_t own_count(const struct trainer *trainer)
{
    uint64_t rank = (uint64_t)trainer->rank;
    return own_first(trainer, rank + 1) - own_first(trainer, rank);
}

static size_t slot_of(const struct trainer *trainer, uint64_t step)
{
    return step % (uint64_t)(trainer->device->lag + 1);
}

int train_prepare(struct trainer *trainer)
{
    const struct device *device = trainer->device;
    size_t slots = (size_t)device->lag + 1;
    trainer->windows_bytes = own_count(trainer) * ((size_t)trainer->options->model.context + 1);
    trainer->windows = device->allocate_host(slots * trainer->windows_bytes + 1);
    trainer->device_windows = device->allocate(slots * trainer->windows_bytes + 1);
    trainer->losses = device->allocate_host(slots * sizeof(double));
    trainer->device_losses = device->allocate(slots * sizeof(double));
    return trainer->windows && trainer->device_windows && trainer->losses && trainer->device_losses
               ? 0
               : -1;
}

void train_release(struct trainer *trainer)
{
    const struct device *device = trainer->device;
    if (!device)
        return;
    device->release_host(trainer->windows);
    device->release(trainer->device_windows);
    device->release_host(trainer->losses);
    device->release(trainer->device_losses);
}

/* ---- gradients ------------------------------------------------------------------------------ */

/* This rank's sequences of the batch that (seed, step) fixes, on their way to the device. */
static int load_windows(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    size_t each = (size_t)options->model.context + 1, slot = slot_of(trainer, trainer->step);
    uint8_t *windows = trainer->windows + slot * trainer->windows_bytes;
    uint64_t seed = random_at(options->seed, 0, SEED_WINDOWS);
    uint64_t first = own_first(trainer, (uint64_t)trainer->rank), count = own_count(trainer);
    for (uint64_t i = 0; i < count; i++)
        if (corpus_training_window(&trainer->corpus, seed, trainer->step, first + i, each,
                                   windows + i * each) != 0)
            return EXIT_FAILED;
    trainer->device->put_later(trainer->device_windows + slot * trainer->windows_bytes, windows,
                               trainer->windows_bytes);
    trainer->device->zero(&trainer->device_losses[slot], sizeof(double));
    return 0;
}

/* Adds up the gradients and the mean loss of part `part` of this rank's sequences. During the last
 * backward each gradient is on its way as soon as it is final. */
static void own_gradients(struct trainer *trainer, uint64_t part)
{
    const struct options *options = trainer->options;
    struct parallel *parallel = &trainer->parallel;
    int length = options->model.context;
    size_t slot = slot_of(trainer, trainer->step);
    const uint8_t *windows = trainer->device_windows + slot * trainer->windows_bytes;
    uint64_t parts = options->accumulate, count = own_count(trainer);
    uint64_t first = count * part / parts, end = count * (part + 1) / parts;
    double scale = 1 / ((double)options->batch * length);

    for (uint64_t i = first; i < end; i++) {
        const uint8_t *bytes = windows + i * ((size_t)length + 1);
        const float *losses =
            model_forward(trainer->model, parallel->parameters, bytes, bytes + 1, length);
        trainer->device->add_losses(length, losses, scale, &trainer->device_losses[slot]);
        model_backward(trainer->model, parallel->parameters, (float)scale, parallel->gradients,
                       i + 1 == end ? parallel_final : NULL, parallel);
    }
    for (size_t i = parallel->tensor_count; i-- > 0 && first == end;) /* nothing to do */
        parallel_final(parallel, i);
}

/* Adds up the sums of the gradients and of the riders. *computed: when this rank was done with its
 * own. */
static kolo_status reduce_gradients(struct trainer *trainer, double begin, double *computed,
                                    kolo_reducer_report *report)
{
    const struct options *options = trainer->options;
    const struct device *device = trainer->device;
    struct parallel *parallel = &trainer->parallel;
    double *loss = &trainer->device_losses[slot_of(trainer, trainer->step)];
    kolo_status status = KOLO_OK;
    int code = load_windows(trainer);
    if (code != 0)
        return trainer_give_up(trainer, code);
    parallel_begin_step(parallel);
    for (uint64_t part = 0; part < options->accumulate && status == KOLO_OK; part++) {
        bool last = part + 1 == options->accumulate;
        status = kolo_reducer_accumulate(parallel->reducer, !last);
        if (status != KOLO_OK)
            break;
        own_gradients(trainer, part);
        if (!last) /* so much like a step of its own that nothing else has to know */
            status = parallel_end_step(parallel, report);
    }
    if (status != KOLO_OK)
        return status;

    /* Rank 0 alone says how far training has come: no rank may do one step more than another. The
     * riders are no gradients, to be narrowed, clipped or sharded; started before the wait for
     * gradients, on another communicator, they have arrived when it is over. */
    *computed = now();
    trainer->riders[RIDER_LOSS] = device->stream ? 0 : *loss;
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
    status = status == KOLO_OK ? riders : status;
    const kolo_call_options on_stream = {.size = sizeof(on_stream), .stream = device->stream};
    if (status == KOLO_OK && device->stream)
        status = kolo_allreduce(trainer->world, loss, loss, 1, KOLO_FP64, KOLO_SUM, &on_stream);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static kolo_status not_finite(struct trainer *trainer, uint64_t step)
{
    if (trainer->rank == 0)
        fprintf(stderr,
                "train_bytes: the loss or a gradient is no longer finite at step %llu: try a "
                "smaller --lr%s\n",
                (unsigned long long)step,
                trainer->options->wire == KOLO_WIRE_SAME ? "" : ", or --wire fp32");
    return trainer_give_up(trainer, EXIT_FAILED);
}

kolo_status train_collect(struct trainer *trainer, uint64_t under_way)
{
    while (trainer->step - trainer->collected > under_way) {
        size_t slot = slot_of(trainer, trainer->collected);
        struct step_report *report = &trainer->pending[slot];
        trainer->device->wait((int)slot);
        const char *problem = trainer->device->problem();
        if (problem) {
            fprintf(stderr, "train_bytes: rank %d: %s\n", trainer->rank, problem);
            return trainer_give_up(trainer, EXIT_FAILED);
        }
        if (trainer->device->stream)
            report->loss = trainer->losses[slot];
        if (!isfinite(report->loss))
            return not_finite(trainer, report->step);
        trainer->collected++;
        trainer->last = *report;
        if (trainer->shows)
            progress_step(&trainer->shown, report);
    }
    return KOLO_OK;
}

kolo_status train_step(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    const struct device *device = trainer->device;
    const double *riders = trainer->riders;
    double begin = now(), computed = begin;
    kolo_reducer_report report = {.size = sizeof(report)};
    kolo_status status = reduce_gradients(trainer, begin, &computed, &report);
    if (status != KOLO_OK)
        return status;
    double reduced = now();

    if (!isfinite(riders[RIDER_LOSS]) || !report.finite)
        return not_finite(trainer, trainer->step + 1);
    struct adamw adamw = {
        .step = trainer->step + 1,
        .rate = learning_rate(options->learning_rate, trainer->step, trainer->progress),
        .scale = device->stream ? 1 : adamw_clipping(report.norm)};
    parallel_update(&trainer->parallel, &adamw);
    double updated = now();
    status = parallel_gather(&trainer->parallel);
    if (status != KOLO_OK)
        return status;

    size_t slot = slot_of(trainer, trainer->step);
    device->get_later(&trainer->losses[slot], &trainer->device_losses[slot], sizeof(double));
    device->mark((int)slot);
    if (device->lag > 0) /* this step takes the place of the first one under way */
        status = train_collect(trainer, (uint64_t)device->lag - 1);
    if (status != KOLO_OK)
        return status;

    double end = now();
    trainer->step++;
    trainer->seconds += end - begin;
    trainer->progress = riders[RIDER_PROGRESS];
    /* A GPU's share the host does not see. */
    trainer->communication_share =
        device->stream ? 0 : (reduced - computed + end - updated) / (end - begin);
    trainer->pending[slot] = (struct step_report){
        .step = trainer->step,
        .loss = riders[RIDER_LOSS],
        .tokens = (double)options->batch * options->model.context,
        .seconds = end - begin,
        .communication = riders[RIDER_COMMUNICATION] / trainer->size,
    };
    return train_collect(trainer, (uint64_t)device->lag);
}

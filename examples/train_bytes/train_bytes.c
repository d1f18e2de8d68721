/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data-parallel training with kolo, from beginning to end. Every rank holds the same model and
 * computes the gradients of its share of the batch; kolo's reducer adds them up while backward
 * still goes on, and every rank makes the same update, or that of its own pieces. This file has the
 * order of things, step.c a step of it, parallel.c what travels; model.c is the mathematics,
 * corpus.c the text, optimizer.c AdamW; the other files are what their names say.
 *
 *     kolo run -n 2 -- train_bytes --seconds 120 --sample 500 /usr/include
 *
 * Training is a loop of kolo's (kolo_elastic_*): under `kolo run --min N` it goes on when ranks are
 * lost or come, and at SIGTERM it ends after a checkpoint.
 */
#include <kolo/kolo.h>

#include "checkpoint.h"
#include "evaluate.h"
#include "optimizer.h"
#include "options.h"
#include "random.h"
#include "trainer.h"

#include <cblas.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static int start(struct trainer *trainer);
static int train(struct trainer *trainer);
static int finish(struct trainer *trainer, int code);

int main(int argc, char **argv)
{
    struct options options;
    options_parse(argc, argv, &options);
    setvbuf(stdout, NULL, _IOLBF, 0);

    struct trainer trainer = {.options = &options};
    if (corpus_open(options.paths, options.held_out_bytes, &trainer.corpus) != 0)
        return EX_USAGE;
    if (options.export_held_out) {
        int result = corpus_export_held_out(&trainer.corpus, options.export_held_out);
        corpus_close(&trainer.corpus);
        return result == 0 ? EXIT_SUCCESS : EXIT_FAILED;
    }

    int code = start(&trainer);
    if (code == 0)
        code = train(&trainer);
    code = finish(&trainer, code);
    if (code == 0 && trainer.rank == 0 && options.sample_bytes > 0 &&
        trainer.parallel.block) /* nobody waits for it */
        write_sample(trainer.model, trainer.parallel.parameters, options.model.context,
                     random_at(options.seed, 0, SEED_SAMPLE), options.temperature,
                     options.sample_bytes);

    parallel_destroy(&trainer.parallel);
    model_destroy(trainer.model);
    train_release(&trainer);
    corpus_close(&trainer.corpus);
    return code;
}

kolo_status trainer_give_up(struct trainer *trainer, int code)
{
    trainer->code = code;
    return KOLO_ERR_INVALID;
}

int trainer_failure(const struct trainer *trainer, kolo_status status)
{
    char rank[32] = ""; /* unknown before the world is joined */
    if (trainer->world)
        snprintf(rank, sizeof(rank), "rank %d: ", trainer->rank);
    fprintf(stderr, "train_bytes: %s%s: %s\n", rank, kolo_status_name(status), kolo_error_text());
    if (status == KOLO_ERR_CONFIG)
        return EX_USAGE;
    if (status == KOLO_ERR_WORLD)
        return EXIT_WORLD;
    /* Nor do ranks that cannot reach each other make a world. */
    if ((status == KOLO_ERR_TIMEOUT && !trainer->world) || status == KOLO_ERR_NETWORK)
        return EXIT_NO_WORLD;
    return status == KOLO_ERR_PEER_LOST ? EXIT_PEER_LOST : EXIT_FAILED;
}

static int out_of_memory(void)
{
    fprintf(stderr, "train_bytes: not enough memory: try a smaller model or --context\n");
    return EXIT_FAILED;
}

/* Joins the world and makes this rank's model. */
static int join(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    kolo_status status = kolo_init(NULL, &trainer->context);
    if (status != KOLO_OK)
        return trainer_failure(trainer, status);
    trainer->world = kolo_world(trainer->context);
    trainer->rank = kolo_comm_rank(trainer->world);
    trainer->size = kolo_comm_size(trainer->world);

    char why[DEVICE_WHY_BYTES] = "";
    trainer->device = device_open(options->device, kolo_comm_local_rank(trainer->world), why);
    if (!trainer->device) {
        fprintf(stderr, "train_bytes: rank %d: --device %s: %s\n", trainer->rank, options->device,
                why);
        return EXIT_FAILED;
    }
    trainer->model = model_create(&options->model, trainer->device);
    return trainer->model ? 0 : out_of_memory();
}

/* This rank's share of the machine: what the launcher has bound it to, or else an even part. */
static int thread_count(const struct trainer *trainer)
{
    cpu_set_t allowed;
    long even = sysconf(_SC_NPROCESSORS_ONLN) / kolo_comm_local_size(trainer->world);
    int bound = sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
    return even < 1 ? 1 : even < bound ? (int)even : bound;
}

/* Ranks that were given other files or options would train one model on a muddle. */
static kolo_status agree_on_the_run(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    trainer->identity = (struct run_identity){
        .layers = (uint64_t)options->model.layers,
        .width = (uint64_t)options->model.width,
        .heads = (uint64_t)options->model.heads,
        .context = (uint64_t)options->model.context,
        .batch = options->batch,
        .seed = options->seed,
        .learning_rate = options->learning_rate,
        .corpus = trainer->corpus.fingerprint,
    };
    uint64_t sum = checksum(CHECKSUM_START, &trainer->identity, sizeof(trainer->identity));
    sum = checksum(sum, &trainer->corpus.held_out.bytes, sizeof(uint64_t));
    uint64_t least[2] = {sum, ~sum}; /* the least of ~sum is the complement of the greatest sum */
    kolo_status status =
        kolo_allreduce(trainer->world, least, least, 2, KOLO_UINT64, KOLO_MIN, NULL);
    if (status != KOLO_OK || least[0] == ~least[1])
        return status;
    trainer->all_give_up = true;
    if (trainer->rank == 0)
        fprintf(stderr, "train_bytes: the ranks have different files or options: give all of them "
                        "the same command line and copies of the same files\n");
    return trainer_give_up(trainer, EX_USAGE);
}

double progress_after(const struct options *options, uint64_t step, double seconds)
{
    double by_steps = options->steps ? (double)step / (double)options->steps : 0;
    double by_time = options->seconds > 0 ? seconds / options->seconds : 0;
    return fmin(1, fmax(by_steps, by_time));
}

/* Rank 0 alone: makes the parameters or reads a checkpoint, and finds out whether what training is
 * to write can be written. */
static int prepare(struct trainer *trainer, struct training_state *state)
{
    const struct options *options = trainer->options;
    if (training_state_create(model_parameter_count(&options->model), state) != 0)
        return out_of_memory();
    if (options->checkpoint && checkpoint_probe(options->checkpoint) != 0)
        return EXIT_FAILED;
    enum checkpoint_result found = CHECKPOINT_ABSENT;
    if (options->resume)
        found = checkpoint_load(options->checkpoint, &trainer->identity, state);
    if (found == CHECKPOINT_REFUSED)
        return EXIT_FAILED;
    if (options->resume && found == CHECKPOINT_ABSENT)
        printf("no checkpoint %s yet: training starts\n", options->checkpoint);
    if (found == CHECKPOINT_ABSENT)
        model_initialize(&options->model, random_at(options->seed, 0, SEED_PARAMETERS),
                         state->parameters);
    return 0;
}

/* Until somebody has done a step: all ranks begin with the bits of rank 0, or none begins. What a
 * plain run has is shared by the loop; of a sharded one nobody has all, so each gets its pieces
 * here. */
static kolo_status begin_state(struct trainer *trainer)
{
    struct training_state whole = {0}; /* rank 0's, until everybody has it */
    struct parallel *parallel = &trainer->parallel;
    int32_t stepped = trainer->stepped, code = 0;
    kolo_status status =
        kolo_allreduce(trainer->world, &stepped, &stepped, 1, KOLO_INT32, KOLO_MAX, NULL);
    if (status != KOLO_OK || stepped)
        return status;
    bool leader = trainer->rank == 0;
    if (leader)
        code = prepare(trainer, &whole);
    status = kolo_broadcast(trainer->world, &code, 1, KOLO_INT32, 0, NULL);
    if (status == KOLO_OK && code != 0) {
        trainer->all_give_up = true;
        status = trainer_give_up(trainer, code);
    }
    if (status == KOLO_OK && (parallel->sharded || !parallel_goes_on(parallel)))
        status = parallel_distribute(parallel, leader ? &whole : NULL);
    else if (status == KOLO_OK && leader)
        parallel_place(parallel, &whole);
    if (leader) {
        trainer->step = whole.step;
        trainer->seconds = whole.seconds;
        trainer->progress = progress_after(trainer->options, whole.step, whole.seconds);
    }
    training_state_destroy(&whole);
    return status;
}

/* A world that this rank has entered: at first, and again when it has become another. */
static kolo_status enter(void *self, kolo_comm *world)
{
    struct trainer *trainer = self;
    kolo_epoch_report epoch = {.size = sizeof(epoch)};
    kolo_status status = kolo_get_epoch_report(trainer->context, &epoch);
    trainer->world = world;
    trainer->rank = kolo_comm_rank(world);
    trainer->size = kolo_comm_size(world);
    trainer->entered = true;
    if (epoch.epoch > 0 && !parallel_goes_on(&trainer->parallel)) {
        fprintf(stderr, "train_bytes: on GPUs it does not go on without lost ranks: start again "
                        "from a checkpoint, or run without\n");
        return trainer_give_up(trainer, EXIT_PEER_LOST);
    }
    if (epoch.epoch > 0 && trainer->rank == 0)
        printf("%d rank%s%s%s\n", trainer->size, trainer->size == 1 ? " goes on" : "s go on",
               epoch.gone[0] ? ": " : "", epoch.gone);
    if (status == KOLO_OK)
        status = agree_on_the_run(trainer);
    if (status == KOLO_OK)
        status = parallel_enter(&trainer->parallel, world);
    train_release(trainer); /* that of another number of ranks */
    if (train_prepare(trainer) != 0 || trainer->parallel.out_of_memory)
        return trainer_give_up(trainer, out_of_memory());
    if (status == KOLO_OK && trainer->parallel.sharded && parallel_goes_on(&trainer->parallel))
        status = parallel_show_state(&trainer->parallel, trainer->loop);
    return status == KOLO_OK ? begin_state(trainer) : status;
}

static kolo_status create_loop(struct trainer *trainer)
{
    struct parallel *parallel = &trainer->parallel;
    kolo_elastic_options options = {
        .size = sizeof(options), .enter = enter, .self = trainer, .leave_on_sigterm = 1};
    kolo_tensor *state = calloc(parallel->tensor_count + 5, sizeof(*state));
    if (!state)
        return trainer_give_up(trainer, out_of_memory());
    size_t count = parallel_state(parallel, state);
    state[count++] =
        (kolo_tensor){.data = &trainer->step, .count = 1, .dtype = KOLO_UINT64, .name = "step"};
    state[count++] =
        (kolo_tensor){.data = &trainer->seconds, .count = 1, .dtype = KOLO_FP64, .name = "seconds"};
    state[count++] = (kolo_tensor){
        .data = &trainer->progress, .count = 1, .dtype = KOLO_FP64, .name = "progress"};
    kolo_status status =
        kolo_elastic_create(trainer->context, state, count, &options, &trainer->loop);
    free(state);
    return status;
}

static int start(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    if (corpus_check_length(&trainer->corpus, (uint64_t)options->model.context) != 0)
        return EX_USAGE;
    int code = join(trainer);
    if (code != 0)
        return code;
    int threads = options->threads ? options->threads : thread_count(trainer);
    openblas_set_num_threads(threads);
    if (trainer->rank == 0) {
        const struct span_list *training = &trainer->corpus.training;
        const struct span_list *held_out = &trainer->corpus.held_out;
        printf("text: %zu files, %.1f MB to train on; %zu files, %.2f MB held out\n",
               training->count, (double)training->bytes / 1e6, held_out->count,
               (double)held_out->bytes / 1e6);
        if (trainer->corpus.unreadable > 0)
            printf("text: %zu files or directories cannot be read and are left out\n",
                   trainer->corpus.unreadable);
        printf("model: %zu parameters; batch %llu x %d bytes over %d rank%s of %d thread%s%s%s\n",
               model_parameter_count(&options->model), (unsigned long long)options->batch,
               options->model.context, trainer->size, trainer->size == 1 ? "" : "s", threads,
               threads == 1 ? "" : "s", trainer->device->stream ? " and a GPU each: " : "",
               trainer->device->stream ? trainer->device->name : "");
    }
    kolo_status status = parallel_create(trainer->device, &options->model, options->wire,
                                         options->shard_optimizer, &trainer->parallel);
    if (status != KOLO_OK)
        return out_of_memory();
    status = create_loop(trainer);
    if (trainer->code != 0)
        return trainer->code;
    return status == KOLO_OK ? 0 : trainer_failure(trainer, status);
}

/* Collective: a checkpoint is whole, whoever had its parts. */
static kolo_status save(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    struct training_state whole = {0};
    bool leader = trainer->rank == 0;
    if (leader && training_state_create(model_parameter_count(&options->model), &whole) != 0)
        return trainer_give_up(trainer, out_of_memory());
    whole.step = trainer->step;
    whole.seconds = trainer->seconds;
    kolo_status status = parallel_collect(&trainer->parallel, leader ? &whole : NULL);
    if (status == KOLO_OK && leader &&
        checkpoint_save(options->checkpoint, &trainer->identity, &whole) != 0)
        status = trainer_give_up(trainer, EXIT_FAILED);
    if (status == KOLO_OK)
        trainer->saved = trainer->step;
    training_state_destroy(&whole);
    return status;
}

static kolo_status evaluate(struct trainer *trainer)
{
    const struct span_list *held_out = &trainer->corpus.held_out;
    double nats;
    if (held_out_loss(trainer->model, trainer->parallel.parameters, trainer->options->model.context,
                      held_out, trainer->rank, trainer->size, &nats) != 0)
        return trainer_give_up(trainer, EXIT_FAILED);
    kolo_status status = kolo_allreduce(trainer->world, &nats, &nats, 1, KOLO_FP64, KOLO_SUM, NULL);
    if (status == KOLO_OK && trainer->rank == 0 && held_out->bytes > 0)
        printf("held out: %.4f bits per byte over %llu bytes of %zu files\n",
               nats / log(2) / (double)held_out->bytes, (unsigned long long)held_out->bytes,
               held_out->count);
    return status;
}

/* Rank 0 shows what comes, whoever that is by now. */
static kolo_status open_progress(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    if (trainer->rank != 0 || trainer->shows)
        return KOLO_OK;
    if (progress_open(options->csv, trainer->step, options->log_every, &trainer->shown) != 0)
        return trainer_give_up(trainer, EXIT_FAILED);
    trainer->shows = true;
    return KOLO_OK;
}

static int close_progress(struct trainer *trainer)
{
    bool shows = trainer->shows;
    trainer->shows = false;
    return shows && progress_close(&trainer->shown, &trainer->last) != 0 ? EXIT_FAILED : 0;
}

/* A step, and when all are done, what they came to. */
static kolo_status do_step(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    if (trainer->entered && trainer->collected > trainer->step && close_progress(trainer) != 0)
        return trainer_give_up(trainer, EXIT_FAILED); /* what is done again is shown again */
    if (trainer->entered) /* perhaps others have done steps for this rank */
        trainer->last.step = trainer->collected = trainer->step;
    trainer->entered = false;
    if (trainer->progress >= 1) {
        kolo_status status = train_collect(trainer, 0);
        if (status != KOLO_OK)
            return status;
        if (close_progress(trainer) != 0)
            return trainer_give_up(trainer, EXIT_FAILED);
        kolo_elastic_stop(trainer->loop);
        return evaluate(trainer);
    }
    kolo_status status = open_progress(trainer);
    if (status == KOLO_OK)
        status = train_step(trainer);
    trainer->stepped = trainer->stepped || status == KOLO_OK;
    bool due = options->checkpoint &&
               (trainer->step % options->checkpoint_every == 0 || trainer->progress >= 1);
    if (status != KOLO_OK || !due)
        return status;
    status = train_collect(trainer, 0); /* their rows are in the CSV before */
    return status == KOLO_OK ? save(trainer) : status;
}

/* Where the others go on they save as well, and this rank is in no world any more. */
static kolo_status save_and_leave(struct trainer *trainer)
{
    if (!trainer->options->checkpoint || trainer->saved == trainer->step)
        return KOLO_OK;
    kolo_status status = kolo_barrier(trainer->world);
    if (status == KOLO_ERR_ABORTED)
        return KOLO_OK;
    return status == KOLO_OK ? save(trainer) : status;
}

static int train(struct trainer *trainer)
{
    uint64_t number;
    while (kolo_elastic_begin_step(trainer->loop, &number)) {
        if (!trainer->begun)
            trainer->saved = trainer->step;
        trainer->begun = true;
        kolo_elastic_end_step(trainer->loop, do_step(trainer));
    }
    kolo_status status = kolo_elastic_result(trainer->loop);
    trainer->left = status == KOLO_OK && kolo_elastic_left(trainer->loop);
    if (trainer->left)
        status = train_collect(trainer, 0);
    if (trainer->left && status == KOLO_OK)
        status = save_and_leave(trainer);
    int code = trainer->code;
    if (code == 0 && status != KOLO_OK)
        code = trainer_failure(trainer, status);
    if (close_progress(trainer) != 0 && code == 0)
        code = EXIT_FAILED;
    return code;
}

/* Leaves the world: in good order, or telling the others that this rank gives up. */
static int finish(struct trainer *trainer, int code)
{
    if (code != 0 && trainer->world && !trainer->all_give_up)
        kolo_comm_abort(trainer->world, "train_bytes gave up on this rank");
    kolo_elastic_free(trainer->loop);
    parallel_leave(&trainer->parallel);
    kolo_status status = kolo_finalize(trainer->context);
    if (code == 0 && status != KOLO_OK)
        code = trainer_failure(trainer, status);
    return code == 0 && trainer->left ? EXIT_TERMINATED : code;
}

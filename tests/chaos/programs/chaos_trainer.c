/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that learns, to be struck: chaos_trainer FOLDER STEPS PAUSE_US. A small network (a table
 * of features, a hidden layer) learns a function by gradient descent with momentum, through
 * kolo_elastic_* and a reducer. STEPS 0: until FOLDER/end is there. Writes into
 * FOLDER/PLACE.PID.HOST
 *
 *   start PID HOST
 *   in NS EPOCH RANK SIZE STEP      before its first step in an epoch,
 *   good NS EPOCH RANK SIZE STEP    and after it; NS of CLOCK_MONOTONIC
 *   done NS STEP LOSS DIGEST        the loop is over: of the parameters and the momentum
 *   failed NS STATUS TEXT           or that is why
 *
 * What each sample gives is rounded to a multiple of 2^-30, so sums are exact: parameters are the
 * same to the bit however many ranks there were, unless a step was lost, done twice, or done
 * wrongly.
 */
#include <kolo/kolo.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 512, WIDTH = 16, HIDDEN = 32, BATCH = 16, FEATURES = 4 };
enum { TABLE = ROWS * WIDTH, INNER = WIDTH * HIDDEN, WEIGHTS = TABLE + INNER + HIDDEN };
enum { SEEN_END, LOSS, FACTS };

static struct {
    double weights[WEIGHTS], momentum[WEIGHTS], loss; /* the state, */
    uint64_t done;                                    /* with the steps in it */
    double gradients[WEIGHTS], facts[FACTS];
} train;

static kolo_context *context;
static kolo_reducer *reducer;
static FILE *notes;
static const char *folder;
static int rank, size, epoch, noted_in, noted_good;

/* ---- what it says ---------------------------------------------------------------------------- */

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void note(const char *what, uint64_t step)
{
    fprintf(notes, "%s %lld %d %d %d %llu\n", what, now_ns(), epoch, rank, size,
            (unsigned long long)step);
    fflush(notes);
}

static int begin_notes(void)
{
    char path[400], host[80] = "";
    const char *place = getenv("KOLO_RANK");
    gethostname(host, sizeof host - 1);
    snprintf(path, sizeof path, "%s/%s.%d.%s", folder, place != NULL ? place : "0", (int)getpid(),
             host);
    notes = fopen(path, "w");
    if (notes == NULL)
        return 0;
    fprintf(notes, "start %d %s\n", (int)getpid(), host);
    return fflush(notes) == 0;
}

static int fail(kolo_status status)
{
    fprintf(notes, "failed %lld %d %s\n", now_ns(), (int)status, kolo_error_text());
    fclose(notes);
    return 4;
}

static uint64_t digest(void)
{
    uint64_t hash = 0xcbf29ce484222325u, bits;
    for (int i = 0; i < 2 * WEIGHTS; i++) {
        memcpy(&bits, i < WEIGHTS ? &train.weights[i] : &train.momentum[i - WEIGHTS], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3u;
    }
    return hash;
}

/* ---- the network ----------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void add(double *sum, double value)
{
    *sum += rint(value * 0x1p30) * 0x1p-30;
}

/* Forward and backward. Which features a sample has, and what it should come to, follow from its
 * number. */
static void learn(uint64_t sample)
{
    double *table = train.weights, *inner = table + TABLE, *outer = inner + INNER;
    double *table_g = train.gradients, *inner_g = table_g + TABLE, *outer_g = inner_g + INNER;
    double sum[WIDTH] = {0}, hidden[HIDDEN], back[WIDTH] = {0}, target = 0, out = 0;
    uint64_t state = sample, rows[FEATURES];
    draw(&state);
    for (int f = 0; f < FEATURES; f++) {
        rows[f] = draw(&state) % ROWS;
        target += sin((double)rows[f]);
        for (int w = 0; w < WIDTH; w++)
            sum[w] += table[rows[f] * WIDTH + (uint64_t)w];
    }
    for (int h = 0; h < HIDDEN; h++) {
        hidden[h] = 0;
        for (int w = 0; w < WIDTH; w++)
            hidden[h] += sum[w] * inner[w * HIDDEN + h];
        hidden[h] = tanh(hidden[h]);
        out += hidden[h] * outer[h];
    }
    double error = out - target;
    add(&train.facts[LOSS], error * error / BATCH);
    for (int h = 0; h < HIDDEN; h++) {
        double slope = error * outer[h] * (1 - hidden[h] * hidden[h]);
        add(&outer_g[h], error * hidden[h]);
        for (int w = 0; w < WIDTH; w++) {
            add(&inner_g[w * HIDDEN + h], slope * sum[w]);
            back[w] += slope * inner[w * HIDDEN + h];
        }
    }
    for (int f = 0; f < FEATURES; f++)
        for (int w = 0; w < WIDTH; w++)
            add(&table_g[rows[f] * WIDTH + (uint64_t)w], back[w]);
}

static void update(void)
{
    for (int i = 0; i < WEIGHTS; i++) {
        train.momentum[i] = 0.9 * train.momentum[i] + train.gradients[i] / BATCH;
        train.weights[i] -= 0.02 * train.momentum[i];
    }
    train.loss = train.facts[LOSS];
    train.done++;
}

static void begin_weights(void)
{
    uint64_t state = 1;
    for (int i = 0; i < WEIGHTS; i++)
        train.weights[i] = ((double)draw(&state) / 0x1p31 - 0.5) * 0.4;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static kolo_status enter(void *self, kolo_comm *world)
{
    const kolo_tensor tensors[] = {
        {.data = train.gradients, .count = TABLE, .dtype = KOLO_FP64, .name = "table"},
        {.data = train.gradients + TABLE,
         .count = INNER + HIDDEN,
         .dtype = KOLO_FP64,
         .name = "layers"},
        {.data = train.facts, .count = FACTS, .dtype = KOLO_FP64, .name = "facts"},
    };
    const kolo_reducer_options options = {.size = sizeof options, .sum = 1};
    kolo_epoch_report report = {.size = sizeof report};
    (void)self;
    kolo_get_epoch_report(context, &report);
    epoch = report.epoch;
    rank = kolo_comm_rank(world);
    size = kolo_comm_size(world);
    noted_in = noted_good = 0;
    return reducer != NULL ? kolo_reducer_renew(&reducer, world)
                           : kolo_reducer_create(world, tensors, 3, &options, &reducer);
}

static void pause_about(int microseconds, uint64_t *state)
{
    if (microseconds > 0)
        usleep((useconds_t)(draw(state) % (2 * (uint64_t)microseconds)));
}

/* This rank's share of the batch, and what all have found. */
static kolo_status reduce(uint64_t step, int pause_us, uint64_t *state)
{
    char end[400];
    snprintf(end, sizeof end, "%s/end", folder);
    memset(train.gradients, 0, sizeof train.gradients);
    memset(train.facts, 0, sizeof train.facts);
    train.facts[SEEN_END] = access(end, F_OK) == 0;
    for (int s = BATCH * rank / size; s < BATCH * (rank + 1) / size; s++)
        learn(step * BATCH + (uint64_t)s);
    kolo_status status = KOLO_OK;
    for (size_t i = 3; i-- > 0 && status == KOLO_OK;) {
        pause_about(pause_us / 3, state);
        status = kolo_reducer_ready(reducer, i);
    }
    return status == KOLO_OK ? kolo_reducer_wait(reducer, -1) : status;
}

static void run(kolo_elastic *loop, uint64_t steps, int pause_us)
{
    uint64_t step, state = (uint64_t)getpid();
    while (kolo_elastic_begin_step(loop, &step)) {
        if (!noted_in++)
            note("in", step);
        kolo_status status = reduce(step, pause_us, &state);
        if (status == KOLO_OK)
            update();
        if (status == KOLO_OK && steps == 0 && train.facts[SEEN_END] > 0)
            kolo_elastic_stop(loop);
        kolo_elastic_end_step(loop, status);
        if (status == KOLO_OK && !noted_good++)
            note("good", step);
    }
}

int main(int argc, char **argv)
{
    const kolo_tensor state[] = {
        {.data = train.weights, .count = WEIGHTS, .dtype = KOLO_FP64, .name = "weights"},
        {.data = train.momentum, .count = WEIGHTS, .dtype = KOLO_FP64, .name = "momentum"},
        {.data = &train.loss, .count = 1, .dtype = KOLO_FP64, .name = "loss"},
        {.data = &train.done, .count = 1, .dtype = KOLO_UINT64, .name = "done"},
    };
    kolo_elastic_options options = {.size = sizeof options, .enter = enter};
    kolo_elastic *loop = NULL;
    if (argc != 4)
        return 2;
    folder = argv[1];
    options.steps = strtoull(argv[2], NULL, 10);
    if (!begin_notes())
        return 2;
    begin_weights();
    kolo_status status = kolo_init(NULL, &context);
    if (status == KOLO_OK)
        status = kolo_elastic_create(context, state, 4, &options, &loop);
    if (status != KOLO_OK)
        return fail(status);
    run(loop, options.steps, atoi(argv[3]));
    status = kolo_elastic_result(loop);
    if (status != KOLO_OK)
        return fail(status);
    fprintf(notes, "done %lld %llu %.17g %016llx\n", now_ns(), (unsigned long long)train.done,
            train.loss, (unsigned long long)digest());
    fclose(notes);
    kolo_elastic_free(loop);
    kolo_reducer_free(reducer);
    return kolo_finalize(context) == KOLO_OK ? 0 : 4;
}

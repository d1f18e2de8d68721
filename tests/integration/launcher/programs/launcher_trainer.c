/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of training that goes on (kolo_elastic_*) until a file is there, and that leaves at
 * SIGTERM when its step has ended: launcher_trainer FILE. Says so in lines, which a test waits for.
 */
#include <kolo/kolo.h>

#include <stdio.h>
#include <unistd.h>

static kolo_context *context;

static int fail(const char *what)
{
    printf("%s: %s\n", what, kolo_error_text());
    kolo_finalize(context);
    return 4;
}

static kolo_status enter(void *self, kolo_comm *world)
{
    kolo_epoch_report report = {.size = sizeof report};
    (void)self;
    kolo_get_epoch_report(context, &report);
    printf("epoch %d: rank %d of %d, pid %d\n", report.epoch, kolo_comm_rank(world),
           kolo_comm_size(world), (int)getpid());
    fflush(stdout);
    return KOLO_OK;
}

/* Each step adds 1 to what all have, so it equals the number of steps on newcomers too. */
static kolo_status train(double *sum, int *end, const char *file)
{
    kolo_comm *world = kolo_world(context);
    double one = 1;
    int found = access(file, F_OK) == 0;
    kolo_status status = kolo_allreduce(world, &one, &one, 1, KOLO_FP64, KOLO_AVERAGE, NULL);
    if (status == KOLO_OK)
        status = kolo_allreduce(world, &found, &found, 1, KOLO_INT32, KOLO_MIN, NULL);
    if (status == KOLO_OK) {
        *sum += one;
        *end = found;
    }
    usleep(2000);
    return status;
}

int main(int argc, char **argv)
{
    static double sum;
    int end = 0;
    uint64_t step = 0;
    kolo_elastic *loop;
    kolo_tensor state = {.data = &sum, .count = 1, .dtype = KOLO_FP64, .name = "sum"};
    kolo_elastic_options options = {.size = sizeof options, .enter = enter, .leave_on_sigterm = 1};
    if (argc != 2 || kolo_init(NULL, &context) != KOLO_OK)
        return fail("kolo_init");
    if (kolo_elastic_create(context, &state, 1, &options, &loop) != KOLO_OK)
        return fail("kolo_elastic_create");
    while (kolo_elastic_begin_step(loop, &step)) {
        if (sum != (double)step)
            printf("step %llu: the sum is %g\n", (unsigned long long)step, sum);
        kolo_elastic_end_step(loop, train(&sum, &end, argv[1]));
        if (end)
            kolo_elastic_stop(loop);
    }
    if (kolo_elastic_result(loop) != KOLO_OK)
        return fail("kolo_elastic_result");
    int left = kolo_elastic_left(loop);
    printf(left ? "has left, pid %d\n" : "has ended, pid %d\n", (int)getpid());
    kolo_elastic_free(loop);
    kolo_finalize(context);
    return left ? 143 : 0;
}

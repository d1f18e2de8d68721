/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launcher_holdup RANK WHAT: ten allreduces; then RANK does something else, and the others go on.
 *
 *   sleep  for a minute
 *   stop   itself
 *   die    of a signal
 *   leave  after half a second, without kolo_finalize, with code 0
 *   other  calls another collective
 *   abort  says that nobody can go on
 *   message receives from the next rank, and all others sleep for a minute
 *   spoil  trains, and one bit of its state changes after step 2; all compare at each step
 *   none   everybody goes on
 *
 * Says "ready" before the eleventh.
 */
#include <kolo/kolo.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void hold_up(kolo_comm *world, const char *what)
{
    float value;
    if (strcmp(what, "message") == 0)
        kolo_recv(world, &value, 1, KOLO_FP32, (kolo_comm_rank(world) + 1) % kolo_comm_size(world));
    else if (strcmp(what, "sleep") == 0)
        sleep(60);
    else if (strcmp(what, "stop") == 0)
        raise(SIGSTOP);
    else if (strcmp(what, "abort") == 0)
        kolo_comm_abort(world, "the loss is no number");
    else if (strcmp(what, "die") == 0)
        raise(SIGKILL);
    else if (strcmp(what, "leave") == 0 && usleep(500000) == 0)
        _exit(0);
}

static kolo_status train(kolo_context *context, bool spoils)
{
    float weights[8] = {0};
    const kolo_tensor state = {.data = weights, .count = 8, .dtype = KOLO_FP32, .name = "weights"};
    const kolo_elastic_options options = {.size = sizeof options, .steps = 5, .compare_every = 1};
    kolo_elastic *loop;
    uint64_t step;
    kolo_status status = kolo_elastic_create(context, &state, 1, &options, &loop);
    while (status == KOLO_OK && kolo_elastic_begin_step(loop, &step)) {
        weights[3] += spoils && step == 2 ? 2 : 1;
        kolo_elastic_end_step(loop, KOLO_OK);
    }
    return status == KOLO_OK ? kolo_elastic_result(loop) : status;
}

int main(int argc, char **argv)
{
    kolo_context *context;
    float values[5] = {0};
    if (argc < 3 || kolo_init(NULL, &context) != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return 1;
    }
    kolo_comm *world = kolo_world(context);
    for (int i = 0; i < 10; i++)
        kolo_allreduce(world, values, values, 5, KOLO_FP32, KOLO_SUM, NULL);
    printf("ready\n");
    fflush(stdout);
    bool is_it = kolo_comm_rank(world) == atoi(argv[1]);
    if (is_it)
        hold_up(world, argv[2]);
    else if (strcmp(argv[2], "message") == 0)
        sleep(60);
    kolo_status status = strcmp(argv[2], "spoil") == 0 ? train(context, is_it)
                         : is_it && strcmp(argv[2], "other") == 0
                             ? kolo_barrier(world)
                             : kolo_allreduce(world, values, values, 5, KOLO_FP32, KOLO_SUM, NULL);
    if (status == KOLO_OK)
        status = kolo_finalize(context);
    if (status != KOLO_OK)
        fprintf(stderr, "%s\n", kolo_error_text());
    return status == KOLO_OK ? 0 : 3;
}

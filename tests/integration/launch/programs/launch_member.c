/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank for the tests of launchers. Whatever fails is printed, and the code is then 9.
 *
 *   sum           joins, takes part in a sum, leaves; prints "rank R of N job done"
 *   turn FILE     joins, writes its pid into FILE.rankR, and takes part in barriers until one fails
 *   leave RANK    joins; that rank ends without kolo_finalize, the others wait for it
 *   late RANK     joins; that rank comes to kolo_finalize a second after the others
 *   differ RANK   joins; that rank calls another operation than the others
 *   again         joins, leaves, joins
 *   unused COUNT  joins, makes communicators and frees them at once, leaves
 */
#include <kolo/kolo.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static kolo_context *context;
static kolo_comm *world;

static int check(kolo_status status)
{
    if (status != KOLO_OK)
        fprintf(stderr, "rank %d: %s: %s\n", kolo_comm_rank(world), kolo_status_name(status),
                kolo_error_text());
    return status == KOLO_OK ? 0 : 9;
}

static int join(void)
{
    int failed = check(kolo_init(NULL, &context));
    world = kolo_world(context);
    return failed;
}

static int leave(int failed)
{
    world = NULL;
    int left = check(kolo_finalize(context));
    context = NULL;
    return failed != 0 ? failed : left;
}

static int sum(void)
{
    double numbers[1000];
    int size = kolo_comm_size(world), rank = kolo_comm_rank(world);
    for (int i = 0; i < 1000; i++)
        numbers[i] = rank + i;
    int failed = check(kolo_allreduce(world, numbers, numbers, 1000, KOLO_FP64, KOLO_SUM, NULL));
    for (int i = 0; i < 1000 && failed == 0; i++)
        failed = numbers[i] == size * (size - 1) / 2.0 + (double)size * i ? 0 : 8;
    if (failed == 0)
        printf("rank %d of %d done\n", rank, size);
    fflush(stdout);
    return failed;
}

static int turn(const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.rank%d", file, kolo_comm_rank(world));
    FILE *made = fopen(path, "w");
    if (made != NULL) {
        fprintf(made, "%d\n", (int)getpid());
        fclose(made);
    }
    int failed = 0;
    while (failed == 0) {
        failed = check(kolo_barrier(world));
        usleep(10000);
    }
    return failed;
}

static int differ(int other)
{
    float one = 1;
    if (kolo_comm_rank(world) == other)
        return check(kolo_allreduce(world, &one, &one, 1, KOLO_FP32, KOLO_MAX, NULL));
    return check(kolo_allreduce(world, &one, &one, 1, KOLO_FP32, KOLO_SUM, NULL));
}

static int unused(int count)
{
    int failed = 0;
    for (int i = 0; i < count && failed == 0; i++) {
        kolo_comm *comm;
        failed = check(kolo_comm_split(world, 0, kolo_comm_rank(world), &comm));
        if (failed == 0)
            failed = check(kolo_comm_free(comm));
    }
    return failed;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "sum", *argument = argc > 2 ? argv[2] : "0";
    int failed = join();
    if (failed != 0)
        return failed;
    int named = kolo_comm_rank(world) == atoi(argument);
    if (strcmp(mode, "turn") == 0)
        return leave(turn(argument));
    if (strcmp(mode, "differ") == 0)
        return leave(differ(atoi(argument)));
    if (strcmp(mode, "unused") == 0)
        return leave(unused(atoi(argument)));
    if (strcmp(mode, "leave") == 0 && named)
        _exit(3);
    if (strcmp(mode, "leave") == 0)
        return leave(check(kolo_barrier(world)));
    failed = sum();
    if (strcmp(mode, "late") == 0 && named)
        sleep(1);
    failed = leave(failed);
    if (failed == 0 && strcmp(mode, "again") == 0)
        failed = join();
    return failed;
}

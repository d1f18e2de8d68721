/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that goes on in the next epoch whenever others are lost or come, until a file is there:
 * launcher_elastic FILE [leave]. Says so in lines, which a test waits for. leave: it does so after
 * SIGTERM, in good order, with code 143.
 */
#include <kolo/kolo.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static kolo_context *context;
static volatile sig_atomic_t leaving;

static void note_leaving(int number)
{
    (void)number;
    leaving = 1;
}

static int fail(const char *what)
{
    printf("%s: %s\n", what, kolo_error_text());
    kolo_finalize(context);
    return 4;
}

static void say(void)
{
    kolo_epoch_report report = {.size = sizeof report};
    kolo_get_epoch_report(context, &report);
    printf("epoch %d: rank %d of %d, pid %d\n", report.epoch, kolo_comm_rank(kolo_world(context)),
           kolo_comm_size(kolo_world(context)), (int)getpid());
    fflush(stdout);
}

/* One step, right or not; *end: all ranks see the file. */
static kolo_status work(const char *file, int *end)
{
    kolo_comm *world = kolo_world(context);
    static double data[10000];
    int size = kolo_comm_size(world), found = access(file, F_OK) == 0;
    for (int i = 0; i < 10000; i++)
        data[i] = i;
    kolo_status status = kolo_allreduce(world, data, data, 10000, KOLO_FP64, KOLO_AVERAGE, NULL);
    for (int i = 0; status == KOLO_OK && i < 10000; i++)
        if (data[i] != i)
            abort();
    if (status == KOLO_OK)
        status = kolo_allreduce(world, &found, &found, 1, KOLO_INT32, KOLO_SUM, NULL);
    *end = status == KOLO_OK && found == size;
    return status;
}

static int leave(void)
{
    const kolo_renew_options options = {.size = sizeof options, .leave = 1};
    if (kolo_renew(context, &options) != KOLO_OK || kolo_finalize(context) != KOLO_OK)
        return fail("leaving");
    return 143;
}

int main(int argc, char **argv)
{
    int end = 0, wanted;
    if (argc == 3)
        signal(SIGTERM, note_leaving);
    if (argc < 2 || kolo_init(NULL, &context) != KOLO_OK)
        return fail("kolo_init");
    say();
    while (!end) {
        int goes = leaving != 0;
        kolo_status status = work(argv[1], &end);
        if (status == KOLO_OK)
            status = kolo_renewal_wanted(context, goes, &wanted);
        if (status == KOLO_OK && !wanted) {
            usleep(2000);
            continue;
        }
        end = 0;
        if (status == KOLO_OK && goes)
            return leave();
        if (kolo_renew(context, NULL) != KOLO_OK)
            return fail("kolo_renew");
        say();
    }
    return kolo_finalize(context) == KOLO_OK ? 0 : fail("kolo_finalize");
}

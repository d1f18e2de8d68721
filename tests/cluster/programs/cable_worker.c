/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank on a host whose cable is cut. What it sees goes into FOLDER/RANK, for its output may find
 * no way out.
 *
 *   FOLDER loop BYTES MARK     allreduces until one fails
 *   FOLDER lend BYTES MARK     rank 0 sends rank 1 so many bytes, which waits with its receive
 * until FOLDER/go is there FOLDER late BYTES MARK     the first allreduce begins when FOLDER/go is
 * there
 *
 * Ends with the status of what failed, 0 when nothing did.
 */
#include <kolo/kolo.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char folder[300];

static void note(int rank, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%d", folder, rank);
    FILE *file = fopen(path, "a");
    if (file == NULL)
        return;
    fprintf(file, "%s\n", text);
    fclose(file);
}

static void wait_for_go(void)
{
    char path[400];
    const struct timespec pause = {.tv_nsec = 20000000};
    snprintf(path, sizeof path, "%s/go", folder);
    for (int i = 0; i < 6000 && access(path, F_OK) != 0; i++)
        nanosleep(&pause, NULL);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 64;
    snprintf(folder, sizeof folder, "%s", argv[1]);
    size_t bytes = strtoul(argv[3], NULL, 10);
    kolo_context *context;
    kolo_status status = kolo_init(NULL, &context);
    if (status != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return (int)status;
    }
    kolo_comm *world = kolo_world(context);
    int rank = kolo_comm_rank(world);
    float *data = calloc(1, bytes);
    if (data == NULL)
        return 1;
    if (strcmp(argv[2], "late") == 0 || strcmp(argv[2], "lend") == 0) {
        status = kolo_allreduce(world, data, data, 1, KOLO_FP32, KOLO_SUM, NULL);
        note(rank, "ready");
        if (rank == 1 || strcmp(argv[2], "late") == 0)
            wait_for_go();
    }
    if (strcmp(argv[2], "lend") == 0 && status == KOLO_OK)
        status = rank == 0 ? kolo_send(world, data, bytes / 4, KOLO_FP32, 1)
                           : kolo_recv(world, data, bytes / 4, KOLO_FP32, 0);
    for (int i = 0; strcmp(argv[2], "lend") != 0 && status == KOLO_OK; i++) {
        status = kolo_allreduce(world, data, data, bytes / 4, KOLO_FP32, KOLO_SUM, NULL);
        if (i == 2)
            note(rank, "loops");
    }
    char text[700];
    snprintf(text, sizeof text, "%s: %s", status == KOLO_OK ? "done" : "failed",
             status == KOLO_OK ? "" : kolo_error_text());
    note(rank, text);
    if (status != KOLO_OK)
        fprintf(stderr, "%s\n", text);
    free(data);
    kolo_finalize(context);
    return (int)status;
}

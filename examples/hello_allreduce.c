/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shortest useful program: every rank contributes its number, every rank gets the sum.
 *
 *     cc hello_allreduce.c $(pkg-config --cflags --libs kolo) -o hello_allreduce
 *     kolo run -n 4 -- ./hello_allreduce
 */
#include <kolo/kolo.h>

#include <stdio.h>

int main(void)
{
    kolo_context *context;
    kolo_status status = kolo_init(NULL, &context);
    if (status != KOLO_OK) {
        fprintf(stderr, "%s: %s\n", kolo_status_name(status), kolo_error_text());
        return 1;
    }
    kolo_comm *world = kolo_world(context);
    int rank = kolo_comm_rank(world), size = kolo_comm_size(world);

    float sum = (float)rank;
    status = kolo_allreduce(world, &sum, &sum, 1, KOLO_FP32, KOLO_SUM, NULL);
    if (status == KOLO_OK)
        printf("rank %d of %d: the sum of all ranks is %g\n", rank, size, sum);
    else
        fprintf(stderr, "%s: %s\n", kolo_status_name(status), kolo_error_text());

    kolo_finalize(context);
    return status == KOLO_OK ? 0 : 1;
}

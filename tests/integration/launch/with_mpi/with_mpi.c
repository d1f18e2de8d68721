/* SPDX-License-Identifier: Apache-2.0 */
/* A program that uses MPI itself, before, between and after kolo. */
#include <kolo/kolo.h>
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    kolo_context *context;
    float one = 1, sum = 0;
    int size = 0, ranks = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (kolo_init(NULL, &context) != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return 9;
    }
    int mine = 1;
    MPI_Allreduce(&mine, &ranks, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (kolo_allreduce(kolo_world(context), &one, &sum, 1, KOLO_FP32, KOLO_SUM, NULL) != KOLO_OK)
        fprintf(stderr, "%s\n", kolo_error_text());
    kolo_finalize(context);
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks == size && sum == (float)size)
        printf("both sums are right\n");
    MPI_Finalize();
    return ranks != size;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/launch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *bench_launcher_variable(void)
{
    /* kolo run, Horovod, torchrun, Kubeflow Trainer, Open MPI, PMIx, MPICH and Intel MPI, Slurm,
     * MPIJob, Indexed Job, Volcano. */
    static const char *const VARIABLES[] = {
        "KOLO_RANK",    "HOROVOD_RANK", "WORLD_SIZE",   "PET_NODE_RANK",  "OMPI_COMM_WORLD_RANK",
        "PMIX_RANK",    "PMI_RANK",     "SLURM_PROCID", "K_MPI_JOB_ROLE", "JOB_COMPLETION_INDEX",
        "VC_TASK_INDEX"};
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++)
        if (getenv(VARIABLES[i]) != NULL)
            return VARIABLES[i];
    return NULL;
}

int bench_launch(int ranks, int argc, char **argv)
{
    char self[4096], number[16];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) {
        fprintf(stderr, "kolo bench: cannot find the program to start: /proc/self/exe: %s\n",
                strerror(errno));
        return 1;
    }
    self[length] = '\0';
    snprintf(number, sizeof number, "%d", ranks);

    /* Only rank 0 prints: a prefix would be in the way of whoever reads the CSV. */
    char *head[] = {self, "run", "--no-prefix", "-n", number, "--", self, "bench", "--launched"};
    size_t count = sizeof head / sizeof *head;
    char **arguments = calloc(count + (size_t)argc, sizeof *arguments);
    if (arguments == NULL) {
        fprintf(stderr, "kolo bench: out of memory\n");
        return 1;
    }
    memcpy(arguments, head, sizeof head);
    memcpy(arguments + count, argv + 1, ((size_t)argc - 1) * sizeof *argv);
    fflush(NULL);
    execv(self, arguments);
    fprintf(stderr, "kolo bench: cannot start %s: %s\n", self, strerror(errno));
    free(arguments);
    return 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank 0 tells the others a line of text through the process manager of MPICH (hydra, and whoever
 * speaks its protocol): lines of text over the descriptor in PMI_FD, as in MPICH's PMI 1.1,
 *
 *     cmd=put kvsname=kvs_1 key=kolo value=...      cmd=put_result rc=0
 *     cmd=publish_name service=kolo-kvs_1-0 port=here    cmd=publish_result rc=0
 *     cmd=barrier_in                                cmd=barrier_out
 *     cmd=get kvsname=kvs_1 key=kolo                cmd=get_result rc=0 value=...
 *
 * What is put is seen after a barrier, published names at once: by these each rank says that it has
 * come, and when the time is over, cmd=lookup_name tells who has not.
 *
 * A process that has introduced itself must also say goodbye (cmd=finalize): hydra takes it for
 * dead otherwise, and output is lost. Afterwards the line is closed. So a program that has begun
 * MPI itself leaves the goodbye to MPI_Finalize; and one that begins it later does so before
 * kolo_finalize.
 */
#ifndef KOLO_RUNTIME_LAUNCH_PMI_H
#define KOLO_RUNTIME_LAUNCH_PMI_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum { KOLO__PMI_VALUE_MAX = 1023 };

/* Collective over the job. value: no blanks; from rank 0, into that of the others. Blocks until all
 * ranks are here, or the deadline (kolo__real_clock): KOLO_ERR_TIMEOUT says who is not, for which
 * it takes up to 2 s more. */
kolo_status kolo__pmi_share(int fd, long rank, long size, char *value, size_t bytes,
                            uint64_t deadline_ns);

/* The goodbye, unless the program's MPI is going to say it. */
void kolo__pmi_finish(int fd);

/* Of a rank that others wait for in vain: it introduces itself if it has not yet, and says no
 * goodbye. So mpiexec takes its end for a crash and ends the others, also those that have not begun
 * to wait; the end of a process it has never heard of means nothing to it, whatever the exit code.
 */
void kolo__pmi_abandon(int fd, bool introduced);

#endif

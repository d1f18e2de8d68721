/* SPDX-License-Identifier: Apache-2.0 */
/* Finds libkolo-mpi.so: beside libkolo, or where the dynamic linker looks. */
#ifndef KOLO_COLLECTIVES_OFFLOAD_MPI_LOAD_H
#define KOLO_COLLECTIVES_OFFLOAD_MPI_LOAD_H

#include "collectives/offload/mpi_module.h"

#include <kolo/kolo.h>

/* Loaded once, and for the life of the process: MPI cannot be unloaded. KOLO_ERR_UNSUPPORTED with
 * the reason when it is not there, or belongs to another kolo. */
kolo_status kolo__mpi_load(const struct kolo__mpi_module **module);

#endif

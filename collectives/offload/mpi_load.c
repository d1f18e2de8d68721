/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/offload/mpi_load.h"

#include "base/module.h"

kolo_status kolo__mpi_load(const struct kolo__mpi_module **module)
{
    static const struct kolo__module description = {
        .name = "MPI",
        .file = "libkolo-mpi.so.0",
        .symbol = "kolo__mpi_module",
        .version = KOLO__MPI_MODULE_VERSION,
        .global = true, /* Open MPI's own plugins look for its symbols there */
    };
    const void *table = NULL;
    kolo_status status = kolo__module_load(&description, &table);
    if (status == KOLO_OK)
        *module = table;
    return status;
}

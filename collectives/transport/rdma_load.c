/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/transport/rdma_load.h"

#include "base/module.h"

#include <dirent.h>

bool kolo__rdma_exists(void)
{
    DIR *list = opendir("/sys/class/infiniband");
    bool any = false;
    for (struct dirent *entry; !any && list != NULL && (entry = readdir(list)) != NULL;)
        any = entry->d_name[0] != '.';
    if (list != NULL)
        closedir(list);
    return any;
}

kolo_status kolo__rdma_load(const struct kolo__rdma_module **module)
{
    static const struct kolo__module description = {
        .name = "RDMA",
        .file = "libkolo-rdma.so.0",
        .symbol = "kolo__rdma_module",
        .version = KOLO__RDMA_MODULE_VERSION,
    };
    const void *table = NULL;
    kolo_status status = kolo__module_load(&description, &table);
    if (status == KOLO_OK)
        *module = table;
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memlock.h"

#include "base/log.h"
#include "base/status.h"

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whoever has the capability IPC_LOCK is held to no limit. */
static bool may_lock_all(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

kolo_status kolo__memlock_check(long bytes, const char *who)
{
    struct rlimit limit;
    if (bytes <= 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= (uint64_t)bytes || may_lock_all())
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "processes on host %s may lock %llu KiB of memory, and %s wants "
                       "%ld KiB: raise the limit (ulimit -l; in pods LimitMEMLOCK=infinity in the "
                       "unit of the node's container runtime)",
                       kolo__host_name(), (unsigned long long)limit.rlim_cur / 1024, who,
                       bytes / 1024);
}

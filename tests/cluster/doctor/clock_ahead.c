/* SPDX-License-Identifier: Apache-2.0 */
/* A clock that is seven seconds ahead, for one process: time namespaces do not shift
 * CLOCK_REALTIME. To be preloaded by tests/cluster/doctor_root_test.sh. */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME)
        time->tv_sec += 7;
    return result;
}

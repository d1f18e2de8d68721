/* SPDX-License-Identifier: Apache-2.0 */
/* What a process manager of MPICH answers: lines of text, and the end of the connection. The first
 * byte of an input says which rank asks. A value that is believed is one word that fits. */
#include "base/assert.h"
#include "base/clock.h"
#include "runtime/launch/pmi.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char own[] = "10.0.0.1:5000";
    char value[64] = "10.0.0.1:5000";
    int ends[2];
    if (bytes == 0 || bytes > 16384)
        return 0;
    bool first = data[0] % 2 == 0;
    KOLO__ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    KOLO__ASSERT(bytes == 1 || write(ends[1], data + 1, bytes - 1) == (ssize_t)(bytes - 1));
    shutdown(ends[1], SHUT_WR);
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + 5000000000u;
    kolo_status status =
        kolo__pmi_share(ends[0], first ? 0 : 1, 2, value, sizeof value, deadline_ns);
    KOLO__ASSERT(status == KOLO_OK || status == KOLO_ERR_NETWORK);
    KOLO__ASSERT(memchr(value, '\0', sizeof value) != NULL && strpbrk(value, " \n") == NULL);
    if (first || status != KOLO_OK)
        KOLO__ASSERT(strcmp(value, own) == 0);
    kolo__pmi_finish(ends[0]);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

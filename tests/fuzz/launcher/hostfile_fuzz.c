/* SPDX-License-Identifier: Apache-2.0 */
/* --hostfile, as people, schedulers and Kubernetes' MPI operator write it: each host is one word
 * for ssh, and ranks find places on them. */
#include "base/assert.h"
#include "launcher/hosts.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RANKS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_places(const struct kolo__hosts *hosts)
{
    uint32_t host_of[RANKS_MAX], used[RANKS_MAX] = {0};
    long slots;
    if (!kolo__hosts_are_counted(hosts) || kolo__hosts_total(hosts, &slots) != KOLO_OK)
        return;
    KOLO__ASSERT(slots >= hosts->count && slots <= KOLO__SLOTS_MAX);
    uint32_t ranks = slots < RANKS_MAX ? (uint32_t)slots : RANKS_MAX;
    for (int by_node = 0; by_node < 2; by_node++) {
        kolo__hosts_place(hosts, ranks, by_node == 1, host_of);
        memset(used, 0, sizeof used);
        for (uint32_t r = 0; r < ranks; r++) {
            KOLO__ASSERT(host_of[r] < hosts->count && host_of[r] < RANKS_MAX);
            KOLO__ASSERT(++used[host_of[r]] <= hosts->list[host_of[r]].slots);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kolo__hosts hosts = {0};
    char path[40];
    int fd = memfd_create("hostfile", MFD_CLOEXEC);
    KOLO__ASSERT(fd >= 0 && (bytes == 0 || write(fd, data, bytes) == (ssize_t)bytes));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    kolo_status status = kolo__hosts_read_file(&hosts, path);
    KOLO__ASSERT(status == KOLO_OK || status == KOLO_ERR_CONFIG);
    if (status != KOLO_OK)
        KOLO__ASSERT(strstr(kolo_error_text(), path) != NULL); /* says where */
    for (uint32_t i = 0; i < hosts.count; i++) {
        const struct kolo__host *host = &hosts.list[i];
        KOLO__ASSERT(host->slots >= 0 && host->name[0] != '\0' && host->name[0] != '-');
        KOLO__ASSERT(strpbrk(host->name, " \t\r\n'\"\\$`;&|<>,#") == NULL);
    }
    if (status == KOLO_OK)
        check_places(&hosts);
    kolo__hosts_free(&hosts);
    close(fd);
    return 0;
}

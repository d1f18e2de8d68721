/* SPDX-License-Identifier: Apache-2.0 */
/* What a host finds out about itself. A probe has the limits that a rank would have: it was started
 * in the same way. */
#include "launcher/doctor/doctor.h"

#include "base/cgroup.h"
#include "base/log.h"
#include "base/token.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

static uint64_t limit_of(__rlimit_resource_t resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

/* Two numbers, or one, from a file; how many. "max" is none. */
static int read_numbers(const char *folder, const char *name, long long *a, long long *b)
{
    char path[4500];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    int count = fscanf(file, "%lld %lld", a, b);
    fclose(file);
    return count > 0 ? count : 0;
}

/* Both versions of control groups: cpu.max, or a file for the quota and one for the period. */
static void note_quota(const char *folder, void *least)
{
    long long quota = 0, period = 0, unused;
    if (read_numbers(folder, "cpu.max", &quota, &period) != 2 &&
        (read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) == 0 ||
         read_numbers(folder, "cpu.cfs_period_us", &period, &unused) == 0))
        return;
    if (quota <= 0 || period <= 0 || quota / period > UINT32_MAX / 100)
        return;
    uint32_t centis = (uint32_t)((quota * 100 + period - 1) / period);
    uint32_t *known = least;
    if (*known == 0 || centis < *known)
        *known = centis;
}

static void note_memory(const char *folder, void *least)
{
    long long limit = 0, unused;
    uint64_t *known = least;
    if (read_numbers(folder, "memory.max", &limit, &unused) == 0 &&
        read_numbers(folder, "memory.limit_in_bytes", &limit, &unused) == 0)
        return;
    /* Version 1 writes "no limit" as the largest number of whole pages. */
    if (limit > 0 && limit < LLONG_MAX / 2 && (uint64_t)limit < *known)
        *known = (uint64_t)limit;
}

void kolo__facts_gather(struct kolo__doctor_facts *facts)
{
    struct statvfs shm;
    cpu_set_t allowed;
    memset(facts, 0, sizeof *facts);
    snprintf(facts->host, sizeof facts->host, "%.63s", kolo__host_name());
    facts->memlock_bytes = limit_of(RLIMIT_MEMLOCK);
    facts->open_files = limit_of(RLIMIT_NOFILE);
    if (statvfs("/dev/shm", &shm) == 0)
        facts->shm_bytes = (uint64_t)shm.f_blocks * shm.f_frsize;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    facts->processors = online > 0 ? (uint32_t)online : 1;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        facts->processors = (uint32_t)CPU_COUNT(&allowed);
    kolo__cgroup_walk("/proc/self/cgroup", "/sys/fs/cgroup", "cpu", note_quota,
                      &facts->quota_centis);
    facts->memory_limit_bytes = UINT64_MAX;
    kolo__cgroup_walk("/proc/self/cgroup", "/sys/fs/cgroup", "memory", note_memory,
                      &facts->memory_limit_bytes);
}

void kolo__facts_prove_token(const char *token_file, const unsigned char nonce[KOLO__PROOF_BYTES],
                             unsigned char proof[KOLO__PROOF_BYTES], char error[200])
{
    char token[KOLO__TOKEN_BYTES];
    const struct kolo__config config = {.token = "", .token_file = token_file};
    unsigned bytes = 0;
    error[0] = '\0';
    memset(proof, 0, KOLO__PROOF_BYTES);
    if (kolo__token_read(&config, token) != KOLO_OK)
        snprintf(error, 200, "%.190s", kolo_error_text());
    else if (HMAC(EVP_sha256(), token, (int)strlen(token), nonce, KOLO__PROOF_BYTES, proof,
                  &bytes) == NULL)
        snprintf(error, 200, "OpenSSL cannot compute HMAC-SHA256");
    explicit_bzero(token, sizeof token);
}

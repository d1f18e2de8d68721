/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of train_bytes' checkpoints. The first byte of an input is none of the file: when it
 * is odd the file's last eight bytes are replaced by the right checksum, or else no mutation would
 * get past it.
 */
#include "checkpoint.h"

#include "base/assert.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { COUNT = 5 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The file, in memory, so that no disk is worn. Returns its descriptor. */
static int make_file(const uint8_t *data, size_t bytes, bool mend)
{
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    KOLO__ASSERT(fd >= 0);
    size_t kept = mend && bytes >= 8 ? bytes - 8 : bytes;
    uint64_t sum = checksum(CHECKSUM_START, data, kept);
    KOLO__ASSERT(write(fd, data, kept) == (ssize_t)kept);
    if (kept < bytes)
        KOLO__ASSERT(write(fd, &sum, sizeof sum) == (ssize_t)sizeof sum);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static FILE *nowhere;
    static const struct run_identity identity = {1, 2, 1, 8, 4, 7, 0.25, 99};
    struct training_state state;
    char path[40];
    if (bytes == 0)
        return 0;
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    KOLO__ASSERT(nowhere != NULL && training_state_create(COUNT, &state) == 0);
    int fd = make_file(data + 1, bytes - 1, data[0] & 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);

    FILE *spoken = stderr; /* refusals are said there, thousands of them */
    stderr = nowhere;
    enum checkpoint_result result = checkpoint_load(path, &identity, &state);
    stderr = spoken;

    KOLO__ASSERT(result == CHECKPOINT_OK || result == CHECKPOINT_REFUSED);
    KOLO__ASSERT(state.count == COUNT);
    if (result == CHECKPOINT_OK) /* nothing but the whole file is a checkpoint */
        KOLO__ASSERT(bytes - 1 == 16 + sizeof identity + 8 + 8 + 8 + 3 * COUNT * sizeof(float) + 8);
    close(fd);
    training_state_destroy(&state);
    return 0;
}

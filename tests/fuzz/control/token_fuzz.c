/* SPDX-License-Identifier: Apache-2.0 */
/* The file of KOLO_TOKEN_FILE, which may be anything: a token that fits and has no white space
 * around it, or an error; and then no token. */
#include "base/assert.h"
#include "base/log.h"
#include "base/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char spaces[] = " \t\r\n\v\f";
    char path[40], *copy = malloc(bytes + 1), token[KOLO__TOKEN_BYTES];
    struct kolo__config config = {.token = ""};
    kolo__log_configure("error", -1);
    int fd = memfd_create("token", MFD_CLOEXEC);
    KOLO__ASSERT(copy != NULL && fd >= 0 && fchmod(fd, 0600) == 0);
    KOLO__ASSERT(bytes == 0 || write(fd, data, bytes) == (ssize_t)bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    config.token_file = path;
    memset(token, 'x', sizeof token);
    kolo_status status = kolo__token_read(&config, token);
    KOLO__ASSERT(memchr(token, '\0', sizeof token) != NULL);
    if (status == KOLO_OK) {
        size_t length = strlen(token);
        memcpy(copy, data, bytes);
        copy[bytes] = '\0';
        KOLO__ASSERT(length > 0 && strlen(copy) == bytes && strstr(copy, token) != NULL);
        KOLO__ASSERT(strchr(spaces, token[0]) == NULL && strchr(spaces, token[length - 1]) == NULL);
        KOLO__ASSERT(strspn(copy, spaces) + length <= bytes);
    } else {
        KOLO__ASSERT(status == KOLO_ERR_CONFIG && token[0] == '\0');
    }
    close(fd);
    free(copy);
    return 0;
}

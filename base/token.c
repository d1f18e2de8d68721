/* SPDX-License-Identifier: Apache-2.0 */
#include "base/token.h"

#include "base/log.h"
#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char spaces[] = " \t\r\n\v\f";

static void warn_once(const char *path)
{
    static atomic_bool warned;
    if (!atomic_exchange(&warned, true))
        kolo__log(KOLO__LOG_WARN,
                  "everybody on this host may read the token in %s: chmod 600 it (a Kubernetes "
                  "Secret: defaultMode: 0400)",
                  path);
}

/* One byte more than fits tells a token that is too long. */
static kolo_status read_file(const char *path, char text[KOLO__TOKEN_BYTES + 1])
{
    struct stat about;
    size_t bytes = 0;
    ssize_t got = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return kolo__error_errno(errno, "cannot read KOLO_TOKEN_FILE=%s", path);
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && (about.st_mode & S_IROTH) != 0)
        warn_once(path);
    while (bytes < KOLO__TOKEN_BYTES && got > 0) {
        got = read(fd, text + bytes, KOLO__TOKEN_BYTES - bytes);
        bytes += got > 0 ? (size_t)got : 0;
    }
    int reason = errno;
    close(fd);
    text[bytes] = '\0';
    if (got < 0)
        return kolo__error_errno(reason, "cannot read KOLO_TOKEN_FILE=%s", path);
    if (strlen(text) != bytes)
        return kolo__error(KOLO_ERR_CONFIG, "KOLO_TOKEN_FILE=%s has a zero byte: give a text",
                           path);
    return KOLO_OK;
}

kolo_status kolo__token_read(const struct kolo__config *config, char token[KOLO__TOKEN_BYTES])
{
    char text[KOLO__TOKEN_BYTES + 1] = "";
    bool given = config->token[0] != '\0', file = !given && config->token_file[0] != '\0';
    kolo_status status = KOLO_OK;
    token[0] = '\0';
    if (file)
        status = read_file(config->token_file, text);
    else
        snprintf(text, sizeof text, "%s", config->token);
    const char *begin = text + strspn(text, spaces);
    size_t bytes = strlen(begin);
    while (bytes > 0 && strchr(spaces, begin[bytes - 1]) != NULL)
        bytes--;
    if (status == KOLO_OK && bytes >= KOLO__TOKEN_BYTES)
        status = kolo__error(KOLO_ERR_CONFIG, "%s is longer than %d characters",
                             file ? "KOLO_TOKEN_FILE" : "KOLO_TOKEN", KOLO__TOKEN_BYTES - 1);
    else if (status == KOLO_OK && bytes == 0 && file)
        status = kolo__error(KOLO_ERR_CONFIG, "KOLO_TOKEN_FILE=%s is empty", config->token_file);
    if (status == KOLO_OK) {
        memcpy(token, begin, bytes);
        token[bytes] = '\0';
    }
    explicit_bzero(text, sizeof text);
    return status;
}

kolo_status kolo__token_permits(const char *token, bool insecure,
                                const struct kolo__address *address)
{
    char text[80];
    if (token[0] != '\0' || insecure || kolo__address_is_loopback(address))
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "the job has no token, so nothing may listen on %s: set KOLO_TOKEN_FILE (or "
                       "KOLO_TOKEN) to the same secret for every process; or, where you trust "
                       "everybody who can reach that address, KOLO_INSECURE=1 (--insecure)",
                       kolo__address_text(address, text, sizeof text));
}

kolo_status kolo__token_random(char *text, size_t bytes)
{
    unsigned char byte;
    for (size_t i = 0; i < bytes; i++) {
        while (getrandom(&byte, 1, 0) != 1)
            if (errno != EINTR)
                return kolo__error_errno(errno, "cannot get random numbers");
        snprintf(text + 2 * i, 3, "%02x", byte);
    }
    return KOLO_OK;
}

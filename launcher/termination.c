/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/termination.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOG_BYTES = 4096 }; /* Kubernetes cuts the rest off */

int kolo__termination_write(const char *path, const char *text)
{
    size_t bytes = strnlen(text, LOG_BYTES);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno;
    int reason = write(fd, text, bytes) == (ssize_t)bytes ? 0 : EIO;
    close(fd);
    return reason;
}

void kolo__termination_note(const char *text)
{
    static bool noted;
    if (noted || getenv("KUBERNETES_SERVICE_HOST") == NULL)
        return;
    noted = true;
    kolo__termination_write("/dev/termination-log", text);
}

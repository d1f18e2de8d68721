/* SPDX-License-Identifier: Apache-2.0 */
/* Any environment, a variable a line: an identity that fits, or an error with a text. */
#include "base/assert.h"
#include "runtime/launch/launch.h"
#include "runtime/launch/pods.h"

#include <stdlib.h>
#include <string.h>

enum { VARIABLES_MAX = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_place(const struct kolo__launch *launch)
{
    bool has_place = launch->meeting == KOLO__MEET_AT || launch->meeting == KOLO__MEET_NEAR;
    KOLO__ASSERT(memchr(launch->host, '\0', sizeof launch->host) != NULL);
    KOLO__ASSERT(memchr(launch->job, '\0', sizeof launch->job) != NULL);
    KOLO__ASSERT(!has_place || launch->host[0] != '\0');
    KOLO__ASSERT(launch->port >= 0 && launch->port <= 65535);
    if (launch->meeting == KOLO__MEET_NEAR)
        KOLO__ASSERT(launch->port > 0 && launch->port + KOLO__LAUNCH_PORTS <= 65536);
    if (launch->meeting == KOLO__MEET_UNKNOWN)
        KOLO__ASSERT(launch->missing[0] != '\0');
}

static void check(char *const *environment)
{
    struct kolo__launch launch;
    char text[64];
    kolo_status status = kolo__launch_detect(environment, &launch);
    if (status != KOLO_OK) {
        KOLO__ASSERT(status == KOLO_ERR_CONFIG || status == KOLO_ERR_WORLD);
        KOLO__ASSERT(kolo_error_text()[0] != '\0');
        return;
    }
    KOLO__ASSERT(launch.size >= 1 && launch.size <= 1 << 20);
    KOLO__ASSERT(launch.newcomer ? launch.rank == -1 && launch.meeting == KOLO__MEET_HELD
                                 : launch.rank >= 0 && launch.rank < launch.size);
    KOLO__ASSERT(memchr(launch.places, '\0', sizeof launch.places) != NULL);
    KOLO__ASSERT(launch.local_size <= launch.size);
    KOLO__ASSERT(launch.local_size == 0 || launch.local_rank < launch.local_size);
    KOLO__ASSERT(launch.size > 1 || launch.meeting == KOLO__MEET_NOBODY ||
                 launch.meeting == KOLO__MEET_AT || launch.meeting == KOLO__MEET_HELD);
    KOLO__ASSERT(launch.size == 1 || launch.meeting != KOLO__MEET_NOBODY);
    check_place(&launch);
    kolo__launch_text(&launch, text, sizeof text);
}

/* As `kolo run --per-pod` asks. */
static void check_pod(char *const *environment)
{
    struct kolo__pod pod;
    char text[40];
    long size;
    if (kolo__pod_detect(environment, &pod) != KOLO_OK || pod.kind == NULL)
        return;
    KOLO__ASSERT(pod.index >= 0 && pod.count >= 0 && pod.job[0] != '\0');
    KOLO__ASSERT(memchr(pod.first, '\0', sizeof pod.first) != NULL);
    if (kolo__pod_world_size(environment, &pod, 3, &size) == KOLO_OK)
        KOLO__ASSERT(size % 3 == 0 && size / 3 > pod.index);
    kolo__pod_name(pod.first, pod.per_job, pod.index, text, sizeof text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1), *variables[VARIABLES_MAX] = {0};
    int count = 0;
    KOLO__ASSERT(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    char *rest = text;
    while (rest != NULL && count < VARIABLES_MAX - 1)
        variables[count++] = strsep(&rest, "\n");
    check(variables);
    check_pod(variables);
    char first[40];
    bool only;
    if (kolo__hostlist_first(text, first, sizeof first, &only) == KOLO_OK)
        KOLO__ASSERT(strlen(first) > 0 && strlen(first) < sizeof first);
    free(text);
    return 0;
}

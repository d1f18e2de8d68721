/* SPDX-License-Identifier: Apache-2.0 */
/* --hosts, as people and scripts write it: what is accepted can be given to ssh as one word. */
#include "base/assert.h"
#include "launcher/hosts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kolo__hosts hosts = {0};
    char *text = malloc(bytes + 1);
    KOLO__ASSERT(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    kolo_status status = kolo__hosts_read_list(&hosts, text);
    KOLO__ASSERT(status == KOLO_OK || status == KOLO_ERR_CONFIG);
    for (uint32_t i = 0; i < hosts.count; i++) {
        const struct kolo__host *host = &hosts.list[i];
        KOLO__ASSERT(host->slots >= 0 && host->name[0] != '\0' && host->name[0] != '-');
        KOLO__ASSERT(strpbrk(host->name, " \t'\"\\$`;&|<>,") == NULL);
    }
    kolo__hosts_free(&hosts);
    free(text);
    return 0;
}

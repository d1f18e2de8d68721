/* SPDX-License-Identifier: Apache-2.0 */
/* HOST:PORT, and lists of it, as people and peers write them: never a resolver, never a bad split.
 */
#include "base/assert.h"
#include "base/dial.h"
#include "base/socket.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_split(const char *text)
{
    char host[256], port[24], small[4], short_port[3];
    if (kolo__split_host_port(text, host, sizeof host, port, sizeof port) == KOLO_OK) {
        size_t length = strlen(host);
        KOLO__ASSERT(length > 0 && strstr(text, host) != NULL);
        KOLO__ASSERT(port[strspn(port, "0123456789")] == '\0' && port[0] != '\0');
        KOLO__ASSERT(strtol(port, NULL, 10) <= 65535);
        KOLO__ASSERT(strchr(host, ':') == NULL || text[0] == '[');
    }
    if (kolo__split_host_port(text, small, sizeof small, short_port, sizeof short_port) == KOLO_OK)
        KOLO__ASSERT(strlen(small) < sizeof small);
}

/* What was read is written in one way, which is read as the same. */
static void check_parse(const char *text)
{
    struct kolo__address address, again;
    char written[80], rewritten[80];
    if (kolo__address_parse(text, &address) != KOLO_OK)
        return;
    kolo__address_text(&address, written, sizeof written);
    KOLO__ASSERT(kolo__address_parse(written, &again) == KOLO_OK);
    kolo__address_text(&again, rewritten, sizeof rewritten);
    KOLO__ASSERT(strcmp(written, rewritten) == 0);
    KOLO__ASSERT(kolo__address_is_loopback(&address) == kolo__address_is_loopback(&again));
}

/* What a rank tells of itself when it joins. */
static void check_endpoint(const char *text)
{
    struct kolo__endpoint endpoint, again;
    char written[KOLO__ENDPOINT_TEXT_BYTES];
    if (kolo__endpoint_parse(text, &endpoint) != KOLO_OK)
        return;
    KOLO__ASSERT(endpoint.count >= 1 && endpoint.count <= KOLO__ENDPOINT_ADDRESSES);
    KOLO__ASSERT(endpoint.alternatives < endpoint.count);
    kolo__endpoint_text(&endpoint, written);
    KOLO__ASSERT(strlen(written) < sizeof written);
    if (strchr(written, '%') != NULL) /* with zones they may be too long for one text */
        return;
    KOLO__ASSERT(kolo__endpoint_parse(written, &again) == KOLO_OK);
    KOLO__ASSERT(again.count == endpoint.count && again.alternatives == endpoint.alternatives);
}

/* KOLO_RENDEZVOUS. Nothing is resolved before its turn. */
static void check_list(const char *text)
{
    struct kolo__dial *dial;
    char report[2000];
    if (kolo__dial_open(text, &dial) != KOLO_OK) {
        KOLO__ASSERT(kolo_error_text()[0] != '\0');
        return;
    }
    kolo__dial_report(dial, report, sizeof report);
    KOLO__ASSERT(strlen(report) < sizeof report && !kolo__dial_all_refused(dial));
    kolo__dial_close(dial);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    KOLO__ASSERT(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    check_split(text);
    check_parse(text);
    check_endpoint(text);
    check_list(text);
    free(text);
    return 0;
}

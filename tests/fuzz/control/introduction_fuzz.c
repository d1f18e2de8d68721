/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank tells all others when it joins. What is understood is written again as it came, lies
 * in what came, and can be compared and shown. */
#include "runtime/introduction.h"

#include "base/assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct kolo__introduction own = {
        .text = {"machine", "10.0.0.1:5000", "auto", "0", "empty", "0", "0", "0", "empty", "0"}};
    unsigned char again[KOLO__INTRODUCTION_BYTES_MAX];
    struct kolo__introduction other;
    kolo_status status = kolo__introduction_decode(data, bytes, &other);
    KOLO__ASSERT(status == KOLO_OK || status == KOLO_ERR_WORLD);
    if (status != KOLO_OK)
        return 0;
    for (int i = 0; i < KOLO__INTRODUCTION_TEXTS; i++)
        KOLO__ASSERT(other.text[i] >= (const char *)data &&
                     other.text[i] + strlen(other.text[i]) < (const char *)data + bytes);
    if (bytes <= sizeof again)
        KOLO__ASSERT(kolo__introduction_encode(&other, again) == bytes &&
                     memcmp(again, data, bytes) == 0);
    if (kolo__introduction_compare(0, &own, 1, &other) != KOLO_OK)
        KOLO__ASSERT(strstr(kolo_error_text(), "KOLO_") != NULL);
    else
        KOLO__ASSERT(strcmp(other.text[KOLO__ALIKE_TRANSPORT], "auto") == 0);
    return 0;
}

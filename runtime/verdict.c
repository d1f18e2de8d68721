/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/verdict.h"

#include <stdio.h>

bool kolo__verdict_mismatch(uint32_t rank_a, const char *host_a,
                            const struct kolo__verdict_report *a, uint32_t rank_b,
                            const char *host_b, const struct kolo__verdict_report *b, char *text,
                            size_t bytes)
{
    for (uint32_t i = 0; i < a->count; i++) {
        for (uint32_t k = 0; k < b->count; k++) {
            const struct kolo__signature *x = &a->recent[i], *y = &b->recent[k];
            char text_x[160], text_y[160];
            if (x->comm != y->comm || x->epoch != y->epoch || x->sequence != y->sequence ||
                kolo__signature_equal(x, y))
                continue;
            snprintf(text, bytes,
                     "rank %u (host %s) called %s, rank %u (host %s) called %s: every rank must "
                     "call the same operation",
                     rank_a, host_a, kolo__signature_text(x, text_x, sizeof text_x), rank_b, host_b,
                     kolo__signature_text(y, text_y, sizeof text_y));
            return true;
        }
    }
    return false;
}

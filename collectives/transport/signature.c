/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures: what a message belongs to, compared by every transport and shown to users. */
#include "collectives/transport/transport.h"

#include <stdio.h>

/* The values may come from a network: each is shown as it is when it has no name. */
static const char *name_or_number(const char *name, unsigned value, char *text, size_t bytes)
{
    if (name != NULL)
        return name;
    snprintf(text, bytes, "%u?", value);
    return text;
}

static const char *algorithm_name(unsigned index)
{
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++)
        if (i == index)
            return kolo__algorithms[i]->name;
    return NULL;
}

const char *kolo__signature_text(const struct kolo__signature *signature, char *text, size_t bytes)
{
    char collective_text[16], dtype_text[16], algorithm_text[16], op_text[24] = "",
                                                                  root_text[24] = "";
    enum kolo__collective collective = signature->collective;
    bool known = collective < KOLO__COLLECTIVE_COUNT;

    if (known && kolo__collective_reduces(collective)) {
        char number[16];
        snprintf(op_text, sizeof(op_text), ", %s",
                 name_or_number(kolo_op_name((kolo_op)signature->op), signature->op, number,
                                sizeof(number)));
    }
    if (collective == KOLO__BROADCAST || collective == KOLO__REDUCE_TO_ROOT)
        snprintf(root_text, sizeof(root_text), ", root %u", signature->root);
    snprintf(text, bytes, "%s #%llu (%llu x %s%s%s%s%s)",
             name_or_number(known ? kolo__collective_name(collective) : NULL, collective,
                            collective_text, sizeof(collective_text)),
             (unsigned long long)signature->sequence, (unsigned long long)signature->count,
             name_or_number(kolo_dtype_name((kolo_dtype)signature->dtype), signature->dtype,
                            dtype_text, sizeof(dtype_text)),
             op_text, root_text, signature->algorithm == 0xff ? "" : ", ",
             signature->algorithm == 0xff
                 ? ""
                 : name_or_number(algorithm_name(signature->algorithm), signature->algorithm,
                                  algorithm_text, sizeof(algorithm_text)));
    return text;
}

bool kolo__signature_equal(const struct kolo__signature *a, const struct kolo__signature *b)
{
    return a->epoch == b->epoch && a->comm == b->comm && a->sequence == b->sequence &&
           a->collective == b->collective && a->dtype == b->dtype && a->op == b->op &&
           a->algorithm == b->algorithm && a->root == b->root && a->count == b->count;
}

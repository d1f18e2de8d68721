/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks say to each other about an operation, compared and put into words. */
#include "collectives/transport/transport.h"

#include "collectives/offload/offload.h"

#include <stdio.h>

static const char *or_unknown(const char *name)
{
    return name != NULL ? name : "unknown";
}

/* NULL for a number that is no algorithm. Counted, because the number may come from outside. */
static const char *algorithm_name(uint8_t index)
{
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++)
        if (i == index)
            return kolo__algorithms[i]->name;
    if (index == KOLO__OFFLOAD_NCCL_INDEX)
        return kolo__offload_nccl.name;
    if (index == KOLO__OFFLOAD_STAGED_INDEX)
        return kolo__offload_staged.name;
    if (index == KOLO__OFFLOAD_EXCHANGE_INDEX)
        return kolo__offload_exchange.name;
    return index == KOLO__OFFLOAD_MPI_INDEX ? kolo__offload_mpi.name : NULL;
}

const char *kolo__signature_text(const struct kolo__signature *signature, char *text, size_t bytes)
{
    bool known = signature->collective < KOLO__COLLECTIVE_COUNT;
    enum kolo__collective collective = (enum kolo__collective)signature->collective;
    int length =
        snprintf(text, bytes, "%s #%llu (%llu x %s",
                 known ? or_unknown(kolo__collective_name(collective)) : "unknown",
                 (unsigned long long)signature->sequence, (unsigned long long)signature->count,
                 or_unknown(kolo_dtype_name((kolo_dtype)signature->dtype)));
    if (length < 0)
        return text;
    size_t used = (size_t)length < bytes ? (size_t)length : bytes;
    const char *op = known && kolo__collective_reduces(collective)
                         ? or_unknown(kolo_op_name((kolo_op)signature->op))
                         : "";
    bool rooted = known && (collective == KOLO__BROADCAST || collective == KOLO__REDUCE_TO_ROOT);
    char root[24] = "";
    if (rooted)
        snprintf(root, sizeof root, ", root %u", signature->root);
    const char *algorithm =
        signature->algorithm == 0xff ? "" : or_unknown(algorithm_name(signature->algorithm));
    snprintf(text + used, bytes - used, "%s%s%s%s%s)", op[0] != '\0' ? ", " : "", op, root,
             algorithm[0] != '\0' ? ", " : "", algorithm);
    return text;
}

bool kolo__signature_equal(const struct kolo__signature *a, const struct kolo__signature *b)
{
    return a->epoch == b->epoch && a->comm == b->comm && a->sequence == b->sequence &&
           a->collective == b->collective && a->dtype == b->dtype && a->op == b->op &&
           a->algorithm == b->algorithm && a->root == b->root && a->count == b->count;
}

uint64_t kolo__signature_digest(const struct kolo__signature *s)
{
    const uint64_t words[] = {
        (uint64_t)s->epoch << 32 | s->comm,
        s->sequence,
        (uint64_t)s->collective << 56 | (uint64_t)s->dtype << 48 | (uint64_t)s->op << 40 |
            (uint64_t)s->algorithm << 32 | s->root,
        s->count,
    };
    uint64_t digest = 0;
    for (unsigned i = 0; i < 4; i++) {
        digest = (digest ^ words[i]) * 0x9e3779b97f4a7c15u;
        digest ^= digest >> 29;
    }
    return digest;
}

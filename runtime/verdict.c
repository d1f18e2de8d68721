/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/verdict.h"

#include <stdio.h>
#include <stdlib.h>

enum { SHOWN_MAX = 3 }; /* ranks of a circle that are described */

bool kolo__verdict_mismatch(const struct kolo__verdict_side *a, const struct kolo__verdict_side *b,
                            char *text, size_t bytes)
{
    for (uint32_t i = 0; i < a->report->count; i++) {
        for (uint32_t k = 0; k < b->report->count; k++) {
            const struct kolo__signature *x = &a->report->recent[i], *y = &b->report->recent[k];
            char text_x[160], text_y[160];
            if (x->comm != y->comm || x->epoch != y->epoch || x->sequence != y->sequence ||
                kolo__signature_equal(x, y))
                continue;
            snprintf(text, bytes,
                     "rank %u (host %s) called %s, rank %u (host %s) called %s: every rank must "
                     "call the same operation",
                     a->rank, a->host, kolo__signature_text(x, text_x, sizeof text_x), b->rank,
                     b->host, kolo__signature_text(y, text_y, sizeof text_y));
            return true;
        }
    }
    return false;
}

/* ---- circles ------------------------------------------------------------------------------- */

static uint64_t collectives_called(const struct kolo__verdict_report *report)
{
    return report->count > 0 ? report->recent[report->count - 1].sequence : 0;
}

static uint64_t messages_sent(const struct kolo__verdict_report *report, uint32_t to)
{
    for (uint32_t i = 0; i < report->sent_count; i++)
        if (report->sent[i].to == to)
            return report->sent[i].messages;
    return 0;
}

/* True when a's wait cannot end before b has called something that, when b began to wait, it had
 * not. */
static bool waits_for(const struct kolo__verdict_side *a, const struct kolo__verdict_side *b)
{
    const struct kolo__verdict_report *report = a->report;
    if (a->rank == b->rank || report->needs == KOLO__NEEDS_NOBODY ||
        (report->needs == KOLO__NEEDS_ONE && report->from != b->rank))
        return false;
    uint64_t called = report->waited_in.collective == KOLO__POINT_TO_POINT
                          ? messages_sent(b->report, a->rank)
                          : collectives_called(b->report);
    return called < report->waited_in.sequence;
}

static size_t describe(const struct kolo__verdict_side *side, char *text, size_t bytes)
{
    const struct kolo__verdict_report *report = side->report;
    const struct kolo__signature *in = &report->waited_in;
    const char *dtype = kolo_dtype_name((kolo_dtype)in->dtype);
    char signature[160];
    int length;
    if (in->collective == KOLO__POINT_TO_POINT)
        length =
            snprintf(text, bytes, "rank %u (host %s) waits in kolo_recv from rank %u (%llu x %s)",
                     side->rank, side->host, report->from, (unsigned long long)in->count,
                     dtype != NULL ? dtype : "unknown");
    else
        length = snprintf(text, bytes, "rank %u (host %s) waits in %s", side->rank, side->host,
                          kolo__signature_text(in, signature, sizeof signature));
    return length < 0 ? 0 : (size_t)length < bytes ? (size_t)length : bytes - 1;
}

/* circle[0] waits for circle[1] and so on; the last waits for circle[0]. Told from its lowest rank
 * on, so that it reads the same whoever was the last to report. */
static void describe_circle(const struct kolo__verdict_side *sides, const uint32_t *circle,
                            uint32_t length, char *text, size_t bytes)
{
    uint32_t lowest = 0;
    for (uint32_t i = 1; i < length; i++)
        if (sides[circle[i]].rank < sides[circle[lowest]].rank)
            lowest = i;
    size_t used = 0;
    for (uint32_t i = 0; i < length && i < SHOWN_MAX; i++) {
        used += describe(&sides[circle[(lowest + i) % length]], text + used, bytes - used);
        used += (size_t)snprintf(text + used, bytes - used, "%s", i + 1 < length ? "; " : "");
        if (used >= bytes)
            return;
    }
    if (length > SHOWN_MAX)
        used += (size_t)snprintf(text + used, bytes - used, "and %u more", length - SHOWN_MAX);
    if (used < bytes)
        snprintf(text + used, bytes - used,
                 ": each waits for the %s, for ever. A kolo_recv needs a kolo_send, a collective "
                 "all ranks",
                 length == 2 ? "other" : "next");
}

bool kolo__verdict_circle(const struct kolo__verdict_side *sides, uint32_t count, uint32_t first,
                          char *text, size_t bytes)
{
    /* Breadth first, so that the circle is a short one. parent: count, if not found yet. */
    uint32_t *parent = calloc(count, sizeof *parent), *found = calloc(count, sizeof *found);
    uint32_t found_count = 0, last = count;
    if (parent == NULL || found == NULL)
        goto done; /* the timeout will tell */
    for (uint32_t i = 0; i < count; i++)
        parent[i] = count;
    found[found_count++] = first;
    for (uint32_t next = 0; next < found_count && last == count; next++) {
        uint32_t side = found[next];
        if (waits_for(&sides[side], &sides[first])) {
            last = side;
            break;
        }
        for (uint32_t i = 0; i < count; i++)
            if (i != first && parent[i] == count && waits_for(&sides[side], &sides[i])) {
                parent[i] = side;
                found[found_count++] = i;
            }
    }
    if (last != count) {
        uint32_t length = 1, *circle = found; /* no longer needed */
        for (uint32_t i = last; i != first; i = parent[i])
            length++;
        uint32_t place = length;
        for (uint32_t i = last; i != first; i = parent[i])
            circle[--place] = i;
        circle[0] = first;
        describe_circle(sides, circle, length, text, bytes);
    }
done:
    free(parent);
    free(found);
    return last != count;
}

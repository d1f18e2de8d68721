/* SPDX-License-Identifier: Apache-2.0 */
/* The list of findings, as it grows. */
#include "launcher/doctor/judge.h"

#include <stdarg.h>
#include <stdlib.h>

struct kolo__finding *kolo__finding_add(struct kolo__findings *findings, enum kolo__ailment ailment,
                                        const char *format, ...)
{
    static struct kolo__finding nowhere;
    if (findings->count == findings->capacity) {
        uint32_t capacity = 2 * findings->capacity + 8;
        struct kolo__finding *grown = realloc(findings->list, capacity * sizeof *grown);
        if (grown == NULL) {
            findings->lost = true;
            return &nowhere;
        }
        findings->list = grown;
        findings->capacity = capacity;
    }
    struct kolo__finding *finding = &findings->list[findings->count++];
    va_list arguments;
    finding->ailment = ailment;
    finding->remedy[0] = '\0';
    va_start(arguments, format);
    vsnprintf(finding->measured, sizeof finding->measured, format, arguments);
    va_end(arguments);
    return finding;
}

void kolo__finding_advise(struct kolo__finding *finding, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->remedy, sizeof finding->remedy, format, arguments);
    va_end(arguments);
}

void kolo__findings_free(struct kolo__findings *findings)
{
    free(findings->list);
    *findings = (struct kolo__findings){0};
}

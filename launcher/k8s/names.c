/* SPDX-License-Identifier: Apache-2.0 */
/* What Kubernetes accepts as names and quantities. The API server would say the same, but after the
 * manifest has gone through reviews; and an operator says it in a log that nobody reads. */
#include "launcher/k8s/manifest.h"

#include <ctype.h>
#include <string.h>

enum { LABEL_MAX = 63, SUBDOMAIN_MAX = 253 };

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* [a-z0-9]([-a-z0-9]*[a-z0-9])? of this length. */
static bool is_label(const char *text, size_t length)
{
    if (length == 0 || length > LABEL_MAX || !is_lower_or_digit(text[0]) ||
        !is_lower_or_digit(text[length - 1]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_lower_or_digit(text[i]) && text[i] != '-')
            return false;
    return true;
}

const char *kolo__k8s_name_fault(const char *name)
{
    if (name[0] == '\0' || name[0] < 'a' || name[0] > 'z' || !is_label(name, strlen(name)))
        return "give at most 63 lower-case letters, digits and '-', beginning with a letter and "
               "ending with a letter or digit";
    return NULL;
}

const char *kolo__k8s_subdomain_fault(const char *name)
{
    static const char FAULT[] =
        "give lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit";
    if (strlen(name) > SUBDOMAIN_MAX)
        return FAULT;
    for (const char *part = name;;) {
        size_t length = strcspn(part, ".");
        if (!is_label(part, length))
            return FAULT;
        if (part[length] == '\0')
            return NULL;
        part += length + 1;
    }
}

/* Digits, perhaps with a fraction; where they end. NULL: none, or all of them 0. */
static const char *skip_number(const char *text)
{
    bool any = false;
    const char *c = text;
    for (; isdigit((unsigned char)*c); c++)
        any |= *c != '0';
    if (c == text)
        return NULL;
    if (*c == '.') {
        const char *fraction = ++c;
        for (; isdigit((unsigned char)*c); c++)
            any |= *c != '0';
        if (c == fraction)
            return NULL;
    }
    return any ? c : NULL;
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

const char *kolo__k8s_cpu_fault(const char *quantity)
{
    static const char *const UNITS[] = {"", "m", NULL};
    const char *unit = skip_number(quantity);
    return unit != NULL && is_one_of(unit, UNITS)
               ? NULL
               : "give processors, as 4, 0.5 or 500m (thousandths)";
}

const char *kolo__k8s_bytes_fault(const char *quantity)
{
    static const char *const UNITS[] = {"",  "Ki", "Mi", "Gi", "Ti", "Pi",
                                        "k", "M",  "G",  "T",  "P",  NULL};
    const char *unit = skip_number(quantity);
    return unit != NULL && is_one_of(unit, UNITS) ? NULL : "give bytes, as 512Mi or 16Gi";
}

const char *kolo__k8s_resource_fault(const char *name)
{
    static const char FAULT[] = "give the name that the device plugin has in `kubectl describe "
                                "node`, as rdma/hca_shared_devices_a";
    const char *slash = strchr(name, '/');
    char domain[SUBDOMAIN_MAX + 1];
    if (slash == NULL || (size_t)(slash - name) >= sizeof domain)
        return FAULT;
    memcpy(domain, name, (size_t)(slash - name));
    domain[slash - name] = '\0';
    size_t length = strlen(slash + 1);
    if (kolo__k8s_subdomain_fault(domain) != NULL || length == 0 || length > LABEL_MAX ||
        !isalnum((unsigned char)slash[1]) || !isalnum((unsigned char)slash[length]))
        return FAULT;
    for (const char *c = slash + 1; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL)
            return FAULT;
    return NULL;
}

const char *kolo__k8s_image_fault(const char *image)
{
    for (const char *c = image; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("._-/:@", *c) == NULL)
            return "that is no name of an image";
    if (!isalnum((unsigned char)image[0]))
        return "that is no name of an image";
    const char *digest = strstr(image, "@sha256:");
    if (digest != NULL)
        return strlen(digest) == strlen("@sha256:") + 64 ? NULL
                                                         : "a digest has 64 digits after @sha256:";
    /* A colon before the last slash is a registry's port. */
    const char *last = strrchr(image, '/');
    const char *tag = strchr(last != NULL ? last : image, ':');
    if (tag == NULL || tag[1] == '\0' || strcmp(tag, ":latest") == 0)
        return "pin it by a tag (other than latest) or a digest: pods that start later, or again, "
               "must run the same kolo";
    return NULL;
}

const char *kolo__k8s_text_fault(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0';) {
        int more = *c < 0x80                 ? 0
                   : *c >= 0xc2 && *c < 0xe0 ? 1
                   : *c >= 0xe0 && *c < 0xf0 ? 2
                   : *c >= 0xf0 && *c < 0xf5 ? 3
                                             : -1;
        if (more < 0 || (c[0] == 0xc2 && c[1] < 0xa0)) /* those are control characters */
            return "it is not printable UTF-8, which manifests are";
        for (c++; more > 0; more--, c++)
            if ((*c & 0xc0) != 0x80)
                return "it is not printable UTF-8, which manifests are";
    }
    return NULL;
}

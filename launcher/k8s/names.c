/* SPDX-License-Identifier: Apache-2.0 */
/* What Kubernetes accepts as names and quantities. The API server would say the same, but after the
 * manifest has gone through reviews; and an operator says it in a log that nobody reads. */
#include "launcher/k8s/manifest.h"

#include "base/utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_MAX = 63, SUBDOMAIN_MAX = 253, PROCESSORS_MAX = 4096 };
#define BYTES_MAX 0x1p50 /* 1Pi */

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

/* Names of Services are of an older rule (RFC 1035) than those of namespaces (RFC 1123). */
const char *kolo__k8s_name_fault(const char *name)
{
    if (name[0] == '\0' || name[0] < 'a' || name[0] > 'z' || !is_label(name, strlen(name)))
        return "give at most 63 lower-case letters, digits and '-', beginning with a letter and "
               "ending with a letter or digit: a Service is called so too";
    return NULL;
}

const char *kolo__k8s_namespace_fault(const char *name)
{
    if (!is_label(name, strlen(name)))
        return "give at most 63 lower-case letters, digits and '-', beginning and ending with a "
               "letter or digit";
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

const char *kolo__k8s_queue_fault(const char *name)
{
    if (strlen(name) > LABEL_MAX)
        return "give at most 63 characters: a label has it";
    return kolo__k8s_subdomain_fault(name);
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

const char *kolo__k8s_cpu_fault(const char *quantity)
{
    const char *unit = skip_number(quantity);
    if (unit == NULL || (strcmp(unit, "") != 0 && strcmp(unit, "m") != 0))
        return "give processors, as 4, 0.5 or 500m (thousandths)";
    double thousandths = strtod(quantity, NULL) * (*unit == 'm' ? 1 : 1000);
    if (thousandths < 1)
        return "Kubernetes counts thousandths of processors: give at least 1m";
    if (thousandths > PROCESSORS_MAX * 1000.0)
        return "no node has so many, and the pod would wait for one: give at most 4096";
    return NULL;
}

static const struct {
    const char *name;
    double bytes;
} UNITS_OF_BYTES[] = {
    {"", 1},    {"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"Pi", 0x1p50},
    {"k", 1e3}, {"M", 1e6},     {"G", 1e9},     {"T", 1e12},    {"P", 1e15},
};

double kolo__k8s_bytes(const char *quantity)
{
    const char *unit = skip_number(quantity);
    for (size_t i = 0; unit != NULL && i < sizeof UNITS_OF_BYTES / sizeof *UNITS_OF_BYTES; i++)
        if (strcmp(unit, UNITS_OF_BYTES[i].name) == 0)
            return strtod(quantity, NULL) * UNITS_OF_BYTES[i].bytes;
    return 0;
}

const char *kolo__k8s_bytes_fault(const char *quantity)
{
    double bytes = kolo__k8s_bytes(quantity);
    if (bytes > BYTES_MAX)
        return "no node has so much, and the pod would wait for one: give at most 1Pi";
    return bytes > 0 ? NULL : "give bytes, as 512Mi or 16Gi";
}

/* As the device plugins of their makers call GPUs, parts of them, and other processors. */
static bool is_gpu(const char *name)
{
    static const char *const names[] = {"gpu", "gaudi", "tpu", "neuron", "neuroncore"};
    const char *slash = strchr(name, '/');
    if (slash == NULL)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(slash + 1, names[i]) == 0)
            return true;
    return strncmp(name, "gpu.", 4) == 0 || strncmp(slash + 1, "gpu.", 4) == 0 ||
           strncmp(slash + 1, "mig-", 4) == 0;
}

const char *kolo__k8s_resource_fault(const char *name)
{
    static const char FAULT[] = "give the name that the device plugin has in `kubectl describe "
                                "node`, as rdma/hca_shared_devices_a";
    if (is_gpu(name))
        return "that is a GPU and no network: --gpus gives NVIDIA's, and kolo knows no others; "
               "give the device plugin's name of an RDMA device, as rdma/hca_shared_devices_a";
    if (strstr(name, "kubernetes.io/") != NULL || strncmp(name, "requests.", 9) == 0)
        return "Kubernetes keeps names in kubernetes.io and those that begin with requests. for "
               "itself";
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

/* Whatever a character is, it can be written (yaml.c). */
const char *kolo__k8s_text_fault(const char *text)
{
    for (const char *c = text; *c != '\0';) {
        size_t bytes = kolo__utf8_bytes(c, NULL);
        if (bytes == 0)
            return "it is not UTF-8, which manifests are";
        c += bytes;
    }
    return NULL;
}

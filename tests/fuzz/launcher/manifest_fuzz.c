/* SPDX-License-Identifier: Apache-2.0 */
/* Texts on `kolo k8s render`'s command line. Whatever passes the checks can be written, is
 * printable UTF-8, and stays inside the line that is its own: no name and no argument adds, ends or
 * changes anything else in the manifest. Input: the kind as a byte, then texts, each up to a 0. */
#include "base/assert.h"
#include "base/utf8.h"
#include "launcher/k8s/manifest.h"

#include <stdlib.h>
#include <string.h>

enum { FIELDS = 9, ARGUMENTS_MAX = 8, TEXTS = FIELDS + ARGUMENTS_MAX };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What each field may be, and a text that may stand there. */
static const struct {
    const char *(*fault)(const char *);
    const char *plain;
} FIELD[FIELDS] = {
    {kolo__k8s_name_fault, "train"},        {kolo__k8s_namespace_fault, "default"},
    {kolo__k8s_image_fault, "kolo:1"},      {kolo__k8s_cpu_fault, "4"},
    {kolo__k8s_bytes_fault, "2Gi"},         {kolo__k8s_bytes_fault, "1Gi"},
    {kolo__k8s_subdomain_fault, "token"},   {kolo__k8s_queue_fault, "queue"},
    {kolo__k8s_resource_fault, "rdma/hca"},
};

static struct kolo__manifest manifest_of(uint8_t kind, char **texts)
{
    return (struct kolo__manifest){
        .kind = &kolo__k8s_kinds[kind % kolo__k8s_kind_count],
        .name = texts[0],
        .namespace_name = texts[1],
        .image = texts[2],
        .cpu = texts[3],
        .memory = texts[4],
        .shm = texts[5],
        .token_secret = texts[6],
        .queue = texts[7],
        .rdma = texts[8],
        .rdma_count = 1,
        .workers = 2,
        .per_pod = 2,
        .deadline_s = 60,
        .rendezvous_port = KOLO__K8S_RENDEZVOUS_PORT,
        .agent_port = KOLO__AGENT_PORT,
        .metrics_port = KOLO__K8S_METRICS_PORT,
        .command = texts + FIELDS,
    };
}

/* The caller frees it. */
static char *written(uint8_t kind, char **texts)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    KOLO__ASSERT(out != NULL);
    struct kolo__manifest manifest = manifest_of(kind, texts);
    KOLO__ASSERT(kolo__manifest_write(out, &manifest) == KOLO_OK);
    KOLO__ASSERT(fclose(out) == 0 && strlen(text) == bytes);
    return text;
}

static bool is_printable(const char *text)
{
    uint32_t character;
    for (size_t length; *text != '\0'; text += length) {
        length = kolo__utf8_bytes(text, &character);
        if (length == 0 || (character < 0x20 && character != '\n') ||
            (character >= 0x7f && character < 0xa0))
            return false;
    }
    return true;
}

/* Behind a scalar: words that no reader of YAML takes for more, or quotes with what is between
 * them. NULL: neither. */
static const char *skip_scalar(const char *c)
{
    static const char PLAIN[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    if (*c != '"') {
        size_t length = strspn(c, PLAIN);
        return length > 0 ? c + length : NULL;
    }
    for (c++; *c != '"'; c++) {
        if (*c == '\\')
            c++;
        if (*c == '\0' || *c == '\n')
            return NULL;
    }
    return c + 1;
}

/* Characters before what stands in a line: spaces, and "- " for each list. */
static size_t depth_of(const char *line)
{
    const char *c = line + strspn(line, " ");
    while (strncmp(c, "- ", 2) == 0)
        c += 2;
    return (size_t)(c - line);
}

/* One line of a block: "- " any times, then "key:", "key: value" or "value". Its end; NULL: it is
 * none. */
static const char *skip_line(const char *c)
{
    c += depth_of(c);
    if (*c == '#')
        return strchr(c, '\n');
    c = skip_scalar(c);
    if (c != NULL && *c == ':') {
        c++;
        if (strncmp(c, " {}", 3) == 0 || strncmp(c, " []", 3) == 0)
            c += 3;
        else if (*c == ' ')
            c = skip_scalar(c + 1);
    }
    return c != NULL && *c == '\n' ? c : NULL;
}

/* Line by line as deep, and as much of a list. */
static bool same_shape(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        const char *end = skip_line(a);
        if (end == NULL || depth_of(b) != depth_of(a) || strncmp(a, b, depth_of(a)) != 0)
            return false;
        a = end + 1;
        b = strchr(b, '\n') + 1;
    }
    return *a == *b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char plain_word[] = "word";
    char *texts[TEXTS + 1] = {NULL}, *plain[TEXTS + 1] = {NULL};
    if (bytes < 2)
        return 0;
    char *copy = malloc(bytes);
    KOLO__ASSERT(copy != NULL);
    memcpy(copy, data + 1, bytes - 1);
    copy[bytes - 1] = '\0';

    size_t count = 0;
    bool sound = true;
    for (char *c = copy; c < copy + bytes && count < TEXTS; c += strlen(c) + 1, count++) {
        texts[count] = c;
        plain[count] = count < FIELDS ? (char *)FIELD[count].plain : plain_word;
        sound &= (count < FIELDS ? FIELD[count].fault : kolo__k8s_text_fault)(c) == NULL;
    }
    if (sound && count > FIELDS) {
        char *manifest = written(data[0], texts), *other = written(data[0], plain);
        KOLO__ASSERT(is_printable(manifest));
        KOLO__ASSERT(same_shape(manifest, other));
        free(manifest);
        free(other);
    }
    free(copy);
    return 0;
}

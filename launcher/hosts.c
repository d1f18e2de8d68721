/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/hosts.h"

#include "base/local_addresses.h"
#include "base/log.h"
#include "base/status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- this machine -------------------------------------------------------------------------- */

static bool is_own_address(const char *name)
{
    char addresses[KOLO__LOCAL_ADDRESSES_BYTES], *rest = addresses, *one;
    if (name[strspn(name, "0123456789abcdefABCDEF.:")] != '\0' ||
        kolo__local_addresses(addresses) != KOLO_OK)
        return false;
    while ((one = strsep(&rest, ",")) != NULL)
        if (one[0] != '\0' && strcasecmp(one, name) == 0)
            return true;
    return false;
}

/* Names compare without case; "node7" is "node7.example.com" whichever of the two is the own name.
 */
bool kolo__host_is_here(const char *name, const char *own_name)
{
    static const char *const LOCAL[] = {"localhost", "127.0.0.1", "::1"};
    for (size_t i = 0; i < sizeof LOCAL / sizeof *LOCAL; i++)
        if (strcasecmp(name, LOCAL[i]) == 0)
            return true;
    if (strcasecmp(name, own_name) == 0 || is_own_address(name))
        return true;
    size_t label = strcspn(name, "."), own_label = strcspn(own_name, ".");
    bool one_is_short = name[label] == '\0' || own_name[own_label] == '\0';
    return one_is_short && label == own_label && strncasecmp(name, own_name, label) == 0;
}

/* A Job's pods have its name, or their host name, and five letters by chance: what does not fit
 * into 63 characters with these is cut off before them. */
bool kolo__host_is_pod(const char *name, const char *pod)
{
    enum { BY_CHANCE = 5, LONGEST = 63 - BY_CHANCE };
    char made[KOLO__HOST_NAME_BYTES];
    snprintf(made, sizeof made, "%.*s-", (int)strcspn(name, "."), name);
    size_t length = strnlen(made, LONGEST);
    return kolo__host_is_here(name, pod) ||
           (strncmp(made, pod, length) == 0 && strlen(pod) == length + BY_CHANCE &&
            strspn(pod + length, "bcdfghjklmnpqrstvwxz2456789") == BY_CHANCE);
}

/* ---- one entry ----------------------------------------------------------------------------- */

static kolo_status parse_slots(const char *entry, const char *text, long *slots)
{
    char *end;
    errno = 0;
    *slots = strtol(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *slots >= 1 &&
        *slots <= KOLO__SLOTS_MAX)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "'%s' is no number of slots for %s: give a number from 1 to %d", text, entry,
                       KOLO__SLOTS_MAX);
}

/* What follows "user@". */
static const char *skip_user(const char *name)
{
    const char *at = strrchr(name, '@');
    return at != NULL ? at + 1 : name;
}

/* Cuts ":slots" and brackets off. A bare IPv6 address has more than one colon and no slots. */
static kolo_status cut_slots(char *entry, long *slots)
{
    char *place = entry + (skip_user(entry) - entry);
    char *bracket = place[0] == '[' ? strchr(place, ']') : NULL;
    char *colon = bracket != NULL ? (bracket[1] == ':' ? bracket + 1 : NULL) : strrchr(place, ':');
    if (bracket == NULL && colon != NULL && strchr(place, ':') != colon)
        colon = NULL;
    *slots = 0;
    if (colon != NULL) {
        *colon = '\0';
        kolo_status status = parse_slots(entry, colon + 1, slots);
        if (status != KOLO_OK)
            return status;
    }
    if (bracket != NULL) {
        if (bracket[1] != '\0')
            return kolo__error(KOLO_ERR_CONFIG, "'%s' is no host: give [ADDRESS]:SLOTS", entry);
        *bracket = '\0';
        memmove(place, place + 1, strlen(place));
    }
    return KOLO_OK;
}

/* What ssh would take for an option, or a shell for more than a word, is no host; nor is half an
 * IPv6 address. */
static bool is_name(const char *name)
{
    struct in6_addr address;
    char bare[KOLO__HOST_NAME_BYTES];
    const char *place = skip_user(name);
    for (const char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c >= 0x7f) /* control characters, and names that are not in ASCII */
            return false;
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(place, "%"), place); /* fe80::1%eth0 */
    if (strchr(name, ':') != NULL && inet_pton(AF_INET6, bare, &address) != 1)
        return false;
    return name[0] != '\0' && name[0] != '-' && name[0] != '@' && place[0] != '\0' &&
           strcspn(name, " \t'\"\\$`;&|<>()*?#!,/[]") == strlen(name);
}

bool kolo__host_is_same(const struct kolo__host *a, const struct kolo__host *b)
{
    return (a->here && b->here) || strcasecmp(a->name, b->name) == 0;
}

static kolo_status add(struct kolo__hosts *hosts, const char *name, long slots)
{
    const char *pod = getenv("POD_NAME"); /* with hostNetwork, the host's own name is the node's */
    bool here = kolo__host_is_here(name, kolo__host_name()) ||
                (pod != NULL && kolo__host_is_pod(name, pod));
    if (!is_name(name))
        return kolo__error(
            KOLO_ERR_CONFIG,
            "'%s' is no name or address of a host (an IPv6 address with slots: [fd00::1]:4)", name);
    struct kolo__host added = {.slots = slots, .here = here};
    snprintf(added.name, sizeof added.name, "%s", name);
    for (uint32_t i = 0; i < hosts->count; i++)
        if (kolo__host_is_same(&hosts->list[i], &added)) {
            hosts->list[i].slots += slots;
            return KOLO_OK;
        }
    struct kolo__host *grown = realloc(hosts->list, (hosts->count + 1) * sizeof *grown);
    if (grown == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", hosts->count + 1);
    hosts->list = grown;
    grown[hosts->count++] = added;
    return KOLO_OK;
}

kolo_status kolo__hosts_read_list(struct kolo__hosts *hosts, const char *text)
{
    for (const char *next = text; next != NULL;) {
        char entry[KOLO__HOST_NAME_BYTES];
        long slots;
        size_t length = strcspn(next, ",");
        if (length == 0 || length >= sizeof entry)
            return kolo__error(KOLO_ERR_CONFIG,
                               "'%s' has an empty or overlong name: give host:slots,host:slots",
                               text);
        snprintf(entry, sizeof entry, "%.*s", (int)length, next);
        next = next[length] == ',' ? next + length + 1 : NULL;
        kolo_status status = cut_slots(entry, &slots);
        if (status == KOLO_OK)
            status = add(hosts, entry, slots);
        if (status != KOLO_OK)
            return status;
    }
    return KOLO_OK;
}

/* ---- the file ------------------------------------------------------------------------------ */

/* "node7 slots=4 max_slots=8", "node7:4", "", "# ...". */
static kolo_status read_line(struct kolo__hosts *hosts, char *line)
{
    static const char BLANKS[] = " \t\r\n";
    char *rest = NULL, entry[KOLO__HOST_NAME_BYTES];
    long slots, unused;
    line[strcspn(line, "#")] = '\0';
    const char *word = strtok_r(line, BLANKS, &rest);
    if (word == NULL)
        return KOLO_OK;
    if (strlen(word) >= sizeof entry)
        return kolo__error(KOLO_ERR_CONFIG, "'%.40s...' is too long for a host", word);
    memcpy(entry, word, strlen(word) + 1);
    kolo_status status = cut_slots(entry, &slots);
    while (status == KOLO_OK && (word = strtok_r(NULL, BLANKS, &rest)) != NULL) {
        if (strncmp(word, "slots=", 6) == 0)
            status = parse_slots(entry, word + 6, &slots);
        else if (strncmp(word, "max_slots=", 10) == 0 || strncmp(word, "max-slots=", 10) == 0)
            status = parse_slots(entry, word + 10, &unused); /* nothing here goes beyond slots */
        else
            status =
                kolo__error(KOLO_ERR_CONFIG,
                            "'%s' means nothing here: a line is HOST slots=N, or HOST:N", word);
    }
    return status == KOLO_OK ? add(hosts, entry, slots) : status;
}

static kolo_status read_lines(struct kolo__hosts *hosts, const char *source, FILE *file)
{
    char *line = NULL;
    size_t capacity = 0;
    unsigned number = 0;
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && getline(&line, &capacity, file) >= 0) {
        number++;
        status = read_line(hosts, line);
        if (status == KOLO_ERR_CONFIG)
            status = kolo__error(status, "%s, line %u: %s", source, number, kolo_error_text());
    }
    if (status == KOLO_OK && ferror(file) != 0)
        status = kolo__error(KOLO_ERR_CONFIG, "%s cannot be read: %s", source, strerror(errno));
    free(line);
    fclose(file);
    return status;
}

kolo_status kolo__hosts_read_file(struct kolo__hosts *hosts, const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return kolo__error(KOLO_ERR_CONFIG, "%s cannot be read: %s", path, strerror(errno));
    kolo_status status = read_lines(hosts, path, file);
    if (status == KOLO_OK && hosts->count == 0)
        status = kolo__error(KOLO_ERR_CONFIG, "%s names no host", path);
    return status;
}

kolo_status kolo__hosts_read_text(struct kolo__hosts *hosts, const char *source, const char *text)
{
    if (text[0] == '\0')
        return KOLO_OK;
    FILE *file = fmemopen((char *)text, strlen(text), "r");
    return file != NULL ? read_lines(hosts, source, file)
                        : kolo__error(KOLO_ERR_MEMORY, "no memory to read %s", source);
}

void kolo__hosts_free(struct kolo__hosts *hosts)
{
    free(hosts->list);
    *hosts = (struct kolo__hosts){0};
}

/* ---- places -------------------------------------------------------------------------------- */

bool kolo__hosts_are_counted(const struct kolo__hosts *hosts)
{
    for (uint32_t i = 0; i < hosts->count; i++)
        if (hosts->list[i].slots == 0)
            return false;
    return true;
}

kolo_status kolo__hosts_total(const struct kolo__hosts *hosts, long *slots)
{
    *slots = 0;
    for (uint32_t i = 0; i < hosts->count; i++) {
        *slots += hosts->list[i].slots;
        if (*slots > KOLO__SLOTS_MAX)
            return kolo__error(KOLO_ERR_CONFIG, "more than %d slots in all", KOLO__SLOTS_MAX);
    }
    return KOLO_OK;
}

static void fill_by_slot(const struct kolo__hosts *hosts, uint32_t ranks, uint32_t *host_of)
{
    uint32_t rank = 0;
    for (uint32_t h = 0; h < hosts->count; h++)
        for (long slot = 0; slot < hosts->list[h].slots && rank < ranks; slot++)
            host_of[rank++] = h;
}

static void fill_by_node(const struct kolo__hosts *hosts, uint32_t ranks, uint32_t *host_of)
{
    uint32_t rank = 0;
    for (long round = 0; rank < ranks; round++)
        for (uint32_t h = 0; h < hosts->count && rank < ranks; h++)
            if (round < hosts->list[h].slots)
                host_of[rank++] = h;
}

void kolo__hosts_place(const struct kolo__hosts *hosts, uint32_t ranks, bool by_node,
                       uint32_t *host_of)
{
    if (by_node)
        fill_by_node(hosts, ranks, host_of);
    else
        fill_by_slot(hosts, ranks, host_of);
}

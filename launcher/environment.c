/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/environment.h"

#include "base/config.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The entry of a name, or the count. */
static size_t find(const struct kolo__environment *environment, const char *name, size_t length)
{
    size_t i = 0;
    while (i < environment->count && (strncmp(environment->entries[i], name, length) != 0 ||
                                      environment->entries[i][length] != '='))
        i++;
    return i;
}

kolo_status kolo__environment_set(struct kolo__environment *environment, const char *name,
                                  const char *value)
{
    size_t place = find(environment, name, strlen(name));
    size_t bytes = strlen(name) + strlen(value) + 2;
    char *entry = malloc(bytes);
    char **entries = environment->entries;
    if (entry != NULL && place == environment->count)
        entries = realloc(entries, (environment->count + 2) * sizeof *entries);
    if (entry == NULL || entries == NULL) {
        free(entry);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the variable %s", name);
    }
    snprintf(entry, bytes, "%s=%s", name, value);
    environment->entries = entries;
    if (place < environment->count) {
        free(entries[place]);
    } else {
        environment->count++;
        entries[environment->count] = NULL;
    }
    entries[place] = entry;
    return KOLO_OK;
}

/* Ranks get these from kolo run itself, each its own. */
static bool is_ours_to_give(const char *name)
{
    char variable[64];
    for (size_t i = 0; i < kolo__option_count; i++)
        if (kolo__options[i].use == KOLO__OPTION_LAUNCHER &&
            strcmp(kolo__option_variable(&kolo__options[i], variable, sizeof variable), name) == 0)
            return true;
    return strcmp(name, "KOLO_TOKEN_FILE") == 0;
}

kolo_status kolo__environment_export(struct kolo__environment *environment, const char *text)
{
    char name[256];
    size_t length = strcspn(text, "=");
    if (length == 0 || length >= sizeof name)
        return kolo__error(KOLO_ERR_CONFIG, "-x %s: give NAME, or NAME=VALUE", text);
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    if (is_ours_to_give(name))
        return kolo__error(KOLO_ERR_CONFIG, "-x %s: kolo run gives each rank its own", name);
    const char *value = text[length] == '=' ? text + length + 1 : getenv(name);
    if (value == NULL)
        return kolo__error(KOLO_ERR_CONFIG, "-x %s: it is not set here; give -x %s=VALUE", name,
                           name);
    return kolo__environment_set(environment, name, value);
}

kolo_status kolo__environment_add_options(struct kolo__environment *environment, char **ours)
{
    kolo_status status = KOLO_OK;
    for (; *ours != NULL && status == KOLO_OK; ours++) {
        char name[128];
        size_t length = strcspn(*ours, "=");
        if (strncmp(*ours, "KOLO_", 5) != 0 || (*ours)[length] != '=' || length >= sizeof name)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)length, *ours);
        if (!is_ours_to_give(name) && find(environment, name, length) == environment->count)
            status = kolo__environment_set(environment, name, *ours + length + 1);
    }
    return status;
}

void kolo__environment_free(struct kolo__environment *environment)
{
    for (size_t i = 0; i < environment->count; i++)
        free(environment->entries[i]);
    free(environment->entries);
    *environment = (struct kolo__environment){0};
}

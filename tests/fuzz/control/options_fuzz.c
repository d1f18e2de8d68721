/* SPDX-License-Identifier: Apache-2.0 */
/* The table of options against any environment: one NAME=VALUE a line. */
#include "base/assert.h"
#include "base/config.h"
#include "base/interfaces.h"

#include <stdlib.h>
#include <string.h>

enum { LINES_MAX = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool among(const char *choices, const char *value)
{
    size_t length = strlen(value);
    for (const char *c = choices; c != NULL; c = strchr(c, '|')) {
        c += *c == '|';
        if (strncmp(c, value, length) == 0 && (c[length] == '|' || c[length] == '\0'))
            return true;
    }
    return false;
}

/* What was accepted is what the table allows. */
static void check(const struct kolo__config *config)
{
    for (size_t i = 0; i < kolo__option_count; i++) {
        const struct kolo__option *option = &kolo__options[i];
        const char *place = (const char *)config + option->offset, *text;
        long number;
        switch (option->type) {
        case KOLO__OPTION_INTEGER:
        case KOLO__OPTION_BYTES:
            memcpy(&number, place, sizeof number);
            KOLO__ASSERT(number >= option->minimum && number <= option->maximum);
            break;
        case KOLO__OPTION_CHOICE:
        case KOLO__OPTION_TEXT:
            memcpy(&text, place, sizeof text);
            KOLO__ASSERT(text[0] == '\0' || (text >= config->storage &&
                                             text < config->storage + sizeof config->storage));
            KOLO__ASSERT(text + strlen(text) < config->storage + sizeof config->storage ||
                         text[0] == '\0');
            KOLO__ASSERT(option->type == KOLO__OPTION_TEXT || among(option->choices, text));
            break;
        }
    }
}

/* KOLO_NET is read again for each interface. */
static void check_filter(const char *filter)
{
    static const char *const names[] = {"eth0", "lo", "docker0", "ib0", "a"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool named, allowed = kolo__interface_filter_allows(filter, names[i], &named);
        KOLO__ASSERT(filter[0] != '\0' || (allowed && !named));
        KOLO__ASSERT(!named || strpbrk(filter, names[i]) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kolo__config config;
    char *environment[LINES_MAX + 1], *text = malloc(bytes + 1), *rest = text;
    size_t lines = 0;
    KOLO__ASSERT(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    for (char *line; lines < LINES_MAX && (line = strsep(&rest, "\n")) != NULL; lines++)
        environment[lines] = line;
    environment[lines] = NULL;
    kolo_status status = kolo__config_load(&config, environment);
    KOLO__ASSERT(status == KOLO_OK || status == KOLO_ERR_CONFIG);
    if (status == KOLO_OK) {
        check(&config);
        check_filter(config.net);
    } else {
        KOLO__ASSERT(kolo_error_text()[0] != '\0');
    }
    free(text);
    return 0;
}

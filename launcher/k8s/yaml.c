/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/k8s/yaml.h"

#include "base/assert.h"
#include "base/utf8.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static void begin_line(struct kolo__yaml *yaml)
{
    int spaces = 2 * (yaml->depth - (yaml->dash ? 1 : 0));
    KOLO__ASSERT(spaces >= 0);
    fprintf(yaml->out, "%*s%s", spaces, "", yaml->dash ? "- " : "");
    yaml->dash = false;
}

/* A scalar that every version of YAML reads as these characters. Numbers, dates and the like begin
 * with something else than a letter, a slash, or the two dashes of an option. */
static bool is_plain(const char *value)
{
    static const char *const WORDS[] = {"true", "false", "null", "yes", "no",
                                        "on",   "off",   "y",    "n"};
    bool is_flag = strncmp(value, "--", 2) == 0 && isalpha((unsigned char)value[2]);
    if (!isalpha((unsigned char)value[0]) && value[0] != '/' && !is_flag)
        return false;
    for (const char *c = value; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("_./-", *c) == NULL)
            return false;
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcasecmp(value, WORDS[i]) == 0)
            return false;
    return true;
}

/* What YAML takes only as a number, or reads as the end of a line, or not at all: control
 * characters, separators of lines and paragraphs, the mark of byte order, and those that are no
 * characters. */
static bool is_special(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0) || character == 0x2028 ||
           character == 0x2029 || character == 0xfeff || character == 0xfffe || character == 0xffff;
}

static void write_scalar(struct kolo__yaml *yaml, const char *value)
{
    if (is_plain(value)) {
        fputs(value, yaml->out);
        return;
    }
    putc('"', yaml->out);
    for (size_t bytes; *value != '\0'; value += bytes) {
        uint32_t character = 0;
        bytes = kolo__utf8_bytes(value, &character);
        KOLO__ASSERT(bytes > 0);
        if (character == '"' || character == '\\')
            fprintf(yaml->out, "\\%c", *value);
        else if (character == '\n')
            fputs("\\n", yaml->out);
        else if (character == '\t')
            fputs("\\t", yaml->out);
        else if (is_special(character))
            fprintf(yaml->out, "\\u%04x", character);
        else
            fwrite(value, 1, bytes, yaml->out);
    }
    putc('"', yaml->out);
}

void kolo__yaml_open(struct kolo__yaml *yaml, const char *key)
{
    begin_line(yaml);
    fprintf(yaml->out, "%s:\n", key);
    yaml->depth++;
}

void kolo__yaml_close(struct kolo__yaml *yaml)
{
    KOLO__ASSERT(yaml->depth > 0 && !yaml->dash);
    yaml->depth--;
}

void kolo__yaml_list(struct kolo__yaml *yaml, const char *key)
{
    begin_line(yaml);
    fprintf(yaml->out, "%s:\n", key);
}

void kolo__yaml_item(struct kolo__yaml *yaml)
{
    KOLO__ASSERT(!yaml->dash);
    yaml->depth++;
    yaml->dash = true;
}

void kolo__yaml_item_text(struct kolo__yaml *yaml, const char *value)
{
    begin_line(yaml);
    fputs("- ", yaml->out);
    write_scalar(yaml, value);
    putc('\n', yaml->out);
}

void kolo__yaml_item_number(struct kolo__yaml *yaml, long value)
{
    begin_line(yaml);
    fprintf(yaml->out, "- %ld\n", value);
}

void kolo__yaml_text(struct kolo__yaml *yaml, const char *key, const char *value)
{
    begin_line(yaml);
    write_scalar(yaml, key);
    fputs(": ", yaml->out);
    write_scalar(yaml, value);
    putc('\n', yaml->out);
}

void kolo__yaml_number(struct kolo__yaml *yaml, const char *key, long value)
{
    begin_line(yaml);
    fprintf(yaml->out, "%s: %ld\n", key, value);
}

void kolo__yaml_bool(struct kolo__yaml *yaml, const char *key, bool value)
{
    begin_line(yaml);
    fprintf(yaml->out, "%s: %s\n", key, value ? "true" : "false");
}

void kolo__yaml_empty(struct kolo__yaml *yaml, const char *key)
{
    begin_line(yaml);
    fprintf(yaml->out, "%s: {}\n", key);
}

void kolo__yaml_empty_list(struct kolo__yaml *yaml, const char *key)
{
    begin_line(yaml);
    fprintf(yaml->out, "%s: []\n", key);
}

void kolo__yaml_comment(struct kolo__yaml *yaml, const char *text)
{
    KOLO__ASSERT(!yaml->dash);
    begin_line(yaml);
    fprintf(yaml->out, "# %s\n", text);
}

void kolo__yaml_document(struct kolo__yaml *yaml)
{
    KOLO__ASSERT(yaml->depth == 0 && !yaml->dash);
    fputs("---\n", yaml->out);
}

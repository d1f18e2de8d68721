/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/findings.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stddef.h>

/* ---- JSON ----------------------------------------------------------------------------------- */

/* The environment may hold any bytes; what is no UTF-8 becomes U+FFFD. */
static void put_quoted(FILE *out, const char *value)
{
    const unsigned char *text = (const unsigned char *)value;
    putc('"', out);
    while (*text != '\0') {
        size_t bytes = kolo__utf8_bytes((const char *)text, NULL);
        if (bytes == 0)
            fputs("\\ufffd", out);
        else if (*text < 0x20)
            fprintf(out, "\\u%04x", *text);
        else {
            if (*text == '"' || *text == '\\')
                putc('\\', out);
            fwrite(text, 1, bytes, out);
        }
        text += bytes > 0 ? bytes : 1;
    }
    putc('"', out);
}

static void put_key(struct kolo__findings *findings, const char *key)
{
    fprintf(findings->out, "%s\"%s\":", findings->follows ? "," : "", key);
    findings->follows = true;
}

/* ---- lines and objects ---------------------------------------------------------------------- */

static void end_item(struct kolo__findings *findings)
{
    if (findings->in_item && findings->json)
        putc('}', findings->out);
    findings->in_item = false;
}

static void end_section(struct kolo__findings *findings)
{
    end_item(findings);
    if (findings->in_section)
        putc(!findings->json ? '\n' : findings->in_list ? ']' : '}', findings->out);
    findings->in_section = findings->in_list = false;
    findings->follows = true; /* the schema at least */
}

static void begin_section(struct kolo__findings *findings, const char *label, const char *key,
                          bool list)
{
    end_section(findings);
    findings->in_section = true;
    findings->in_list = list;
    findings->items = 0;
    if (findings->json) {
        put_key(findings, key);
        putc(list ? '[' : '{', findings->out);
    } else {
        fprintf(findings->out, "%-10s ", label);
    }
    findings->follows = false;
}

void kolo__findings_open(struct kolo__findings *findings, FILE *out, bool json)
{
    *findings = (struct kolo__findings){.out = out, .json = json};
    if (json)
        fprintf(out, "{\"schema\":%d", KOLO__FINDINGS_SCHEMA);
}

void kolo__findings_close(struct kolo__findings *findings)
{
    end_section(findings);
    if (findings->json)
        fputs("}\n", findings->out);
}

void kolo__findings_section(struct kolo__findings *findings, const char *label, const char *key)
{
    begin_section(findings, label, key, false);
}

void kolo__findings_list(struct kolo__findings *findings, const char *label, const char *key,
                         const char *between)
{
    begin_section(findings, label, key, true);
    findings->between = between != NULL ? between : "\n           ";
}

void kolo__findings_item(struct kolo__findings *findings)
{
    end_item(findings);
    if (findings->items++ > 0)
        fputs(findings->json ? "," : findings->between, findings->out);
    if (findings->json)
        putc('{', findings->out);
    findings->in_item = true;
    findings->follows = false;
}

/* ---- values --------------------------------------------------------------------------------- */

#define PUT_WORDS(findings, words)                                                                 \
    do {                                                                                           \
        va_list arguments;                                                                         \
        va_start(arguments, words);                                                                \
        vfprintf((findings)->out, words, arguments);                                               \
        va_end(arguments);                                                                         \
    } while (0)

void kolo__findings_number(struct kolo__findings *findings, const char *key, uint64_t value,
                           const char *words, ...)
{
    if (findings->json) {
        put_key(findings, key);
        fprintf(findings->out, "%llu", (unsigned long long)value);
    } else {
        PUT_WORDS(findings, words);
    }
}

void kolo__findings_string(struct kolo__findings *findings, const char *key, const char *value,
                           const char *words, ...)
{
    if (findings->json) {
        put_key(findings, key);
        put_quoted(findings->out, value);
    } else {
        PUT_WORDS(findings, words);
    }
}

void kolo__findings_flag(struct kolo__findings *findings, const char *key, bool value,
                         const char *words, ...)
{
    if (findings->json) {
        put_key(findings, key);
        fputs(value ? "true" : "false", findings->out);
    } else {
        PUT_WORDS(findings, words);
    }
}

void kolo__findings_none(struct kolo__findings *findings, const char *key, const char *words, ...)
{
    if (findings->json) {
        put_key(findings, key);
        fputs("null", findings->out);
    } else {
        PUT_WORDS(findings, words);
    }
}

void kolo__findings_remark(struct kolo__findings *findings, const char *words, ...)
{
    if (!findings->json)
        PUT_WORDS(findings, words);
}

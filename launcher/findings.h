/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was found, for people and for programs. Each finding is told once, with its name, its value
 * and its words: a line of text has the words, the JSON object the name and the value, so neither
 * can have what the other lacks.
 *
 *   text    host       node1, Linux 6.1        a line begins with a label; words follow each other
 *   JSON    "host":{"name":"node1","system":"Linux","release":"6.1"}
 */
#ifndef KOLO_LAUNCHER_FINDINGS_H
#define KOLO_LAUNCHER_FINDINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define KOLO__FINDINGS_SCHEMA                                                                      \
    1 /* grows when a key goes or changes its meaning; not with new ones */

struct kolo__findings {
    FILE *out; /* borrowed; who opened it looks for errors of writing */
    bool json;
    bool in_section, in_list, in_item;
    bool follows; /* JSON: something stands before in the same braces */
    unsigned items;
    const char *between; /* text: two items of a list */
};

void kolo__findings_open(struct kolo__findings *findings, FILE *out, bool json);
void kolo__findings_close(struct kolo__findings *findings);

/* Begins a line and an object of its own, and ends the one before. label: at most 10 characters. */
void kolo__findings_section(struct kolo__findings *findings, const char *label, const char *key);
/* The same of several objects. between: ", ", or NULL: each has a line. */
void kolo__findings_list(struct kolo__findings *findings, const char *label, const char *key,
                         const char *between);
void kolo__findings_item(struct kolo__findings *findings);

/* The words say how text shows the value. */
#define WORDS(n) __attribute__((format(printf, n, (n) + 1)))
void kolo__findings_number(struct kolo__findings *findings, const char *key, uint64_t value,
                           const char *words, ...) WORDS(4);
void kolo__findings_string(struct kolo__findings *findings, const char *key, const char *value,
                           const char *words, ...) WORDS(4);
void kolo__findings_flag(struct kolo__findings *findings, const char *key, bool value,
                         const char *words, ...) WORDS(4);
/* null: there is no such limit. */
void kolo__findings_none(struct kolo__findings *findings, const char *key, const char *words, ...)
    WORDS(3);
/* Words without a value, where a list is empty, which JSON shows as such. */
void kolo__findings_remark(struct kolo__findings *findings, const char *words, ...) WORDS(2);
#undef WORDS

#endif

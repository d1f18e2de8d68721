/* SPDX-License-Identifier: Apache-2.0 */
/* Writes YAML of the kind that kubectl prints: block style, two spaces, lists at the indentation of
 * their key. Whatever is not plainly a word is quoted, so that no value is ever read as something
 * else ("no", "1e3", "a: b"). Texts are UTF-8. Writing errors stay in the stream, for who closes
 * it. */
#ifndef KOLO_LAUNCHER_K8S_YAML_H
#define KOLO_LAUNCHER_K8S_YAML_H

#include <stdbool.h>
#include <stdio.h>

struct kolo__yaml {
    FILE *out; /* borrowed */
    int depth;
    bool dash; /* the next line is the first of an item */
};

/* Everything up to the matching close belongs to `key`. */
void kolo__yaml_open(struct kolo__yaml *yaml, const char *key);
void kolo__yaml_close(struct kolo__yaml *yaml);

/* Items follow; a list needs no close. */
void kolo__yaml_list(struct kolo__yaml *yaml, const char *key);
/* An item that is a mapping, up to the matching close. */
void kolo__yaml_item(struct kolo__yaml *yaml);
void kolo__yaml_item_text(struct kolo__yaml *yaml, const char *value);
void kolo__yaml_item_number(struct kolo__yaml *yaml, long value);

void kolo__yaml_text(struct kolo__yaml *yaml, const char *key, const char *value);
void kolo__yaml_number(struct kolo__yaml *yaml, const char *key, long value);
void kolo__yaml_bool(struct kolo__yaml *yaml, const char *key, bool value);
/* A mapping without members. */
void kolo__yaml_empty(struct kolo__yaml *yaml, const char *key);
/* A list without items. */
void kolo__yaml_empty_list(struct kolo__yaml *yaml, const char *key);
/* One line of comment. */
void kolo__yaml_comment(struct kolo__yaml *yaml, const char *text);
/* Between two objects. */
void kolo__yaml_document(struct kolo__yaml *yaml);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of images, by the grammar of container registries (github.com/distribution/reference). The
 * kubelet looks at them only when a pod is placed, and then says InvalidImageName in each pod.
 *
 *   [domain[:port]/]path[/path]...[:tag][@digest]
 */
#include "launcher/k8s/manifest.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_BYTES = 1024, NAME_MAX_LENGTH = 255 };

#define DOMAIN_PART "[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
#define DOMAIN      "(" DOMAIN_PART "([.]" DOMAIN_PART ")*|\\[[a-fA-F0-9:]+\\])(:[0-9]+)?"
#define PATH        "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"
#define NAME        "^(" DOMAIN "/)?" PATH "(/" PATH ")*$"
#define TAG         "^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$"
#define DIGEST      "^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$"

static bool matches(const char *text, const char *pattern)
{
    regex_t compiled;
    if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        abort(); /* no memory: patterns are constants */
    bool found = regexec(&compiled, text, 0, NULL, 0) == 0;
    regfree(&compiled);
    return found;
}

const char *kolo__k8s_image_fault(const char *image)
{
    static const char NO_NAME[] =
        "that is no name of an image, which is [registry[:port]/]path:tag, its path in lower case";
    char name[IMAGE_BYTES];
    if ((size_t)snprintf(name, sizeof name, "%s", image) >= sizeof name)
        return NO_NAME;
    char *digest = strchr(name, '@');
    if (digest != NULL)
        *digest++ = '\0';
    /* A colon before the last slash is a registry's port. */
    char *slash = strrchr(name, '/');
    char *tag = strrchr(slash != NULL ? slash : name, ':');
    if (tag != NULL)
        *tag++ = '\0';
    if (strlen(name) > NAME_MAX_LENGTH || !matches(name, NAME))
        return NO_NAME;
    if (tag != NULL && tag[0] != '\0' && !matches(tag, TAG))
        return "a tag has at most 128 letters, digits, '_', '.' and '-', and begins with none of "
               "the last two";
    if (digest != NULL)
        return matches(digest, DIGEST)
                   ? NULL
                   : "a digest is sha256: and 64 digits (0-9, a-f) behind the @";
    if (tag == NULL || tag[0] == '\0' || strcmp(tag, "latest") == 0)
        return "pin it by a tag (other than latest) or a digest: pods that start later, or again, "
               "must run the same kolo";
    return NULL;
}

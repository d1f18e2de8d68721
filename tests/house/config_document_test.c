/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs/CONFIG.md is what the table of options says. When the table changes, this test leaves the
 * new document in its folder and says how to take it over.
 */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return NULL;
    char *text = NULL;
    size_t capacity = 0;
    /* Text has no NUL: this reads all of it. */
    if (getdelim(&text, &capacity, '\0', file) < 0) {
        free(text);
        text = NULL;
    }
    fclose(file);
    return text;
}

static void test_document_equals_table(void **state)
{
    (void)state;
    const char *source_dir = getenv("SOURCE_DIR");
    assert_non_null(source_dir);
    char path[4096];
    snprintf(path, sizeof path, "%s/docs/CONFIG.md", source_dir);

    char *generated = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&generated, &bytes);
    assert_non_null(memory);
    kolo__config_document(memory);
    assert_int_equal(fclose(memory), 0);

    char *document = read_file(path);
    if (document == NULL || strcmp(document, generated) != 0) {
        FILE *out = fopen("CONFIG.md", "w");
        assert_non_null(out);
        fputs(generated, out);
        fclose(out);
        char folder[4096];
        fail_msg("docs/CONFIG.md is not what base/config.c says; take over the new one:\n"
                 "cp %s/CONFIG.md %s",
                 getcwd(folder, sizeof folder) != NULL ? folder : ".", path);
    }
    free(document);
    free(generated);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_document_equals_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

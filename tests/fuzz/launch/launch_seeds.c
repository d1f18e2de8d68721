/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of pmi_fuzz.c: what hydra answers, and what it never would. Usage:
 * fuzz_launch_seeds tests/fuzz/launch/corpus */
#include "base/assert.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define BEGIN                                                                                      \
    "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\ncmd=my_kvsname kvsname=kvs_1\n"
#define MET     "cmd=publish_result info=ok rc=0 msg=success\ncmd=barrier_out\n"
#define GOODBYE "cmd=finalize_ack\n"

int main(int argc, char **argv)
{
    /* The first byte: 0 rank 0 asks, 1 another one. */
    static const struct {
        const char *name, *text;
    } TALKS[] = {
        {"first", "0" BEGIN "cmd=put_result rc=0\n" MET GOODBYE},
        {"other", "1" BEGIN MET "cmd=get_result rc=0 value=10.0.0.7:5000\n" GOODBYE},
        {"put_failed", "0" BEGIN "cmd=put_result rc=-1\n"},
        {"no_names", "1" BEGIN "cmd=publish_result rc=1 msg=unknown\ncmd=barrier_out\n"},
        {"no_value", "1" BEGIN MET "cmd=get_result rc=0 msg=none\n"},
        {"value_too_long", "1" BEGIN MET "cmd=get_result rc=0 value="
                           "0123456789012345678901234567890123456789012345678901234567890123\n"},
        {"no_name", "1cmd=response_to_init rc=0\ncmd=my_kvsname\n"},
        {"other_answer", "1cmd=barrier_out\n"},
        {"torn", "1cmd=response_to_init rc"},
    };
    char path[4096], line[1 + 4096];
    KOLO__ASSERT(argc == 2);
    mkdir(argv[1], 0777);
    snprintf(path, sizeof path, "%s/pmi", argv[1]);
    mkdir(path, 0777);
    memset(line, 'a', sizeof line);
    for (size_t i = 0; i <= sizeof TALKS / sizeof *TALKS; i++) {
        bool last = i == sizeof TALKS / sizeof *TALKS;
        const char *text = last ? line : TALKS[i].text;
        size_t bytes = last ? sizeof line : strlen(text);
        snprintf(path, sizeof path, "%s/pmi/%s", argv[1],
                 last ? "line_without_end" : TALKS[i].name);
        FILE *file = fopen(path, "wb");
        KOLO__ASSERT(file != NULL && fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0);
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo run --dry-run`: what would be done, in words; no host is asked, and no secret is shown. */
#include "launcher/run.h"

#include "base/log.h"
#include "base/status.h"
#include "launcher/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Quoted when a shell would need it. */
static void print_word(const char *word)
{
    if (word[0] != '\0' && word[strcspn(word, " \t\n'\"\\$`;&|<>()*?#!~")] == '\0') {
        printf(" %s", word);
        return;
    }
    printf(" '");
    for (; *word != '\0'; word++)
        if (*word == '\'')
            printf("'\\''");
        else
            putchar(*word);
    putchar('\'');
}

static void print_ranks_here(const struct kolo__run *run)
{
    char text[640];
    printf("%u rank%s on this host (%s)\n", run->ranks, run->ranks == 1 ? "" : "s",
           kolo__host_name());
    if (run->in_pod)
        printf("of a world of %ld, which meets at %s\n", run->world_size, run->rendezvous_name);
    for (uint32_t r = 0; r < run->ranks; r++)
        printf("rank %u: %s\n", run->first_rank + r,
               kolo__binding_text(run->binding, r, text, sizeof text));
}

static void print_hosts(const struct kolo__run *run)
{
    char command[1200];
    for (uint32_t h = 0; h < run->hosts.count; h++)
        printf(
            "host %s: %s\n", run->hosts.list[h].name,
            kolo__remote_text(&run->options.shell, &run->hosts.list[h], command, sizeof command));
}

static kolo_status print_ranks(struct kolo__run *run)
{
    if (run->options.discover != NULL) {
        printf("ranks: %ld to %ld, on the hosts that %s prints\n", run->options.config.min_ranks,
               run->options.max_ranks, run->options.discover);
        return KOLO_OK;
    }
    if (!kolo__hosts_are_counted(&run->hosts)) {
        printf("ranks: known once each host has told how many usable cores it has\n");
        return KOLO_OK;
    }
    kolo_status status = kolo__run_decide_ranks(run);
    if (status != KOLO_OK)
        return status;
    uint32_t *host_of = calloc(run->ranks, sizeof *host_of);
    if (host_of == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", run->ranks);
    kolo__hosts_place(&run->hosts, run->ranks, run->options.by_node, host_of);
    printf("%u rank%s on %u host%s, bound there by --bind %s\n", run->ranks,
           run->ranks == 1 ? "" : "s", run->hosts.count, run->hosts.count == 1 ? "" : "s",
           run->options.config.bind);
    for (uint32_t r = 0; r < run->ranks; r++)
        printf("rank %u on %s\n", r, run->hosts.list[host_of[r]].name);
    free(host_of);
    return KOLO_OK;
}

/* What else the command line asks for, in the order of --help. */
static void print_flags(const struct kolo__run_options *options)
{
    if (options->folder != NULL)
        printf("in folder: %s\n", options->folder);
    if (options->timeout_s > 0)
        printf("ended after: %ld s\n", options->timeout_s);
    if (options->restarts > 0)
        printf("started again: %ld times in all, while %ld are left\n", options->restarts,
               options->config.min_ranks);
    if (options->max_ranks > 0)
        printf("grows to: %ld ranks, where hosts have room\n", options->max_ranks);
    printf("killed: %ld s after SIGTERM, when others have failed\n", options->grace_s);
    printf("each line of output: %s%s%s\n", options->timestamp ? "TIME " : "",
           options->tag      ? "[rank]<stdout>: "
           : options->prefix ? "[rank] "
                             : "",
           "...");
    if (options->output_folder != NULL)
        printf("output too in: %s/rank.N\n", options->output_folder);
    if (options->report_bindings)
        printf("bindings: told on stderr\n");
}

/* The library's options with their values, which are no secrets: those are left out before. Others
 * by name alone. */
static void print_variables(const struct kolo__environment *environment)
{
    printf("variables beside their own:");
    for (size_t i = 0; i < environment->count; i++) {
        const char *entry = environment->entries[i];
        size_t name = strcspn(entry, "=");
        bool is_option = false;
        char variable[64];
        for (size_t k = 0; k < kolo__option_count; k++) {
            kolo__option_variable(&kolo__options[k], variable, sizeof variable);
            is_option |= strlen(variable) == name && strncmp(entry, variable, name) == 0;
        }
        if (is_option)
            print_word(entry);
        else
            printf(" %.*s", (int)name, entry);
    }
    printf("%s\n", environment->count == 0 ? " none" : "");
}

int kolo__run_dry(struct kolo__run *run)
{
    kolo_status status = KOLO_OK;
    if (run->binding != NULL) {
        print_ranks_here(run);
    } else {
        status = print_ranks(run);
        print_hosts(run);
        if (status == KOLO_OK)
            status = kolo__environment_add_options(&run->options.environment, environ);
    }
    if (status != KOLO_OK)
        return kolo__run_complain(kolo__run_code(status));
    print_flags(&run->options);
    print_variables(&run->options.environment);
    printf("program:");
    for (char **word = run->options.program; *word != NULL; word++)
        print_word(*word);
    printf("\n");
    return fflush(stdout) == 0 ? 0 : KOLO__EXIT_OUTPUT;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo run`: what is wanted, what is there, start it all, see it through, leave nothing behind. */
#include "launcher/command.h"

#include "base/token.h"
#include "base/log.h"
#include "base/status.h"
#include "launcher/hosts.h"
#include "launcher/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct run {
    struct kolo__run_options options;
    uint32_t ranks;
    char job[32], token[65];
    struct kolo__binding *binding;
    struct kolo__guard guard;
    struct kolo__signals signals;
    struct kolo__rendezvous *rendezvous;
    struct kolo__input input;
    struct kolo__output *output;
    struct kolo__child *children;
    struct kolo__spawn spawn;
};

static int complain(int code)
{
    fprintf(stderr, "kolo run: %s\n", kolo_error_text());
    return code;
}

/* Descriptors 0, 1 and 2 exist from here on, so that no pipe of ours gets their numbers. */
static void fill_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* ---- what is wanted ------------------------------------------------------------------------ */

/* How many ranks, of which none is too much. */
static kolo_status decide_ranks(struct run *run)
{
    const struct kolo__run_options *options = &run->options;
    long usable = kolo__binding_machine(run->binding)->usable_cores, slots = usable;
    if (options->hosts != NULL) {
        kolo_status status = kolo__hosts_parse(options->hosts, kolo__host_name(), usable, &slots);
        if (status != KOLO_OK)
            return status;
        if (options->ranks > slots)
            return kolo__error(KOLO_ERR_CONFIG,
                               "-n %ld is more than the %ld slots of --hosts %s: raise the slots "
                               "or lower -n",
                               options->ranks, slots, options->hosts);
    }
    run->ranks = (uint32_t)(options->ranks > 0 ? options->ranks : slots);
    return KOLO_OK;
}

static kolo_status plan(struct run *run)
{
    const char *rank = getenv("KOLO_RANK");
    if (rank != NULL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "this is rank %s of a job already (KOLO_RANK is set): a rank cannot "
                           "start ranks",
                           rank);
    kolo_status status = kolo__binding_open(NULL, &run->binding);
    if (status == KOLO_OK)
        status = decide_ranks(run);
    if (status == KOLO_OK)
        status = kolo__binding_plan(run->binding, run->options.config.bind, run->ranks);
    return status;
}

static void report_bindings(const struct run *run)
{
    char text[640];
    bool asked_for = strcmp(run->options.config.bind, "auto") != 0 || run->options.report_bindings;
    if (asked_for && kolo__binding_shares_cores(run->binding))
        fprintf(stderr, "kolo run: %u ranks share %d cores; --bind none lets them move freely\n",
                run->ranks, kolo__binding_machine(run->binding)->allowed_cores);
    for (uint32_t r = 0; run->options.report_bindings && r < run->ranks; r++)
        fprintf(stderr, "[%u] %s\n", r, kolo__binding_text(run->binding, r, text, sizeof text));
}

/* ---- what it takes ------------------------------------------------------------------------- */

static kolo_status make_names(struct run *run)
{
    char id[17];
    kolo_status status = kolo__token_random(id, 8);
    if (status == KOLO_OK)
        status = kolo__token_random(run->token, 32);
    snprintf(run->job, sizeof run->job, "kolo-%s", id);
    return status;
}

/* Two pipes a rank; the ranks get the old limit back. */
static void raise_open_files(struct rlimit *old)
{
    if (getrlimit(RLIMIT_NOFILE, old) != 0) {
        *old = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
        return;
    }
    struct rlimit all = {.rlim_cur = old->rlim_max, .rlim_max = old->rlim_max};
    setrlimit(RLIMIT_NOFILE, &all);
}

static kolo_status prepare(struct run *run)
{
    kolo_status status = make_names(run);
    if (status != KOLO_OK)
        return status;
    status = kolo__guard_start(&run->guard, run->job);
    if (status != KOLO_OK)
        return status;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans of ranks become our children */
    raise_open_files(&run->spawn.open_files);
    status = kolo__signals_open(&run->signals);
    if (status != KOLO_OK)
        return status;
    const struct kolo__rendezvous_options rendezvous = {
        .host = "127.0.0.1", .job = run->job, .token = run->token, .world_size = run->ranks};
    status = kolo__rendezvous_create(&rendezvous, &run->rendezvous);
    if (status != KOLO_OK)
        return status;
    run->children = calloc(run->ranks, sizeof *run->children);
    if (run->children == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", run->ranks);
    /* A single rank has nobody to share a line with, and keeps its terminal. */
    if (run->ranks > 1)
        status = kolo__output_create(run->ranks, run->options.prefix, STDOUT_FILENO, STDERR_FILENO,
                                     &run->output);
    return status;
}

/* ---- go ------------------------------------------------------------------------------------ */

static int start_failure_code(int exec_errno)
{
    if (exec_errno == 0)
        return KOLO__EXIT_FAILED;
    return exec_errno == ENOENT ? KOLO__EXIT_NOT_FOUND : KOLO__EXIT_CANNOT_EXECUTE;
}

/* Starts all ranks. Returns 0, or the exit code for the first that cannot be started. */
static int start_ranks(struct run *run, uint32_t *started)
{
    int stdin_fd, exec_errno = 0;
    kolo_status status = kolo__input_open(&run->input, STDIN_FILENO, &stdin_fd);
    struct kolo__spawn *spawn = &run->spawn;
    spawn->options = &run->options;
    spawn->binding = run->binding;
    spawn->ranks = run->ranks;
    spawn->rendezvous = kolo__rendezvous_address(run->rendezvous);
    spawn->job = run->job;
    spawn->token = run->token;
    spawn->pipes = run->output != NULL;
    spawn->stdin_fd = stdin_fd;
    spawn->signal_mask = run->signals.old_mask;
    spawn->sigpipe = run->signals.old_sigpipe;

    for (*started = 0; status == KOLO_OK && *started < run->ranks; *started += status == KOLO_OK) {
        struct kolo__child *child = &run->children[*started];
        status = kolo__spawn_rank(spawn, *started, child, &exec_errno);
        if (status != KOLO_OK)
            break;
        kolo__guard_add(&run->guard, child->pid);
        if (run->output != NULL)
            kolo__output_add(run->output, *started, child->out_fd, child->err_fd);
    }
    if (stdin_fd != STDIN_FILENO)
        close(stdin_fd);
    return status == KOLO_OK ? 0 : complain(start_failure_code(exec_errno));
}

static int run_job(struct run *run)
{
    uint32_t started;
    kolo_status status = prepare(run);
    if (status != KOLO_OK)
        return complain(KOLO__EXIT_FAILED);
    int failed = start_ranks(run, &started);
    const struct kolo__supervised supervised = {.ranks = run->ranks,
                                                .started = started,
                                                .children = run->children,
                                                .job = run->job,
                                                .grace_s = run->options.grace_s,
                                                .signals = &run->signals,
                                                .guard = &run->guard,
                                                .rendezvous = run->rendezvous,
                                                .input = &run->input,
                                                .output = run->output};
    int code = kolo__supervise(&supervised);
    return failed != 0 ? failed : code;
}

int kolo__run_main(int argc, char **argv)
{
    static char name[] = "kolo run";
    struct run *run = calloc(1, sizeof *run);
    int code;
    if (run == NULL)
        return KOLO__EXIT_FAILED;
    run->signals.fd = run->input.terminal = run->input.pipe_fd = -1;
    fill_standard_streams();
    argv[0] = name;
    kolo__run_options_parse(argc, argv, &run->options);
    kolo__log_configure(run->options.config.log, -1);
    kolo_status status = plan(run);
    if (status == KOLO_OK) {
        report_bindings(run);
        code = run_job(run);
    } else {
        code = complain(status == KOLO_ERR_CONFIG ? KOLO__EXIT_USAGE : KOLO__EXIT_FAILED);
    }

    kolo__input_close(&run->input);
    kolo__output_free(run->output);
    kolo__rendezvous_free(run->rendezvous);
    kolo__signals_close(&run->signals);
    kolo__guard_end(&run->guard);
    kolo__binding_close(run->binding);
    free(run->children);
    free(run);
    return code;
}

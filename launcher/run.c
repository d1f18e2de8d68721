/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo run`: what is wanted, what is there, start it all, see it through, leave nothing behind. */
#include "launcher/run.h"

#include "base/token.h"
#include "base/log.h"
#include "base/status.h"
#include "launcher/command.h"
#include "launcher/counts.h"
#include "launcher/termination.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int kolo__run_code(kolo_status status)
{
    return status == KOLO_ERR_CONFIG  ? KOLO__EXIT_USAGE
           : status == KOLO_ERR_WORLD ? KOLO__EXIT_WORLD
                                      : KOLO__EXIT_FAILED;
}

int kolo__run_complain(int code)
{
    char line[1100];
    snprintf(line, sizeof line, "kolo run: %s", kolo_error_text());
    fprintf(stderr, "%s\n", line);
    kolo__termination_note(line);
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

/* How the user named the hosts. */
static const char *source_of_hosts(const struct kolo__run_options *options)
{
    const char *said = options->discover != NULL ? options->discover
                       : options->hosts != NULL  ? options->hosts
                                                 : options->hostfile;
    return said != NULL ? said : "this host";
}

kolo_status kolo__run_decide_ranks(struct kolo__run *run)
{
    const struct kolo__run_options *options = &run->options;
    long slots;
    kolo_status status = kolo__hosts_total(&run->hosts, &slots);
    if (status == KOLO_OK && options->max_ranks == 0)
        status = kolo__run_check_operator(run, slots);
    if (status != KOLO_OK)
        return status;
    if (options->ranks > slots)
        return kolo__error(KOLO_ERR_CONFIG,
                           "-n %ld is more than the %ld slots of %s: raise the slots or lower -n",
                           options->ranks, slots, source_of_hosts(options));
    if (options->max_ranks > 0 && slots > options->max_ranks)
        slots = options->max_ranks;
    run->ranks = (uint32_t)(options->ranks > 0 ? options->ranks : slots);
    if (run->ranks < options->config.min_ranks && options->max_ranks > 0)
        return kolo__error(KOLO_ERR_CONFIG,
                           "--min %ld is more than the %u slots of %s: raise the slots or lower "
                           "--min",
                           options->config.min_ranks, run->ranks, source_of_hosts(options));
    return KOLO_OK;
}

uint32_t kolo__run_places(const struct kolo__run *run)
{
    uint32_t most = (uint32_t)run->options.max_ranks;
    return most > run->ranks ? most : run->ranks;
}

static kolo_status read_hosts(struct kolo__run *run)
{
    const struct kolo__run_options *options = &run->options;
    if (options->hosts != NULL && options->hostfile != NULL)
        return kolo__error(KOLO_ERR_CONFIG, "--hosts and --hostfile both say where: give one");
    kolo_status status = KOLO_OK;
    if (options->hosts != NULL)
        status = kolo__hosts_read_list(&run->hosts, options->hosts);
    else if (options->hostfile != NULL)
        status = kolo__hosts_read_file(&run->hosts, options->hostfile);
    else if (options->each > 0)
        status = kolo__hosts_read_list(&run->hosts, "localhost");
    for (uint32_t i = 0; options->each > 0 && i < run->hosts.count; i++)
        run->hosts.list[i].slots = options->each;
    if (status == KOLO_OK)
        status = kolo__remote_check(&options->shell, &run->hosts);
    return status;
}

/* True where an agent is needed: some host is not this machine, or may come that is not. */
static bool has_other_hosts(const struct kolo__run *run)
{
    if (run->options.discover != NULL)
        return true;
    for (uint32_t i = 0; i < run->hosts.count; i++)
        if (!run->hosts.list[i].here)
            return true;
    return false;
}

/* Nobody has said how many slots this machine has: with --max, as many as usable cores. */
static kolo_status fit_here(struct kolo__run *run, long usable)
{
    if (run->options.max_ranks == 0)
        return KOLO_OK;
    kolo_status status = kolo__hosts_read_list(&run->hosts, "localhost");
    if (status != KOLO_OK)
        return status;
    run->hosts.list[0].slots = run->options.ranks > usable ? run->options.ranks : usable;
    return kolo__run_decide_ranks(run);
}

/* Ranks that this machine may have at once. */
static uint32_t room_here(const struct kolo__run *run)
{
    long slots = run->hosts.count > 0 ? run->hosts.list[0].slots : run->ranks;
    uint32_t places = run->in_pod ? run->ranks : kolo__run_places(run);
    return slots < (long)places ? (uint32_t)slots : places;
}

/* This machine alone: how many ranks, and what to bind them to. */
static kolo_status plan_here(struct kolo__run *run)
{
    kolo_status status = kolo__binding_open(NULL, &run->binding);
    if (status != KOLO_OK)
        return status;
    long usable = kolo__binding_machine(run->binding)->usable_cores;
    if (run->in_pod) {
        /* as many as the pod has */
    } else if (run->hosts.count == 0) {
        run->ranks = (uint32_t)(run->options.ranks > 0 ? run->options.ranks : usable);
        status = fit_here(run, usable);
    } else {
        if (run->hosts.list[0].slots == 0)
            run->hosts.list[0].slots = usable;
        status = kolo__run_decide_ranks(run);
    }
    if (status == KOLO_OK && run->options.folder != NULL && chdir(run->options.folder) != 0)
        status =
            kolo__error(KOLO_ERR_CONFIG, "--wdir %s: %s", run->options.folder, strerror(errno));
    if (status == KOLO_OK)
        status = kolo__binding_plan(run->binding, run->options.config.bind, room_here(run));
    return status;
}

static kolo_status plan(struct kolo__run *run)
{
    const char *rank = getenv("KOLO_RANK");
    if (rank != NULL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "this is rank %s of a job already (KOLO_RANK is set): a rank cannot "
                           "start ranks",
                           rank);
    kolo_status status = kolo__run_find_pods(run);
    if (status == KOLO_OK && run->in_pod && run->options.restarts > 0)
        status = kolo__error(KOLO_ERR_CONFIG,
                             "--restarts: leave it out where each pod has a kolo run of its own; "
                             "whoever made the pods starts them again (restartPolicy)");
    if (status == KOLO_OK && run->in_pod && run->options.max_ranks > 0)
        status =
            kolo__error(KOLO_ERR_CONFIG,
                        "--max: leave it out where each pod has a kolo run of its own; whoever "
                        "makes the pods says how many there are");
    if (status == KOLO_OK)
        status = read_hosts(run);
    if (status == KOLO_OK && !has_other_hosts(run))
        status = plan_here(run);
    return status;
}

static void report_bindings(const struct kolo__run *run)
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

static kolo_status make_names(struct kolo__run *run)
{
    char id[17];
    kolo_status status = kolo__token_random(id, 8);
    if (status == KOLO_OK)
        status = kolo__token_random(run->token, 32);
    snprintf(run->job, sizeof run->job, "kolo-%s", id);
    return status;
}

/* What any job needs. */
static kolo_status prepare(struct kolo__run *run)
{
    kolo_status status = make_names(run);
    if (status != KOLO_OK)
        return status;
    if (run->binding != NULL)
        status = kolo__crew_open(&run->crew, run->job);
    if (status != KOLO_OK)
        return status;
    kolo__raise_open_files(&run->open_files);
    return run->signals.fd >= 0 ? KOLO_OK : kolo__signals_open(&run->signals);
}

/* ---- go ------------------------------------------------------------------------------------ */

static int start_failure_code(kolo_status status, int exec_errno)
{
    if (exec_errno == 0)
        return kolo__run_code(status);
    return exec_errno == ENOENT ? KOLO__EXIT_NOT_FOUND : KOLO__EXIT_CANNOT_EXECUTE;
}

int kolo__run_supervise(struct kolo__run *run, const struct kolo__ranks_ops *ops, void *self,
                        uint32_t started)
{
    bool grows = run->options.max_ranks > 0;
    const struct kolo__supervised supervised = {
        .ranks = run->ranks,
        .places = run->in_pod ? run->ranks : kolo__run_places(run),
        .grows = grows,
        .hosts_s = run->options.discover != NULL ? run->options.config.init_timeout : 0,
        .started = started,
        .first_rank = run->first_rank,
        .ops = ops,
        .self = self,
        .min_ranks = run->options.config.min_ranks,
        .restarts = run->options.restarts,
        .grace_s = run->options.grace_s,
        .timeout_s = run->options.timeout_s,
        .peer_timeout_s = run->options.config.peer_timeout,
        .operation_timeout_s = run->options.config.timeout,
        .signals = &run->signals,
        .rendezvous = run->rendezvous,
        .flight_file = run->options.config.flight_file,
        .last_words = &run->last_words,
        .input = &run->input,
        .output = run->output};
    kolo__counts_started(started);
    kolo__counts_connections(run->binding == NULL ? run->hosts.count : 0);
    struct kolo__counts_server *counts =
        kolo__counts_serve("run", run->options.config.metrics_port);
    int code = kolo__supervise(&supervised);
    kolo__counts_close(counts);
    return code;
}

kolo_status kolo__run_open_output(struct kolo__run *run)
{
    const struct kolo__run_options *options = &run->options;
    const struct kolo__output_style style = {.prefix = options->prefix,
                                             .tag = options->tag,
                                             .timestamp = options->timestamp,
                                             .first_rank = run->first_rank,
                                             .folder = options->output_folder};
    return kolo__output_create(kolo__run_places(run), &style, STDOUT_FILENO, STDERR_FILENO,
                               &run->output);
}

/* Starts all ranks as our children. Returns 0, or the exit code for the first that cannot be. */
static int start_ranks(struct kolo__run *run)
{
    int stdin_fd, exec_errno = 0;
    uint32_t *ranks = calloc(run->ranks, sizeof *ranks);
    if (ranks == NULL) {
        kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", run->ranks);
        return kolo__run_complain(KOLO__EXIT_FAILED);
    }
    for (uint32_t r = 0; r < run->ranks; r++)
        ranks[r] = run->first_rank + r;
    kolo_status status = kolo__input_open(&run->input, STDIN_FILENO, &stdin_fd);
    const struct kolo__spawn spawn = {
        .program = run->options.program,
        .environment = run->options.environment.entries,
        .binding = run->binding,
        .world_size = run->in_pod ? (uint32_t)run->world_size : run->ranks,
        .local_size = run->ranks,
        .room = room_here(run),
        .rendezvous =
            run->in_pod ? run->rendezvous_name : kolo__rendezvous_address(run->rendezvous),
        .job = run->in_pod ? run->pod_job : run->job,
        .token = run->in_pod ? run->pod_token : run->token,
        .last_words = run->last_words.path,
        .pipes = run->output != NULL,
        .stdin_fd = stdin_fd,
        .signal_mask = run->signals.old_mask,
        .sigpipe = run->signals.old_sigpipe,
        .open_files = run->open_files};
    if (status == KOLO_OK)
        status = kolo__crew_start(&run->crew, &spawn, ranks, run->ranks, &exec_errno);
    for (uint32_t r = 0; run->output != NULL && r < run->crew.started; r++)
        kolo__output_add(run->output, r, run->crew.children[r].out_fd,
                         run->crew.children[r].err_fd);
    if (stdin_fd != STDIN_FILENO)
        close(stdin_fd);
    free(ranks);
    return status == KOLO_OK ? 0 : kolo__run_complain(start_failure_code(status, exec_errno));
}

static int run_here(struct kolo__run *run)
{
    const struct kolo__rendezvous_options rendezvous = {
        .host = "127.0.0.1",
        .job = run->job,
        .token = run->token,
        .world_size = run->ranks,
        .min_ranks = (uint32_t)run->options.config.min_ranks};
    kolo_status status = KOLO_OK;
    if (run->in_pod)
        kolo__last_words_open(&run->last_words);
    else
        status = kolo__rendezvous_create(&rendezvous, &run->rendezvous);
    /* A single rank has nobody to share a line with, and keeps its terminal. */
    if (status == KOLO_OK && (kolo__run_places(run) > 1 || run->options.output_folder != NULL))
        status = kolo__run_open_output(run);
    if (status != KOLO_OK)
        return kolo__run_complain(KOLO__EXIT_FAILED);
    int failed = start_ranks(run);
    int code = kolo__run_supervise(run, &kolo__crew_ranks, &run->crew, run->crew.started);
    return failed != 0 ? failed : code;
}

static int run_job(struct kolo__run *run)
{
    if (prepare(run) != KOLO_OK)
        return kolo__run_complain(KOLO__EXIT_FAILED);
    return run->binding != NULL ? run_here(run) : kolo__run_on_hosts(run);
}

int kolo__run_main(int argc, char **argv)
{
    static char name[] = "kolo run";
    struct kolo__run *run = calloc(1, sizeof *run);
    int code;
    if (run == NULL)
        return KOLO__EXIT_FAILED;
    run->signals.fd = run->input.terminal = run->input.pipe_fd = run->last_words.fd = -1;
    fill_standard_streams();
    argv[0] = name;
    kolo__run_options_parse(argc, argv, &run->options);
    kolo__log_configure(run->options.config.log, -1);
    /* The kernel spares process 1 the signals that it does not look for: a pod that is deleted
     * while it starts would run until it is killed. */
    kolo_status status = getpid() == 1 ? kolo__signals_open(&run->signals) : KOLO_OK;
    if (status == KOLO_OK)
        status = plan(run);
    if (status == KOLO_OK && run->options.dry_run) {
        code = kolo__run_dry(run);
    } else if (status == KOLO_OK) {
        if (run->binding != NULL)
            report_bindings(run);
        code = run_job(run);
    } else {
        code = kolo__run_complain(kolo__run_code(status));
    }

    kolo__input_close(&run->input);
    kolo__agents_close(&run->agents);
    kolo__discovery_close(run->discovery);
    kolo__output_free(run->output);
    kolo__rendezvous_free(run->rendezvous);
    kolo__last_words_close(&run->last_words);
    kolo__signals_close(&run->signals);
    kolo__crew_close(&run->crew);
    kolo__binding_close(run->binding);
    kolo__hosts_free(&run->hosts);
    kolo__hosts_free(&run->named);
    kolo__environment_free(&run->options.environment);
    explicit_bzero(run, sizeof *run);
    free(run);
    return code;
}

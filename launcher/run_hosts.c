/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo run` over several hosts: an agent on each, this machine's among them. */
#include "launcher/run.h"

#include "base/interfaces.h"
#include "base/silence.h"
#include "base/status.h"
#include "launcher/command.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A way to an agent that does not answer is given up, and tried again: others may be told. */
enum { LATER_SECONDS = 10 };

/* "10.0.0.1,fd00::1": by which other hosts reach this one, as KOLO_NET chooses. */
static kolo_status list_addresses(const char *net, char *text, size_t bytes)
{
    struct kolo__interfaces own;
    kolo_status status = kolo__interfaces_find(net, &own);
    text[0] = '\0';
    if (status == KOLO_OK && own.list[0].loopback && net[0] != '\0')
        status = kolo__error(KOLO_ERR_CONFIG,
                             "KOLO_NET=%.200s leaves nothing but loopback here, where no other "
                             "host reaches kolo run: name an interface, or exclude fewer",
                             net);
    else if (status == KOLO_OK && own.list[0].loopback)
        status =
            kolo__error(KOLO_ERR_CONFIG,
                        "this host has no address but loopback, so no other host can reach it: "
                        "is its network up?");
    for (size_t i = 0; status == KOLO_OK && i < own.count; i++) {
        char address[80], host[64], port[8];
        size_t used = strlen(text);
        kolo__address_text(&own.list[i].address, address, sizeof address);
        status = kolo__split_host_port(address, host, sizeof host, port, sizeof port);
        snprintf(text + used, bytes - used, "%s%s", i > 0 ? "," : "", host);
    }
    return status;
}

static void where(void *self, uint32_t rank, char *text, size_t bytes)
{
    const struct kolo__run *run = self;
    bool known = run->agents.agent_of != NULL && run->agents.agent_of[rank] != NULL;
    snprintf(text, bytes, "%s", known ? run->agents.agent_of[rank]->host.name : "");
}

/* The rendezvous listens where the hosts can reach it; none of them is told of loopback, for what
 * is reached by loopback would tell others to come there too. */
static kolo_status open_rendezvous(struct kolo__run *run)
{
    char addresses[KOLO__INTERFACES_MAX * 48];
    kolo_status status = list_addresses(run->options.config.net, addresses, sizeof addresses);
    if (status != KOLO_OK)
        return status;
    const struct kolo__rendezvous_options options = {
        .host = addresses,
        .job = run->job,
        .token = run->token,
        .world_size = run->ranks,
        .min_ranks = (uint32_t)run->options.config.min_ranks,
        .where = where,
        .where_self = run,
        .silence_s =
            kolo__silence_seconds(run->options.config.peer_timeout, run->options.config.timeout),
    };
    return kolo__rendezvous_create(&options, &run->rendezvous);
}

/* What all hosts are told alike, also those that come later. */
static kolo_status describe_start(struct kolo__run *run)
{
    const char *given = run->options.folder;
    if (given != NULL)
        snprintf(run->folder, sizeof run->folder, "%s", given);
    else if (getcwd(run->folder, sizeof run->folder) == NULL)
        return kolo__error_errno(errno, "cannot find out the current folder");
    kolo_status status = kolo__environment_add_options(&run->options.environment, environ);
    run->start =
        (struct kolo__agent_start){.job = run->job,
                                   .token = run->token,
                                   .rendezvous = (char *)kolo__rendezvous_address(run->rendezvous),
                                   .folder = run->folder,
                                   .bind = (char *)run->options.config.bind,
                                   .grace_s = (uint32_t)run->options.grace_s,
                                   .world_size = run->ranks,
                                   .places = kolo__run_places(run),
                                   .stays = run->options.restarts > 0 || run->options.max_ranks > 0,
                                   .program = run->options.program,
                                   .environment = run->options.environment.entries};
    return status;
}

static int launch(struct kolo__run *run)
{
    int code;
    kolo_status status = kolo__run_decide_ranks(run);
    if (status == KOLO_OK)
        status = open_rendezvous(run);
    if (status == KOLO_OK)
        status = kolo__run_open_output(run);
    if (status == KOLO_OK)
        status = describe_start(run);
    uint32_t *host_of = calloc(run->ranks > 0 ? run->ranks : 1, sizeof *host_of);
    if (status == KOLO_OK && host_of == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", run->ranks);
    if (status != KOLO_OK) {
        free(host_of);
        return kolo__run_complain(kolo__run_code(status));
    }
    kolo__hosts_place(&run->hosts, run->ranks, run->options.by_node, host_of);
    run->agents.output = run->output;
    run->agents.stay = run->start.stays;
    run->agents.places = run->start.places;
    run->agents.report_bindings = run->options.report_bindings;
    /* Elsewhere whoever looks has what ranks wrote before their eyes. */
    if (getenv("KUBERNETES_SERVICE_HOST") != NULL)
        kolo__last_words_open(&run->last_words);
    run->agents.last_words = run->last_words.path;
    status = kolo__agents_launch(&run->agents, &run->start, host_of, &run->signals, &code);
    free(host_of);
    if (status != KOLO_OK)
        return kolo__run_complain(code);
    return 0;
}

static void tire_sooner(struct kolo__remote_shell *shell)
{
    if (shell->agent_seconds > LATER_SECONDS)
        shell->agent_seconds = LATER_SECONDS;
}

/* Hosts that a script tells come when they come. */
static kolo_status gather(struct kolo__run *run, int *code)
{
    const struct kolo__run_options *options = &run->options;
    long wanted = options->ranks > 0 ? options->ranks : options->config.min_ranks;
    *code = KOLO__EXIT_FAILED;
    run->named = run->hosts;
    run->hosts = (struct kolo__hosts){0};
    kolo_status status =
        kolo__discovery_open(options->discover, options->each, &run->named, &run->discovery);
    run->agents.discovery = run->discovery;
    if (status != KOLO_OK)
        return status;
    return kolo__agents_gather(&run->agents, (uint32_t)wanted, options->config.init_timeout,
                               &run->signals, &run->hosts, code);
}

int kolo__run_on_hosts(struct kolo__run *run)
{
    int code, input_fd;
    struct kolo__remote_shell *shell = &run->options.shell;
    if (run->options.discover != NULL)
        tire_sooner(shell);
    run->agents = (struct kolo__agents){
        .shell = shell, .come_and_go = run->options.max_ranks > 0, .input_fd = -1};
    kolo_status status =
        run->options.discover != NULL
            ? gather(run, &code)
            : kolo__agents_connect(&run->agents, &run->hosts, &run->signals, &code);
    if (status != KOLO_OK)
        return kolo__run_complain(code);
    code = launch(run);
    if (code != 0)
        return code;
    status = kolo__input_open(&run->input, STDIN_FILENO, &input_fd);
    if (status != KOLO_OK)
        return kolo__run_complain(KOLO__EXIT_FAILED);
    run->agents.input_fd = input_fd;
    if (run->agents.come_and_go)
        tire_sooner(shell);
    code = kolo__run_supervise(run, &kolo__agents_ranks, &run->agents, run->ranks);
    if (input_fd != STDIN_FILENO)
        close(input_fd);
    return code;
}

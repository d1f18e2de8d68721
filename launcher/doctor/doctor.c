/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo doctor`: the command. */
#include "launcher/doctor/doctor.h"

#include "base/config.h"
#include "base/log.h"
#include "base/status.h"
#include "base/token.h"
#include "launcher/agent_tcp.h"
#include "launcher/command.h"
#include "launcher/doctor/clinic.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { KEY_HOSTFILE = 256, KEY_SSH, KEY_SSH_PORT, KEY_AGENT_PORT, KEY_PROBE };
enum { AGENT_SECONDS = 10 };

static const struct argp_option OPTIONS[] = {
    {.name = "hosts",
     .key = 'H',
     .arg = "HOST:SLOTS,...",
     .doc = "The hosts to look at, as for kolo run. Default: this one alone."},
    {.name = "hostfile",
     .key = KEY_HOSTFILE,
     .arg = "FILE",
     .doc = "The same from a file with lines of HOST slots=N, or HOST:N."},
    {.name = "ssh", .key = KEY_SSH, .arg = "COMMAND", .doc = "Instead of ssh, as for kolo run."},
    {.name = "ssh-port", .key = KEY_SSH_PORT, .arg = "PORT", .doc = "Of sshd on the hosts."},
    {.name = "agent-port",
     .key = KEY_AGENT_PORT,
     .arg = "PORT",
     .doc = "Without ssh, by the `kolo agent` that waits at this port of every host, as for kolo "
            "run."},
    {.name = "probe", .key = KEY_PROBE, .flags = OPTION_HIDDEN},
    {0},
};

static const char HELP[] =
    "Look for what would stop or slow a job on these hosts: whether every host reaches every "
    "other at each of its addresses, how fast, with packets of full size; clocks, limits, "
    "versions, tokens. Nothing is changed anywhere."
    "\v"
    "With KOLO_TOKEN_FILE set, the file of that name on every host must hold the same token. "
    "KOLO_NET chooses interfaces, as it does in a job.\n"
    "\n"
    "Exit codes: 0 healthy; otherwise the lowest of the codes of all findings, which stand with "
    "the most severe first:\n"
    "   9 a host has no network\n"
    "  10 a host does not answer\n"
    "  11 another version of kolo\n"
    "  12 another token\n"
    "  13 a host cannot reach another\n"
    "  14 packets of full size get lost\n"
    "  15 interfaces with different MTUs\n"
    "  16 an address of a host does not work, though another does\n"
    "  17 a link is much slower than the others\n"
    "  18 clocks differ\n"
    "  19 little lockable memory\n"
    "  20 small /dev/shm\n"
    "  21 fewer processors, or less quota, than ranks\n"
    "  22 RDMA is not used\n"
    "  23 a host is named twice\n"
    "  64 wrong usage, 1 doctor itself cannot go on, 74 stdout cannot be written\n"
    "docs/DOCTOR.md has the remedies.";

struct wanted {
    const char *hosts, *hostfile;
    struct kolo__remote_shell shell;
    bool probe;
};

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct wanted *wanted = state->input;
    long port;
    switch (key) {
    case 'H':
        wanted->hosts = argument;
        return 0;
    case KEY_HOSTFILE:
        wanted->hostfile = argument;
        return 0;
    case KEY_SSH:
        wanted->shell.command = argument;
        return 0;
    case KEY_SSH_PORT:
        if (!kolo__parse_number(argument, false, &port) || port < 1 || port > 65535)
            argp_error(state, "--ssh-port %s: give a number from 1 to 65535", argument);
        wanted->shell.port = port;
        return 0;
    case KEY_AGENT_PORT:
        if (!kolo__parse_number(argument, false, &port) || port < 1 || port > 65535)
            argp_error(state, "--agent-port %s: give a number from 1 to 65535", argument);
        wanted->shell.agent_port = port;
        return 0;
    case KEY_PROBE:
        wanted->probe = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is one argument too many", argument);
        return 0;
    case ARGP_KEY_END:
        if (wanted->hosts != NULL && wanted->hostfile != NULL)
            argp_error(state, "--hosts and --hostfile both say where: give one");
        if (kolo__remote_contradiction(&wanted->shell) != NULL)
            argp_error(state, "%s", kolo__remote_contradiction(&wanted->shell));
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static kolo_status read_hosts(const struct wanted *wanted, struct kolo__hosts *hosts)
{
    kolo_status status = wanted->hosts != NULL ? kolo__hosts_read_list(hosts, wanted->hosts)
                                               : kolo__hosts_read_file(hosts, wanted->hostfile);
    if (status == KOLO_OK && hosts->count > KOLO__DOCTOR_HOSTS_MAX)
        return kolo__error(KOLO_ERR_CONFIG, "%u hosts are more than the %d that doctor looks at",
                           hosts->count, KOLO__DOCTOR_HOSTS_MAX);
    if (status == KOLO_OK)
        status = kolo__remote_check(&wanted->shell, hosts);
    return status;
}

/* The job's names, and our own proof of the token. */
static kolo_status prepare(const struct kolo__config *config, struct kolo__doctor_setup *setup,
                           struct kolo__doctor_case *patient)
{
    char error[200], id[17];
    kolo_status status = kolo__token_random(id, 8);
    if (status == KOLO_OK)
        status = kolo__token_random(setup->token, 32);
    if (status != KOLO_OK)
        return status;
    snprintf(setup->job, sizeof setup->job, "doctor-%s", id);
    if (getrandom(setup->nonce, sizeof setup->nonce, 0) != (ssize_t)sizeof setup->nonce)
        return kolo__error_errno(errno, "cannot get random bytes");
    if (strlen(config->net) >= sizeof setup->net)
        return kolo__error(KOLO_ERR_CONFIG, "KOLO_NET is longer than %zu bytes",
                           sizeof setup->net - 1);
    snprintf(setup->net, sizeof setup->net, "%s", config->net);
    /* A token in the environment is not on the hosts: a launcher takes it there. */
    if (config->token_file[0] == '\0' || config->token[0] != '\0')
        return KOLO_OK;
    if (strlen(config->token_file) >= sizeof setup->token_file)
        return kolo__error(KOLO_ERR_CONFIG, "KOLO_TOKEN_FILE is longer than %zu bytes",
                           sizeof setup->token_file - 1);
    snprintf(setup->token_file, sizeof setup->token_file, "%s", config->token_file);
    patient->token_file = setup->token_file;
    kolo__facts_prove_token(setup->token_file, setup->nonce, patient->token_proof, error);
    return error[0] == '\0' ? KOLO_OK : kolo__error(KOLO_ERR_CONFIG, "%s", error);
}

/* Agents that listen let nobody in without a token: that is no ailment of a host. */
static kolo_status check_agent_token(const struct wanted *wanted)
{
    struct kolo__credentials *credentials = NULL;
    if (wanted->shell.agent_port == 0)
        return KOLO_OK;
    kolo_status status = kolo__agent_credentials(&credentials);
    kolo__credentials_free(credentials);
    return status;
}

static kolo_status examine(const struct wanted *wanted, const struct kolo__hosts *hosts,
                           const struct kolo__doctor_setup *setup,
                           struct kolo__doctor_case *patient)
{
    uint32_t count = hosts->count > 0 ? hosts->count : 1;
    patient->host_count = count;
    patient->hosts = calloc(count, sizeof *patient->hosts);
    patient->trials = calloc((size_t)count * count, sizeof *patient->trials);
    if (patient->hosts == NULL || patient->trials == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", count);
    if (hosts->count == 0) {
        struct kolo__doctor_host *here = &patient->hosts[0];
        kolo__facts_gather(&here->facts);
        kolo__facts_check_net(&here->facts, setup->net);
        kolo__facts_find_rdma(&here->facts, NULL);
        snprintf(here->name, sizeof here->name, "%s", here->facts.host);
        memcpy(here->facts.token_proof, patient->token_proof, KOLO__PROOF_BYTES);
        here->answers = true;
        return KOLO_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        snprintf(patient->hosts[i].name, sizeof patient->hosts[i].name, "%s", hosts->list[i].name);
        patient->hosts[i].slots = hosts->list[i].slots;
    }
    return kolo__clinic_run(&wanted->shell, hosts, setup, patient);
}

int kolo__doctor_main(int argc, char **argv)
{
    static char name[] = "kolo doctor";
    const struct argp argp = {.options = OPTIONS, .parser = parse_one, .doc = HELP};
    struct wanted wanted = {.shell = {.part = "doctor --probe", .agent_seconds = AGENT_SECONDS}};
    struct kolo__config config;
    struct kolo__hosts hosts = {0};
    struct kolo__doctor_setup setup = {0};
    struct kolo__doctor_case patient = {.version = kolo_version(), .token_file = ""};
    struct kolo__findings findings = {0};
    int code = 0;
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argv[0] = name;
    argp_parse(&argp, argc, argv, 0, NULL, &wanted);
    if (wanted.probe)
        return kolo__probe_main();

    signal(SIGPIPE, SIG_IGN);
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK)
        status = check_agent_token(&wanted);
    if (status == KOLO_OK && (wanted.hosts != NULL || wanted.hostfile != NULL))
        status = read_hosts(&wanted, &hosts);
    setup.addresses = hosts.count > 1;
    if (status == KOLO_OK)
        status = prepare(&config, &setup, &patient);
    if (status == KOLO_OK)
        status = examine(&wanted, &hosts, &setup, &patient);
    if (status == KOLO_OK) {
        kolo__judge(&patient, &findings);
        kolo__doctor_report(&patient, &findings, stdout);
        if (findings.lost)
            status = kolo__error(KOLO_ERR_MEMORY, "no memory for all findings");
    }
    if (status != KOLO_OK) {
        fprintf(stderr, "kolo doctor: %s\n", kolo_error_text());
        code = status == KOLO_ERR_CONFIG ? KOLO__EXIT_USAGE : KOLO__EXIT_FAILED;
    } else if (fflush(stdout) != 0 || ferror(stdout)) {
        code = KOLO__EXIT_OUTPUT;
    } else if (findings.count > 0) {
        code = (int)findings.list[0].ailment;
    }
    explicit_bzero(&setup, sizeof setup);
    kolo__findings_free(&findings);
    kolo__hosts_free(&hosts);
    free(patient.hosts);
    free(patient.trials);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo info`: what was found on this machine (survey.c), or which algorithm a size gets (plan.c).
 */
#include "launcher/command.h"

#include "base/config.h"
#include "launcher/options.h"
#include "launcher/plan.h"
#include "launcher/survey.h"
#include "kernels/kernels.h"
#include "runtime/comm.h"

#include <argp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KEY_CONFIG_DOCUMENT = 256, KEY_PLAN, KEY_HOSTS, KEY_DTYPE, KEY_JSON, RANKS_MAX = 4096 };

static const struct argp_option OPTIONS[] = {
    {.name = "config-doc",
     .key = KEY_CONFIG_DOCUMENT,
     .doc = "Print the reference of all options instead (docs/CONFIG.md)."},
    {.name = "json", .key = KEY_JSON, .doc = "Print the same as one line of JSON (docs/INFO.md)."},
    {.name = "plan",
     .key = KEY_PLAN,
     .arg = "BYTES",
     .doc = "Print which algorithm an allreduce of this size gets, and what the others would cost, "
            "instead; K, M, G are powers of two."},
    {.name = "ranks",
     .key = 'n',
     .arg = "N",
     .doc = "With --plan: ranks (2; under kolo run, those of the job)."},
    {.name = "hosts", .key = KEY_HOSTS, .arg = "N", .doc = "With --plan: hosts they run on (1)."},
    {.name = "dtype",
     .key = KEY_DTYPE,
     .arg = "NAME",
     .doc = "With --plan: fp32, bf16, ... (fp32)."},
    {0},
};

struct wanted {
    bool document, plan, json;
    struct kolo__plan_question question;
};

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct wanted *wanted = state->input;
    switch (key) {
    case KEY_CONFIG_DOCUMENT:
        wanted->document = true;
        return 0;
    case KEY_JSON:
        wanted->json = true;
        return 0;
    case KEY_PLAN:
        wanted->plan = true;
        wanted->question.bytes =
            (size_t)kolo__number_argument(state, "--plan", argument, true, 1, LONG_MAX);
        return 0;
    case 'n':
        wanted->question.ranks =
            (uint32_t)kolo__number_argument(state, "--ranks", argument, true, 1, RANKS_MAX);
        return 0;
    case KEY_HOSTS:
        wanted->question.hosts =
            (uint32_t)kolo__number_argument(state, "--hosts", argument, true, 1, RANKS_MAX);
        return 0;
    case KEY_DTYPE:
        if (!kolo__dtype_parse(argument, &wanted->question.dtype))
            argp_error(state, "--dtype %s: there is no such dtype", argument);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is one argument too many", argument);
        return 0;
    case ARGP_KEY_END:
        if (wanted->json && (wanted->plan || wanted->document))
            argp_error(state, "--json goes with neither --plan nor --config-doc");
        if (wanted->question.hosts > wanted->question.ranks)
            argp_error(state, "%u hosts are more than %u ranks", wanted->question.hosts,
                       wanted->question.ranks);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void describe_job(const kolo_context *context, struct kolo__plan_question *question)
{
    const kolo_comm *world = context->world;
    question->ranks = world->size;
    question->hosts = 1;
    for (uint32_t r = 0; r < world->size; r++)
        if (world->host_of[r] >= question->hosts)
            question->hosts = world->host_of[r] + 1;
    question->tcp |= world->plan_context.remote && question->hosts == 1;
    question->costs = &context->costs;
    question->offload = &context->offload;
}

/* In a job, of this job: rank 0 answers. */
static int print_plan(struct kolo__plan_question *question)
{
    struct kolo__config config;
    kolo_context *context = NULL;
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK && config.world_size > 0)
        status = kolo_init(NULL, &context);
    if (status == KOLO_OK) {
        question->preferred = config.algorithm;
        question->deterministic = config.deterministic != 0;
        question->tcp = !kolo__config_wants_shm(&config);
        if (context != NULL)
            describe_job(context, question);
        if (context == NULL || kolo_comm_rank(kolo_world(context)) == 0)
            status = kolo__print_plan(question);
    }
    if (status != KOLO_OK)
        fprintf(stderr, "kolo info: %s\n", kolo_error_text());
    kolo_status end = kolo_finalize(context);
    if (status == KOLO_ERR_CONFIG)
        return KOLO__EXIT_USAGE;
    if (status != KOLO_OK || end != KOLO_OK)
        return KOLO__EXIT_FAILED;
    return kolo__end_stdout("kolo info");
}

int kolo__info_main(int argc, char **argv)
{
    static const char HELP[] = "Show what kolo finds on this machine: its version, the processors "
                               "it may use, memory, limits, addresses, modules, "
                               "options that are set, and what is known of connections.";
    const struct argp argp = {.options = OPTIONS, .parser = parse_one, .doc = HELP};
    static char name[] = "kolo info";
    struct wanted wanted = {.question = {.ranks = 2, .hosts = 1, .dtype = KOLO_FP32}};
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argv[0] = name;
    argp_parse(&argp, argc, argv, 0, NULL, &wanted);
    if (wanted.document) {
        kolo__config_document(stdout);
    } else if (wanted.plan) {
        return print_plan(&wanted.question);
    } else {
        kolo_status status = kolo__survey_print(stdout, wanted.json);
        if (status != KOLO_OK) {
            fprintf(stderr, "kolo info: %s\n", kolo_error_text());
            return status == KOLO_ERR_CONFIG ? KOLO__EXIT_USAGE : KOLO__EXIT_FAILED;
        }
    }
    return kolo__end_stdout("kolo info");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo sim`: how long an allreduce would take on a cluster that one does not have, or not yet. */
#include "launcher/command.h"

#include "kernels/kernels.h"
#include "launcher/options.h"
#include "launcher/sim/predict.h"

#include <argp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_PER_HOST = 256,
    KEY_RAILS,
    KEY_TOPOLOGY,
    KEY_LINK,
    KEY_RANK,
    KEY_LOCAL,
    KEY_LATENCY,
    KEY_LOCAL_LATENCY,
    KEY_SWITCH,
    KEY_SLOW,
    KEY_DTYPE,
    KEY_CSV,
    RANKS_MAX = 65536,
};

static const struct argp_option OPTIONS[] = {
    {.name = "ranks",
     .key = 'n',
     .arg = "N[:M]",
     .doc = "Ranks; N:M doubles them from N to M (8:16384 shows how it scales).",
     .group = 1},
    {.name = "bytes",
     .key = 'b',
     .arg = "N[:M]",
     .doc = "Bytes of the allreduce (64M); K, M, G are powers of two; N:M as above.",
     .group = 1},
    {.name = "dtype",
     .key = KEY_DTYPE,
     .arg = "NAME",
     .doc = "fp32, bf16, ... (fp32).",
     .group = 1},
    {.name = "csv",
     .key = KEY_CSV,
     .doc = "Print a line for each prediction; bench/plot_sim.py draws them.",
     .group = 1},
    {.name = "per-host",
     .key = KEY_PER_HOST,
     .arg = "N",
     .doc = "Ranks of a host (8); it divides the number of ranks, or there is one host.",
     .group = 2},
    {.name = "topology",
     .key = KEY_TOPOLOGY,
     .arg = "FORM",
     .doc =
         "flat: one switch that is never in the way. fat-tree:leaf=32,over=4: leaves of 32 hosts "
         "each, whose ways up carry a fourth of what the hosts could send. rails:leaf=32,over=1: "
         "the same for each of the hosts' interfaces by itself, which have leaves of their own.",
     .group = 2},
    {.name = "rails", .key = KEY_RAILS, .arg = "N", .doc = "Interfaces of a host (1).", .group = 2},
    {.name = "slow",
     .key = KEY_SLOW,
     .arg = "HOSTS:FACTOR",
     .doc = "Stragglers: so many hosts have links that carry FACTOR times less.",
     .group = 2},
    {.name = "link-gbps",
     .key = KEY_LINK,
     .arg = "GBIT",
     .doc = "Of each interface, each way (100). kolo doctor measures it, and the next.",
     .group = 3},
    {.name = "latency-us",
     .key = KEY_LATENCY,
     .arg = "US",
     .doc = "Of a message between hosts, without switches (20).",
     .group = 3},
    {.name = "switch-us",
     .key = KEY_SWITCH,
     .arg = "US",
     .doc = "That each switch on the way adds (0.5).",
     .group = 3},
    {.name = "rank-gbps",
     .key = KEY_RANK,
     .arg = "GBIT",
     .doc = "What one rank can send between hosts (as much as its link).",
     .group = 3},
    {.name = "local-gbps",
     .key = KEY_LOCAL,
     .arg = "GBIT",
     .doc = "Of messages between ranks of a host (40), where they do not share memory.",
     .group = 3},
    {.name = "local-latency-us",
     .key = KEY_LOCAL_LATENCY,
     .arg = "US",
     .doc = "Of a message between ranks of a host (1.5).",
     .group = 3},
    {0},
};

struct range {
    size_t first, last;
};

struct wanted {
    struct range ranks, bytes;
    uint32_t per_host;
    bool csv;
    const char *topology;
    struct kolo__network network;
    struct kolo__prediction_question question;
};

static struct range parse_range(struct argp_state *state, const char *name, char *text,
                                bool suffixes, long least, long most)
{
    char *colon = strchr(text, ':');
    if (colon != NULL)
        *colon = '\0';
    struct range range;
    range.first = (size_t)kolo__number_argument(state, name, text, suffixes, least, most);
    range.last = range.first;
    if (colon != NULL)
        range.last = (size_t)kolo__number_argument(state, name, colon + 1, suffixes,
                                                   (long)range.first, most);
    return range;
}

static double parse_positive(struct argp_state *state, const char *name, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0) || value > 1e9)
        argp_error(state, "%s %s: give a number above 0", name, text);
    return value;
}

static double gbps(struct argp_state *state, const char *name, const char *text)
{
    return parse_positive(state, name, text) * 1e9 / 8;
}

static double microseconds(struct argp_state *state, const char *name, const char *text)
{
    return parse_positive(state, name, text) * 1e-6;
}

static void parse_slow(struct argp_state *state, struct kolo__network *network, const char *text)
{
    char *end;
    unsigned long hosts = strtoul(text, &end, 10);
    double factor = *end == ':' ? strtod(end + 1, &end) : 0;
    if (*end != '\0' || hosts < 1 || hosts > RANKS_MAX || !(factor >= 1) || factor > 1e6)
        argp_error(state,
                   "--slow %s: give HOSTS:FACTOR, as 1:4 for one host that is four times "
                   "slower",
                   text);
    network->slow_hosts = (uint32_t)hosts;
    network->slow_factor = factor;
}

static void check(struct argp_state *state, struct wanted *wanted)
{
    struct kolo__network *network = &wanted->network;
    if (wanted->ranks.first == 0)
        argp_error(state, "how many ranks? --ranks 16384");
    if (network->rank_rate == 0)
        network->rank_rate = network->link_rate;
    const char *fault = kolo__network_parse(network, wanted->topology);
    if (fault != NULL)
        argp_error(state, "--topology %s: %s", wanted->topology, fault);
    for (size_t ranks = wanted->ranks.first; ranks <= wanted->ranks.last; ranks *= 2)
        if (ranks > wanted->per_host && ranks % wanted->per_host != 0)
            argp_error(state, "%zu ranks are no whole hosts of %u (--per-host)", ranks,
                       wanted->per_host);
    if (network->rails > wanted->per_host)
        argp_error(state, "--rails %u: %u ranks of a host use no more than %u interfaces",
                   network->rails, wanted->per_host, wanted->per_host);
}

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct wanted *wanted = state->input;
    struct kolo__network *network = &wanted->network;
    switch (key) {
    case 'n':
        wanted->ranks = parse_range(state, "--ranks", argument, false, 2, RANKS_MAX);
        return 0;
    case 'b':
        wanted->bytes = parse_range(state, "--bytes", argument, true, 1, LONG_MAX / 2);
        return 0;
    case KEY_DTYPE:
        if (!kolo__dtype_parse(argument, &wanted->question.dtype))
            argp_error(state, "--dtype %s: there is no such dtype", argument);
        return 0;
    case KEY_CSV:
        wanted->csv = true;
        return 0;
    case KEY_PER_HOST:
        wanted->per_host =
            (uint32_t)kolo__number_argument(state, "--per-host", argument, false, 1, RANKS_MAX);
        return 0;
    case KEY_RAILS:
        network->rails =
            (uint32_t)kolo__number_argument(state, "--rails", argument, false, 1, RANKS_MAX);
        return 0;
    case KEY_TOPOLOGY:
        wanted->topology = argument;
        return 0;
    case KEY_SLOW:
        parse_slow(state, network, argument);
        return 0;
    case KEY_LINK:
        network->link_rate = gbps(state, "--link-gbps", argument);
        return 0;
    case KEY_RANK:
        network->rank_rate = gbps(state, "--rank-gbps", argument);
        return 0;
    case KEY_LOCAL:
        network->local_rate = gbps(state, "--local-gbps", argument);
        return 0;
    case KEY_LATENCY:
        network->message_s = microseconds(state, "--latency-us", argument);
        return 0;
    case KEY_SWITCH:
        network->switch_s = microseconds(state, "--switch-us", argument);
        return 0;
    case KEY_LOCAL_LATENCY:
        network->local_message_s = microseconds(state, "--local-latency-us", argument);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is one argument too many", argument);
        return 0;
    case ARGP_KEY_END:
        check(state, wanted);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- what is printed ---------------------------------------------------------------------------
 */

/* Bytes that each rank must send and receive at least, a second: as nccl-tests has it. */
static double bus_rate(const struct kolo__prediction_question *question, double seconds)
{
    double p = question->ranks;
    return 2 * (p - 1) / p * (double)question->bytes / seconds / 1e9;
}

static void print_table(const struct wanted *wanted, const struct kolo__prediction *predictions,
                        size_t count)
{
    const struct kolo__prediction_question *question = &wanted->question;
    printf("allreduce of %zu bytes, %s, %u ranks, %u a host, %s\n", question->bytes,
           kolo_dtype_name(question->dtype), question->ranks, question->network->per_host,
           wanted->topology);
    printf("  %-20s %12s %12s %12s %12s %10s  %s\n", "algorithm", "time us", "messages", "links",
           "memory", "busbw GB/s", "what takes longest");
    for (size_t i = 0; i < count; i++) {
        const struct kolo__prediction *p = &predictions[i];
        if (p->obstacle != NULL)
            printf("  %-20s %12s  %s\n", p->algorithm->name, "-", p->obstacle);
        else
            printf("  %-20s %12.1f %12.1f %12.1f %12.1f %10.3f  %s%s\n", p->algorithm->name,
                   p->seconds * 1e6, p->messages_s * 1e6, p->links_s * 1e6, p->memory_s * 1e6,
                   bus_rate(question, p->seconds), p->slowest,
                   p->chosen ? "; kolo would choose this one" : "");
    }
}

static void print_lines(const struct wanted *wanted, const struct kolo__prediction *predictions,
                        size_t count)
{
    const struct kolo__prediction_question *question = &wanted->question;
    for (size_t i = 0; i < count; i++) {
        const struct kolo__prediction *p = &predictions[i];
        if (p->obstacle == NULL)
            printf("\"%s\",%u,%u,%zu,%s,%s,%.3f,%.3f,%.3f,%.3f,%.4f,%s,%d\n", wanted->topology,
                   question->ranks, question->network->per_host, question->bytes,
                   kolo_dtype_name(question->dtype), p->algorithm->name, p->seconds * 1e6,
                   p->messages_s * 1e6, p->links_s * 1e6, p->memory_s * 1e6,
                   bus_rate(question, p->seconds), p->slowest, p->chosen);
    }
}

static kolo_status predict_all(struct wanted *wanted)
{
    struct kolo__prediction_question *question = &wanted->question;
    if (wanted->csv)
        puts("topology,ranks,per_host,bytes,dtype,algorithm,time_us,messages_us,links_us,memory_us,"
             "busbw_GBps,slowest,chosen");
    for (size_t ranks = wanted->ranks.first; ranks <= wanted->ranks.last; ranks *= 2) {
        for (size_t bytes = wanted->bytes.first; bytes <= wanted->bytes.last; bytes *= 2) {
            struct kolo__prediction predictions[KOLO__PREDICTIONS_MAX];
            size_t count;
            question->ranks = (uint32_t)ranks;
            question->bytes = bytes;
            wanted->network.per_host =
                ranks < wanted->per_host ? (uint32_t)ranks : wanted->per_host;
            kolo_status status = kolo__predict(question, predictions, &count);
            if (status != KOLO_OK)
                return status;
            (wanted->csv ? print_lines : print_table)(wanted, predictions, count);
        }
    }
    return KOLO_OK;
}

int kolo__sim_main(int argc, char **argv)
{
    static const char HELP[] =
        "Predict how long each algorithm's allreduce takes at scale: the bytes that it puts on "
        "each link, the messages that wait for each other, and the reductions "
        "(docs/SIM.md).\vExample: kolo sim --ranks 16384 --bytes 1G --topology "
        "fat-tree:leaf=32,over=2 --rails 8 --link-gbps 400 --latency-us 3";
    const struct argp argp = {.options = OPTIONS, .parser = parse_one, .doc = HELP};
    static char name[] = "kolo sim", flat[] = "flat";
    struct wanted wanted = {.bytes = {64 << 20, 64 << 20},
                            .per_host = 8,
                            .topology = flat,
                            .network = {.rails = 1,
                                        .link_rate = 100e9 / 8,
                                        .local_rate = 40e9 / 8,
                                        .message_s = 20e-6,
                                        .local_message_s = 1.5e-6,
                                        .switch_s = 0.5e-6,
                                        .slow_factor = 1},
                            .question = {.dtype = KOLO_FP32, .model = &kolo__default_cost_model}};
    wanted.question.network = &wanted.network;
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argv[0] = name;
    argp_parse(&argp, argc, argv, 0, NULL, &wanted);
    if (predict_all(&wanted) != KOLO_OK) {
        fprintf(stderr, "kolo sim: %s\n", kolo_error_text());
        return KOLO__EXIT_FAILED;
    }
    return kolo__end_stdout("kolo sim");
}

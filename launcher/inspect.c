/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo inspect`: what the ranks of a job on this host do now, or did last, and who holds up whom.
 * It reads their flight recorders and asks them nothing, so it works while they hang. */
#include "launcher/command.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "launcher/recorders.h"
#include "runtime/frame.h"

#include <argp.h>
#include <string.h>

enum { KEY_CSV = 256 };

static const struct argp_option OPTIONS[] = {
    {.name = "csv",
     .key = KEY_CSV,
     .doc = "Print the last 1,024 operations of each rank instead, one a line."},
    {0},
};

struct wanted {
    const char *job;
    bool csv;
};

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct wanted *wanted = state->input;
    switch (key) {
    case KEY_CSV:
        wanted->csv = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "'%s' is one argument too many", argument);
        wanted->job = argument;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const char *state_name(char state)
{
    switch (state) {
    case '\0':
        return "ended";
    case 'R':
        return "running";
    case 'T':
    case 't':
        return "stopped";
    case '?':
        return "in another pid namespace";
    default:
        return "sleeping";
    }
}

static void print_rank(const struct kolo__flight_rank *rank, uint64_t now_ns)
{
    static struct kolo__flight_state state;
    char what[240] = "nothing yet", since[40] = "";
    state.process = rank->state;
    kolo__flight_take_state(rank->flight, &state);
    bool waits = state.waits.phase != KOLO__FLIGHT_NONE;
    const struct kolo__flight_operation *last = waits ? &state.waits : &state.last;
    if (last->phase != KOLO__FLIGHT_NONE)
        kolo__flight_operation_text(last, what, sizeof what);
    if (waits && rank->state != 0 && now_ns > last->wait_begin_ns)
        snprintf(since, sizeof since, ", waits since %.1f s",
                 (double)(now_ns - last->wait_begin_ns) / 1e9);
    printf("  rank %-5u pid %-8u %-9s %s%s\n", state.rank, rank->flight->pid,
           state_name(rank->state), what, since);
}

/* They have one name, and are told apart by nothing. */
static bool are_several_jobs(const struct kolo__flight_rank *ranks, uint32_t count)
{
    for (uint32_t r = 1; r < count; r++)
        if (ranks[r].flight->rank == ranks[r - 1].flight->rank)
            return true;
    return false;
}

static void print_job(const struct kolo__flight_rank *ranks, uint32_t count)
{
    char job[sizeof ranks->flight->job];
    struct kolo__flight_verdict verdict;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    const struct kolo__flight *first = ranks[0].flight;
    snprintf(job, sizeof job, "%.*s", (int)sizeof job - 1, first->job);
    kolo__clean_text(job);
    printf("job %s: %u of %u ranks are on this host\n", job[0] != '\0' ? job : "(without an id)",
           count, first->world_size);
    for (uint32_t r = 0; r < count; r++)
        print_rank(&ranks[r], now_ns);
    if (are_several_jobs(ranks, count)) {
        printf("several jobs have this name, so nothing is said of who waits for whom\n");
        return;
    }
    kolo__flight_judge(ranks, count, now_ns, &verdict);
    printf("%s\n", verdict.text[0] != '\0' ? verdict.text : "nobody waits");
}

/* Ranks of a job stand side by side. */
static uint32_t print_jobs(const struct kolo__recorders *recorders, const struct wanted *wanted)
{
    uint32_t jobs = 0;
    for (uint32_t begin = 0, end; begin < recorders->count; begin = end) {
        const struct kolo__flight_rank *ranks = &recorders->ranks[begin];
        for (end = begin + 1; end < recorders->count; end++)
            if (!kolo__recorders_same_job(&recorders->ranks[end], ranks))
                break;
        if (wanted->job != NULL &&
            strncmp(ranks->flight->job, wanted->job, sizeof ranks->flight->job) != 0)
            continue;
        jobs++;
        if (wanted->csv)
            kolo__recorders_write_csv(ranks, end - begin, stdout);
        else
            print_job(ranks, end - begin);
    }
    return jobs;
}

int kolo__inspect_main(int argc, char **argv)
{
    static const char HELP[] =
        "Show what the ranks of a job on this host do, and who holds up whom; of all jobs when "
        "none is named. Ranks are asked nothing: it works while they hang. Those of other users "
        "are shown to root.";
    const struct argp argp = {
        .options = OPTIONS, .parser = parse_one, .args_doc = "[JOB]", .doc = HELP};
    struct wanted wanted = {0};
    struct kolo__recorders recorders = {0};
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &wanted);
    kolo_status status = kolo__recorders_find(&recorders);
    uint32_t jobs = status == KOLO_OK ? print_jobs(&recorders, &wanted) : 0;
    kolo__recorders_free(&recorders);
    if (status != KOLO_OK) {
        fprintf(stderr, "kolo inspect: %s\n", kolo_error_text());
        return KOLO__EXIT_FAILED;
    }
    if (jobs == 0) {
        fprintf(stderr, "kolo inspect: no job%s%s runs on host %s, as far as this user may see\n",
                wanted.job != NULL ? " " : "", wanted.job != NULL ? wanted.job : "",
                kolo__host_name());
        return KOLO__EXIT_FAILED;
    }
    return kolo__end_stdout("kolo inspect");
}

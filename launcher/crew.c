/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/crew.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/memlock.h"
#include "base/status.h"
#include "launcher/processes.h"
#include "launcher/supervise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t MILLISECOND = 1000000;

enum {
    LINGER_MS = 300, /* for children of ended ranks, such as a tee, to end as well */
    KILL_STRAYS_MS = 4000,
};

kolo_status kolo__crew_open(struct kolo__crew *crew, const char *job)
{
    *crew = (struct kolo__crew){.job = job, .flight.fd = -1};
    kolo_status status = kolo__guard_start(&crew->guard, job);
    if (status == KOLO_OK)
        prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans of ranks become our children */
    return status;
}

/* What ranks are told: as agents are asked to tell them, or else what we were. */
static kolo_status check_memlock(const struct kolo__spawn *spawn)
{
    static const char NAME[] = "KOLO_MEMLOCK=";
    const char *wanted = getenv("KOLO_MEMLOCK");
    long bytes;
    for (char **entry = spawn->environment; entry != NULL && *entry != NULL; entry++)
        if (strncmp(*entry, NAME, sizeof NAME - 1) == 0)
            wanted = *entry + sizeof NAME - 1;
    if (wanted == NULL || !kolo__parse_number(wanted, true, &bytes))
        return KOLO_OK; /* ranks complain of it */
    return kolo__memlock_check(bytes, "KOLO_MEMLOCK");
}

kolo_status kolo__crew_start(struct kolo__crew *crew, const struct kolo__spawn *spawn,
                             const uint32_t *ranks, uint32_t count, int *exec_errno)
{
    *exec_errno = 0;
    kolo_status allowed = check_memlock(spawn);
    if (allowed != KOLO_OK)
        return allowed;
    uint32_t room = count > spawn->room ? count : spawn->room;
    crew->children = calloc(room, sizeof *crew->children);
    crew->ended = calloc(room, sizeof *crew->ended);
    if (crew->children == NULL || crew->ended == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", room);
    crew->capacity = room;
    kolo__flight_memory_open(room, &crew->flight);
    crew->spawn = *spawn;
    crew->spawn.flight = crew->flight.path;
    for (uint32_t local = 0; local < count; local++) {
        struct kolo__child *child = &crew->children[local];
        kolo_status status = kolo__spawn_rank(&crew->spawn, ranks[local], local, child, exec_errno);
        if (status != KOLO_OK)
            return status;
        kolo__guard_add(&crew->guard, child->pid);
        crew->started++;
        crew->running++;
    }
    return KOLO_OK;
}

kolo_status kolo__crew_start_again(struct kolo__crew *crew, uint32_t rank, uint32_t local_rank,
                                   int *exec_errno)
{
    struct kolo__child *child = &crew->children[local_rank];
    crew->spawn.newcomer = true;
    if (local_rank == crew->started)
        crew->ended[crew->started++] = true; /* also when it cannot be started */
    kolo_status status = kolo__spawn_rank(&crew->spawn, rank, local_rank, child, exec_errno);
    if (status != KOLO_OK)
        return status;
    kolo__guard_add(&crew->guard, child->pid);
    crew->ended[local_rank] = false;
    crew->running++;
    return KOLO_OK;
}

void kolo__crew_signal(const struct kolo__crew *crew, int number)
{
    for (uint32_t i = 0; i < crew->started; i++)
        kolo__crew_signal_one(crew, i, number);
}

void kolo__crew_signal_one(const struct kolo__crew *crew, uint32_t local_rank, int number)
{
    if (!crew->ended[local_rank])
        kill(-crew->children[local_rank].pid, number);
}

static int find(const struct kolo__crew *crew, pid_t pid)
{
    for (uint32_t i = 0; i < crew->started; i++)
        if (crew->children[i].pid == pid && !crew->ended[i])
            return (int)i;
    return -1;
}

void kolo__crew_reap(struct kolo__crew *crew, kolo__crew_ended *ended, void *self)
{
    int wait_status;
    pid_t pid;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        int local = find(crew, pid);
        if (local < 0)
            continue;
        crew->ended[local] = true;
        kolo__guard_forget(&crew->guard, pid);
        if (--crew->running == 0)
            crew->ended_at_ns = kolo__now_ns(&kolo__real_clock);
        ended(self, (uint32_t)local, wait_status);
    }
}

bool kolo__crew_clear(struct kolo__crew *crew, bool impatient)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    bool patient = !impatient && now_ns < crew->ended_at_ns + LINGER_MS * MILLISECOND;
    const struct kolo__processes left = {.job = crew->job,
                                         .ancestor = getpid(),
                                         .since = crew->guard.start,
                                         .spared = crew->guard.pid};
    int found = kolo__processes_signal(&left, patient ? 0 : SIGKILL);
    if (found > 0 && now_ns >= crew->ended_at_ns + KILL_STRAYS_MS * MILLISECOND) {
        kolo__log(KOLO__LOG_WARN, "%d processes of the job cannot be ended", found);
        return true;
    }
    return found == 0;
}

kolo_status kolo__crew_recorders(const struct kolo__crew *crew, struct kolo__recorders *recorders)
{
    return crew->flight.fd >= 0 ? kolo__recorders_add(recorders, crew->flight.fd) : KOLO_OK;
}

void kolo__crew_close(struct kolo__crew *crew)
{
    kolo__guard_end(&crew->guard);
    free(crew->children);
    free(crew->ended);
    if (crew->job != NULL)
        kolo__flight_memory_close(&crew->flight);
    *crew = (struct kolo__crew){.flight.fd = -1};
}

/* ---- as the ranks of a whole job ------------------------------------------------------------- */

struct told {
    kolo__rank_ended *ended;
    void *supervision;
};

static void tell(void *self, uint32_t local_rank, int wait_status)
{
    struct told *told = self;
    told->ended(told->supervision, local_rank, wait_status, NULL);
}

static void signal_all(void *crew, int number)
{
    kolo__crew_signal(crew, number);
}

static void signal_one(void *crew, uint32_t rank, int number)
{
    kolo__crew_signal_one(crew, rank, number);
}

/* SIGCHLD comes among the launcher's signals. */
static uint32_t poll_nothing(const void *crew)
{
    (void)crew;
    return 0;
}

static void fill_nothing(void *crew, struct pollfd *fds)
{
    (void)crew;
    (void)fds;
}

static int wait_for_signals(const void *crew)
{
    (void)crew;
    return -1;
}

static void reap(void *crew, const struct pollfd *fds, kolo__rank_ended *ended, void *supervision)
{
    (void)fds;
    kolo__crew_reap(crew, tell, &(struct told){ended, supervision});
}

static bool clear(void *crew, bool impatient)
{
    return kolo__crew_clear(crew, impatient);
}

static kolo_status start_again(void *self, uint32_t rank, struct kolo__output *output,
                               uint64_t *later_ns)
{
    struct kolo__crew *crew = self;
    int exec_errno;
    (void)later_ns; /* there is no other host that could do better */
    kolo_status status = kolo__crew_start_again(crew, rank, rank, &exec_errno);
    if (status == KOLO_OK && output != NULL)
        kolo__output_add(output, rank, crew->children[rank].out_fd, crew->children[rank].err_fd);
    return status;
}

/* Each core once: what has failed is for --restarts. */
static kolo_status start_more(void *self, uint32_t rank, struct kolo__output *output)
{
    const struct kolo__crew *crew = self;
    if (rank != crew->started || rank >= crew->capacity)
        return KOLO_AGAIN;
    return start_again(self, rank, output, NULL);
}

static const char *where(const void *self, uint32_t rank, char *text, size_t bytes)
{
    const struct kolo__crew *crew = self;
    snprintf(text, bytes, "host %s, pid %d", kolo__host_name(), (int)crew->children[rank].pid);
    return text;
}

static kolo_status read_recorders(const void *crew, struct kolo__recorders *recorders)
{
    return kolo__crew_recorders(crew, recorders);
}

const struct kolo__ranks_ops kolo__crew_ranks = {
    .signal = signal_all,
    .signal_one = signal_one,
    .poll_count = poll_nothing,
    .poll_fill = fill_nothing,
    .timeout_ms = wait_for_signals,
    .step = reap,
    .clear = clear,
    .where = where,
    .start_again = start_again,
    .start_more = start_more,
    .recorders = read_recorders,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which source wins. The first complete one does. What a later one says besides either agrees, or
 * comes from a launcher around this one, or is a mistake of which nobody knows which half is wrong:
 * an error.
 */
#include "runtime/launch/pods.h"
#include "runtime/launch/sources.h"

#include "base/config.h"
#include "base/socket.h"
#include "base/status.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORLD_MAX = 1 << 20 };

enum reading { ABSENT, PARTIAL, NO_RANK, COMPLETE };

struct identity {
    enum reading reading;
    const char *rank_text, *size_text;
    long rank, size;
};

/* A variable that holds what means "not said" is not there. */
static const char *get_number(char *const *environment, const char *name, const char *unsaid)
{
    const char *text = name != NULL ? kolo__launch_get(environment, name) : NULL;
    return text != NULL && strcmp(text, unsaid) == 0 ? NULL : text;
}

static struct identity look(char *const *environment, const struct kolo__launch_source *source)
{
    struct identity identity = {
        .rank_text = get_number(environment, source->rank, "-1"),
        .size_text = get_number(environment, source->size, "0"),
    };
    if (identity.rank_text == NULL && identity.size_text == NULL)
        identity.reading = ABSENT;
    else if (identity.rank_text == NULL || identity.size_text == NULL)
        identity.reading = PARTIAL;
    else if (source->is_no_rank != NULL && source->is_no_rank(environment))
        identity.reading = NO_RANK;
    else
        identity.reading = COMPLETE;
    return identity;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static kolo_status read_number(const char *name, const char *text, long *number)
{
    if (!kolo__parse_number(text, false, number) || *number < 0)
        return kolo__error(KOLO_ERR_CONFIG,
                           "%s=%.40s is no number from 0 on: set it right, or unset it", name,
                           text);
    return KOLO_OK;
}

static kolo_status read_identity(const struct kolo__launch_source *source,
                                 struct identity *identity)
{
    kolo_status status = read_number(source->rank, identity->rank_text, &identity->rank);
    if (status == KOLO_OK)
        status = read_number(source->size, identity->size_text, &identity->size);
    if (status != KOLO_OK)
        return status;
    if (identity->size > WORLD_MAX)
        return kolo__error(KOLO_ERR_WORLD,
                           "%s is %ld: a world of so many ranks is more than kolo "
                           "can do",
                           source->size, identity->size);
    if (identity->rank >= identity->size)
        return kolo__error(KOLO_ERR_WORLD, "%s is %ld, but must be from 0 to %ld (%s - 1)",
                           source->rank, identity->rank, identity->size - 1, source->size);
    return KOLO_OK;
}

static kolo_status read_local(char *const *environment, const struct kolo__launch_source *source,
                              struct kolo__launch *launch)
{
    const char *rank = get_number(environment, source->local_rank, "-1");
    const char *size = get_number(environment, source->local_size, "0");
    kolo_status status = KOLO_OK;
    if (rank != NULL)
        status = read_number(source->local_rank, rank, &launch->local_rank);
    if (status == KOLO_OK && size != NULL)
        status = read_number(source->local_size, size, &launch->local_size);
    if (status == KOLO_OK && (launch->local_size > launch->size ||
                              (size != NULL && launch->local_rank >= launch->local_size)))
        return kolo__error(KOLO_ERR_WORLD,
                           "%s is %s and %s is %s, in a world of %ld ranks (%s): "
                           "they do not fit together",
                           source->local_rank, rank != NULL ? rank : "not set", source->local_size,
                           size, launch->size, source->size);
    return status;
}

/* ---- more than one source ------------------------------------------------------------------ */

/* Each process of the other launcher began as many ranks as this host has. */
static bool is_around(const struct identity *other, const struct kolo__launch *launch)
{
    return launch->local_size > 0 && other->size < launch->size &&
           other->size * launch->local_size == launch->size;
}

static kolo_status compare(char *const *environment, const struct kolo__launch_source *winner,
                           const struct identity *identity, const struct kolo__launch *launch)
{
    if (winner->marker != NULL && kolo__launch_get(environment, winner->marker) != NULL)
        return KOLO_OK;
    for (int i = (int)(winner - kolo__launch_sources) + 1; i < kolo__launch_source_count; i++) {
        const struct kolo__launch_source *source = &kolo__launch_sources[i];
        struct identity other = look(environment, source);
        if (other.reading != COMPLETE || read_identity(source, &other) != KOLO_OK)
            continue;
        bool agrees = other.rank == launch->rank && other.size == launch->size;
        if (agrees || is_around(&other, launch))
            continue;
        return kolo__error(
            KOLO_ERR_CONFIG,
            "%s=%ld and %s=%ld (%s) contradict %s=%ld and %s=%ld (%s): unset those that do not "
            "belong to this job, or say which is right by KOLO_RANK and KOLO_WORLD_SIZE",
            winner->rank, identity->rank, winner->size, identity->size, winner->name, source->rank,
            other.rank, source->size, other.size, source->name);
    }
    return KOLO_OK;
}

/* Who sets KOLO_RANK by hand may leave the rest to the launcher that agrees. */
static kolo_status meet_as_others(char *const *environment, struct kolo__launch *launch)
{
    for (int i = 1; i < kolo__launch_source_count; i++) {
        const struct kolo__launch_source *source = &kolo__launch_sources[i];
        struct identity other = look(environment, source);
        if (other.reading == COMPLETE && read_identity(source, &other) == KOLO_OK &&
            other.rank == launch->rank && other.size == launch->size)
            return source->meet(environment, launch);
    }
    return kolo__launch_sources[0].meet(environment, launch);
}

/* ---- the place ----------------------------------------------------------------------------- */

kolo_status kolo__launch_meet_at(struct kolo__launch *launch, const char *host_port)
{
    char port[24];
    if (strchr(host_port, ',') != NULL) {
        launch->meeting = KOLO__MEET_HELD;
        if (strlen(host_port) >= sizeof launch->places)
            return kolo__error(KOLO_ERR_CONFIG, "KOLO_RENDEZVOUS is longer than %zu characters",
                               sizeof launch->places - 1);
        strcpy(launch->places, host_port);
        return KOLO_OK;
    }
    kolo_status status =
        kolo__split_host_port(host_port, launch->host, sizeof launch->host, port, sizeof port);
    if (status != KOLO_OK)
        return status;
    launch->meeting = KOLO__MEET_AT;
    launch->port = (int)strtol(port, NULL, 10);
    return KOLO_OK;
}

static bool is_numeric(const char *host)
{
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || strchr(host, ':') != NULL;
}

/* In a pod rank 0's own name does not resolve at first, and later may mean its predecessor. Names
 * there are given for rank 0's pod; addresses are given by `kolo run`, which listens itself. */
static void note_pods(char *const *environment, struct kolo__launch *launch)
{
    const char *per_job = kolo__launch_get(environment, "JOBSET_PODS_PER_JOB");
    bool named = launch->meeting == KOLO__MEET_AT || launch->meeting == KOLO__MEET_NEAR;
    launch->in_pods = named && !launch->one_host && !is_numeric(launch->host) &&
                      strcmp(launch->host, "localhost") != 0 && kolo__pod_is_around(environment);
    if (per_job == NULL || !kolo__parse_number(per_job, false, &launch->pods_per_job) ||
        launch->pods_per_job < 1)
        launch->pods_per_job = 0;
}

static kolo_status find_meeting(char *const *environment, const struct kolo__launch_source *source,
                                struct kolo__launch *launch)
{
    const char *given = kolo__launch_get(environment, "KOLO_RENDEZVOUS");
    const char *job = kolo__launch_get(environment, "KOLO_JOB");
    kolo_status status = KOLO_OK;
    launch->one_host = launch->local_size == launch->size;
    if (launch->size > 1 && source == &kolo__launch_sources[0]) {
        if (given == NULL)
            status = meet_as_others(environment, launch);
    } else if (launch->size > 1) {
        status = source->meet(environment, launch);
    }
    if (status == KOLO_OK && given != NULL)
        status = kolo__launch_meet_at(launch, given);
    if (job != NULL)
        snprintf(launch->job, sizeof launch->job, "%s", job);
    if (status == KOLO_OK)
        note_pods(environment, launch);
    return status;
}

static kolo_status take(char *const *environment, const struct kolo__launch_source *source,
                        struct identity *identity, struct kolo__launch *launch)
{
    kolo_status status = read_identity(source, identity);
    if (status != KOLO_OK)
        return status;
    launch->source = source->name;
    launch->rank = identity->rank;
    launch->size = identity->size;
    status = read_local(environment, source, launch);
    if (status == KOLO_OK && source->refine != NULL)
        status = source->refine(environment, launch);
    if (status == KOLO_OK)
        status = compare(environment, source, identity, launch);
    if (status == KOLO_OK)
        status = find_meeting(environment, source, launch);
    return status;
}

/* ---- none ---------------------------------------------------------------------------------- */

/* Half of a rank: whoever set it wanted more than a world of one. */
static kolo_status refuse_half(char *const *environment)
{
    for (int i = 0; i < kolo__launch_source_count; i++) {
        const struct kolo__launch_source *source = &kolo__launch_sources[i];
        struct identity identity = look(environment, source);
        if (identity.reading != PARTIAL || !source->alone_is_error)
            continue;
        bool has_rank = identity.rank_text != NULL;
        const char *lacks = has_rank ? source->size : source->rank;
        if (!has_rank && strcmp(identity.size_text, "1") == 0)
            continue; /* as good as nothing */
        return kolo__error(KOLO_ERR_CONFIG,
                           "%s is %.40s but %s is %s: start the program with its launcher, "
                           "as kolo run, or set %s, %s and KOLO_RENDEZVOUS; or unset %s",
                           has_rank ? source->rank : source->size,
                           has_rank ? identity.rank_text : identity.size_text, lacks,
                           kolo__launch_get(environment, lacks) == NULL ? "not set"
                           : has_rank                                   ? "0, which means not set"
                                                                        : "-1, which means not set",
                           source->rank, source->size, has_rank ? source->rank : source->size);
    }
    /* prterun, and whatever else starts processes by PMIx and no launcher of the table. */
    const char *pmix = kolo__launch_get(environment, "PMIX_RANK");
    const char *size = kolo__launch_get(environment, "KOLO_WORLD_SIZE");
    if (pmix != NULL && (size == NULL || strcmp(size, "1") != 0))
        return kolo__error(KOLO_ERR_CONFIG,
                           "PMIX_RANK is %.40s but nothing says how many ranks there are: start "
                           "the program with mpirun or kolo run, or set KOLO_RANK, "
                           "KOLO_WORLD_SIZE and KOLO_RENDEZVOUS (KOLO_WORLD_SIZE=1 for a world of "
                           "one); or unset PMIX_RANK",
                           pmix);
    if (kolo__launch_get(environment, "KOLO_RENDEZVOUS") != NULL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "KOLO_RENDEZVOUS is set but KOLO_WORLD_SIZE is not: start the program "
                           "with kolo run, or set KOLO_RANK, KOLO_WORLD_SIZE and KOLO_RENDEZVOUS");
    return KOLO_OK;
}

/* ---- pods ---------------------------------------------------------------------------------- */

/* Ranks of an MPIJob are started from its launcher: what comes here was started by hand, or by a
 * manifest that forgot to. KOLO_WORLD_SIZE=1 says that one alone is meant. */
static kolo_status refuse_role(char *const *environment)
{
    const char *role, *size = kolo__launch_get(environment, "KOLO_WORLD_SIZE");
    kolo_status status = kolo__pod_role(environment, &role);
    if (status != KOLO_OK || role == NULL || (size != NULL && strcmp(size, "1") == 0))
        return status;
    return kolo__error(KOLO_ERR_CONFIG,
                       "this is a %s of an MPIJob (K_MPI_JOB_ROLE), where no program finds its "
                       "rank by itself: workers have to run `kolo agent`, and the launcher "
                       "`kolo run -- PROGRAM` (KOLO_WORLD_SIZE=1 for a world of one)",
                       role);
}

static kolo_status meet_in_pod_0(char *const *environment, const struct kolo__pod *pod,
                                 struct kolo__launch *launch)
{
    const char *given = kolo__launch_get(environment, "KOLO_RENDEZVOUS");
    const char *job = kolo__launch_get(environment, "KOLO_JOB");
    kolo_status status = KOLO_OK;
    snprintf(launch->job, sizeof launch->job, "%s", job != NULL ? job : pod->job);
    if (launch->size == 1)
        return KOLO_OK;
    if (given != NULL) {
        status = kolo__launch_meet_at(launch, given);
    } else if (pod->first[0] != '\0') {
        launch->meeting = KOLO__MEET_AT;
        launch->port = KOLO__POD_PORT;
        snprintf(launch->host, sizeof launch->host, "%s", pod->first);
    } else {
        launch->meeting = KOLO__MEET_UNKNOWN;
        snprintf(launch->missing, sizeof launch->missing,
                 "KOLO_RENDEZVOUS (the manifest has to: <pod 0>.<service>:%d)", KOLO__POD_PORT);
    }
    if (status == KOLO_OK)
        note_pods(environment, launch);
    return status;
}

/* One rank a pod. */
static kolo_status take_pod(char *const *environment, struct kolo__launch *launch, bool *found)
{
    struct kolo__pod pod;
    *found = false;
    if (get_number(environment, "KOLO_RANK", "-1") != NULL)
        return KOLO_OK; /* half of what somebody wanted: see below */
    kolo_status status = refuse_role(environment);
    if (status == KOLO_OK)
        status = kolo__pod_detect(environment, &pod);
    *found = status != KOLO_OK || pod.kind != NULL;
    if (!*found || status != KOLO_OK)
        return status;
    status = kolo__pod_world_size(environment, &pod, 1, &launch->size);
    if (status != KOLO_OK)
        return status;
    launch->source = pod.kind;
    launch->rank = launch->size > 1 ? pod.index : 0;
    launch->local_rank = 0;
    launch->local_size = 1;
    launch->one_host = launch->size == 1;
    return meet_in_pod_0(environment, &pod, launch);
}

static void note_ignored(struct kolo__launch *launch, const struct kolo__launch_source *source,
                         const struct identity *identity)
{
    size_t used = strlen(launch->ignored);
    const char *there = identity->rank_text != NULL ? source->rank : source->size;
    const char *absent = identity->rank_text != NULL ? source->size : source->rank;
    if (identity->reading == NO_RANK)
        snprintf(launch->ignored + used, sizeof launch->ignored - used, "%s%s of a batch script",
                 used > 0 ? ", " : "", source->rank);
    else
        snprintf(launch->ignored + used, sizeof launch->ignored - used, "%s%s without %s",
                 used > 0 ? ", " : "", there, absent);
}

/* ---- newcomers ----------------------------------------------------------------------------- */

/* Its rank it hears from the world. What is said of another one is its place by the launcher. */
static kolo_status take_newcomer(char *const *environment, struct kolo__launch *launch)
{
    const char *given = kolo__launch_get(environment, "KOLO_RENDEZVOUS");
    const char *job = kolo__launch_get(environment, "KOLO_JOB");
    const char *place = get_number(environment, "KOLO_RANK", "-1");
    const char *local_rank = get_number(environment, "KOLO_LOCAL_RANK", "-1");
    long number = UINT32_MAX;
    kolo_status status = KOLO_OK;
    launch->source = "KOLO_NEWCOMER";
    launch->newcomer = true;
    launch->rank = -1;
    if (given == NULL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "KOLO_NEWCOMER=1, but KOLO_RENDEZVOUS is not set: a newcomer has to be "
                           "told where the world is");
    if (place != NULL)
        status = read_number("KOLO_RANK", place, &number);
    if (status == KOLO_OK && local_rank != NULL)
        status = read_number("KOLO_LOCAL_RANK", local_rank, &launch->local_rank);
    if (status == KOLO_OK && strlen(given) >= sizeof launch->places)
        status = kolo__error(KOLO_ERR_CONFIG, "KOLO_RENDEZVOUS is longer than %zu characters",
                             sizeof launch->places - 1);
    if (status != KOLO_OK)
        return status;
    launch->place = (uint32_t)number;
    launch->meeting = KOLO__MEET_HELD;
    strcpy(launch->places, given);
    snprintf(launch->job, sizeof launch->job, "%s", job != NULL ? job : "");
    return KOLO_OK;
}

/* ---- all ----------------------------------------------------------------------------------- */

static bool is_newcomer(char *const *environment)
{
    const char *text = kolo__launch_get(environment, "KOLO_NEWCOMER");
    return text != NULL && strcmp(text, "1") == 0;
}

kolo_status kolo__launch_detect(char *const *environment, struct kolo__launch *launch)
{
    memset(launch, 0, sizeof *launch);
    launch->local_rank = -1;
    launch->size = 1;
    if (is_newcomer(environment))
        return take_newcomer(environment, launch);
    for (int i = 0; i < kolo__launch_source_count; i++) {
        const struct kolo__launch_source *source = &kolo__launch_sources[i];
        struct identity identity = look(environment, source);
        if (identity.reading == COMPLETE)
            return take(environment, source, &identity, launch);
        if (identity.reading != ABSENT)
            note_ignored(launch, source, &identity);
    }
    bool found;
    kolo_status status = take_pod(environment, launch, &found);
    if (found)
        return status;
    launch->source = "no launcher";
    launch->local_rank = 0;
    launch->local_size = 1;
    launch->one_host = true;
    return refuse_half(environment);
}

const char *kolo__launch_text(const struct kolo__launch *launch, char *text, size_t bytes)
{
    for (int i = 0; i < kolo__launch_source_count; i++) {
        const struct kolo__launch_source *source = &kolo__launch_sources[i];
        if (strcmp(source->name, launch->source) != 0)
            continue;
        snprintf(text, bytes, "%ld ranks, by %s (%s, %s)", launch->size, source->name, source->rank,
                 source->size);
        return text;
    }
    snprintf(text, bytes, "%ld rank%s, by %s", launch->size, launch->size == 1 ? "" : "s",
             launch->source);
    return text;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Where no address can be derived, rank 0 listens anywhere and tells the others where, through what
 * started them: Open MPI's own broadcast, or the process manager of MPICH. */
#include "runtime/launch/bootstrap.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/status.h"
#include "base/token.h"
#include "collectives/offload/mpi_load.h"
#include "runtime/launch/addresses.h"
#include "runtime/launch/pmi.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NOTE_BYTES = 512, KEEP = '+' };

/* What is told: "+" or "-", whether MPI stays, and "ADDRESS TOKEN JOB" with '|' between; "-" for a
 * token that all have. Empty: rank 0 failed. */
static kolo_status read_note(const struct kolo__bootstrap_options *options, char *note,
                             struct kolo__meeting *place)
{
    char *token = strchr(note, '|'), *job = token != NULL ? strchr(token + 1, '|') : NULL;
    if (job == NULL)
        return kolo__error(KOLO_ERR_NETWORK, "rank 0 could not listen anywhere: see what it says");
    *token++ = *job++ = '\0';
    snprintf(place->rendezvous, sizeof place->rendezvous, "%s", note + 1);
    if (strcmp(token, "-") != 0)
        snprintf(options->token, options->token_bytes, "%s", token);
    snprintf(options->job, options->job_bytes, "%s", job);
    return KOLO_OK;
}

static kolo_status write_note(const struct kolo__bootstrap_options *options,
                              struct kolo__meeting *place, char *note)
{
    char host[KOLO__ADDRESS_TEXT_BYTES] = "127.0.0.1", token[33] = "-";
    kolo_status status = KOLO_OK;
    if (!options->launch->one_host)
        status = kolo__addresses_own(options->net, host);
    if (status == KOLO_OK && options->token[0] == '\0') {
        status = kolo__token_random(token, 16);
        snprintf(options->token, options->token_bytes, "%s", token);
    }
    if (status != KOLO_OK)
        return status;
    snprintf(place->secret, sizeof place->secret, "%s", options->token);
    status = kolo__bootstrap_serve(options, place, host, 0, NULL);
    if (status == KOLO_OK)
        snprintf(note, NOTE_BYTES, "%c%.300s|%s|%s",
                 options->keep_mpi || !options->launch->one_host ? KEEP : '-', place->rendezvous,
                 token, options->job);
    return status;
}

static kolo_status find_pmi(int *fd)
{
    const char *text = getenv("PMI_FD");
    long number = -1;
    if (text == NULL || !kolo__parse_number(text, false, &number) || number < 0 || number > INT_MAX)
        return kolo__error(KOLO_ERR_CONFIG, "PMI_FD is no descriptor");
    *fd = (int)number;
    return KOLO_OK;
}

static kolo_status share_by_pmi(const struct kolo__bootstrap_options *options,
                                struct kolo__meeting *place, char *note)
{
    kolo_status status = find_pmi(&place->pmi_fd);
    if (status != KOLO_OK)
        return status;
    if (options->launch->rank == 0 && note[0] == '\0')
        snprintf(note, NOTE_BYTES, "none"); /* a value is not empty */
    status = kolo__pmi_share(place->pmi_fd, options->launch->rank, options->launch->size, note,
                             NOTE_BYTES, options->deadline_ns);
    if (status == KOLO_ERR_TIMEOUT)
        return status; /* others are missing: that is not its fault */
    if (status != KOLO_OK)
        return kolo__error(status,
                           "the process manager of mpiexec (PMI_FD): %s. Ranks can do without it: "
                           "set KOLO_RENDEZVOUS to HOST:PORT, a free port of rank 0's host",
                           kolo_error_text());
    return KOLO_OK;
}

static kolo_status broadcast(const struct kolo__mpi_module *mpi, uint64_t deadline_ns, char *note)
{
    char why[200] = "";
    const struct timespec pause = {.tv_nsec = 1000000};
    bool done = false;
    mpi->broadcast_begin(note, NOTE_BYTES);
    while (!done) {
        if (!mpi->broadcast_test(&done, why, sizeof why))
            return kolo__error(KOLO_ERR_NETWORK, "MPI failed: %s", why);
        if (!done && kolo__now_ns(&kolo__real_clock) >= deadline_ns)
            return kolo__error(KOLO_ERR_TIMEOUT,
                               "rank 0 did not tell where to meet within KOLO_INIT_TIMEOUT: some "
                               "rank has not called kolo_init, or MPI does not reach it: see "
                               "whether a firewall (in Kubernetes a NetworkPolicy) lets all hosts "
                               "of the job reach each other at all TCP ports");
        if (!done)
            nanosleep(&pause, NULL);
    }
    return KOLO_OK;
}

static kolo_status share_by_mpi(const struct kolo__bootstrap_options *options,
                                const struct kolo__mpi_module *mpi, char *note,
                                const struct kolo__mpi_module **kept)
{
    const struct kolo__launch *launch = options->launch;
    char why[200] = "";
    int rank, size;
    if (!mpi->open(&rank, &size, why, sizeof why))
        return kolo__error(KOLO_ERR_NETWORK, "MPI failed: %s", why);
    if (rank != launch->rank || size != launch->size)
        return kolo__error(KOLO_ERR_WORLD,
                           "MPI says that this is rank %d of %d, the environment %ld of %ld (%s)",
                           rank, size, launch->rank, launch->size, launch->source);
    kolo_status status = broadcast(mpi, options->deadline_ns, note);
    /* Rank 0 says whether MPI is needed any more. */
    if (status == KOLO_OK && note[0] == KEEP)
        *kept = mpi;
    else if (status == KOLO_OK)
        mpi->close();
    return status;
}

kolo_status kolo__bootstrap_tell(const struct kolo__bootstrap_options *options,
                                 const struct kolo__mpi_module *mpi, struct kolo__meeting *place)
{
    char note[NOTE_BYTES] = "", failure[NOTE_BYTES] = "";
    kolo_status written = KOLO_OK;
    place->ports = 1;
    if (options->launch->rank == 0) {
        written = write_note(options, place, note);
        if (written != KOLO_OK)
            snprintf(failure, sizeof failure, "%s", kolo_error_text());
    }
    /* Also after a failure: the others wait for it. */
    kolo_status status = mpi != NULL ? share_by_mpi(options, mpi, note, &place->mpi)
                                     : share_by_pmi(options, place, note);
    if (written != KOLO_OK)
        return kolo__error(written, "%s", failure);
    if (status == KOLO_OK && options->launch->rank != 0)
        status = read_note(options, note, place);
    snprintf(place->secret, sizeof place->secret, "%s", options->token);
    return status;
}

kolo_status kolo__bootstrap_abandon(struct kolo__meeting *place, const struct kolo__launch *launch,
                                    kolo_status status)
{
    struct kolo__launch found = {0};
    char host_name[KOLO__HOST_VARIABLE_BYTES], why[1024];
    bool introduced = place->pmi_fd >= 0;
    snprintf(why, sizeof why, "%s", kolo_error_text());
    if (launch == NULL) {
        char **environment = kolo__launch_environment(host_name);
        if (environment != NULL && kolo__launch_detect(environment, &found) == KOLO_OK)
            launch = &found;
        free(environment);
    }
    if (launch != NULL && launch->meeting == KOLO__MEET_BY_PMI &&
        find_pmi(&place->pmi_fd) == KOLO_OK)
        kolo__pmi_abandon(place->pmi_fd, introduced);
    place->pmi_fd = -1; /* no goodbye */
    return kolo__error(status, "%s", why);
}

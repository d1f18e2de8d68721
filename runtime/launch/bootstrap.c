/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/bootstrap.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "collectives/offload/mpi_load.h"
#include "runtime/launch/addresses.h"
#include "runtime/launch/pmi.h"
#include "runtime/launch/pods.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern char **environ;

enum { PAUSE_MS = 200 };

static void sleep_ms(long milliseconds)
{
    struct timespec pause = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

static void write_place(struct kolo__meeting *place, const char *host, int port)
{
    const char *format = strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d";
    snprintf(place->rendezvous, sizeof place->rendezvous, format, host, port);
}

/* ---- rank 0 listens ------------------------------------------------------------------------ */

/* Where a rank was to be, for messages about those that are not. */
static void name_pod(void *self, uint32_t rank, char *text, size_t bytes)
{
    const struct kolo__meeting *place = self;
    char name[256];
    kolo__pod_name(place->pod_0, place->pods_per_job, (long)rank / place->per_pod, name,
                   sizeof name);
    snprintf(text, bytes, "%s%s", name[0] != '\0' ? "pod " : "", name);
}

kolo_status kolo__bootstrap_serve(const struct kolo__bootstrap_options *options,
                                  struct kolo__meeting *place, const char *host, int port,
                                  int *failure)
{
    struct kolo__rendezvous *rendezvous;
    const struct kolo__rendezvous_options server = {.host = host,
                                                    .port = port,
                                                    .job = options->job,
                                                    .token = place->secret,
                                                    .insecure = options->insecure,
                                                    .world_size = (uint32_t)options->launch->size,
                                                    .min_ranks = options->min_ranks,
                                                    .where = place->in_pods ? name_pod : NULL,
                                                    .where_self = place,
                                                    .members_restart = place->in_pods,
                                                    .silence_s = options->silence_s,
                                                    .failure = failure};
    kolo_status status = kolo__rendezvous_create(&server, &rendezvous);
    if (status == KOLO_OK)
        status = kolo__server_start(rendezvous, &place->server);
    if (status != KOLO_OK)
        return status;
    snprintf(place->rendezvous, sizeof place->rendezvous, "%s",
             kolo__server_address(place->server));
    place->ports = 1;
    return KOLO_OK;
}

/* At the first of these addresses that is this host's, and the first port that is free. failure:
 * errno of the last one that was not. */
static kolo_status serve_near(const struct kolo__bootstrap_options *options,
                              struct kolo__meeting *place, const struct kolo__addresses *addresses,
                              unsigned ports, int *failure)
{
    *failure = EADDRNOTAVAIL;
    for (int i = 0; i < addresses->count; i++)
        for (unsigned p = 0; p < ports; p++) {
            int port = options->launch->port + (int)p;
            int found = 0;
            kolo_status status =
                kolo__bootstrap_serve(options, place, addresses->text[i], port, &found);
            if (status == KOLO_OK || found == 0)
                return status;
            if (found == EADDRNOTAVAIL)
                break;
            *failure = found;
        }
    return KOLO_OK;
}

/* A host's own name often means loopback in its /etc/hosts, where other hosts find nobody. */
static kolo_status leave_loopback(const struct kolo__bootstrap_options *options,
                                  struct kolo__addresses *addresses, bool *left)
{
    const struct kolo__launch *launch = options->launch;
    if (launch->one_host || !addresses->only_loopback || strncmp(launch->host, "127.", 4) == 0 ||
        strcmp(launch->host, "localhost") == 0 || strcmp(launch->host, "::1") == 0)
        return KOLO_OK;
    *left = true;
    addresses->count = 1;
    addresses->only_loopback = false;
    return kolo__addresses_own(options->net, addresses->text[0]);
}

/* Names of pods do not resolve for some seconds after they started. */
static kolo_status resolve_patiently(const struct kolo__bootstrap_options *options,
                                     struct kolo__addresses *addresses, bool *left)
{
    for (;;) {
        kolo_status status =
            kolo__addresses_of(options->launch->host, options->deadline_ns, addresses);
        if (status == KOLO_OK)
            return leave_loopback(options, addresses, left);
        if (kolo__now_ns(&kolo__real_clock) >= options->deadline_ns)
            return kolo__error(KOLO_ERR_TIMEOUT,
                               "the ranks are to meet at %s, but its address was not found within "
                               "KOLO_INIT_TIMEOUT: %s",
                               options->launch->host, kolo_error_text());
        sleep_ms(PAUSE_MS);
    }
}

static kolo_status check_token(const struct kolo__bootstrap_options *options,
                               const struct kolo__addresses *addresses)
{
    if (options->token[0] != '\0' || addresses->only_loopback || options->insecure)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "the ranks meet at %s, beyond this host, but the job has no token: set "
                       "KOLO_TOKEN_FILE (or KOLO_TOKEN) to the same secret for every process, or "
                       "KOLO_INSECURE=1 where nobody else reaches this network",
                       options->launch->host);
}

/* Where names are of pods, rank 0 is where it is: it listens, whatever its name means by now, on
 * all addresses that the name may lead to. */
static kolo_status listen_in_pod(const struct kolo__bootstrap_options *options,
                                 struct kolo__meeting *place)
{
    char list[KOLO__LAUNCH_PLACES_BYTES];
    int failure = 0;
    kolo_status status = kolo__addresses_listen(list, sizeof list);
    if (status != KOLO_OK)
        return status;
    for (unsigned p = 0; p < place->ports; p++) {
        failure = 0;
        status =
            kolo__bootstrap_serve(options, place, list, options->launch->port + (int)p, &failure);
        if (status == KOLO_OK || failure == 0)
            return status;
    }
    return kolo__error(KOLO_ERR_NETWORK,
                       "rank 0 cannot listen at port %d of this pod (%s): %s; with hostNetwork, "
                       "pods of a node share ports: give each job another one in KOLO_RENDEZVOUS",
                       options->launch->port, kolo__host_name(), strerror(failure));
}

static kolo_status meet_in_pods(const struct kolo__bootstrap_options *options,
                                struct kolo__meeting *place)
{
    const struct kolo__launch *launch = options->launch;
    place->in_pods = true;
    place->per_pod = launch->local_size > 0 ? launch->local_size : 1;
    place->pods_per_job = launch->pods_per_job;
    snprintf(place->pod_0, sizeof place->pod_0, "%s", launch->host);
    if (options->token[0] == '\0' && !options->insecure)
        return kolo__error(KOLO_ERR_CONFIG,
                           "the ranks meet at %s, beyond this pod, but the job has no token: mount "
                           "a Secret and set KOLO_TOKEN_FILE to its file (or KOLO_INSECURE=1 where "
                           "nobody else reaches the pods)",
                           launch->host);
    write_place(place, launch->host, launch->port);
    return launch->rank == 0 ? listen_in_pod(options, place) : KOLO_OK;
}

static kolo_status meet_at(const struct kolo__bootstrap_options *options,
                           struct kolo__meeting *place)
{
    const struct kolo__launch *launch = options->launch;
    bool near = launch->meeting != KOLO__MEET_AT, left_loopback = false;
    struct kolo__addresses addresses;
    int failure;
    place->ports = near ? KOLO__LAUNCH_PORTS : 1;
    /* On ports that were only guessed, other jobs are to be told apart before anything is said. */
    snprintf(place->secret, sizeof place->secret, "%s%s%s", options->token, near ? "\n" : "",
             near ? options->job : "");
    if (launch->in_pods)
        return meet_in_pods(options, place);
    kolo_status status = resolve_patiently(options, &addresses, &left_loopback);
    if (status == KOLO_OK)
        status = check_token(options, &addresses);
    if (status != KOLO_OK)
        return status;
    write_place(place, left_loopback ? addresses.text[0] : launch->host, launch->port);
    if (launch->rank != 0)
        return KOLO_OK;
    status = serve_near(options, place, &addresses, place->ports, &failure);
    if (status != KOLO_OK || place->server != NULL || !near)
        return status; /* AT: somebody else listens there, here or on another host */
    if (failure == EADDRNOTAVAIL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "the ranks are to meet at %s, where rank 0 has to listen, but this is "
                           "no address of rank 0's host (%s): give rank 0's host (%s), or set "
                           "KOLO_RENDEZVOUS to HOST:PORT of it, alike for all ranks",
                           launch->host, kolo__host_name(), launch->source);
    return kolo__error(KOLO_ERR_NETWORK,
                       "rank 0 cannot listen at any of ports %d to %d of %s: %s; set "
                       "KOLO_RENDEZVOUS to HOST:PORT with a free one, alike for all ranks",
                       launch->port, launch->port + KOLO__LAUNCH_PORTS - 1, launch->host,
                       strerror(failure));
}

/* ---- all ways ----------------------------------------------------------------------------- */

static kolo_status meet_by_mpi(const struct kolo__bootstrap_options *options,
                               struct kolo__meeting *place)
{
    const struct kolo__mpi_module *mpi;
    kolo_status status = kolo__mpi_load(&mpi);
    if (status == KOLO_OK)
        return kolo__bootstrap_tell(options, mpi, place);
    if (options->launch->port != 0) {
        kolo__log(KOLO__LOG_DEBUG, "%s; on one host ranks do without", kolo_error_text());
        return meet_at(options, place);
    }
    return kolo__error(status,
                       "mpirun tells its processes no address where they could meet, and %s: build "
                       "kolo where libopenmpi-dev is installed, or set KOLO_RENDEZVOUS to "
                       "HOST:PORT, a free port of rank 0's host, and KOLO_TOKEN_FILE (mpirun -x "
                       "KOLO_RENDEZVOUS=...)",
                       kolo_error_text());
}

/* ---- who is asked -------------------------------------------------------------------------- */

char **kolo__launch_environment(char variable[KOLO__HOST_VARIABLE_BYTES])
{
    size_t count = 0;
    while (environ != NULL && environ[count] != NULL)
        count++;
    char **all = calloc(count + 2, sizeof *all);
    if (all == NULL)
        return NULL;
    if (count > 0)
        memcpy(all, environ, count * sizeof *all);
    snprintf(variable, KOLO__HOST_VARIABLE_BYTES, "HOSTNAME=%s", kolo__host_name());
    if (getenv("HOSTNAME") == NULL)
        all[count] = variable;
    return all;
}

/* ---- all ----------------------------------------------------------------------------------- */

static kolo_status find_place(const struct kolo__bootstrap_options *options,
                              struct kolo__meeting *place)
{
    const struct kolo__launch *launch = options->launch;
    switch (launch->meeting) {
    case KOLO__MEET_HELD:
        place->ports = 1;
        strcpy(place->rendezvous, launch->places);
        snprintf(place->secret, sizeof place->secret, "%s", options->token);
        return KOLO_OK;
    case KOLO__MEET_AT:
    case KOLO__MEET_NEAR:
        return meet_at(options, place);
    case KOLO__MEET_BY_MPI:
        return meet_by_mpi(options, place);
    case KOLO__MEET_BY_PMI:
        return kolo__bootstrap_tell(options, NULL, place);
    case KOLO__MEET_UNKNOWN:
        return kolo__error(KOLO_ERR_CONFIG,
                           "the world has %ld ranks (%s), but %s is not set: start the program "
                           "with kolo run, or set that, or KOLO_RENDEZVOUS to HOST:PORT, a free "
                           "port of rank 0's host, alike for all ranks",
                           launch->size, launch->source, launch->missing);
    case KOLO__MEET_NOBODY:
        break;
    }
    return KOLO_OK;
}

kolo_status kolo__bootstrap(const struct kolo__bootstrap_options *options,
                            struct kolo__meeting *place)
{
    const struct kolo__launch *launch = options->launch;
    char text[200];
    memset(place, 0, sizeof *place);
    place->pmi_fd = -1;
    /* kolo run gives its ranks a job, and an address. */
    place->at_rank_0 =
        launch->rank != 0 && launch->meeting != KOLO__MEET_NOBODY &&
        (launch->in_pods || (strcmp(launch->source, "kolo") != 0 && !launch->newcomer) ||
         options->job[0] == '\0');
    kolo_status status = find_place(options, place);
    if (status != KOLO_OK)
        return status;
    if (launch->ignored[0] != '\0')
        kolo__log(KOLO__LOG_DEBUG, "ignored: %s", launch->ignored);
    if (launch->rank == 0)
        kolo__log(KOLO__LOG_INFO, "%s%s%s", kolo__launch_text(launch, text, sizeof text),
                  place->rendezvous[0] != '\0' ? ", meeting at " : "", place->rendezvous);
    return KOLO_OK;
}

void kolo__bootstrap_end(struct kolo__meeting *place, uint64_t deadline_ns)
{
    kolo__server_end(place->server, deadline_ns);
    if (place->pmi_fd >= 0)
        kolo__pmi_finish(place->pmi_fd);
    explicit_bzero(place, sizeof *place);
    place->pmi_fd = -1;
}

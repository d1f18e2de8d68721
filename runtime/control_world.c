/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a rank comes into the world: it finds the server, proves that it knows the token, tells what
 * the others must know of it, and waits until all are there. rendezvous_world.c is the other end.
 */
#include "runtime/control_frames.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "base/dial.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t SECOND_NS = 1000000000;
static const char ITS_WORLD_IS_FULL[] = "its world has formed before, without this pod";

enum {
    ROUND_SECONDS = 10,      /* for an address to answer, before all begin anew */
    WORD_SECONDS = 10,       /* until the first word about what is in the way */
    LEAST_MEMBER_BYTES = 12, /* of WORLD, for each rank */
};

/* ---- connecting ---------------------------------------------------------------------------- */

static kolo_status authenticate(struct kolo__control *control, unsigned seconds)
{
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + seconds * SECOND_NS;
    kolo_status status = kolo__secure_create(control->credentials, KOLO__SECURE_INITIATOR,
                                             control->fd, &control->secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(control->secure, deadline_ns);
    return status;
}

void kolo__control_hang_up(struct kolo__control *control)
{
    kolo__secure_free(control->secure);
    control->secure = NULL;
    kolo__frame_writer_free(&control->unsent);
    if (control->fd >= 0)
        close(control->fd);
    control->fd = -1;
}

/* "host:5000,host:5001,...": a rendezvous at one of several ports is one of several addresses. */
static kolo_status list_places(const struct kolo__control_options *options, char *text,
                               size_t bytes)
{
    char host[256], port[24];
    snprintf(text, bytes, "%s", options->rendezvous);
    if (options->ports <= 1)
        return KOLO_OK;
    kolo_status status =
        kolo__split_host_port(options->rendezvous, host, sizeof host, port, sizeof port);
    for (unsigned n = 1; status == KOLO_OK && n < options->ports; n++) {
        size_t used = strlen(text);
        snprintf(text + used, bytes - used, strchr(host, ':') != NULL ? ",[%s]:%ld" : ",%s:%ld",
                 host, strtol(port, NULL, 10) + (long)n);
    }
    return status;
}

/* A name may mean a pod of before, which has its world, and the one of now beside it. */
static bool passes_by(struct kolo__control *control)
{
    struct kolo__address server = {.length = sizeof server.storage};
    control->at[0] = '\0';
    if (getpeername(control->fd, (struct sockaddr *)&server.storage, &server.length) == 0)
        kolo__address_text(&server, control->at, sizeof control->at);
    return control->at[0] != '\0' && strcmp(control->at, control->passed_by) == 0;
}

/* One round over all addresses. KOLO_ERR_NETWORK, KOLO_ERR_WORLD: all of them answered, and are of
 * another token, version or job. With several ports those may be whose they like: no more than
 * KOLO_ERR_TIMEOUT, for the right one may come yet. */
static kolo_status connect_once(struct kolo__control *control)
{
    const struct kolo__control_options *options = &control->options;
    char places[KOLO__DIAL_MAX * 300], report[700];
    struct kolo__dial *dial;
    kolo_status refused = KOLO_OK;
    kolo_status status = list_places(options, places, sizeof places);
    if (status == KOLO_OK)
        status = kolo__dial_open(places, &dial);
    if (status != KOLO_OK)
        return status;
    /* Names are resolved again in the next round: they may have got another address meanwhile. */
    uint64_t round_ns = kolo__now_ns(&kolo__real_clock) + ROUND_SECONDS * SECOND_NS;
    if (round_ns > options->deadline_ns)
        round_ns = options->deadline_ns;
    while ((status = kolo__dial_next(dial, round_ns, &control->fd)) == KOLO_OK) {
        kolo__tune_stream(control->fd);
        kolo__silence_tune(control->fd, options->silence_s);
        /* Not all the time for one port of another program that swallows everything. */
        status = authenticate(control, options->ports > 1 ? 2 : 10);
        if (status == KOLO_OK && !passes_by(control))
            break;
        bool for_good = status == KOLO_ERR_NETWORK || status == KOLO_ERR_WORLD;
        refused = for_good ? status : refused;
        kolo__control_hang_up(control);
        kolo__dial_refuse(dial, status == KOLO_OK ? ITS_WORLD_IS_FULL : kolo_error_text(),
                          !for_good);
    }
    control->passed_by[0] = '\0';
    bool is_final = refused != KOLO_OK && options->ports <= 1 && kolo__dial_all_refused(dial);
    if (status != KOLO_OK)
        status = kolo__error(is_final ? refused : KOLO_ERR_TIMEOUT, "%s",
                             kolo__dial_report(dial, report, sizeof report));
    kolo__dial_close(dial);
    return status;
}

/* What is in no DNS yet may be soon. */
static bool is_name(const char *rendezvous)
{
    char first[300];
    struct kolo__address address;
    snprintf(first, sizeof first, "%.*s", (int)strcspn(rendezvous, ","), rendezvous);
    return kolo__address_parse(first, &address) != KOLO_OK;
}

/* Now and then, so that whoever looks sees what this rank waits for. */
static void say_why(const struct kolo__control *control, uint64_t now_ns, uint64_t *due_ns,
                    uint64_t *pause_ns)
{
    if (now_ns < *due_ns)
        return;
    kolo__log(KOLO__LOG_WARN, "has not reached %s yet: %s",
              control->options.at_rank_0 ? "rank 0" : "the rendezvous (kolo run)",
              kolo_error_text());
    *pause_ns *= 2;
    *due_ns = now_ns + *pause_ns;
}

/* What to look at, by what an attempt met. */
static const char *get_advice(const struct kolo__control_options *options, const char *report)
{
    if (!options->in_pods)
        return options->at_rank_0
                   ? "See whether rank 0 still runs there, and whether a firewall lets this host "
                     "through"
                   : "See whether kolo run still runs there, and whether a firewall (in Kubernetes "
                     "a NetworkPolicy) lets this host through at all TCP ports";
    if (strstr(report, "cannot resolve") != NULL)
        return "See whether pod 0 is there, whether the name is <pod 0>.<service> of a headless "
               "Service whose selector matches its labels (kubectl get endpointslices), with "
               "publishNotReadyAddresses: true, and whether a NetworkPolicy lets DNS (port 53) out";
    if (strstr(report, "another token") != NULL)
        return "Mount one Secret in all pods of the job, and delete pods that are left of an "
               "earlier one";
    if (strstr(report, ITS_WORLD_IS_FULL) != NULL)
        return "See in the log of that pod 0 why it goes on, and delete it if it is left of before";
    if (strstr(report, "refused") != NULL)
        return "Pod 0 is there, but rank 0 does not listen: see its log (kubectl logs)";
    return "See whether pod 0 still runs, and whether a NetworkPolicy lets its pods reach this "
           "port "
           "of each other";
}

/* The server may start later than we do: every failure but a wrong address, token or job is tried
 * again. In pods these too: their names mean another pod tomorrow, or a stale one today. */
static kolo_status connect_patiently(struct kolo__control *control)
{
    const struct kolo__control_options *options = &control->options;
    uint64_t word_ns = WORD_SECONDS * SECOND_NS;
    uint64_t due_ns = kolo__now_ns(&kolo__real_clock) + word_ns;
    bool named = is_name(options->rendezvous);
    struct kolo__backoff backoff = {.pause_ms = named ? 200 : 50,
                                    .random = {due_ns ^ (uint64_t)options->rank << 40}};
    char refusal[250] = ""; /* says more than that nobody was there in the end */
    for (;;) {
        kolo_status status = connect_once(control);
        if (status == KOLO_OK || status == KOLO_ERR_CONFIG || status == KOLO_ERR_MEMORY)
            return status;
        if (status != KOLO_ERR_TIMEOUT && !options->in_pods)
            return kolo__error(status, "rendezvous at %s", kolo_error_text());
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        say_why(control, now_ns, &due_ns, &word_ns);
        char report[700];
        snprintf(report, sizeof report, "%s", kolo_error_text());
        if (status != KOLO_ERR_TIMEOUT)
            snprintf(refusal, sizeof refusal, "%.249s", report);
        bool had_gone = status == KOLO_ERR_TIMEOUT && refusal[0] != '\0';
        if (!kolo__backoff_pause(&backoff, options->deadline_ns))
            return kolo__error(
                KOLO_ERR_TIMEOUT,
                "rank %u (host %s) found no rendezvous%s within %d s; the last attempt at each "
                "address: %.450s%s%s. %s",
                options->rank, kolo__host_name(),
                options->ports > 1 ? " of its job id and token at any of its ports" : "",
                options->timeout_s, report, had_gone ? "; before: " : "", had_gone ? refusal : "",
                get_advice(options, had_gone ? refusal : report));
    }
}

kolo_status kolo__control_connect(const struct kolo__control_options *options,
                                  struct kolo__control **result)
{
    struct kolo__control *control = calloc(1, sizeof *control);
    if (control == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the control plane");
    control->options = *options;
    control->doing = "kolo_init";
    control->fd = -1;
    snprintf(control->job, sizeof control->job, "%s", options->job);
    pthread_mutex_init(&control->lock, NULL);
    kolo_status status = kolo__credentials_create(KOLO__PURPOSE_CONTROL, control->job,
                                                  options->token, &control->credentials);
    if (status == KOLO_OK)
        status = connect_patiently(control);
    if (status != KOLO_OK) {
        kolo__control_close(control);
        return status;
    }
    *result = control;
    return KOLO_OK;
}

int kolo__control_fd(const struct kolo__control *control)
{
    return control->fd;
}

void kolo__control_close(struct kolo__control *control)
{
    if (control == NULL)
        return;
    kolo__control_hang_up(control);
    kolo__credentials_free(control->credentials);
    pthread_mutex_destroy(&control->lock);
    free(control->in);
    free(control->faults);
    kolo__joins_free(&control->joins);
    free(control->world);
    free(control->members);
    free(control->epoch.previous);
    free(control);
}

/* ---- joining ------------------------------------------------------------------------------- */

/* Asks the server who is not there, and makes that the fault of all: the others would else blame
 * this rank, which gives up a moment before them. */
static kolo_status join_timed_out(struct kolo__control *control)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    struct kolo__fault fault = {.status = KOLO_ERR_TIMEOUT, .peer = -1};
    size_t length;
    char text[KOLO__ABSENT_TEXT_BYTES];
    kolo__frame_begin(&frame, KOLO__FRAME_ABSENT);
    kolo__control_send_frame(control, &frame);
    kolo_status status = kolo__control_await_frame(control, KOLO__FRAME_ABSENT,
                                                   kolo__now_ns(&kolo__real_clock) + 2 * SECOND_NS,
                                                   control->doing, &payload, &length);
    if (atomic_load(&control->fault_count) > 0) /* another rank knew it first */
        return status != KOLO_OK ? status : kolo__control_fault_error(control, "kolo_init");
    if (status == KOLO_ERR_TIMEOUT)
        return kolo__error(status,
                           "kolo_init: the world did not form within %d s, and the "
                           "rendezvous does not say who is missing",
                           control->options.timeout_s);
    if (status != KOLO_OK)
        return status;
    uint32_t missing = kolo__get_u32(&payload);
    kolo__get_text(&payload, text, sizeof text);
    kolo__control_drop_frame(control, length);
    snprintf(fault.text, sizeof fault.text,
             "%u of %u ranks did not join within %d s; missing: %s. See whether these processes "
             "started%s; KOLO_INIT_TIMEOUT sets the wait",
             missing, control->options.size, control->options.timeout_s, text,
             control->options.in_pods ? ", and whether a NetworkPolicy keeps them from pod 0" : "");
    kolo__control_send_fault(control, 0, &fault);
    return kolo__error(fault.status, "kolo_init: %s", fault.text);
}

kolo_status kolo__control_read_world(struct kolo__control *control,
                                     struct kolo__frame_reader *payload, size_t length)
{
    /* Members point into a copy of the frame. */
    size_t offset = (size_t)(payload->next - control->in);
    free(control->world);
    free(control->members);
    control->world = NULL;
    control->members = NULL;
    if (control->options.size > length / LEAST_MEMBER_BYTES) {
        kolo__control_drop_frame(control, length);
        return kolo__error(KOLO_ERR_NETWORK, "the table of ranks from the rendezvous is too short");
    }
    control->world = malloc(length);
    control->members = calloc(control->options.size, sizeof *control->members);
    if (control->world == NULL || control->members == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the table of ranks");
    memcpy(control->world, control->in, length);
    kolo__control_drop_frame(control, length);
    payload->next = control->world + offset;
    payload->end = control->world + length;
    uint32_t size = kolo__get_u32(payload);
    for (uint32_t r = 0; r < size && r < control->options.size; r++) {
        struct kolo__control_member *member = &control->members[r];
        kolo__get_text(payload, member->host, sizeof member->host);
        member->pid = kolo__get_u32(payload);
        member->blob = kolo__get_blob(payload, &member->blob_bytes);
    }
    if (size != control->options.size || !kolo__frame_done(payload))
        return kolo__error(KOLO_ERR_NETWORK, "the table of ranks from the rendezvous is broken");
    return KOLO_OK;
}

static kolo_status join_once(struct kolo__control *control, const void *blob, size_t bytes)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    size_t length;
    kolo__frame_begin(&frame, KOLO__FRAME_JOIN);
    kolo__put_text(&frame, control->job);
    kolo__put_u32(&frame, control->options.size);
    kolo__put_u32(&frame, control->options.rank);
    kolo__put_u32(&frame, (uint32_t)getpid());
    kolo__put_text(&frame, kolo__host_name());
    kolo__put_blob(&frame, blob, bytes);
    pthread_mutex_lock(&control->lock);
    control->expects_epoch = true; /* whether the world is under way the server knows */
    kolo_status status = kolo__control_send_frame(control, &frame);
    if (status == KOLO_OK)
        status = kolo__control_await_frame(control, KOLO__FRAME_WORLD, control->options.deadline_ns,
                                           control->doing, &payload, &length);
    /* A fault may be a timeout too: of another rank, which has told everybody already. So may a
     * refusal be. */
    if (status == KOLO_ERR_TIMEOUT && control->options.size == KOLO__SIZE_UNKNOWN)
        kolo__error(status,
                    "kolo_init: the world took this newcomer in within %d s (KOLO_INIT_TIMEOUT) "
                    "not: its ranks have to call kolo_renew (see kolo_renewal_wanted)",
                    control->options.timeout_s);
    else if (status == KOLO_ERR_TIMEOUT && atomic_load(&control->fault_count) == 0 &&
             control->refusal.status == KOLO_OK)
        status = join_timed_out(control);
    else if (status == KOLO_OK)
        status = kolo__control_read_world(control, &payload, length);
    control->expects_epoch = false;
    pthread_mutex_unlock(&control->lock);
    return status;
}

/* Nothing of this connection, nor that it has ended, is true of the next, which is another
 * address's if there is one. */
static void start_over(struct kolo__control *control)
{
    memcpy(control->passed_by, control->at, sizeof control->at);
    kolo__control_hang_up(control);
    control->in_bytes = 0;
    control->closed = control->come_again = false;
    control->silence = (struct kolo__silence){0};
    control->refusal.status = KOLO_OK;
    atomic_store(&control->fault_count, 0);
}

/* A pod that is made anew may be there before the world that has lost it is gone, or pods of before
 * still run: the next world begins at the same name. */
kolo_status kolo__control_join(struct kolo__control *control, const void *blob, size_t bytes)
{
    struct kolo__backoff backoff = {
        .pause_ms = 200,
        .random = {kolo__now_ns(&kolo__real_clock) ^ (uint64_t)control->options.rank << 40}};
    kolo_status status = join_once(control, blob, bytes);
    if (control->come_again)
        kolo__log(KOLO__LOG_WARN, "%s", kolo_error_text());
    while (control->come_again) {
        char why[600];
        snprintf(why, sizeof why, "%s", kolo_error_text());
        if (!kolo__backoff_pause(&backoff, control->options.deadline_ns))
            return kolo__error(KOLO_ERR_TIMEOUT,
                               "%s, which did not begin within %d s (KOLO_INIT_TIMEOUT): see in "
                               "the log of that pod 0 why it goes on, and delete it if it is left "
                               "of before",
                               why, control->options.timeout_s);
        start_over(control);
        status = connect_patiently(control);
        if (status == KOLO_OK)
            status = join_once(control, blob, bytes);
    }
    return status;
}

const struct kolo__control_member *kolo__control_member(const struct kolo__control *control,
                                                        uint32_t rank)
{
    return &control->members[rank];
}

kolo_status kolo__control_exchange(struct kolo__control *control, uint32_t tag, const void *blob,
                                   size_t bytes, uint64_t deadline_ns,
                                   void (*visit)(void *self, uint32_t rank,
                                                 const unsigned char *blob, size_t bytes),
                                   void *self)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    size_t length;
    kolo__frame_begin(&frame, KOLO__FRAME_EXCHANGE);
    kolo__put_u32(&frame, tag);
    kolo__put_blob(&frame, blob, bytes);
    pthread_mutex_lock(&control->lock);
    kolo__control_take_all(control); /* what it has said may be why it does not listen any more */
    kolo_status status = atomic_load(&control->fault_count) > 0
                             ? kolo__control_fault_error(control, control->doing)
                             : kolo__control_send_frame(control, &frame);
    kolo__frame_writer_free(&frame);
    if (status == KOLO_OK)
        status = kolo__control_await_frame(control, KOLO__FRAME_EXCHANGED, deadline_ns,
                                           control->doing, &payload, &length);
    if (status == KOLO_ERR_TIMEOUT && atomic_load(&control->fault_count) == 0)
        kolo__error(status, "%s: not all ranks took set-up step %u in time", control->doing, tag);
    if (status == KOLO_OK) {
        if (kolo__get_u32(&payload) != tag || kolo__get_u32(&payload) != control->options.size)
            payload.bad = true;
        for (uint32_t r = 0; r < control->options.size && !payload.bad; r++) {
            size_t blob_bytes;
            const unsigned char *data = kolo__get_blob(&payload, &blob_bytes);
            if (!payload.bad)
                visit(self, r, data, blob_bytes);
        }
        if (!kolo__frame_done(&payload))
            status = kolo__error(KOLO_ERR_NETWORK, "an answer from the rendezvous is broken");
        kolo__control_drop_frame(control, length);
    }
    pthread_mutex_unlock(&control->lock);
    return status;
}
